/* slabs: see slabs.h. */
#include "model/slabs.h"
#include "base/arena.h"
#include "base/pages.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

struct slabs {
    unsigned char *base; /* NULL: pieces are mappings of their own */
    size_t n, bytes, stride;
    _Atomic unsigned char *small; /* [n] the piece has been asked for without huge pages */
    atomic_flag taken[];          /* [n] */
};

struct slabs *slabs_create(size_t n, size_t bytes)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE), wide, all;
    struct slabs *s = calloc(1, sizeof(*s) + n * sizeof(*s->taken));
    if (s)
        s->small = calloc(n + 1, sizeof(*s->small));
    if (!s || !s->small) {
        free(s);
        return NULL;
    }
    s->n = n;
    s->bytes = bytes;
    for (size_t i = 0; i < n; i++)
        atomic_flag_clear(&s->taken[i]);
    if (add_size(bytes, page - 1, &wide) == 0) {
        s->stride = wide & ~(page - 1);
        if (mul_size(s->stride, n, &all) == 0)
            s->base = mem_map(all);
    }
    return s;
}

void slabs_destroy(struct slabs *s)
{
    if (!s)
        return;
    if (s->base)
        mem_unmap(s->base, s->stride * s->n);
    free(s->small);
    free(s);
}

static size_t piece_index(const struct slabs *s, const void *piece)
{
    return (size_t)((const unsigned char *)piece - s->base) / s->stride;
}

void *slabs_take(struct slabs *s)
{
    if (!s->base)
        return mem_map(s->bytes);
    for (size_t i = 0; i < s->n; i++)
        if (!atomic_flag_test_and_set(&s->taken[i]))
            return s->base + i * s->stride;
    return NULL;
}

void *slabs_take_beside(struct slabs *s)
{
    void *piece = slabs_take(s);
    if (!piece || pages_huge_ready() >= HUGE_SPARE_BYTES + s->bytes)
        return piece;
    pages_small(piece, s->base ? s->stride : s->bytes, 1);
    if (s->base)
        s->small[piece_index(s, piece)] = 1;
    return piece;
}

void slabs_give(struct slabs *s, void *piece)
{
    if (!piece)
        return;
    if (!s->base) {
        mem_unmap(piece, s->bytes);
        return;
    }
    size_t i = piece_index(s, piece);
    madvise(piece, s->stride, MADV_DONTNEED);
    if (s->small[i])
        pages_small(piece, s->stride, 0);
    s->small[i] = 0;
    atomic_flag_clear(&s->taken[i]);
}
