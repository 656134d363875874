/* arena: memory with one life. Pieces are carved off a block and given back all at once; under ASan
 * each piece has a poisoned red zone behind it. Three lives use it: process, sequence, step. */
#ifndef BASE_ARENA_H
#define BASE_ARENA_H

#include <stddef.h>

struct arena {
    unsigned char *base;
    size_t size, used, peak;
    int owned;
};

/* arena_init reserves `size` bytes (mmap; huge pages asked for). 0 or ERR_NOMEM. */
int arena_init(struct arena *arena, size_t size);
/* arena_init_on carves from memory of the caller, which outlives the arena. Under ASan what is not
 * carved is poisoned until arena_fini, so call that before the memory is used for anything else. */
void arena_init_on(struct arena *arena, void *memory, size_t size);
/* arena_fini gives owned memory back; memory of the caller stays. */
void arena_fini(struct arena *arena);
/* arena_alloc returns 64-byte aligned, uninitialised memory or NULL when the arena is full. */
void *arena_alloc(struct arena *arena, size_t bytes);
/* arena_zalloc: zeroed. */
void *arena_zalloc(struct arena *arena, size_t bytes);
/* arena_reset gives every piece back; the block stays. */
void arena_reset(struct arena *arena);
/* arena_mark / arena_release: give back all pieces carved since the mark. */
size_t arena_mark(const struct arena *arena);
void arena_release(struct arena *arena, size_t mark);

/* mem_map: zeroed anonymous pages, huge ones where the host has them (first touch of 4 KiB pages
 * runs at under 1 GB/s on virtual machines), from all memory nodes in turn. NULL when refused.
 * mem_unmap takes the same size. */
void *mem_map(size_t bytes);
void mem_unmap(void *p, size_t bytes);
/* mul_size, add_size: checked arithmetic on sizes from outside; -1 on overflow, else 0. */
int mul_size(size_t a, size_t b, size_t *out);
int add_size(size_t a, size_t b, size_t *out);

#endif
