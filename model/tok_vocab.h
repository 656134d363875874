/* tok_vocab: the tokens of a vocabulary, by id and by text. Each has two spellings: the file's
 * (`raw`) and the bytes the model's algorithm works on (`key`). They differ in byte-level
 * vocabularies, whose files write each byte as a printable character (GPT-2's table: "Ġ" is a
 * space): there the key is the bytes themselves, so that encoding never converts a text to that
 * alphabet. A byte-level token with a character outside the alphabet has no key and is never the
 * result of merging, as in the reference. Tokens are added once, at open; then all is read-only. */
#ifndef MODEL_TOK_VOCAB_H
#define MODEL_TOK_VOCAB_H

#include "model/tok_buf.h"
#include "model/tok_json.h"

struct tok_entry {
    uint32_t raw, key;     /* offsets into the pool */
    uint32_t raw_n, key_n; /* raw_n == UINT32_MAX: no token has this id */
};
#define TOK_NO_ENTRY UINT32_MAX

struct tok_slot {
    uint32_t tag; /* upper half of the hash */
    int32_t id;   /* -1: free */
};
struct tok_table {
    struct tok_slot *slot;
    size_t n, mask;
    uint64_t seed;
};

struct tok_vocab {
    bool byte_space; /* keys are bytes */
    struct tok_entry *entry;
    size_t n, cap; /* ids are < n */
    struct tok_text pool;
    struct tok_table by_key, odd; /* odd: tokens without a key, by raw */
};

void tok_vocab_init(struct tok_vocab *vocab, bool byte_space);
void tok_vocab_fini(struct tok_vocab *vocab);
/* tok_vocab_reserve sizes the tables for n tokens before the first tok_vocab_add; adding more works
 * and costs a rehash. */
int tok_vocab_reserve(struct tok_vocab *vocab, size_t n, struct err *err);
/* tok_vocab_add: id < LIMIT_VOCAB and not taken; raw is valid UTF-8. A second token with the same
 * text takes the text's id over, as in the reference. tok_vocab_add_odd: a token that is not the
 * model's, so that encoding never finds it by key (an added token). */
int tok_vocab_add(struct tok_vocab *vocab, const char *raw, size_t n, int64_t id, struct err *err);
int tok_vocab_add_odd(struct tok_vocab *vocab, const char *raw, size_t n, int64_t id,
                      struct err *err);

/* tok_vocab_key: the id by key, or -1. tok_vocab_raw: the id by the file's spelling, or -1. */
int32_t tok_vocab_key(const struct tok_vocab *vocab, const char *p, size_t n);
int32_t tok_vocab_raw(const struct tok_vocab *vocab, const char *p, size_t n);
/* tok_vocab_has: id is a token's. */
static inline bool tok_vocab_has(const struct tok_vocab *vocab, int64_t id)
{
    return id >= 0 && (uint64_t)id < vocab->n && vocab->entry[id].raw_n != TOK_NO_ENTRY;
}
static inline struct tok_str tok_vocab_raw_of(const struct tok_vocab *vocab, int32_t id)
{
    return (struct tok_str){vocab->pool.p + vocab->entry[id].raw, vocab->entry[id].raw_n};
}
static inline struct tok_str tok_vocab_key_of(const struct tok_vocab *vocab, int32_t id)
{
    return (struct tok_str){vocab->pool.p + vocab->entry[id].key, vocab->entry[id].key_n};
}

/* byte_of_char: GPT-2's alphabet: the byte that a code point stands for, or -1. char_of_byte is its
 * inverse. bytes_of_chars converts a whole token; the number of bytes, or -1. */
int byte_of_char(uint32_t cp);
uint32_t char_of_byte(unsigned char byte);
int64_t bytes_of_chars(char *out, const char *p, size_t n);

#endif
