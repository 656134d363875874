/* See tok_vocab.h. The table is open addressing at most 0.6 full; a slot holds 32 bits of the hash,
 * so that a probe touches the token's bytes only when it is (nearly surely) the right one. */
#include "model/tok_vocab.h"
#include "base/limits.h"
#include <stdlib.h>

/* GPT-2's table (bytes_to_unicode in openai/gpt-2 src/encoder.py): printable Latin-1 stands for
 * itself, the other 68 bytes for U+0100 and on, in order. */
static bool printable(uint32_t c)
{
    return (c >= 0x21 && c <= 0x7e) || (c >= 0xa1 && c <= 0xac) || (c >= 0xae && c <= 0xff);
}

int byte_of_char(uint32_t cp)
{
    if (cp < 0x100)
        return printable(cp) ? (int)cp : -1;
    if (cp >= 0x144)
        return -1;
    uint32_t i = cp - 0x100; /* the i-th unprintable byte: 0-0x20, 0x7f-0xa0, 0xad */
    return (int)(i <= 0x20 ? i : i < 0x43 ? i - 0x21 + 0x7f : 0xad);
}

uint32_t char_of_byte(unsigned char byte)
{
    if (printable(byte))
        return byte;
    return 0x100u + (byte <= 0x20 ? byte : byte < 0xad ? byte - 0x7fu + 0x21 : 0x43);
}

int64_t bytes_of_chars(char *out, const char *p, size_t n)
{
    int64_t m = 0;
    for (size_t i = 0, len; i < n; i += len) {
        int b = byte_of_char(utf8_get(p + i, &len));
        if (b < 0)
            return -1;
        out[m++] = (char)b;
    }
    return m;
}

static int table_resize(struct tok_table *table, size_t size)
{
    struct tok_slot *slot = malloc(size * sizeof *slot);
    if (!slot)
        return ERR_NOMEM;
    for (size_t i = 0; i < size; i++)
        slot[i] = (struct tok_slot){0, -1};
    free(table->slot);
    table->slot = slot;
    table->mask = size - 1;
    table->n = 0;
    return 0;
}

static size_t table_size(size_t n)
{
    size_t size = 64;
    while (size * 6 / 10 < n)
        size *= 2;
    return size;
}

void tok_vocab_init(struct tok_vocab *vocab, bool byte_space)
{
    memset(vocab, 0, sizeof *vocab);
    vocab->byte_space = byte_space;
    vocab->by_key.seed = vocab->odd.seed = tok_hash_seed();
}

void tok_vocab_fini(struct tok_vocab *vocab)
{
    free(vocab->entry);
    free(vocab->by_key.slot);
    free(vocab->odd.slot);
    tok_text_fini(&vocab->pool);
    memset(vocab, 0, sizeof *vocab);
}

static struct tok_str text_of(const struct tok_vocab *vocab, const struct tok_table *table,
                              int32_t id)
{
    return table == &vocab->odd ? tok_vocab_raw_of(vocab, id) : tok_vocab_key_of(vocab, id);
}

/* find gives the slot where the text is or would go. The table is never full. */
static struct tok_slot *find(const struct tok_vocab *vocab, const struct tok_table *table,
                             const char *p, size_t n, uint32_t *tag)
{
    uint64_t h = tok_hash(p, n, table->seed);
    *tag = (uint32_t)(h >> 32);
    for (size_t i = h & table->mask;; i = (i + 1) & table->mask) {
        struct tok_slot *slot = &table->slot[i];
        if (slot->id < 0)
            return slot;
        if (slot->tag != *tag)
            continue;
        struct tok_str s = text_of(vocab, table, slot->id);
        if (s.n == n && memcmp(s.p, p, n) == 0)
            return slot;
    }
}

static int table_put(struct tok_vocab *vocab, struct tok_table *table, int32_t id)
{
    if (!table->slot || (table->n + 1) * 10 > (table->mask + 1) * 6) {
        struct tok_table old = *table;
        table->slot = NULL;
        if (table_resize(table, old.slot ? (old.mask + 1) * 2 : 64)) {
            *table = old;
            return ERR_NOMEM;
        }
        for (size_t i = 0; old.slot && i <= old.mask; i++)
            if (old.slot[i].id >= 0 && table_put(vocab, table, old.slot[i].id))
                return ERR_NOMEM; /* cannot be: the new table has room */
        free(old.slot);
    }
    struct tok_str s = text_of(vocab, table, id);
    uint32_t tag;
    struct tok_slot *slot = find(vocab, table, s.p, s.n, &tag);
    table->n += slot->id < 0;
    *slot = (struct tok_slot){tag, id};
    return 0;
}

