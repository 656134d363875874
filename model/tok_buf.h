/* tok_buf: growing memory with checked sizes, and UTF-8 a character at a time. Everything in the
 * tokenizer that grows with the text or the file grows through here, so overflow is checked once.
 */
#ifndef MODEL_TOK_BUF_H
#define MODEL_TOK_BUF_H

#include "model/tokenizer.h"
#include <stdbool.h>
#include <string.h>

/* A piece of someone else's text. */
struct tok_str {
    const char *p;
    size_t n;
};

/* tok_grow makes room for `need` elements of `elem` bytes; 0, or ERR_NOMEM with *p unchanged. */
int tok_grow(void **p, size_t *cap, size_t need, size_t elem);
int tok_text_room(struct tok_text *text, size_t more);
int tok_text_add(struct tok_text *text, const void *bytes, size_t n);
int tok_text_add_cp(struct tok_text *text, uint32_t cp);
int tok_ids_add(struct tok_ids *ids, int32_t id);
int tok_ids_add_n(struct tok_ids *ids, const int32_t *id, size_t n);
/* tok_nomem: the one sentence for "no memory". */
int tok_nomem(struct err *err);

/* tok_hash: of a byte string, for tables in memory only (seeded per table, never stored). */
uint64_t tok_hash(const char *p, size_t n, uint64_t seed);
/* tok_hash_seed: unpredictable, so that a file cannot be made to collide. */
uint64_t tok_hash_seed(void);

/* utf8_check looks at one character of untrusted bytes. > 0: its length. 0: a proper beginning that
 * needs more bytes than there are. < 0: that many bytes are invalid and become one U+FFFD (the
 * "maximal subpart" of Unicode chapter 3, which Rust and Python follow). n > 0. */
int utf8_check(const char *p, size_t n);
/* utf8_valid: the length of the valid part at the start. */
size_t utf8_valid(const char *p, size_t n);
/* utf8_put writes 1 to 4 bytes. */
size_t utf8_put(char *p, uint32_t cp);
/* utf8_lossy appends p with every invalid part as U+FFFD. */
int utf8_lossy(struct tok_text *out, const char *p, size_t n);

/* utf8_get reads one character of valid text and its length. */
static inline uint32_t utf8_get(const char *text, size_t *len)
{
    const unsigned char *p = (const unsigned char *)text;
    if (p[0] < 0x80) {
        *len = 1;
        return p[0];
    }
    if (p[0] < 0xe0) {
        *len = 2;
        return (uint32_t)(p[0] & 0x1f) << 6 | (p[1] & 0x3f);
    }
    if (p[0] < 0xf0) {
        *len = 3;
        return (uint32_t)(p[0] & 0x0f) << 12 | (uint32_t)(p[1] & 0x3f) << 6 | (p[2] & 0x3f);
    }
    *len = 4;
    return (uint32_t)(p[0] & 0x07) << 18 | (uint32_t)(p[1] & 0x3f) << 12 |
           (uint32_t)(p[2] & 0x3f) << 6 | (p[3] & 0x3f);
}
/* utf8_len: the length of the character that begins with byte c, in valid text. */
static inline size_t utf8_len(char c)
{
    unsigned char u = (unsigned char)c;
    return u < 0x80 ? 1 : u < 0xe0 ? 2 : u < 0xf0 ? 3 : 4;
}
/* utf8_before: where the character before p[at] begins; at > 0, valid text. */
static inline size_t utf8_before(const char *p, size_t at)
{
    do
        at--;
    while (at > 0 && ((unsigned char)p[at] & 0xc0) == 0x80);
    return at;
}

#endif
