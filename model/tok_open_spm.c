/* tokenizer.model: SentencePiece's ModelProto (sentencepiece_model.proto). Of its few hundred
 * fields a tokenizer needs a dozen, so they are read here from protobuf's wire form: a tag (field
 * << 3 | type), then a varint, 8 bytes, a length and bytes, or 4 bytes. Every length is checked
 * against what is left; unknown fields are stepped over, as the format intends. */
#include "base/limits.h"
#include "model/tok_impl.h"
#include <math.h>
#include <stdlib.h>

enum { PIECE_NORMAL = 1, PIECE_UNKNOWN, PIECE_CONTROL, PIECE_USER, PIECE_UNUSED, PIECE_BYTE };
enum { MODEL_UNIGRAM = 1, MODEL_BPE = 2 };

struct field {
    uint64_t number, varint; /* varint also holds fixed32 */
    struct tok_str bytes;    /* length-delimited */
};
struct spec {
    uint64_t model_type;
    bool byte_fallback, dummy_prefix, remove_spaces, escape_spaces, suffix;
    int64_t bos, eos;
    struct tok_str charsmap, denormalizer;
};
struct pieces {
    float *score;
    uint8_t *type;
    size_t n, cap_score, cap_type;
};

static int varint(struct tok_str *in, uint64_t *out)
{
    uint64_t v = 0;
    for (int shift = 0; shift < 64 && in->n; shift += 7) {
        unsigned char c = (unsigned char)*in->p++;
        in->n--;
        v |= (uint64_t)(c & 0x7f) << shift;
        if (c < 0x80) {
            *out = v;
            return 0;
        }
    }
    return -1;
}

/* next: 1 and a field; 0 at the end; -1: broken. */
static int next(struct tok_str *in, struct field *f)
{
    uint64_t tag, n = 0;
    if (in->n == 0)
        return 0;
    if (varint(in, &tag))
        return -1;
    *f = (struct field){.number = tag >> 3};
    switch (tag & 7) {
    case 0:
        return varint(in, &f->varint) ? -1 : 1;
    case 1:
        n = 8;
        break;
    case 2:
        if (varint(in, &n))
            return -1;
        break;
    case 5:
        n = 4;
        break;
    default:
        return -1;
    }
    if (n > in->n)
        return -1;
    f->bytes = (struct tok_str){in->p, n};
    if ((tag & 7) == 5) {
        uint32_t v;
        memcpy(&v, in->p, 4);
        f->varint = v;
    }
    in->p += n;
    in->n -= n;
    return 1;
}

static int broken(const char *file, const char *what, struct err *err)
{
    return err_set(err, ERR_MODEL, "%s: %s; not a SentencePiece model, or a damaged one", file,
                   what);
}

static int read_piece(struct tokenizer *tok, const char *file, struct tok_str in,
                      struct pieces *pieces, struct err *err)
{
    struct field f;
    struct tok_str text = {"", 0};
    float score = 0;
    uint64_t type = PIECE_NORMAL;
    int r;
    while ((r = next(&in, &f)) > 0) {
        uint32_t bits = (uint32_t)f.varint;
        if (f.number == 1)
            text = f.bytes;
        else if (f.number == 2)
            memcpy(&score, &bits, 4);
        else if (f.number == 3)
            type = f.varint;
    }
    if (r < 0 || !isfinite(score) || type < PIECE_NORMAL || type > PIECE_BYTE || !text.p)
        return broken(file, "a piece cannot be read", err);
    if (text.n == 0 || utf8_valid(text.p, text.n) != text.n)
        return broken(file, "a piece is empty or not valid UTF-8", err);
    size_t id = pieces->n;
    bool model = type != PIECE_CONTROL && type != PIECE_UNKNOWN;
    r = model ? tok_vocab_add(&tok->vocab, text.p, text.n, (int64_t)id, err)
              : tok_vocab_add_odd(&tok->vocab, text.p, text.n, (int64_t)id, err);
    if (r)
        return r;
    if (tok_grow((void **)&pieces->score, &pieces->cap_score, id + 1, sizeof *pieces->score) ||
        tok_grow((void **)&pieces->type, &pieces->cap_type, id + 1, 1))
        return tok_nomem(err);
    pieces->score[id] = score;
    pieces->type[id] = (uint8_t)type;
    pieces->n++;
    return 0;
}

