/* See tokenizer.h. Encoding is a straight line: cut at added tokens, normalize, cut at added tokens
 * of the normalized kind, pre-tokenize, run the model on each piece, put the post-processor's
 * tokens around it. */
#include "model/tokenizer.h"
#include "model/tok_impl.h"
#include <stdlib.h>

#define TEXT_MAX (1u << 30) /* positions of symbols fit 32 bits with room */

void tokenizer_close(struct tokenizer *tok)
{
    if (!tok)
        return;
    tok_bpe_fini(&tok->bpe);
    tok_unigram_fini(&tok->uni);
    tok_vocab_fini(&tok->vocab);
    tok_added_fini(&tok->added);
    tok_norm_fini(&tok->norm);
    tok_pre_fini(&tok->pre);
    tok_decoder_fini(&tok->dec);
    tok_ids_fini(&tok->before);
    tok_ids_fini(&tok->after);
    tok_ids_fini(&tok->eos_ids);
    free(tok->special);
    free(tok->chat_template);
    free(tok->segments[0].p);
    free(tok->segments[1].p);
    tok_text_fini(&tok->fixed);
    free(tok->flag);
    free(tok);
}

static int encode_pieces(struct tokenizer *tok, struct tok_str in, bool at_start,
                         struct tok_ids *out, struct err *err)
{
    const struct tok_pieces *pieces;
    struct tok_str text;
    int r = tok_pre_run(&tok->pre, in, at_start, &text, &pieces, err);
    for (size_t i = 0; !r && i < pieces->n; i++) {
        const char *p = text.p + pieces->p[i].begin;
        size_t n = pieces->p[i].end - pieces->p[i].begin;
        r = tok->unigram ? tok_unigram_encode(&tok->uni, p, n, out, err)
                         : tok_bpe_encode(&tok->bpe, p, n, out, err);
    }
    return r;
}

/* encode_text: a stretch without raw added tokens. */
static int encode_text(struct tokenizer *tok, struct tok_str in, bool at_start, bool special,
                       struct tok_ids *out, struct err *err)
{
    struct tok_segments *segments = &tok->segments[1];
    struct tok_str text;
    bool shifted;
    int r = tok_norm_run(&tok->norm, in, &text, &shifted, err);
    r = r ? r : tok_added_cut(&tok->added, true, special, text.p, text.n, segments, err);
    for (size_t i = 0; !r && i < segments->n; i++) {
        struct tok_segment s = segments->p[i];
        struct tok_str part = {text.p + s.begin, s.end - s.begin};
        if (s.id >= 0)
            r = tok_ids_add(out, s.id) ? tok_nomem(err) : 0;
        else
            r = encode_pieces(tok, part, at_start && !shifted && s.begin == 0, out, err);
    }
    return r;
}

static int encode(struct tokenizer *tok, struct tok_str text, unsigned flags, struct tok_ids *out,
                  struct err *err)
{
    struct tok_segments *segments = &tok->segments[0];
    bool add = flags & TOK_ADD_SPECIAL, special = flags & TOK_PARSE_SPECIAL;
    int r = add && tok_ids_add_n(out, tok->before.id, tok->before.n) ? tok_nomem(err) : 0;
    r = r ? r : tok_added_cut(&tok->added, false, special, text.p, text.n, segments, err);
    for (size_t i = 0; !r && i < segments->n; i++) {
        struct tok_segment s = segments->p[i];
        struct tok_str part = {text.p + s.begin, s.end - s.begin};
        if (s.id >= 0)
            r = tok_ids_add(out, s.id) ? tok_nomem(err) : 0;
        else
            r = encode_text(tok, part, s.begin == 0, special, out, err);
    }
    if (!r && add && tok_ids_add_n(out, tok->after.id, tok->after.n))
        r = tok_nomem(err);
    return r;
}

int tokenizer_encode(struct tokenizer *tok, const char *p, size_t n_bytes, unsigned flags,
                     struct tok_ids *out, struct err *err)
{
    if (n_bytes > TEXT_MAX)
        return err_set(err, ERR_LIMIT, "tokenizer: a text of %zu bytes, at most %u at once; cut it",
                       n_bytes, TEXT_MAX);
    struct tok_str text = {n_bytes ? p : "", n_bytes};
    size_t n = out->n;
    if (utf8_valid(text.p, text.n) != text.n) {
        tok->fixed.n = 0;
        if (utf8_lossy(&tok->fixed, text.p, text.n))
            return tok_nomem(err);
        text = (struct tok_str){tok->fixed.p, tok->fixed.n};
    }
    int r = encode(tok, text, flags, out, err);
    if (r)
        out->n = n;
    return r;
}

