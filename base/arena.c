/* arena: a bump allocator over one mapping. Offsets are logical: under ASan an owned arena maps
 * twice its size and puts logical offset o at byte 2 * o, so that every piece has a poisoned zone
 * as long as itself behind it while the arena is full at exactly the same piece as in an ordinary
 * build. Memory of the caller is not ours to double; there only the rest behind a piece is
 * poisoned. */
#include "base/arena.h"
#include "base/err.h"
#include "base/pages.h"
#include "base/sanitizer.h"

#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define OWNED_SCALE (SANITIZER_ADDRESS ? 2 : 1)
#define ALIGN       ((size_t)64)

int mul_size(size_t a, size_t b, size_t *out)
{
    size_t product;
    if (__builtin_mul_overflow(a, b, &product))
        return -1;
    *out = product;
    return 0;
}

int add_size(size_t a, size_t b, size_t *out)
{
    size_t sum;
    if (__builtin_add_overflow(a, b, &sum))
        return -1;
    *out = sum;
    return 0;
}

/* mapped_bytes rounds to whole pages, the unit in which mmap and munmap count; 0 when that
 * overflows or nothing is asked for. */
static size_t mapped_bytes(size_t bytes)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    size_t sum;
    if (add_size(bytes, page - 1, &sum))
        return 0;
    return sum & ~(page - 1);
}

/* map_aligned maps more than is needed and gives the ends back: a huge page can only lie on a
 * multiple of its size, and not every kernel places mappings so. */
static void *map_aligned(size_t bytes)
{
    size_t wide;
    if (add_size(bytes, HUGE_PAGE_BYTES, &wide))
        return NULL;
    unsigned char *raw = mmap(NULL, wide, PROT_READ | PROT_WRITE,
                              MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (raw == MAP_FAILED)
        return NULL;
    size_t head = (HUGE_PAGE_BYTES - (uintptr_t)raw % HUGE_PAGE_BYTES) % HUGE_PAGE_BYTES;
    size_t tail = HUGE_PAGE_BYTES - head;
    if (head)
        munmap(raw, head);
    if (tail)
        munmap(raw + head + bytes, tail);
    /* A hint: a host without huge pages refuses it and everything still works, slower. */
    madvise(raw + head, bytes, MADV_HUGEPAGE);
    pages_interleave(raw + head, bytes);
    return raw + head;
}

void *mem_map(size_t bytes)
{
    size_t whole = mapped_bytes(bytes);
    if (whole == 0)
        return NULL;
    if (whole >= HUGE_PAGE_BYTES)
        return map_aligned(whole);
    void *p = mmap(NULL, whole, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return p == MAP_FAILED ? NULL : p;
}

void mem_unmap(void *p, size_t bytes)
{
    if (p)
        munmap(p, mapped_bytes(bytes));
}

static size_t arena_scale(const struct arena *arena)
{
    return arena->owned ? OWNED_SCALE : 1;
}

int arena_init(struct arena *arena, size_t size)
{
    size_t bytes;
    if (mul_size(size, OWNED_SCALE, &bytes))
        return ERR_NOMEM;
    unsigned char *base = mem_map(bytes);
    if (!base)
        return ERR_NOMEM;
    *arena = (struct arena){.base = base, .size = size, .owned = 1};
    POISON(base, bytes);
    return 0;
}

void arena_init_on(struct arena *arena, void *memory, size_t size)
{
    *arena = (struct arena){.base = memory, .size = size, .owned = 0};
    POISON(memory, size);
}

void arena_fini(struct arena *arena)
{
    if (!arena->base)
        return;
    UNPOISON(arena->base, arena->size * arena_scale(arena));
    if (arena->owned)
        mem_unmap(arena->base, arena->size * OWNED_SCALE);
    *arena = (struct arena){0};
}

void *arena_alloc(struct arena *arena, size_t bytes)
{
    /* Memory of the caller may begin anywhere; it is the address that must be aligned. */
    size_t off = (uintptr_t)arena->base % ALIGN;
    size_t begin = ((arena->used + off + ALIGN - 1) & ~(ALIGN - 1)) - off;
    size_t end;
    if (!arena->base || add_size(begin, bytes, &end) || end > arena->size)
        return NULL;
    unsigned char *piece = arena->base + begin * arena_scale(arena);
    arena->used = end;
    if (arena->used > arena->peak)
        arena->peak = arena->used;
    UNPOISON(piece, bytes);
    return piece;
}

void *arena_zalloc(struct arena *arena, size_t bytes)
{
    void *piece = arena_alloc(arena, bytes);
    if (piece)
        memset(piece, 0, bytes);
    return piece;
}

void arena_reset(struct arena *arena)
{
    arena_release(arena, 0);
}

size_t arena_mark(const struct arena *arena)
{
    return arena->used;
}

void arena_release(struct arena *arena, size_t mark)
{
    if (!arena->base || mark > arena->used)
        return;
    size_t scale = arena_scale(arena);
    POISON(arena->base + mark * scale, (arena->size - mark) * scale);
    arena->used = mark;
}
