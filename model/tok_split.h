/* tok_split: cutting a text into pieces by a regular expression. The expressions that nearly all
 * published byte-level models use are matched by hand-written code, ten times faster than a
 * compiled expression; every other one runs on PCRE2. The two agree, which tok_split_test shows on
 * random text for each of them. */
#ifndef MODEL_TOK_SPLIT_H
#define MODEL_TOK_SPLIT_H

#include "model/tok_regex.h"
#include "model/tok_unicode.h"

enum tok_split_kind {
    SPLIT_REGEX,    /* PCRE2 */
    SPLIT_LITERAL,  /* a fixed string */
    SPLIT_GPT2,     /* ByteLevel's own */
    SPLIT_CL100K,   /* Llama 3 (digits by three), Qwen 2 and 3 (one by one) */
    SPLIT_O200K,    /* GPT-4o, gpt-oss */
    SPLIT_DEEPSEEK, /* the third expression of DeepSeek V3 */
    SPLIT_DIGITS,   /* \p{N}{1,n} */
    SPLIT_CJK       /* DeepSeek's second: runs of ideographs and kana */
};

struct tok_split {
    enum tok_split_kind kind;
    int digits_max;
    struct tok_regex *regex;
    struct tok_text literal;
};

/* tok_split_regex recognises the expression or compiles it; `hand` false always compiles (tests).
 * tok_split_literal cuts at a string. Zero a split before; fini is always allowed. */
int tok_split_regex(struct tok_split *split, const char *pattern, size_t n, bool hand,
                    struct err *err);
int tok_split_literal(struct tok_split *split, const char *literal, size_t n, struct err *err);
void tok_split_gpt2(struct tok_split *split);
void tok_split_fini(struct tok_split *split);

/* A walk over the matches in text[0..n), valid UTF-8; flag: unicode_flags. */
struct tok_split_walk {
    const uint8_t *flag;
    struct tok_regex_walk regex;
};
void tok_split_walk(struct tok_split_walk *walk, const uint8_t *flag, const char *text, size_t n);
/* tok_split_next: 1 and the next match; 0: no more; < 0: error. */
int tok_split_next(const struct tok_split *split, struct tok_split_walk *walk, size_t *begin,
                   size_t *end, struct err *err);

/* The recognised expressions, for tests: pattern i, NULL behind the last. */
const char *tok_split_known(size_t i);

#endif
