/* tokenizer: text to token ids and back, from the files that published models ship: Hugging Face
 * tokenizer.json, SentencePiece tokenizer.model, llama2.c tok512.bin. The ids are those of Hugging
 * Face's `tokenizers` 0.22, bit for bit, because a model only knows the ids it was trained on;
 * where that library rests on an old Unicode table, so does this one (tok_unicode.h).
 *
 * Whatever a file asks for and this reader does not know is refused at open, in words: a tokenizer
 * that is nearly right is worse than none. Text is a pointer and a length and may hold NUL; bytes
 * that are not UTF-8 are read as U+FFFD, as Python's errors="replace" does.
 *
 * A tokenizer keeps a word cache and scratch memory, so one thread at a time may encode with it;
 * decoding and all questions only read. */
#ifndef MODEL_TOKENIZER_H
#define MODEL_TOKENIZER_H

#include "base/err.h"
#include <stddef.h>
#include <stdint.h>

struct tokenizer;

enum tokenizer_flag {
    TOK_ADD_SPECIAL = 1,   /* encode: what the post-processor adds (BOS, EOS) */
    TOK_PARSE_SPECIAL = 2, /* encode: "<|im_end|>" in the text is that token, not its letters; text
                            * from a user is encoded without this flag */
    TOK_SKIP_SPECIAL = 4,  /* decode: special tokens yield nothing */
    TOK_CONTINUE = 8       /* decode: the ids continue a text, so a first space is kept */
};

/* Growing arrays that the caller owns: zero them, pass them any number of times, free them once. */
struct tok_ids {
    int32_t *id;
    size_t n, cap;
};
struct tok_text {
    char *p; /* not NUL-terminated */
    size_t n, cap;
};
void tok_ids_fini(struct tok_ids *ids);
void tok_text_fini(struct tok_text *text);

/* tokenizer_open reads `path`: a directory (tokenizer.json, else tokenizer.model, else tok512.bin;
 * tokenizer_config.json, generation_config.json, config.json and chat_template.jinja where they
 * are), or one such file. On failure *tok is unchanged and err says which part is not understood.
 */
int tokenizer_open(const char *path, struct tokenizer **tok, struct err *err);
void tokenizer_close(struct tokenizer *tok);

/* tokenizer_encode appends the ids of text[0..n_bytes) to out. On failure out is as before.
 * ERR_LIMIT: the text is above 1 GiB, or a regular expression of the file gives up on it. */
int tokenizer_encode(struct tokenizer *tok, const char *text, size_t n_bytes, unsigned flags,
                     struct tok_ids *out, struct err *err);
/* tokenizer_decode appends the text of the ids. Ids the vocabulary does not hold yield nothing (a
 * model's embedding table is often padded beyond its vocabulary). The text is valid UTF-8. */
int tokenizer_decode(const struct tokenizer *tok, const int32_t *id, size_t n_id, unsigned flags,
                     struct tok_text *out, struct err *err);

/* detok: the same, id by id, for streams. Bytes come out as soon as they are whole characters; half
 * a character is kept. The concatenation of everything pushed and flushed is tokenizer_decode's
 * text, except after a byte-fallback run that turns invalid behind characters already given out:
 * only the rest of the run then becomes U+FFFD. Valid as long as the tokenizer is open. */
struct detok;
int detok_create(const struct tokenizer *tok, unsigned flags, struct detok **detok,
                 struct err *err);
void detok_destroy(struct detok *detok);
/* detok_push: *bytes (never NULL) and *n are what may be shown now; valid until the next call. */
int detok_push(struct detok *detok, int32_t id, const char **bytes, size_t *n, struct err *err);
/* detok_flush gives the rest, U+FFFD for each broken part, and starts anew. */
int detok_flush(struct detok *detok, const char **bytes, size_t *n, struct err *err);

/* Questions. An id out of range is allowed everywhere. */
/* tokenizer_vocab_size: one more than the highest id, so that it sizes an array by id. */
int32_t tokenizer_vocab_size(const struct tokenizer *tok);
/* tokenizer_id_of: the id of a token as the file spells it ("<|im_end|>", "Ġthe"), or -1. */
int32_t tokenizer_id_of(const struct tokenizer *tok, const char *token, size_t n);
/* tokenizer_token: the file's spelling; NULL for an id without a token. Not NUL-terminated. */
const char *tokenizer_token(const struct tokenizer *tok, int32_t id, size_t *n);
/* tokenizer_token_bytes appends the bytes that this token contributes to a text in mid-stream;
 * they may be a part of a character. What `logprobs.content[].bytes` and grammars need. */
int tokenizer_token_bytes(const struct tokenizer *tok, int32_t id, struct tok_text *out,
                          struct err *err);
int tokenizer_is_special(const struct tokenizer *tok, int32_t id);
/* tokenizer_bos, tokenizer_eos: the id or -1. */
int32_t tokenizer_bos(const struct tokenizer *tok);
int32_t tokenizer_eos(const struct tokenizer *tok);
/* tokenizer_eos_ids: every id that ends a generation (generation_config.json may list several). */
const int32_t *tokenizer_eos_ids(const struct tokenizer *tok, size_t *n);
/* tokenizer_chat_template: the Jinja source, NUL-terminated, or NULL where the model has none. */
const char *tokenizer_chat_template(const struct tokenizer *tok);

#endif
