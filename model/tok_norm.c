/* See tok_norm.h. Normal forms come from utf8proc (Unicode 15), applied only to the stretches
 * around characters that can change; the code points whose properties the reference's tables
 * (Unicode 9) do not have are stepped over, as if they were inert, because there they are. */
#include "model/tok_norm.h"
#include <stdlib.h>

void tok_norm_fini(struct tok_norm *norm)
{
    for (size_t i = 0; i < norm->n; i++) {
        tok_split_fini(&norm->op[i].pattern);
        tok_text_fini(&norm->op[i].content);
    }
    tok_text_fini(&norm->buf[0]);
    tok_text_fini(&norm->buf[1]);
    memset(norm, 0, sizeof *norm);
}

/* steady: the form leaves this character alone and it does not join the one before, so that a text
 * may be cut in front of it. True only where that is cheap to know. */
static bool steady(enum tok_norm_kind kind, uint32_t cp)
{
    if (cp < 0x80 || (cp >= 0x4e00 && cp <= 0x9fff) || (cp >= 0x3400 && cp <= 0x4dbf))
        return true;
    if (kind != NORM_NFC)
        return false;
    return cp < 0x300 || (cp >= 0x400 && cp < 0x483) || (cp >= 0x2010 && cp <= 0x2027) ||
           (cp >= 0x3001 && cp <= 0x3029) || (cp >= 0x3041 && cp <= 0x3096) ||
           (cp >= 0x30a0 && cp <= 0x30ff) || (cp >= 0xac00 && cp <= 0xd7a3) ||
           (cp >= 0xff01 && cp <= 0xff9d);
}

/* stretch normalises p[0..n), stepping over what the reference takes for inert. */
static int stretch(enum tok_norm_kind kind, const char *p, size_t n, struct tok_text *out)
{
    size_t begin = 0;
    for (size_t i = 0, len; i < n; i += len) {
        if (!unicode_in(utf8_get(p + i, &len), tok_normal_inert, tok_normal_inert_n))
            continue;
        if (tok_compose(kind, p + begin, i - begin, out) || tok_text_add(out, p + i, len))
            return ERR_NOMEM;
        begin = i + len;
    }
    return tok_compose(kind, p + begin, n - begin, out);
}

static int normal_form(enum tok_norm_kind kind, struct tok_str in, struct tok_text *buf,
                       struct tok_str *out)
{
    size_t copied = 0, last = 0, len; /* last: the steady character before i, which i may join */
    bool touched = false;
    for (size_t i = 0; i < in.n;) {
        if (steady(kind, utf8_get(in.p + i, &len))) {
            last = i;
            i += len;
            continue;
        }
        size_t end = i + len;
        while (end < in.n && !steady(kind, utf8_get(in.p + end, &len)))
            end += len;
        if (tok_text_add(buf, in.p + copied, last - copied) ||
            stretch(kind, in.p + last, end - last, buf))
            return ERR_NOMEM;
        touched = true;
        copied = last = i = end;
    }
    *out = in;
    if (!touched)
        return 0;
    if (tok_text_add(buf, in.p + copied, in.n - copied))
        return ERR_NOMEM;
    *out = (struct tok_str){buf->p, buf->n};
    return 0;
}

static int lowercase(struct tok_str in, struct tok_text *buf)
{
    uint32_t low[2];
    for (size_t i = 0, len; i < in.n; i += len) {
        int n = unicode_lower(utf8_get(in.p + i, &len), low);
        for (int k = 0; k < n; k++)
            if (tok_text_add_cp(buf, low[k]))
                return ERR_NOMEM;
    }
    return 0;
}

static int replace(const struct tok_norm *norm, const struct tok_norm_op *op, struct tok_str in,
                   struct tok_text *buf, struct tok_str *out, struct err *err)
{
    struct tok_split_walk walk;
    size_t begin, end, copied = 0;
    int r;
    tok_split_walk(&walk, norm->flag, in.p, in.n);
    while ((r = tok_split_next(&op->pattern, &walk, &begin, &end, err)) > 0) {
        if (tok_text_add(buf, in.p + copied, begin - copied) ||
            tok_text_add(buf, op->content.p, op->content.n))
            return tok_nomem(err);
        copied = end;
    }
    *out = in;
    if (r < 0 || (copied == 0 && buf->n == 0))
        return r;
    if (tok_text_add(buf, in.p + copied, in.n - copied))
        return tok_nomem(err);
    *out = (struct tok_str){buf->n ? buf->p : "", buf->n};
    return 0;
}

static struct tok_str strip(const struct tok_norm_op *op, struct tok_str in, bool *shifted)
{
    size_t begin = 0, end = in.n, len;
    while (op->left && begin < end && unicode_space(utf8_get(in.p + begin, &len)))
        begin += len;
    for (size_t at; op->right && end > begin; end = at) {
        at = utf8_before(in.p, end);
        if (!unicode_space(utf8_get(in.p + at, &len)))
            break;
    }
    *shifted = *shifted || begin > 0;
    return (struct tok_str){in.p + begin, end - begin};
}

static int run_op(struct tok_norm *norm, const struct tok_norm_op *op, struct tok_str in,
                  struct tok_text *buf, struct tok_str *out, bool *shifted, struct err *err)
{
    int r = 0;
    buf->n = 0;
    switch (op->kind) {
    case NORM_REPLACE:
        return replace(norm, op, in, buf, out, err);
    case NORM_STRIP:
        *out = strip(op, in, shifted);
        return 0;
    case NORM_LOWERCASE:
        r = lowercase(in, buf);
        break;
    case NORM_PREPEND:
        r = in.n ? tok_text_add(buf, op->content.p, op->content.n) : 0;
        r = r ? r : tok_text_add(buf, in.p, in.n);
        break;
    case NORM_CHARSMAP:
        r = tok_charsmap_run(&op->content, in, buf);
        break;
    default:
        return normal_form(op->kind, in, buf, out) ? tok_nomem(err) : 0;
    }
    *out = (struct tok_str){buf->n ? buf->p : "", buf->n};
    return r ? tok_nomem(err) : 0;
}

int tok_norm_run(struct tok_norm *norm, struct tok_str in, struct tok_str *out, bool *shifted,
                 struct err *err)
{
    *shifted = false;
    for (size_t i = 0; i < norm->n; i++) {
        /* write to the buffer the input does not lie in */
        const struct tok_text *a = &norm->buf[0];
        bool in_a = a->p && in.p >= a->p && in.p < a->p + a->cap;
        int r = run_op(norm, &norm->op[i], in, &norm->buf[in_a], &in, shifted, err);
        if (r)
            return r;
    }
    *out = in;
    return 0;
}
