/* tok_norm: normalizers, the first stage: text to text (NFC and its kin, Lowercase, Replace,
 * Prepend, Strip, Precompiled). A list of operations; each either hands its input through
 * untouched, which is the usual case, or writes to one of two buffers. */
#ifndef MODEL_TOK_NORM_H
#define MODEL_TOK_NORM_H

#include "model/tok_split.h"
#include <jansson.h>

enum tok_norm_kind {
    NORM_NFC,
    NORM_NFD,
    NORM_NFKC,
    NORM_NFKD,
    NORM_LOWERCASE,
    NORM_REPLACE,
    NORM_PREPEND,
    NORM_STRIP,
    NORM_CHARSMAP
};
struct tok_norm_op {
    enum tok_norm_kind kind;
    struct tok_split pattern; /* Replace */
    struct tok_text content;  /* Replace, Prepend; the map of Precompiled */
    bool left, right;         /* Strip */
};
#define TOK_NORM_OPS 32
struct tok_norm {
    struct tok_norm_op op[TOK_NORM_OPS];
    size_t n;
    struct tok_text buf[2];
    const uint8_t *flag; /* unicode_flags */
};

/* tok_norm_load reads the `normalizer` of tokenizer.json (json null: none). Zero norm before. */
int tok_norm_load(struct tok_norm *norm, json_t *json, const uint8_t *flag, struct err *err);
void tok_norm_fini(struct tok_norm *norm);
/* For readers of other formats: an operation by hand. */
int tok_norm_add_replace(struct tok_norm *norm, const char *from, const char *to, struct err *err);
int tok_norm_add_prepend(struct tok_norm *norm, const char *what, struct err *err);
/* tok_norm_add_squeeze: no spaces at both ends, and runs of them to one (spaces only). */
int tok_norm_add_squeeze(struct tok_norm *norm, struct err *err);
int tok_norm_add_charsmap(struct tok_norm *norm, const char *map, size_t n, struct err *err);
/* tok_norm_run: *out lives until the next run, or is `in` itself. *shifted: the beginning was
 * stripped, so that the text no longer begins where it began. */
int tok_norm_run(struct tok_norm *norm, struct tok_str in, struct tok_str *out, bool *shifted,
                 struct err *err);

/* tok_compose appends one of the four normal forms of p[0..n), which begins where nothing before it
 * can join (tok_compose.c). */
int tok_compose(enum tok_norm_kind kind, const char *p, size_t n, struct tok_text *out);
/* tok_charsmap_check, tok_charsmap_run: SentencePiece's precompiled map: u32 size, a double-array
 * trie of that many bytes, replacement strings (tok_charsmap.c). */
int tok_charsmap_check(const char *map, size_t n, struct err *err);
int tok_charsmap_run(const struct tok_text *map, struct tok_str in, struct tok_text *out);

#endif
