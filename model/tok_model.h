/* tok_model: the "model" of tokenizer.json, BPE or Unigram. Vocabulary and merges, nearly all of
 * the file, are stepped over once, while the file is located, and read once, straight into the
 * tables. */
#ifndef MODEL_TOK_MODEL_H
#define MODEL_TOK_MODEL_H

#include "model/tok_impl.h"
#include "model/tok_json.h"

struct tok_model { /* bytes of the file */
    struct tok_str type, vocab, merges, unk;
    bool fuse_unk, byte_fallback, ignore_merges;
    int64_t unk_id;
};

/* tok_model_read takes the object apart; model is zeroed. An unknown member is refused. */
int tok_model_read(struct tok_json *json, struct tok_model *model, struct err *err);
/* tok_model_build fills vocab (initialised) and bpe or uni. json: for messages. */
int tok_model_build(struct tokenizer *tok, const struct tok_json *json,
                    const struct tok_model *model, struct err *err);

#endif
