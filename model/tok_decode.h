/* tok_decode: decoders, ids to text. What the published files compose comes down to: per-token
 * operations (Replace, Strip, Metaspace), then either bytes (ByteLevel), byte tokens (ByteFallback)
 * or plain text, then a Strip of the joined text's beginning. A file that composes otherwise is
 * refused at open. One machine serves whole texts and streams, so that they agree. */
#ifndef MODEL_TOK_DECODE_H
#define MODEL_TOK_DECODE_H

#include "model/tok_added.h"
#include "model/tok_split.h"
#include "model/tok_vocab.h"
#include <jansson.h>

enum tok_join { JOIN_PLAIN, JOIN_SPACES, JOIN_BYTES };
enum tok_dec_kind { DEC_REPLACE, DEC_STRIP, DEC_METASPACE };

struct tok_dec_op {
    enum tok_dec_kind kind;
    struct tok_split pattern; /* Replace; Metaspace: its replacement */
    struct tok_text content;  /* Replace: by what; Strip: which character */
    size_t start, stop;       /* Strip */
    bool prefix;              /* Metaspace: the first token loses its marks */
};
#define TOK_DEC_OPS 8
struct tok_decoder {
    struct tok_dec_op op[TOK_DEC_OPS];
    size_t n;
    enum tok_join join;
    bool byte_fallback, fused;
    struct tok_text strip; /* the character stripped from the joined text's beginning */
    size_t strip_max;
    const uint8_t *flag;
};

/* tok_decoder_load reads the `decoder` of tokenizer.json (null: tokens joined by spaces). */
int tok_decoder_load(struct tok_decoder *dec, json_t *json, const uint8_t *flag, struct err *err);
/* tok_decoder_sentencepiece: U+2581 to space, byte fallback, one leading space stripped. */
int tok_decoder_sentencepiece(struct tok_decoder *dec, bool strip, const uint8_t *flag,
                              struct err *err);
void tok_decoder_fini(struct tok_decoder *dec);

/* A run of the machine: zero it, push tokens, flush. Text is appended to `out`. */
struct tok_decoding {
    bool whole;   /* all ids are known: a byte run is judged as a whole, as the reference does */
    bool begun;   /* a token has been pushed */
    bool started; /* the joined text's strip is done */
    size_t stripped;
    struct tok_text pending, work[2];
};
void tok_decoding_fini(struct tok_decoding *run);
/* tok_decode_push: raw: the token as the file spells it. */
int tok_decode_push(const struct tok_decoder *dec, struct tok_decoding *run, struct tok_str raw,
                    struct tok_text *out, struct err *err);
int tok_decode_flush(const struct tok_decoder *dec, struct tok_decoding *run, struct tok_text *out,
                     struct err *err);
/* tok_decode_bytes appends what one token contributes in mid-text, perhaps half a character. */
int tok_decode_bytes(const struct tok_decoder *dec, struct tok_str raw, struct tok_text *out,
                     struct err *err);

#endif
