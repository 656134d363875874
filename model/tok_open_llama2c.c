/* tok512.bin, the vocabulary format of llama2.c: int32 longest token, then for each token float
 * score, int32 length, bytes (llama2.c, tokenizer.py). How many there are is how many fit. Encoding
 * is BPE by score with a space put in front of the text and byte tokens "<0x..>" for the rest; ids
 * 0, 1, 2 are unknown, BOS, EOS, which is fixed there too. */
#include "base/limits.h"
#include "model/tok_impl.h"
#include <math.h>
#include <stdlib.h>

#define TOKEN_BYTES_MAX 4096

static int read_tokens(struct tokenizer *tok, const char *file, const char *p, size_t n,
                       float *score, struct err *err)
{
    int32_t id = 0;
    for (size_t at = 4; at < n; id++) {
        int32_t len = -1;
        float s = NAN;
        if (n - at >= 8) {
            memcpy(&s, p + at, 4);
            memcpy(&len, p + at + 4, 4);
        }
        if (len < 0 || len > TOKEN_BYTES_MAX || (size_t)len > n - at - 8 || !isfinite(s))
            return err_set(err, ERR_MODEL,
                           "%s: byte %zu: token %d has length %d; not a llama2.c vocabulary, "
                           "or a damaged one",
                           file, at, id, len);
        at += 8;
        if (utf8_valid(p + at, (size_t)len) != (size_t)len)
            return err_set(err, ERR_MODEL, "%s: token %d is not valid UTF-8", file, id);
        int r = tok_vocab_add(&tok->vocab, p + at, (size_t)len, id, err);
        if (r)
            return r;
        score[id] = s;
        at += (size_t)len;
    }
    if (id < 3)
        return err_set(err, ERR_MODEL, "%s: %d tokens; a llama2.c vocabulary has at least 3", file,
                       id);
    return 0;
}

int tok_open_llama2c(struct tokenizer *tok, const char *file, const char *bytes, size_t n,
                     struct err *err)
{
    size_t n_max = n / 8 < LIMIT_VOCAB
                       ? n / 8 + 1
                       : (size_t)LIMIT_VOCAB + 1; /* a token takes 8 bytes or more */
    float *score = malloc(n_max * sizeof *score);
    bool *usable = malloc(n_max * sizeof *usable);
    tok_vocab_init(&tok->vocab, false);
    int r = score && usable ? read_tokens(tok, file, bytes, n, score, err) : tok_nomem(err);
    r = r ? r : tok_bpe_init(&tok->bpe, &tok->vocab, n_max, err);
    if (r)
        goto out;
    for (size_t i = 0; i < tok->vocab.n; i++)
        usable[i] = i >= 3;
    tok->bpe.byte_fallback = tok->bpe.fuse_unk = true;
    tok->bpe.unk = 0;
    r = tok_score_merges(tok, score, usable, err);
    r = r ? r : tok_bpe_finish(&tok->bpe, err);
    r = r ? r : tok_norm_add_prepend(&tok->norm, " ", err);
    tok->norm.flag = tok->flag;
    r = r ? r : tok_decoder_sentencepiece(&tok->dec, true, tok->flag, err);
    for (int32_t id = 0; !r && id < 3; id++)
        r = tok_add_added(tok, (struct tok_added_token){.id = id, .special = true}, err);
    tok->bos = 1;
    tok->eos = 2;
    if (!r && (tok_ids_add(&tok->before, 1) || tok_ids_add(&tok->eos_ids, 2)))
        r = tok_nomem(err);
out:
    free(score);
    free(usable);
    return r;
}
