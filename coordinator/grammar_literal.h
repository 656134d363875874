/* grammar_literal: values that the schema spells out (enum, const, names of properties) and
 * integers between bounds. Each value has one spelling. */
#ifndef COORDINATOR_GRAMMAR_LITERAL_H
#define COORDINATOR_GRAMMAR_LITERAL_H

#include "coordinator/grammar_prog.h"
#include <jansson.h>

#define GRAMMAR_INT_MAX 999999999999999999LL

/* A list of spellings; zero it, fini it. */
struct grammar_word {
    char *p;
    size_t n;
};
struct grammar_words {
    struct grammar_word *at;
    size_t n, cap;
};
void grammar_words_fini(struct grammar_words *w);
/* grammar_words_add_string: with its quotes. */
void grammar_words_add_string(struct grammar_builder *b, struct grammar_words *w, const char *text,
                              size_t n);
/* grammar_words_add: a string, a number, true, false or null. */
void grammar_words_add(struct grammar_builder *b, struct grammar_words *w, const json_t *scalar);

/* grammar_emit_words: any one of them; sorts w. Common beginnings are shared, so that ten thousand
 * words are no more positions at once than ten. */
void grammar_emit_words(struct grammar_builder *b, struct grammar_words *w);
/* grammar_emit_other_key: a string, quotes included, that is none of w (strings); sorts w. It has
 * no escapes, so that a name cannot come back in another spelling. */
void grammar_emit_other_key(struct grammar_builder *b, struct grammar_words *w);
/* grammar_emit_const: any JSON value, at most 32 deep. */
void grammar_emit_const(struct grammar_builder *b, const json_t *value);
/* grammar_emit_colon: `:` and perhaps a space. */
void grammar_emit_colon(struct grammar_builder *b);

/* grammar_emit_between: integers in [lo, hi], or with `fraction` numbers. |bounds| at most
 * GRAMMAR_INT_MAX, lo <= hi. */
void grammar_emit_between(struct grammar_builder *b, int64_t lo, int64_t hi, bool fraction);

#endif
