/* extract_merges: which tokens byte pair encoding passes through on the way to a kept token.
 *
 * What happens inside the span of a final token does not depend on what stands around it: a pair
 * across its border would have been merged had its turn come first. So encoding the token's own
 * spelling makes the same merges, and if every token that appears in it is kept, the smaller
 * vocabulary makes them too; merges with a part or a result that goes away were never applied. */
#include "tools/extract.h"

#include <stdlib.h>
#include <string.h>

#define SYMBOLS_MAX 4096 /* characters of one token; longer ones exist in no published file */

struct pair {
    uint64_t key; /* left << 32 | right */
    uint32_t rank;
    int32_t id;
};

struct merges {
    json_t *vocab;
    struct pair *pair; /* by key */
    size_t n;
    const char **text; /* [n_token] spelling of each id, or NULL */
    int n_token;
    uint8_t *keep, *done; /* [n_token] */
    int32_t *queue;       /* [n_token] kept, not yet taken apart */
    int n_queue;
    struct err *err;
};

static int by_key(const void *a, const void *b)
{
    uint64_t x = ((const struct pair *)a)->key, y = ((const struct pair *)b)->key;
    return x < y ? -1 : x > y;
}

static int32_t id_of(const struct merges *m, const char *text, size_t n)
{
    const json_t *id = json_object_getn(m->vocab, text, n);
    json_int_t value = json_integer_value(id);
    return id && value >= 0 && value < m->n_token ? (int32_t)value : -1;
}

/* halves: the two parts of a merge, "a b" or ["a", "b"]. */
static int halves(const json_t *merge, const char *part[2], size_t n[2])
{
    if (json_is_string(merge)) {
        const char *text = json_string_value(merge), *space = strchr(text, ' ');
        if (!space)
            return -1;
        part[0] = text;
        n[0] = (size_t)(space - text);
        part[1] = space + 1;
        n[1] = strlen(space + 1);
        return 0;
    }
    for (size_t i = 0; i < 2; i++) {
        const json_t *half = json_array_get(merge, i);
        if (!json_is_string(half))
            return -1;
        part[i] = json_string_value(half);
        n[i] = json_string_length(half);
    }
    return 0;
}

static int pair_read(const struct merges *m, const json_t *merge, uint32_t rank, struct pair *out)
{
    const char *part[2];
    size_t n[2];
    char whole[2 * SYMBOLS_MAX];
    if (halves(merge, part, n) != 0 || n[0] + n[1] > sizeof(whole))
        return -1;
    memcpy(whole, part[0], n[0]);
    memcpy(whole + n[0], part[1], n[1]);
    int32_t left = id_of(m, part[0], n[0]), right = id_of(m, part[1], n[1]);
    *out = (struct pair){(uint64_t)(uint32_t)left << 32 | (uint32_t)right, rank,
                         id_of(m, whole, n[0] + n[1])};
    return left < 0 || right < 0 || out->id < 0 ? -1 : 0;
}

static int merges_init(struct merges *m, json_t *model)
{
    json_t *list = json_object_get(model, "merges"), *merge, *id;
    const char *text;
    size_t i;
    m->vocab = json_object_get(model, "vocab");
    m->pair = calloc(json_array_size(list) + 1, sizeof(*m->pair));
    m->text = calloc((size_t)m->n_token + 1, sizeof(*m->text));
    m->done = calloc((size_t)m->n_token + 1, 1);
    m->queue = calloc((size_t)m->n_token + 1, sizeof(*m->queue));
    if (!m->pair || !m->text || !m->done || !m->queue)
        return err_set(m->err, ERR_NOMEM, "no memory for the merges of %d tokens", m->n_token);
    json_object_foreach(m->vocab, text, id)
    {
        json_int_t value = json_integer_value(id);
        if (value >= 0 && value < m->n_token)
            m->text[value] = text;
    }
    json_array_foreach(list, i, merge)
    {
        if (pair_read(m, merge, (uint32_t)i, &m->pair[m->n]) != 0)
            return err_set(m->err, ERR_MODEL, "tokenizer.json: merge %zu is not of two tokens", i);
        m->n++;
    }
    qsort(m->pair, m->n, sizeof(*m->pair), by_key);
    return 0;
}

static void keep(struct merges *m, int32_t id)
{
    m->keep[id] = 1;
    if (m->done[id])
        return;
    m->done[id] = 1;
    m->queue[m->n_queue++] = id;
}

/* symbols_of: the characters of a token as ids; -1 for a character that is no token of its own (it
 * is written as bytes, and nothing merges with those). Returns how many, or -1 when too many. */
static int symbols_of(const struct merges *m, const char *text, int32_t *out)
{
    int n = 0;
    for (const char *at = text; *at;) {
        size_t len = 1;
        while (((unsigned char)at[len] & 0xc0) == 0x80)
            len++;
        if (n == SYMBOLS_MAX)
            return -1;
        out[n++] = id_of(m, at, len);
        at += len;
    }
    return n;
}

static const struct pair *pair_find(const struct merges *m, int32_t left, int32_t right)
{
    struct pair key = {.key = (uint64_t)(uint32_t)left << 32 | (uint32_t)right};
    return left < 0 || right < 0 ? NULL : bsearch(&key, m->pair, m->n, sizeof(*m->pair), by_key);
}

/* take_apart merges a token's characters as the encoder would and keeps all that appears. */
static int take_apart(struct merges *m, int32_t id)
{
    int32_t symbol[SYMBOLS_MAX];
    int n = m->text[id] ? symbols_of(m, m->text[id], symbol) : 0;
    if (n < 0)
        return err_set(m->err, ERR_MODEL, "tokenizer.json: token %d has more than %d characters",
                       id, SYMBOLS_MAX);
    for (int i = 0; i < n; i++)
        if (symbol[i] >= 0)
            keep(m, symbol[i]);
    for (;;) {
        const struct pair *best = NULL;
        int at = 0;
        for (int i = 0; i + 1 < n; i++) {
            const struct pair *p = pair_find(m, symbol[i], symbol[i + 1]);
            if (p && (!best || p->rank < best->rank)) {
                best = p;
                at = i;
            }
        }
        if (!best)
            return 0;
        symbol[at] = best->id;
        memmove(symbol + at + 1, symbol + at + 2, (size_t)(n - at - 2) * sizeof(*symbol));
        n--;
        keep(m, best->id);
    }
}

int extract_merges(json_t *model, uint8_t *keep_in, int n, struct err *err)
{
    struct merges m = {.n_token = n, .keep = keep_in, .err = err};
    int rc = merges_init(&m, model);
    for (int32_t id = 0; id < n && rc == 0; id++)
        if (keep_in[id])
            keep(&m, id);
    while (rc == 0 && m.n_queue > 0)
        rc = take_apart(&m, m.queue[--m.n_queue]);
    free(m.pair);
    free(m.text);
    free(m.done);
    free(m.queue);
    return rc;
}