static int read_trainer(struct tok_str in, struct spec *spec)
{
    struct field f;
    int r;
    while ((r = next(&in, &f)) > 0) {
        if (f.number == 3)
            spec->model_type = f.varint;
        else if (f.number == 24)
            spec->suffix = f.varint;
        else if (f.number == 35)
            spec->byte_fallback = f.varint;
        else if (f.number == 41)
            spec->bos = (int64_t)f.varint;
        else if (f.number == 42)
            spec->eos = (int64_t)f.varint;
    }
    return r;
}

static int read_normalizer(struct tok_str in, struct spec *spec)
{
    struct field f;
    int r;
    while ((r = next(&in, &f)) > 0) {
        if (f.number == 2)
            spec->charsmap = f.bytes;
        else if (f.number == 3)
            spec->dummy_prefix = f.varint;
        else if (f.number == 4)
            spec->remove_spaces = f.varint;
        else if (f.number == 5)
            spec->escape_spaces = f.varint;
    }
    return r;
}

static int read_model(struct tokenizer *tok, const char *file, struct tok_str in, struct spec *spec,
                      struct pieces *pieces, struct err *err)
{
    struct field f;
    int r, s = 0;
    while ((r = next(&in, &f)) > 0) {
        if (f.number <= 5 && !f.bytes.p)
            return broken(file, "a message is a number", err);
        if (f.number == 1 && (s = read_piece(tok, file, f.bytes, pieces, err)))
            return s;
        if (f.number == 2)
            s = read_trainer(f.bytes, spec);
        else if (f.number == 3)
            s = read_normalizer(f.bytes, spec);
        else if (f.number == 5)
            spec->denormalizer = f.bytes;
        if (s < 0)
            return broken(file, "a specification cannot be read", err);
    }
    if (r < 0 || pieces->n == 0)
        return broken(file, r < 0 ? "the file ends early" : "there are no pieces", err);
    return 0;
}

static int check(const char *file, const struct spec *spec, struct err *err)
{
    if (spec->model_type != MODEL_UNIGRAM && spec->model_type != MODEL_BPE)
        return err_set(err, ERR_MODEL,
                       "%s: SentencePiece model type %llu is not supported (unigram and bpe "
                       "are)",
                       file, (unsigned long long)spec->model_type);
    struct spec inner = {0};
    struct tok_str denormalizer = spec->denormalizer;
    if (denormalizer.n && (read_normalizer(denormalizer, &inner) < 0 || inner.charsmap.n))
        return err_set(err, ERR_MODEL, "%s: a denormalizer is not supported", file);
    if (spec->suffix || !spec->escape_spaces)
        return err_set(err, ERR_MODEL, "%s: white space as suffix or unescaped is not supported",
                       file);
    return 0;
}

/* SentencePiece's own text preparation as normalizers. */
static int prepare(struct tokenizer *tok, const struct spec *spec, struct err *err)
{
    int r = 0;
    tok->norm.flag = tok->flag;
    if (spec->charsmap.n)
        r = tok_norm_add_charsmap(&tok->norm, spec->charsmap.p, spec->charsmap.n, err);
    if (!r && spec->remove_spaces)
        r = tok_norm_add_squeeze(&tok->norm, err);
    if (!r && spec->dummy_prefix)
        r = tok_norm_add_prepend(&tok->norm, "\xe2\x96\x81", err);
    r = r ? r : tok_norm_add_replace(&tok->norm, " ", "\xe2\x96\x81", err);
    return r ? r : tok_decoder_sentencepiece(&tok->dec, spec->dummy_prefix, tok->flag, err);
}

static int32_t unknown_of(const struct pieces *pieces)
{
    for (size_t i = 0; i < pieces->n; i++)
        if (pieces->type[i] == PIECE_UNKNOWN)
            return (int32_t)i;
    return -1;
}

