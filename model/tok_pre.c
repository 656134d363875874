/* See tok_pre.h. */
#include "model/tok_pre.h"
#include <stdlib.h>

void tok_pre_fini(struct tok_pre *pre)
{
    for (size_t i = 0; i < pre->n; i++) {
        tok_split_fini(&pre->op[i].split);
        tok_text_fini(&pre->op[i].replacement);
    }
    for (int i = 0; i < 2; i++) {
        free(pre->pieces[i].p);
        tok_text_fini(&pre->buf[i]);
    }
    memset(pre, 0, sizeof *pre);
}

bool tok_pre_byte_space(const struct tok_pre *pre)
{
    return pre->n > 0 && pre->op[pre->n - 1].kind == PRE_BYTELEVEL;
}

static inline int add(struct tok_pieces *pieces, size_t begin, size_t end)
{
    if (pieces->n == pieces->cap &&
        tok_grow((void **)&pieces->p, &pieces->cap, pieces->n + 1, sizeof *pieces->p))
        return ERR_NOMEM;
    pieces->p[pieces->n++] = (struct tok_piece){begin, end};
    return 0;
}

/* cut: the five behaviours as a machine that is fed the stretches of one piece in order, matches
 * and the gaps between them. */
struct cut {
    struct tok_pieces *out;
    size_t first; /* pieces of this cut begin here in out */
    enum tok_behavior behavior;
    bool invert, was_match, pending;
};

static int cut_feed(struct cut *cut, size_t begin, size_t end, bool match)
{
    struct tok_pieces *out = cut->out;
    struct tok_piece *last = out->n > cut->first ? &out->p[out->n - 1] : NULL;
    bool was = cut->was_match, join = false;
    match = match != cut->invert;
    cut->was_match = match;
    switch (cut->behavior) {
    case CUT_ISOLATED:
        break;
    case CUT_REMOVED:
        if (match)
            return 0;
        break;
    case CUT_CONTIGUOUS:
        join = last && match == was;
        break;
    case CUT_WITH_PREVIOUS:
        join = last && match && !was;
        break;
    case CUT_WITH_NEXT:
        join = last && cut->pending && !match;
        cut->pending = match;
        break;
    }
    if (join) {
        last->end = end;
        return 0;
    }
    return add(out, begin, end);
}

/* cut_end drops empty pieces. */
static void cut_end(struct cut *cut)
{
    size_t n = cut->first;
    for (size_t i = cut->first; i < cut->out->n; i++)
        if (cut->out->p[i].end > cut->out->p[i].begin)
            cut->out->p[n++] = cut->out->p[i];
    cut->out->n = n;
}

static int cut_by_split(struct cut *cut, const struct tok_split *split, const uint8_t *flag,
                        const char *text, struct tok_piece piece, struct err *err)
{
    struct tok_split_walk walk;
    size_t n = piece.end - piece.begin, begin, end, at = 0;
    int r;
    tok_split_walk(&walk, flag, text + piece.begin, n);
    while ((r = tok_split_next(split, &walk, &begin, &end, err)) > 0) {
        if ((at < begin && cut_feed(cut, piece.begin + at, piece.begin + begin, false)) ||
            cut_feed(cut, piece.begin + begin, piece.begin + end, true))
            return tok_nomem(err);
        at = end;
    }
    if (r == 0 && at < n && cut_feed(cut, piece.begin + at, piece.end, false))
        return tok_nomem(err);
    return r;
}

/* A character's class for the operations that look at single characters; runs of class 1 or 2 that
 * are `whole` are one match each, else each character is. Class 0 is no match. */
static int class_of(enum tok_pre_kind kind, uint32_t cp)
{
    switch (kind) {
    case PRE_DIGITS:
        return unicode_numeric(cp);
    case PRE_PUNCT:
        return unicode_punct(cp);
    case PRE_WHITESPACE_SPLIT:
        return unicode_space(cp);
    default: /* Whitespace: \w+|[^\w\s]+ */
        return unicode_word(cp) ? 1 : unicode_space(cp) ? 0 : 2;
    }
}

