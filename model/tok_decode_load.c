/* The `decoder` of tokenizer.json, composed into the one form of tok_decode.h: per-token
 * operations, then ByteLevel or ByteFallback, then Fuse, then a Strip at the beginning. */
#include "model/tok_decode.h"
#include "model/tok_load.h"

static struct tok_dec_op *op_new(struct tok_decoder *dec, enum tok_dec_kind kind, struct err *err)
{
    if (dec->n == TOK_DEC_OPS) {
        err_set(err, ERR_LIMIT, "tokenizer: more than %d decoders are not supported", TOK_DEC_OPS);
        return NULL;
    }
    struct tok_dec_op *op = &dec->op[dec->n++];
    op->kind = kind;
    return op;
}

static int load_replace(struct tok_decoder *dec, json_t *json, struct err *err)
{
    struct tok_dec_op *op = op_new(dec, DEC_REPLACE, err);
    struct tok_str content;
    int r = op ? load_pattern(json, &op->pattern, err) : ERR_LIMIT;
    r = r ? r : load_string(json, "content", &content, err);
    if (!r && tok_text_add(&op->content, content.p, content.n))
        r = tok_nomem(err);
    return r;
}

static int load_strip(struct tok_decoder *dec, json_t *json, struct err *err)
{
    struct tok_str what;
    json_t *start = json_object_get(json, "start"), *stop = json_object_get(json, "stop");
    int r = load_char(json, "content", &what, err);
    if (r)
        return r;
    if (!json_is_integer(start) || !json_is_integer(stop) || json_integer_value(start) < 0 ||
        json_integer_value(stop) < 0 || json_integer_value(start) > 1024 ||
        json_integer_value(stop) > 1024)
        return err_set(err, ERR_MODEL,
                       "tokenizer: decoder Strip needs start and stop between 0 and 1024");
    if (dec->fused) {
        if (json_integer_value(stop) > 0 || dec->strip_max > 0)
            return err_set(err, ERR_MODEL,
                           "tokenizer: a decoder Strip at the end of the whole text is "
                           "not supported");
        dec->strip_max = (size_t)json_integer_value(start);
        dec->strip.n = 0;
        return tok_text_add(&dec->strip, what.p, what.n) ? tok_nomem(err) : 0;
    }
    struct tok_dec_op *op = op_new(dec, DEC_STRIP, err);
    if (!op)
        return ERR_LIMIT;
    op->start = (size_t)json_integer_value(start);
    op->stop = (size_t)json_integer_value(stop);
    return tok_text_add(&op->content, what.p, what.n) ? tok_nomem(err) : 0;
}

static int load_metaspace(struct tok_decoder *dec, json_t *json, struct err *err)
{
    struct tok_dec_op *op = op_new(dec, DEC_METASPACE, err);
    struct tok_str mark;
    bool prefix;
    const char *scheme = json_string_value(json_object_get(json, "prepend_scheme"));
    int r = op ? load_char(json, "replacement", &mark, err) : ERR_LIMIT;
    r = r ? r : load_bool(json, "add_prefix_space", 1, &prefix, err);
    if (r)
        return r;
    op->prefix = scheme ? strcmp(scheme, "never") != 0 : prefix;
    return tok_split_literal(&op->pattern, mark.p, mark.n, err);
}

static int load_one(struct tok_decoder *dec, json_t *json, int depth, struct err *err)
{
    const char *type = load_type(json, "decoder", err);
    if (!type)
        return ERR_MODEL;
    if (strcmp(type, "Sequence") == 0) {
        json_t *list;
        int r = load_list(json, "decoders", depth, &list, err);
        for (size_t i = 0; !r && i < json_array_size(list); i++)
            r = load_one(dec, json_array_get(list, i), depth + 1, err);
        return r;
    }
    bool strip = strcmp(type, "Strip") == 0;
    if (strcmp(type, "Fuse") == 0) {
        dec->fused = true;
        return 0;
    }
    if ((dec->fused || dec->byte_fallback || dec->join == JOIN_BYTES) && !(strip && dec->fused))
        return err_set(err, ERR_MODEL,
                       "tokenizer: decoder '%s' at this place of the Sequence is not "
                       "supported",
                       type);
    if (strip)
        return load_strip(dec, json, err);
    if (strcmp(type, "Replace") == 0)
        return load_replace(dec, json, err);
    if (strcmp(type, "Metaspace") == 0)
        return load_metaspace(dec, json, err);
    if (strcmp(type, "ByteFallback") == 0) {
        dec->byte_fallback = true;
        return 0;
    }
    if (strcmp(type, "ByteLevel") == 0) {
        dec->join = JOIN_BYTES;
        return 0;
    }
    return err_set(err, ERR_MODEL, "tokenizer: decoder '%s' is not supported", type);
}

int tok_decoder_load(struct tok_decoder *dec, json_t *json, const uint8_t *flag, struct err *err)
{
    dec->flag = flag;
    if (!json || json_is_null(json)) {
        dec->join = JOIN_SPACES;
        return 0;
    }
    return load_one(dec, json, 0, err);
}

int tok_decoder_sentencepiece(struct tok_decoder *dec, bool strip, const uint8_t *flag,
                              struct err *err)
{
    dec->flag = flag;
    dec->byte_fallback = dec->fused = true;
    dec->strip_max = strip;
    struct tok_dec_op *op = op_new(dec, DEC_REPLACE, err);
    int r = op ? tok_split_literal(&op->pattern, "\xe2\x96\x81", 3, err) : ERR_LIMIT;
    if (!r && (tok_text_add(&op->content, " ", 1) || tok_text_add(&dec->strip, " ", 1)))
        r = tok_nomem(err);
    return r;
}
