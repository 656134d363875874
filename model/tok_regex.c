/* See tok_regex.h. */
#include "model/tok_regex.h"
#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>
#include <stdlib.h>

#define PATTERN_MAX     16384
#define MATCH_LIMIT     50000000 /* steps in one search: about a second */
#define DEPTH_LIMIT     100000
#define HEAP_LIMIT_KIB  65536
#define JIT_STACK_BYTES (1024 * 1024)

struct tok_regex {
    pcre2_code *code;
    pcre2_match_data *match;
    pcre2_match_context *context;
    pcre2_jit_stack *stack;
};

int tok_regex_create(const char *pattern, size_t n, struct tok_regex **out, struct err *err)
{
    if (n > PATTERN_MAX)
        return err_set(err, ERR_LIMIT,
                       "tokenizer: a regular expression of %zu bytes, at most %d are "
                       "supported",
                       n, PATTERN_MAX);
    struct tok_text text = {0};
    struct tok_regex *re = calloc(1, sizeof *re);
    int r = re ? tok_regex_translate(pattern, n, &text, err) : tok_nomem(err), code = 0;
    size_t at = 0;
    if (r)
        goto out;
    /* Ruby's ^ and $ are always those of a line */
    re->code = pcre2_compile((PCRE2_SPTR)text.p, text.n,
                             PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C,
                             &code, &at, NULL);
    if (!re->code) {
        char why[128] = "?";
        pcre2_get_error_message(code, (PCRE2_UCHAR *)why, sizeof why);
        r = err_set(err, ERR_MODEL,
                    "tokenizer: the regular expression '%.*s' is not understood: %s",
                    (int)(n < 200 ? n : 200), pattern, why);
        goto out;
    }
    re->match = pcre2_match_data_create(1, NULL);
    re->context = pcre2_match_context_create(NULL);
    if (!re->match || !re->context) {
        r = tok_nomem(err);
        goto out;
    }
    pcre2_set_match_limit(re->context, MATCH_LIMIT);
    pcre2_set_depth_limit(re->context, DEPTH_LIMIT);
    pcre2_set_heap_limit(re->context, HEAP_LIMIT_KIB);
    if (pcre2_jit_compile(re->code, PCRE2_JIT_COMPLETE) == 0) { /* without JIT it only is slower */
        re->stack = pcre2_jit_stack_create(32768, JIT_STACK_BYTES, NULL);
        pcre2_jit_stack_assign(re->context, NULL, re->stack);
    }
    *out = re;
    re = NULL;
out:
    tok_text_fini(&text);
    tok_regex_destroy(re);
    return r;
}

void tok_regex_destroy(struct tok_regex *re)
{
    if (!re)
        return;
    pcre2_jit_stack_free(re->stack);
    pcre2_match_context_free(re->context);
    pcre2_match_data_free(re->match);
    pcre2_code_free(re->code);
    free(re);
}

void tok_regex_walk(struct tok_regex_walk *walk, const char *text, size_t n)
{
    *walk = (struct tok_regex_walk){text, n, 0, SIZE_MAX};
}

int tok_regex_next(struct tok_regex *re, struct tok_regex_walk *walk, size_t *begin, size_t *end,
                   struct err *err)
{
    while (walk->at <= walk->n) {
        int r = pcre2_match(re->code, (PCRE2_SPTR)walk->text, walk->n, walk->at, PCRE2_NO_UTF_CHECK,
                            re->match, re->context);
        if (r == PCRE2_ERROR_NOMATCH)
            return 0;
        if (r < 0) {
            char why[128] = "?";
            pcre2_get_error_message(r, (PCRE2_UCHAR *)why, sizeof why);
            return err_set(err, ERR_LIMIT,
                           "tokenizer: a regular expression of the model gave up on a "
                           "text of %zu bytes: %s; send shorter text",
                           walk->n, why);
        }
        const size_t *range = pcre2_get_ovector_pointer(re->match);
        if (range[1] < range[0])
            return err_set(err, ERR_MODEL,
                           "tokenizer: a regular expression of the model matches "
                           "backwards (\\K in a lookahead)");
        if (range[0] == range[1] && range[0] == walk->last_end) {
            walk->at += walk->at < walk->n ? utf8_len(walk->text[walk->at]) : 1;
            continue;
        }
        *begin = range[0];
        *end = walk->at = walk->last_end = range[1];
        return 1;
    }
    return 0;
}