static int build_bpe(struct tokenizer *tok, const struct spec *spec, const struct pieces *pieces,
                     struct err *err)
{
    bool *usable = malloc(pieces->n * sizeof *usable);
    int r = usable ? tok_bpe_init(&tok->bpe, &tok->vocab, pieces->n * 2, err) : tok_nomem(err);
    for (size_t i = 0; !r && i < pieces->n; i++)
        usable[i] = pieces->type[i] == PIECE_NORMAL || pieces->type[i] == PIECE_UNUSED;
    r = r ? r : tok_score_merges(tok, pieces->score, usable, err);
    free(usable);
    if (r)
        return r;
    tok->bpe.unk = unknown_of(pieces);
    tok->bpe.fuse_unk = true;
    tok->bpe.byte_fallback = spec->byte_fallback;
    return tok_bpe_finish(&tok->bpe, err);
}

static int build_unigram(struct tokenizer *tok, const struct spec *spec,
                         const struct pieces *pieces, struct err *err)
{
    tok->unigram = true;
    tok_unigram_init(&tok->uni, &tok->vocab, unknown_of(pieces), spec->byte_fallback);
    for (size_t i = 0; i < pieces->n; i++) {
        if (pieces->type[i] != PIECE_NORMAL)
            continue;
        int r = tok_unigram_add(&tok->uni, (int32_t)i, pieces->score[i], err);
        if (r)
            return r;
    }
    tok_unigram_finish(&tok->uni);
    return 0;
}

static int add_added(struct tokenizer *tok, const struct pieces *pieces, const struct spec *spec,
                     struct err *err)
{
    for (size_t i = 0; i < pieces->n; i++) {
        uint8_t type = pieces->type[i];
        if (type != PIECE_CONTROL && type != PIECE_USER && type != PIECE_UNKNOWN)
            continue;
        /* SentencePiece itself finds its user's symbols in the prepared text; control symbols it
         * never reads, so they are cut out before, like those of tokenizer.json */
        struct tok_added_token token = {
            .id = (int32_t)i, .special = type != PIECE_USER, .normalized = type == PIECE_USER};
        struct tok_str text = tok_vocab_raw_of(&tok->vocab, token.id);
        int r = token.special ? tok_add_added(tok, token, err)
                              : tok_added_add(&tok->added, token, text.p, text.n, err);
        if (r)
            return r;
    }
    tok->bos = tok_vocab_has(&tok->vocab, spec->bos) ? (int32_t)spec->bos : -1;
    tok->eos = tok_vocab_has(&tok->vocab, spec->eos) ? (int32_t)spec->eos : -1;
    if ((tok->bos >= 0 && tok_ids_add(&tok->before, tok->bos)) ||
        (tok->eos >= 0 && tok_ids_add(&tok->eos_ids, tok->eos)))
        return tok_nomem(err);
    return 0;
}

int tok_open_sentencepiece(struct tokenizer *tok, const char *file, const char *bytes, size_t n,
                           struct err *err)
{
    struct spec spec = {.model_type = MODEL_UNIGRAM,
                        .dummy_prefix = true,
                        .remove_spaces = true,
                        .escape_spaces = true,
                        .bos = 1,
                        .eos = 2};
    struct pieces pieces = {0};
    tok_vocab_init(&tok->vocab, false);
    int r = tok_vocab_reserve(&tok->vocab, n / 16 < LIMIT_VOCAB ? n / 16 : LIMIT_VOCAB, err);
    r = r ? r : read_model(tok, file, (struct tok_str){bytes, n}, &spec, &pieces, err);
    r = r ? r : check(file, &spec, err);
    r = r ? r : prepare(tok, &spec, err);
    if (!r)
        r = spec.model_type == MODEL_BPE ? build_bpe(tok, &spec, &pieces, err)
                                         : build_unigram(tok, &spec, &pieces, err);
    r = r ? r : add_added(tok, &pieces, &spec, err);
    free(pieces.score);
    free(pieces.type);
    return r;
}
