/* wirebuf: slabs that go out with a message and come back when ZeroMQ is done with them, on its own
 * thread. Each size class keeps returned slabs on a shelf of a few places. A place is taken and
 * filled by one atomic exchange, which moves the whole slab or nothing: unlike a linked free list
 * there is no `next` to read from a slab that another thread may have taken meanwhile (the ABA
 * problem), and no lock that an I/O thread could wait for.
 *
 * 1. A slab is owned by whoever holds a reference, or by the place it lies in, never by both.
 * 2. The pool lives while it is open or a slab is out: `n_user` counts both. */
#include "proto/frames.h"

#include "base/arena.h"

#include <stdatomic.h>
#include <stdlib.h>

#define CLASS_MIN_BITS 12 /* 4 KiB */
#define CLASS_MAX_BITS 30 /* LIMIT_PAYLOAD_BYTES */
#define N_CLASS        (CLASS_MAX_BITS - CLASS_MIN_BITS + 1)
#define N_PLACE        32
/* From here on slabs are mapped: the kernel then gives huge pages, whose first touch is cheap. */
#define MAPPED_BYTES ((size_t)2 << 20)
#define HEAD_BYTES   64

_Static_assert(LIMIT_PAYLOAD_BYTES <= 1L << CLASS_MAX_BITS, "the largest frame has a class");

struct wirebuf {
    struct wirebuf_pool *pool;
    size_t capacity;
    int class;
    _Atomic int n_ref;
};
_Static_assert(sizeof(struct wirebuf) <= HEAD_BYTES, "the head lies before the aligned data");

struct wirebuf_pool {
    _Atomic int n_user;
    _Atomic(struct wirebuf *) shelf[N_CLASS][N_PLACE];
};

/* Large slabs are worth gigabytes: fewer of them are kept. */
static int places_of(int class)
{
    int bits = CLASS_MIN_BITS + class;
    return bits <= 20 ? N_PLACE : bits <= 24 ? 8 : 2;
}

static void slab_free(struct wirebuf *b)
{
    if (b->capacity + HEAD_BYTES >= MAPPED_BYTES)
        mem_unmap(b, b->capacity + HEAD_BYTES);
    else
        free(b);
}

static struct wirebuf *slab_new(int class)
{
    size_t capacity = (size_t)1 << (CLASS_MIN_BITS + class), bytes = capacity + HEAD_BYTES;
    struct wirebuf *b = bytes >= MAPPED_BYTES ? mem_map(bytes) : aligned_alloc(HEAD_BYTES, bytes);
    if (!b)
        return NULL;
    b->capacity = capacity;
    b->class = class;
    return b;
}

static void shelves_clear(struct wirebuf_pool *pool)
{
    for (int c = 0; c < N_CLASS; c++)
        for (int i = 0; i < N_PLACE; i++) {
            struct wirebuf *b = atomic_exchange(&pool->shelf[c][i], NULL);
            if (b)
                slab_free(b);
        }
}

static void pool_unuse(struct wirebuf_pool *pool)
{
    if (atomic_fetch_sub(&pool->n_user, 1) != 1)
        return;
    shelves_clear(pool);
    free(pool);
}

struct wirebuf_pool *wirebuf_pool_create(void)
{
    struct wirebuf_pool *pool = calloc(1, sizeof(*pool));
    if (pool)
        atomic_init(&pool->n_user, 1);
    return pool;
}

void wirebuf_pool_destroy(struct wirebuf_pool *pool)
{
    if (!pool)
        return;
    shelves_clear(pool);
    pool_unuse(pool);
}

static int class_of(size_t bytes)
{
    int class = 0;
    while (class < N_CLASS && ((size_t)1 << (CLASS_MIN_BITS + class)) < bytes)
        class ++;
    return class;
}

static struct wirebuf *shelf_take(struct wirebuf_pool *pool, int class)
{
    for (int i = 0, n = places_of(class); i < n; i++) {
        _Atomic(struct wirebuf *) *place = &pool->shelf[class][i];
        if (!atomic_load_explicit(place, memory_order_relaxed))
            continue;
        struct wirebuf *b = atomic_exchange_explicit(place, NULL, memory_order_acq_rel);
        if (b)
            return b;
    }
    return NULL;
}

static int shelf_put(struct wirebuf_pool *pool, struct wirebuf *b)
{
    for (int i = 0, n = places_of(b->class); i < n; i++) {
        struct wirebuf *empty = NULL;
        if (atomic_compare_exchange_strong_explicit(&pool->shelf[b->class][i], &empty, b,
                                                    memory_order_acq_rel, memory_order_relaxed))
            return 1;
    }
    return 0;
}

struct wirebuf *wirebuf_get(struct wirebuf_pool *pool, size_t bytes)
{
    int class = class_of(bytes);
    if (class >= N_CLASS)
        return NULL;
    struct wirebuf *b = shelf_take(pool, class);
    if (!b)
        b = slab_new(class);
    if (!b)
        return NULL;
    b->pool = pool;
    atomic_init(&b->n_ref, 1);
    atomic_fetch_add(&pool->n_user, 1);
    return b;
}

void *wirebuf_data(struct wirebuf *b)
{
    return (unsigned char *)b + HEAD_BYTES;
}

size_t wirebuf_capacity(const struct wirebuf *b)
{
    return b->capacity;
}

void wirebuf_ref(struct wirebuf *b)
{
    atomic_fetch_add_explicit(&b->n_ref, 1, memory_order_relaxed);
}

void wirebuf_unref(struct wirebuf *b)
{
    if (!b || atomic_fetch_sub_explicit(&b->n_ref, 1, memory_order_acq_rel) != 1)
        return;
    struct wirebuf_pool *pool = b->pool;
    if (!shelf_put(pool, b))
        slab_free(b);
    pool_unuse(pool);
}
