/* tok_pre: pre-tokenizers, the second stage: a text to pieces that are encoded one by one. A list
 * of operations, each cutting every piece of the one before; two of them (Metaspace, ByteLevel's
 * prefix space) also rewrite the text. ByteLevel's alphabet is not written out: a vocabulary behind
 * it is kept in bytes (tok_vocab.h), so that ByteLevel may only be the last operation. */
#ifndef MODEL_TOK_PRE_H
#define MODEL_TOK_PRE_H

#include "model/tok_split.h"
#include <jansson.h>

enum tok_pre_kind {
    PRE_SPLIT,
    PRE_DIGITS,
    PRE_PUNCT,
    PRE_WHITESPACE,
    PRE_WHITESPACE_SPLIT,
    PRE_METASPACE,
    PRE_BYTELEVEL
};
enum tok_behavior { CUT_ISOLATED, CUT_REMOVED, CUT_CONTIGUOUS, CUT_WITH_PREVIOUS, CUT_WITH_NEXT };
enum tok_scheme { PREPEND_ALWAYS, PREPEND_FIRST, PREPEND_NEVER };

struct tok_pre_op {
    enum tok_pre_kind kind;
    struct tok_split split; /* Split, ByteLevel with use_regex, Metaspace with split */
    bool cuts;              /* ByteLevel, Metaspace: split is there */
    enum tok_behavior behavior;
    bool invert;
    bool prefix_space;           /* ByteLevel */
    enum tok_scheme scheme;      /* Metaspace */
    struct tok_text replacement; /* Metaspace */
};

struct tok_piece {
    size_t begin, end;
};
struct tok_pieces {
    struct tok_piece *p;
    size_t n, cap;
};

#define TOK_PRE_OPS 32
struct tok_pre {
    struct tok_pre_op op[TOK_PRE_OPS];
    size_t n;
    const uint8_t *flag;
    struct tok_pieces pieces[2];
    struct tok_text buf[2];
};

/* tok_pre_load reads the `pre_tokenizer` of tokenizer.json (null: none). Zero pre before. */
int tok_pre_load(struct tok_pre *pre, json_t *json, const uint8_t *flag, struct err *err);
void tok_pre_fini(struct tok_pre *pre);
/* tok_pre_byte_space: the pieces are bytes for a byte-level vocabulary. */
bool tok_pre_byte_space(const struct tok_pre *pre);
/* tok_pre_run cuts `in`. at_start: it begins where the whole text begins (Metaspace "first"). The
 * pieces index *text; none is empty; both live until the next run. */
int tok_pre_run(struct tok_pre *pre, struct tok_str in, bool at_start, struct tok_str *text,
                const struct tok_pieces **pieces, struct err *err);

#endif