int tok_vocab_reserve(struct tok_vocab *vocab, size_t n, struct err *err)
{
    if (n > LIMIT_VOCAB)
        return err_set(err, ERR_LIMIT, "tokenizer: %zu tokens, at most %d are supported", n,
                       LIMIT_VOCAB);
    if (vocab->by_key.n == 0 && table_resize(&vocab->by_key, table_size(n)))
        return tok_nomem(err);
    if (tok_grow((void **)&vocab->entry, &vocab->cap, n, sizeof *vocab->entry) ||
        tok_text_room(&vocab->pool, n * 16))
        return tok_nomem(err);
    return 0;
}

static int entry_room(struct tok_vocab *vocab, size_t id)
{
    if (tok_grow((void **)&vocab->entry, &vocab->cap, id + 1, sizeof *vocab->entry))
        return ERR_NOMEM;
    while (vocab->n <= id)
        vocab->entry[vocab->n++] = (struct tok_entry){.raw_n = TOK_NO_ENTRY};
    return 0;
}

static int id_check(const struct tok_vocab *vocab, const char *raw, size_t n, int64_t id,
                    struct err *err)
{
    int shown = (int)(n < 64 ? n : 64);
    if (id < 0 || id >= LIMIT_VOCAB)
        return err_set(err, ERR_MODEL, "tokenizer: token '%.*s' has id %lld, ids are 0 to %d",
                       shown, raw, (long long)id, LIMIT_VOCAB - 1);
    if (tok_vocab_has(vocab, id)) {
        struct tok_str other = tok_vocab_raw_of(vocab, (int32_t)id);
        return err_set(err, ERR_MODEL, "tokenizer: tokens '%.*s' and '%.*s' have the same id %lld",
                       (int)(other.n < 64 ? other.n : 64), other.p, shown, raw, (long long)id);
    }
    if (vocab->pool.n + 2 * n > UINT32_MAX / 2)
        return err_set(err, ERR_LIMIT, "tokenizer: the tokens are longer than 2 GiB together");
    return 0;
}

static int vocab_add(struct tok_vocab *vocab, const char *raw, size_t n, int64_t id, bool odd,
                     struct err *err)
{
    int r = id_check(vocab, raw, n, id, err);
    if (r)
        return r;
    if (entry_room(vocab, (size_t)id) || tok_text_room(&vocab->pool, 2 * n + 1))
        return tok_nomem(err);
    struct tok_text *pool = &vocab->pool;
    uint32_t at = (uint32_t)pool->n;
    struct tok_entry e = {.raw = at, .raw_n = (uint32_t)n, .key = at, .key_n = (uint32_t)n};
    if (n)
        memcpy(pool->p + pool->n, raw, n);
    pool->n += n;
    if (vocab->byte_space && !odd) {
        int64_t m = bytes_of_chars(pool->p + pool->n, raw, n);
        odd = m <= 0;
        if (m > 0 && !((size_t)m == n && memcmp(pool->p + pool->n, raw, n) == 0)) {
            e.key = (uint32_t)pool->n;
            e.key_n = (uint32_t)m;
            pool->n += (size_t)m;
        }
    }
    odd = odd || n == 0;
    if (odd)
        e.key_n = 0;
    vocab->entry[id] = e;
    if (table_put(vocab, odd ? &vocab->odd : &vocab->by_key, (int32_t)id))
        return tok_nomem(err);
    return 0;
}

int tok_vocab_add(struct tok_vocab *vocab, const char *raw, size_t n, int64_t id, struct err *err)
{
    return vocab_add(vocab, raw, n, id, false, err);
}

int tok_vocab_add_odd(struct tok_vocab *vocab, const char *raw, size_t n, int64_t id,
                      struct err *err)
{
    return vocab_add(vocab, raw, n, id, true, err);
}

int32_t tok_vocab_key(const struct tok_vocab *vocab, const char *p, size_t n)
{
    uint32_t tag;
    return vocab->by_key.slot && n ? find(vocab, &vocab->by_key, p, n, &tag)->id : -1;
}

/* raw_by_key: the file's spelling turned into a key, then by key. */
static int32_t raw_by_key(const struct tok_vocab *vocab, const char *p, size_t n)
{
    if (!vocab->byte_space)
        return tok_vocab_key(vocab, p, n);
    char stack[256], *key = n <= sizeof stack ? stack : malloc(n);
    if (!key)
        return -1;
    int64_t m = utf8_valid(p, n) == n ? bytes_of_chars(key, p, n) : -1;
    int32_t id = m > 0 ? tok_vocab_key(vocab, key, (size_t)m) : -1;
    if (key != stack)
        free(key);
    return id;
}

int32_t tok_vocab_raw(const struct tok_vocab *vocab, const char *p, size_t n)
{
    uint32_t tag;
    int32_t id = raw_by_key(vocab, p, n);
    return id < 0 && vocab->odd.slot ? find(vocab, &vocab->odd, p, n, &tag)->id : id;
}
