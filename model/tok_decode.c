/* See tok_decode.h. Pending bytes are those that are not yet whole characters: in a byte-level text
 * the beginning of one character; in a byte-fallback run everything since its last good end. */
#include "model/tok_decode.h"
#include <stdlib.h>

void tok_decoder_fini(struct tok_decoder *dec)
{
    for (size_t i = 0; i < dec->n; i++) {
        tok_split_fini(&dec->op[i].pattern);
        tok_text_fini(&dec->op[i].content);
    }
    tok_text_fini(&dec->strip);
    memset(dec, 0, sizeof *dec);
}

void tok_decoding_fini(struct tok_decoding *run)
{
    tok_text_fini(&run->pending);
    tok_text_fini(&run->work[0]);
    tok_text_fini(&run->work[1]);
    memset(run, 0, sizeof *run);
}

static bool begins_with(struct tok_str s, const struct tok_text *what)
{
    return s.n >= what->n && memcmp(s.p, what->p, what->n) == 0;
}

/* put appends text, less what the joined text's strip takes off its beginning. */
static int put(const struct tok_decoder *dec, struct tok_decoding *run, const char *p, size_t n,
               struct tok_text *out)
{
    while (!run->started && n > 0) {
        if (run->stripped == dec->strip_max || !begins_with((struct tok_str){p, n}, &dec->strip)) {
            run->started = true;
            break;
        }
        p += dec->strip.n;
        n -= dec->strip.n;
        run->stripped++;
    }
    return tok_text_add(out, p, n);
}

/* put_pending ends a byte-fallback run: text if it is some, else U+FFFD for every byte. */
static int put_pending(const struct tok_decoder *dec, struct tok_decoding *run,
                       struct tok_text *out)
{
    size_t n = run->pending.n;
    run->pending.n = 0;
    if (n == 0 || utf8_valid(run->pending.p, n) == n)
        return put(dec, run, run->pending.p, n, out);
    for (size_t i = 0; i < n; i++)
        if (put(dec, run, "\xef\xbf\xbd", 3, out))
            return ERR_NOMEM;
    return 0;
}

/* put_bytes takes byte-level bytes: whole characters and U+FFFD for broken ones come out, the
 * beginning of a character waits. */
static int put_bytes(const struct tok_decoder *dec, struct tok_decoding *run, const char *p,
                     size_t n, struct tok_text *out)
{
    struct tok_text *pending = &run->pending;
    if (tok_text_add(pending, p, n))
        return ERR_NOMEM;
    size_t i = 0;
    while (i < pending->n) {
        size_t ok = utf8_valid(pending->p + i, pending->n - i);
        if (put(dec, run, pending->p + i, ok, out))
            return ERR_NOMEM;
        i += ok;
        int len = i < pending->n ? utf8_check(pending->p + i, pending->n - i) : 0;
        if (len == 0)
            break;
        if (put(dec, run, "\xef\xbf\xbd", 3, out))
            return ERR_NOMEM;
        i += (size_t)-len;
    }
    memmove(pending->p, pending->p + i, pending->n - i);
    pending->n -= i;
    return 0;
}

static int op_replace(const struct tok_decoder *dec, const struct tok_dec_op *op, struct tok_str in,
                      struct tok_text *buf, struct err *err)
{
    struct tok_split_walk walk;
    size_t begin, end, copied = 0;
    int r;
    tok_split_walk(&walk, dec->flag, in.p, in.n);
    while ((r = tok_split_next(&op->pattern, &walk, &begin, &end, err)) > 0) {
        if (tok_text_add(buf, in.p + copied, begin - copied) ||
            tok_text_add(buf, op->content.p, op->content.n))
            return tok_nomem(err);
        copied = end;
    }
    if (r < 0)
        return r;
    return tok_text_add(buf, in.p + copied, in.n - copied) ? tok_nomem(err) : 0;
}

static struct tok_str op_strip(const struct tok_dec_op *op, struct tok_str in)
{
    size_t n = op->content.n;
    for (size_t i = 0; i < op->start && begins_with(in, &op->content); i++)
        in = (struct tok_str){in.p + n, in.n - n};
    for (size_t i = 0; i < op->stop && in.n >= n && memcmp(in.p + in.n - n, op->content.p, n) == 0;
         i++)
        in.n -= n;
    return in;
}

