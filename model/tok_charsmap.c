/* SentencePiece's precompiled character map: the normalisation rules of a model (NFKC and more) as
 * a double-array trie over byte strings whose leaves point into a block of NUL-terminated
 * replacements. A grapheme of fewer than six bytes is looked up whole, else character by character,
 * and the shortest entry that is a prefix of it wins: odd, but what the reference does.
 *
 * A unit of the trie: bits 0-7 label, 8 has-leaf, 9 offset is times 256, 10-30 offset, 31 is a
 * value. The file is untrusted, so every step checks its index. */
#include "model/tok_norm.h"
#include <utf8proc.h>

#define GRAPHEME_MAX 6

static uint32_t unit_at(const struct tok_text *map, size_t i)
{
    uint32_t v;
    memcpy(&v, map->p + 4 + 4 * i, 4);
    return v;
}

static size_t offset_of(uint32_t unit)
{
    return (size_t)(unit >> 10) << ((unit & 1u << 9) >> 6);
}

int tok_charsmap_check(const char *map, size_t n, struct err *err)
{
    uint32_t bytes = 0;
    if (n >= 4)
        memcpy(&bytes, map, 4);
    if (n < 8 || bytes < 4 || bytes % 4 || bytes > n - 4)
        return err_set(err, ERR_MODEL,
                       "tokenizer: a precompiled_charsmap of %zu bytes says its trie has "
                       "%u; the file is damaged",
                       n, bytes);
    return 0;
}

/* find: the replacement for what key[0..n) begins with. false: none. */
static bool find(const struct tok_text *map, const char *key, size_t n, struct tok_str *out)
{
    uint32_t bytes;
    memcpy(&bytes, map->p, 4);
    size_t n_unit = bytes / 4, n_text = map->n - 4 - bytes;
    const char *text = map->p + 4 + bytes;
    size_t at = offset_of(unit_at(map, 0));
    for (size_t i = 0; i < n && key[i]; i++) {
        at ^= (unsigned char)key[i];
        if (at >= n_unit)
            return false;
        uint32_t unit = unit_at(map, at);
        if ((unit & (1u << 31 | 0xff)) != (unsigned char)key[i])
            return false;
        at ^= offset_of(unit);
        if (!(unit >> 8 & 1))
            continue;
        size_t value = at < n_unit ? unit_at(map, at) & ~(1u << 31) : n_text;
        if (value >= n_text)
            return false;
        const char *end = memchr(text + value, 0, n_text - value);
        *out = (struct tok_str){text + value, end ? (size_t)(end - text) - value : n_text - value};
        return true;
    }
    return false;
}

static int grapheme(const struct tok_text *map, const char *p, size_t n, struct tok_text *out)
{
    struct tok_str to;
    if (n < GRAPHEME_MAX && find(map, p, n, &to))
        return utf8_lossy(out, to.p, to.n);
    for (size_t i = 0, len; i < n; i += len) {
        len = utf8_len(p[i]);
        int r = find(map, p + i, len, &to) ? utf8_lossy(out, to.p, to.n)
                                           : tok_text_add(out, p + i, len);
        if (r)
            return r;
    }
    return 0;
}

int tok_charsmap_run(const struct tok_text *map, struct tok_str in, struct tok_text *out)
{
    utf8proc_int32_t state = 0;
    size_t begin = 0, len;
    uint32_t last = 0;
    for (size_t i = 0; i < in.n; i += len) {
        uint32_t cp = utf8_get(in.p + i, &len);
        bool cut = i > 0 && utf8proc_grapheme_break_stateful((utf8proc_int32_t)last,
                                                             (utf8proc_int32_t)cp, &state);
        if (cut) {
            if (grapheme(map, in.p + begin, i - begin, out))
                return ERR_NOMEM;
            begin = i;
        }
        last = cp;
    }
    return grapheme(map, in.p + begin, in.n - begin, out);
}
