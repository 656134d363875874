/* tok_impl: the parts of a tokenizer put together, for the files that open and run it. */
#ifndef MODEL_TOK_IMPL_H
#define MODEL_TOK_IMPL_H

#include "model/tok_added.h"
#include "model/tok_bpe.h"
#include "model/tok_decode.h"
#include "model/tok_norm.h"
#include "model/tok_pre.h"
#include "model/tok_unigram.h"

struct tokenizer {
    uint8_t *flag; /* unicode_flags */
    struct tok_vocab vocab;
    struct tok_added added;
    struct tok_norm norm;
    struct tok_pre pre;
    bool unigram;
    struct tok_bpe bpe;
    struct tok_unigram uni;
    struct tok_decoder dec;
    struct tok_ids before, after; /* what the post-processor puts around a text */
    bool *special;                /* by id, n_special entries */
    size_t n_special;
    int32_t bos, eos;
    struct tok_ids eos_ids;
    char *chat_template;
    struct tok_segments segments[2]; /* scratch */
    struct tok_text fixed;           /* a text with invalid bytes replaced */
};

/* The readers of the three formats fill a zeroed tokenizer (flag, vocab and bos/eos are set up).
 * `file` names the file in messages. */
int tok_open_json(struct tokenizer *tok, const char *file, const char *bytes, size_t n,
                  struct err *err);
int tok_open_sentencepiece(struct tokenizer *tok, const char *file, const char *bytes, size_t n,
                           struct err *err);
int tok_open_llama2c(struct tokenizer *tok, const char *file, const char *bytes, size_t n,
                     struct err *err);
/* tok_open_config reads what lies beside: tokenizer_config.json, generation_config.json,
 * config.json, chat_template.jinja. Files that are absent are no error. */
int tok_open_config(struct tokenizer *tok, const char *dir, struct err *err);
/* tok_read_file: the whole file, malloc'd, NUL behind it. A file that is not there: *bytes NULL and
 * 0 if `optional`. */
int tok_read_file(const char *dir, const char *name, bool optional, char **bytes, size_t *n,
                  struct err *err);
/* tok_post_load reads the `post_processor` of tokenizer.json into before and after. */
int tok_post_load(struct tokenizer *tok, json_t *json, struct err *err);
/* tok_add_special marks a token as an added one. text NULL: its own spelling. */
int tok_add_added(struct tokenizer *tok, struct tok_added_token token, struct err *err);
/* tok_score_merges gives BPE its merges from scores: the higher the earlier, equal scores equal.
 * usable[id]: the token takes part. */
int tok_score_merges(struct tokenizer *tok, const float *score, const bool *usable,
                     struct err *err);

#endif