/* apply runs the per-token operations; the result lies in `in` or in a work buffer. */
static int apply(const struct tok_decoder *dec, struct tok_text work[2], bool first,
                 struct tok_str *in, struct err *err)
{
    static const struct tok_text space = {(char *)" ", 1, 1}, nothing = {(char *)"", 0, 0};
    for (size_t i = 0; i < dec->n; i++) {
        struct tok_dec_op op = dec->op[i];
        if (op.kind == DEC_STRIP) {
            *in = op_strip(&op, *in);
            continue;
        }
        if (op.kind == DEC_METASPACE)
            op.content = first && op.prefix ? nothing : space;
        struct tok_text *buf = &work[i & 1];
        buf->n = 0;
        int r = op_replace(dec, &op, *in, buf, err);
        if (r)
            return r;
        *in = (struct tok_str){buf->n ? buf->p : "", buf->n};
    }
    return 0;
}

/* byte_token: "<0x0A>" to 10, else -1. Rust's from_str_radix, so lower case counts too. */
static int byte_token(struct tok_str s)
{
    int v = 0;
    if (s.n != 6 || memcmp(s.p, "<0x", 3) != 0 || s.p[5] != '>')
        return -1;
    for (int i = 3; i < 5; i++) {
        char c = s.p[i];
        int d = c >= '0' && c <= '9'                 ? c - '0'
                : (c | 32) >= 'a' && (c | 32) <= 'f' ? (c | 32) - 'a' + 10
                                                     : -1;
        if (d < 0)
            return -1;
        v = v << 4 | d;
    }
    return v;
}

int tok_decode_push(const struct tok_decoder *dec, struct tok_decoding *run, struct tok_str raw,
                    struct tok_text *out, struct err *err)
{
    bool first = !run->begun;
    int r = apply(dec, run->work, first, &raw, err), bad = 0;
    if (r)
        return r;
    run->begun = true;
    if (dec->join == JOIN_BYTES) {
        struct tok_text *buf = &run->work[dec->n & 1];
        buf->n = 0;
        if (tok_text_room(buf, raw.n))
            return tok_nomem(err);
        int64_t m = bytes_of_chars(buf->p, raw.p, raw.n);
        bad = m < 0 ? put_bytes(dec, run, raw.p, raw.n, out)
                    : put_bytes(dec, run, buf->p, (size_t)m, out);
        return bad ? tok_nomem(err) : 0;
    }
    int byte = dec->byte_fallback ? byte_token(raw) : -1;
    if (byte >= 0) {
        char c = (char)byte;
        bad = tok_text_add(&run->pending, &c, 1);
        if (!bad && !run->whole && utf8_valid(run->pending.p, run->pending.n) == run->pending.n)
            bad = put_pending(dec, run, out);
        return bad ? tok_nomem(err) : 0;
    }
    bad = put_pending(dec, run, out);
    if (!bad && dec->join == JOIN_SPACES && !first)
        bad = put(dec, run, " ", 1, out);
    if (!bad)
        bad = put(dec, run, raw.p, raw.n, out);
    return bad ? tok_nomem(err) : 0;
}

int tok_decode_flush(const struct tok_decoder *dec, struct tok_decoding *run, struct tok_text *out,
                     struct err *err)
{
    int bad = 0;
    if (dec->join == JOIN_BYTES && run->pending.n)
        bad = put(dec, run, "\xef\xbf\xbd", 3, out); /* one broken character, however many bytes */
    else
        bad = put_pending(dec, run, out);
    run->pending.n = 0;
    run->begun = run->started = false;
    run->stripped = 0;
    return bad ? tok_nomem(err) : 0;
}

int tok_decode_bytes(const struct tok_decoder *dec, struct tok_str raw, struct tok_text *out,
                     struct err *err)
{
    struct tok_text work[2] = {{0}, {0}};
    int r = apply(dec, work, false, &raw, err);
    int byte = !r && dec->byte_fallback ? byte_token(raw) : -1;
    char c = (char)byte;
    if (!r && byte >= 0) {
        r = tok_text_add(out, &c, 1) ? tok_nomem(err) : 0;
    } else if (!r) {
        r = tok_text_room(out, raw.n) ? tok_nomem(err) : 0;
        int64_t m =
            !r && dec->join == JOIN_BYTES ? bytes_of_chars(out->p + out->n, raw.p, raw.n) : -1;
        if (m >= 0)
            out->n += (size_t)m;
        else if (!r)
            r = tok_text_add(out, raw.p, raw.n) ? tok_nomem(err) : 0;
    }
    tok_text_fini(&work[0]);
    tok_text_fini(&work[1]);
    return r;
}
