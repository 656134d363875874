/* See tok_buf.h. The hash folds 128-bit products, 16 bytes a step: keys are words of a few bytes,
 * so what counts is the latency of one step, not bandwidth. */
#include "model/tok_buf.h"
#include "base/arena.h"
#include <stdlib.h>
#include <sys/random.h>
#include <time.h>

__extension__ typedef unsigned __int128 u128;

int tok_nomem(struct err *err)
{
    return err_set(err, ERR_NOMEM, "tokenizer: out of memory; free some or use a smaller text");
}

int tok_grow(void **p, size_t *cap, size_t need, size_t elem)
{
    if (need <= *cap)
        return 0;
    size_t want = *cap < 16 ? 16 : *cap;
    while (want < need) {
        if (want > SIZE_MAX / 2)
            return ERR_NOMEM;
        want += want / 2 + 16;
    }
    size_t bytes;
    if (mul_size(want, elem, &bytes))
        return ERR_NOMEM;
    void *q = realloc(*p, bytes);
    if (!q)
        return ERR_NOMEM;
    *p = q;
    *cap = want;
    return 0;
}

int tok_text_room(struct tok_text *text, size_t more)
{
    size_t need;
    if (add_size(text->n, more, &need))
        return ERR_NOMEM;
    return tok_grow((void **)&text->p, &text->cap, need, 1);
}

int tok_text_add(struct tok_text *text, const void *bytes, size_t n)
{
    if (n == 0)
        return 0;
    if (tok_text_room(text, n))
        return ERR_NOMEM;
    memcpy(text->p + text->n, bytes, n);
    text->n += n;
    return 0;
}

int tok_text_add_cp(struct tok_text *text, uint32_t cp)
{
    if (tok_text_room(text, 4))
        return ERR_NOMEM;
    text->n += utf8_put(text->p + text->n, cp);
    return 0;
}

int tok_ids_add(struct tok_ids *ids, int32_t id)
{
    if (ids->n == ids->cap && tok_grow((void **)&ids->id, &ids->cap, ids->n + 1, sizeof *ids->id))
        return ERR_NOMEM;
    ids->id[ids->n++] = id;
    return 0;
}

int tok_ids_add_n(struct tok_ids *ids, const int32_t *id, size_t n)
{
    if (n == 0)
        return 0;
    if (tok_grow((void **)&ids->id, &ids->cap, ids->n + n, sizeof *ids->id))
        return ERR_NOMEM;
    memcpy(ids->id + ids->n, id, n * sizeof *id);
    ids->n += n;
    return 0;
}

void tok_ids_fini(struct tok_ids *ids)
{
    free(ids->id);
    memset(ids, 0, sizeof *ids);
}

void tok_text_fini(struct tok_text *text)
{
    free(text->p);
    memset(text, 0, sizeof *text);
}

static inline uint64_t load64(const char *p)
{
    uint64_t v;
    memcpy(&v, p, 8);
    return v;
}

static inline uint64_t load32(const char *p)
{
    uint32_t v;
    memcpy(&v, p, 4);
    return v;
}

static inline uint64_t fold(uint64_t a, uint64_t b)
{
    u128 m = (u128)a * b;
    return (uint64_t)m ^ (uint64_t)(m >> 64);
}

uint64_t tok_hash(const char *p, size_t n, uint64_t seed)
{
    const uint64_t k0 = 0x9e3779b97f4a7c15u, k1 = 0xd1b54a32d192ed03u; /* odd, bits well spread */
    uint64_t h = seed ^ n * k0, a, b;
    while (n > 16) {
        h = fold(load64(p) ^ h, load64(p + 8) ^ k1);
        p += 16;
        n -= 16;
    }
    if (n >= 8) {
        a = load64(p);
        b = load64(p + n - 8);
    } else if (n >= 4) {
        a = load32(p);
        b = load32(p + n - 4);
    } else {
        a = n ? (uint64_t)(unsigned char)p[0] << 16 | (uint64_t)(unsigned char)p[n / 2] << 8 |
                    (unsigned char)p[n - 1]
              : 0;
        b = 0;
    }
    return fold(fold(a ^ h, b ^ k1), k0);
}

uint64_t tok_hash_seed(void)
{
    uint64_t seed;
    if (getrandom(&seed, sizeof seed, GRND_NONBLOCK) != (ssize_t)sizeof seed)
        seed = (uint64_t)time(NULL) * 0x9e3779b97f4a7c15u;
    return seed;
}

int utf8_check(const char *text, size_t n)
{
    const unsigned char *p = (const unsigned char *)text;
    unsigned char c = p[0], lo = 0x80, hi = 0xbf;
    if (c < 0x80)
        return 1;
    int len = c >= 0xc2 && c <= 0xdf   ? 2
              : c >= 0xe0 && c <= 0xef ? 3
              : c >= 0xf0 && c <= 0xf4 ? 4
                                       : 0;
    if (!len)
        return -1;
    /* the second byte alone decides over-long forms, surrogates and the end of the code space */
    if (c == 0xe0)
        lo = 0xa0;
    else if (c == 0xed)
        hi = 0x9f;
    else if (c == 0xf0)
        lo = 0x90;
    else if (c == 0xf4)
        hi = 0x8f;
    for (int i = 1; i < len; i++) {
        if ((size_t)i >= n)
            return 0;
        if (p[i] < lo || p[i] > hi)
            return -i;
        lo = 0x80;
        hi = 0xbf;
    }
    return len;
}

size_t utf8_valid(const char *p, size_t n)
{
    size_t i = 0;
    while (i < n) {
        if (n - i >= 8 && !(load64(p + i) & 0x8080808080808080u)) {
            i += 8;
            continue;
        }
        int len = utf8_check(p + i, n - i);
        if (len <= 0)
            return i;
        i += (size_t)len;
    }
    return n;
}

size_t utf8_put(char *p, uint32_t cp)
{
    if (cp < 0x80) {
        p[0] = (char)cp;
        return 1;
    }
    if (cp < 0x800) {
        p[0] = (char)(0xc0 | cp >> 6);
        p[1] = (char)(0x80 | (cp & 0x3f));
        return 2;
    }
    if (cp < 0x10000) {
        p[0] = (char)(0xe0 | cp >> 12);
        p[1] = (char)(0x80 | (cp >> 6 & 0x3f));
        p[2] = (char)(0x80 | (cp & 0x3f));
        return 3;
    }
    p[0] = (char)(0xf0 | cp >> 18);
    p[1] = (char)(0x80 | (cp >> 12 & 0x3f));
    p[2] = (char)(0x80 | (cp >> 6 & 0x3f));
    p[3] = (char)(0x80 | (cp & 0x3f));
    return 4;
}

int utf8_lossy(struct tok_text *out, const char *p, size_t n)
{
    for (size_t i = 0; i < n;) {
        size_t ok = utf8_valid(p + i, n - i);
        if (tok_text_add(out, p + i, ok))
            return ERR_NOMEM;
        i += ok;
        if (i == n)
            break;
        int len = utf8_check(p + i, n - i);
        if (tok_text_add_cp(out, 0xfffd))
            return ERR_NOMEM;
        i += len < 0 ? (size_t)-len : n - i;
    }
    return 0;
}