static int cut_by_class(struct cut *cut, enum tok_pre_kind kind, const char *text,
                        struct tok_piece piece)
{
    bool whole = kind == PRE_WHITESPACE;
    size_t len, begin = piece.begin;
    int run = -1;
    for (size_t i = piece.begin; i < piece.end; i += len) {
        int c = class_of(kind, utf8_get(text + i, &len));
        if (i > begin && (c != run || (c != 0 && !whole))) {
            if (cut_feed(cut, begin, i, run != 0))
                return ERR_NOMEM;
            begin = i;
        }
        run = c;
    }
    return cut_feed(cut, begin, piece.end, run != 0);
}

/* rewrite copies all pieces to a new text: ' ' to the replacement (Metaspace), a prefix where it is
 * due. The pieces then lie in `buf`. */
static int rewrite(const struct tok_pre_op *op, struct tok_str text, bool at_start,
                   struct tok_pieces *pieces, struct tok_text *buf)
{
    static const char space = ' ';
    bool meta = op->kind == PRE_METASPACE;
    const char *mark = meta ? op->replacement.p : &space;
    size_t mark_n = meta ? op->replacement.n : 1;
    buf->n = 0;
    for (size_t k = 0; k < pieces->n; k++) {
        struct tok_piece *piece = &pieces->p[k];
        const char *p = text.p + piece->begin, *end = text.p + piece->end;
        bool due = meta ? op->scheme == PREPEND_ALWAYS ||
                              (op->scheme == PREPEND_FIRST && at_start && piece->begin == 0)
                        : op->prefix_space;
        bool there = *p == ' ' || ((size_t)(end - p) >= mark_n && memcmp(p, mark, mark_n) == 0);
        size_t begin = buf->n;
        if (due && !there && tok_text_add(buf, mark, mark_n))
            return ERR_NOMEM;
        for (const char *next; p < end; p = next + 1) {
            next = meta ? memchr(p, ' ', (size_t)(end - p)) : NULL;
            if (!next) {
                if (tok_text_add(buf, p, (size_t)(end - p)))
                    return ERR_NOMEM;
                break;
            }
            if (tok_text_add(buf, p, (size_t)(next - p)) || tok_text_add(buf, mark, mark_n))
                return ERR_NOMEM;
        }
        *piece = (struct tok_piece){begin, buf->n};
    }
    return 0;
}

static int cut_all(const struct tok_pre *pre, const struct tok_pre_op *op, struct tok_str text,
                   const struct tok_pieces *in, struct tok_pieces *out, struct err *err)
{
    bool by_split = op->kind == PRE_SPLIT || op->kind == PRE_METASPACE || op->kind == PRE_BYTELEVEL;
    out->n = 0;
    for (size_t k = 0; k < in->n; k++) {
        struct cut cut = {
            .out = out, .first = out->n, .behavior = op->behavior, .invert = op->invert};
        int r;
        if (by_split)
            r = cut_by_split(&cut, &op->split, pre->flag, text.p, in->p[k], err);
        else
            r = cut_by_class(&cut, op->kind, text.p, in->p[k]) ? tok_nomem(err) : 0;
        if (r)
            return r;
        cut_end(&cut);
    }
    return 0;
}

int tok_pre_run(struct tok_pre *pre, struct tok_str in, bool at_start, struct tok_str *text,
                const struct tok_pieces **pieces, struct err *err)
{
    struct tok_pieces *now = &pre->pieces[0], *next = &pre->pieces[1];
    int b = 0;
    now->n = 0;
    if (in.n && add(now, 0, in.n))
        return tok_nomem(err);
    for (size_t i = 0; i < pre->n && now->n; i++) {
        const struct tok_pre_op *op = &pre->op[i];
        bool rewrites =
            op->kind == PRE_METASPACE || (op->kind == PRE_BYTELEVEL && op->prefix_space);
        if (rewrites) {
            if (rewrite(op, in, at_start, now, &pre->buf[b]))
                return tok_nomem(err);
            in = (struct tok_str){pre->buf[b].p, pre->buf[b].n};
            b = !b;
        }
        if ((op->kind == PRE_METASPACE || op->kind == PRE_BYTELEVEL) && !op->cuts)
            continue;
        int r = cut_all(pre, op, in, now, next, err);
        if (r)
            return r;
        struct tok_pieces *swap = now;
        now = next;
        next = swap;
    }
    *text = in;
    *pieces = now;
    return 0;
}
