/* tok_regex: regular expressions of tokenizer.json. They are written for Oniguruma (Ruby syntax,
 * Unicode 16) and run on PCRE2 (Perl syntax, Unicode 14), so each is translated first: \s \d \w and
 * the category classes are spelled out where the two differ, and a construct that both accept with
 * different meanings (possessive intervals, nested classes, \h, \b, inline options) is refused at
 * open. Limits on matches and memory turn an expression that explodes into an error. */
#ifndef MODEL_TOK_REGEX_H
#define MODEL_TOK_REGEX_H

#include "model/tok_buf.h"

struct tok_regex;

int tok_regex_create(const char *pattern, size_t n, struct tok_regex **regex, struct err *err);
void tok_regex_destroy(struct tok_regex *regex);

/* A walk over all matches in text[0..n), valid UTF-8. An empty match directly behind the previous
 * match does not count. */
struct tok_regex_walk {
    const char *text;
    size_t n, at, last_end;
};
void tok_regex_walk(struct tok_regex_walk *walk, const char *text, size_t n);
/* tok_regex_next: 1 and the match [*begin, *end); 0: no more; < 0: a limit was hit. */
int tok_regex_next(struct tok_regex *regex, struct tok_regex_walk *walk, size_t *begin, size_t *end,
                   struct err *err);
/* tok_regex_translate appends the PCRE2 form; for tests. */
int tok_regex_translate(const char *pattern, size_t n, struct tok_text *out, struct err *err);

#endif