static int push(const struct tokenizer *tok, struct tok_decoding *run, unsigned flags, int32_t id,
                struct tok_text *out, struct err *err)
{
    if (!tok_vocab_has(&tok->vocab, id) ||
        ((flags & TOK_SKIP_SPECIAL) && tokenizer_is_special(tok, id)))
        return 0;
    return tok_decode_push(&tok->dec, run, tok_vocab_raw_of(&tok->vocab, id), out, err);
}

int tokenizer_decode(const struct tokenizer *tok, const int32_t *id, size_t n_id, unsigned flags,
                     struct tok_text *out, struct err *err)
{
    bool go_on = flags & TOK_CONTINUE;
    struct tok_decoding run = {.whole = true, .begun = go_on, .started = go_on};
    size_t n = out->n;
    int r = 0;
    for (size_t i = 0; !r && i < n_id; i++)
        r = push(tok, &run, flags, id[i], out, err);
    r = r ? r : tok_decode_flush(&tok->dec, &run, out, err);
    if (r)
        out->n = n;
    tok_decoding_fini(&run);
    return r;
}

struct detok {
    const struct tokenizer *tok;
    unsigned flags;
    struct tok_decoding run;
    struct tok_text out;
};

int detok_create(const struct tokenizer *tok, unsigned flags, struct detok **out, struct err *err)
{
    struct detok *detok = calloc(1, sizeof *detok);
    if (!detok)
        return tok_nomem(err);
    detok->tok = tok;
    detok->flags = flags;
    detok->run.begun = detok->run.started = flags & TOK_CONTINUE;
    *out = detok;
    return 0;
}

void detok_destroy(struct detok *detok)
{
    if (!detok)
        return;
    tok_decoding_fini(&detok->run);
    tok_text_fini(&detok->out);
    free(detok);
}

static int give(struct detok *detok, int r, const char **bytes, size_t *n)
{
    *bytes = detok->out.n ? detok->out.p : "";
    *n = r ? 0 : detok->out.n;
    return r;
}

int detok_push(struct detok *detok, int32_t id, const char **bytes, size_t *n, struct err *err)
{
    detok->out.n = 0;
    return give(detok, push(detok->tok, &detok->run, detok->flags, id, &detok->out, err), bytes, n);
}

int detok_flush(struct detok *detok, const char **bytes, size_t *n, struct err *err)
{
    detok->out.n = 0;
    int r = tok_decode_flush(&detok->tok->dec, &detok->run, &detok->out, err);
    detok->run.begun = detok->run.started = detok->flags & TOK_CONTINUE;
    return give(detok, r, bytes, n);
}

int32_t tokenizer_vocab_size(const struct tokenizer *tok)
{
    return (int32_t)tok->vocab.n;
}

int32_t tokenizer_id_of(const struct tokenizer *tok, const char *token, size_t n)
{
    return tok_vocab_raw(&tok->vocab, token, n);
}

const char *tokenizer_token(const struct tokenizer *tok, int32_t id, size_t *n)
{
    *n = 0;
    if (!tok_vocab_has(&tok->vocab, id))
        return NULL;
    struct tok_str s = tok_vocab_raw_of(&tok->vocab, id);
    *n = s.n;
    return s.p;
}

int tokenizer_token_bytes(const struct tokenizer *tok, int32_t id, struct tok_text *out,
                          struct err *err)
{
    if (!tok_vocab_has(&tok->vocab, id))
        return 0;
    return tok_decode_bytes(&tok->dec, tok_vocab_raw_of(&tok->vocab, id), out, err);
}

int tokenizer_is_special(const struct tokenizer *tok, int32_t id)
{
    return id >= 0 && (size_t)id < tok->n_special && tok->special[id];
}

int32_t tokenizer_bos(const struct tokenizer *tok)
{
    return tok->bos;
}

int32_t tokenizer_eos(const struct tokenizer *tok)
{
    return tok->eos;
}

const int32_t *tokenizer_eos_ids(const struct tokenizer *tok, size_t *n)
{
    *n = tok->eos_ids.n;
    return tok->eos_ids.id;
}

const char *tokenizer_chat_template(const struct tokenizer *tok)
{
    return tok->chat_template;
}
