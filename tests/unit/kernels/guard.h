/* guard: memory for kernel tests that ends exactly at an unmapped page, so that a lane read or
 * written past the end crashes, and that begins behind bytes that are checked when it is freed. */
#ifndef TESTS_UNIT_KERNELS_GUARD_H
#define TESTS_UNIT_KERNELS_GUARD_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h> /* wants the standard headers before it */

#define GUARD_BYTE 0xa5

struct guard {
    unsigned char *map;
    size_t map_bytes, data_at;
};

static inline void *guard_alloc(struct guard *g, size_t bytes)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE), body = (bytes + 64 + page - 1) / page * page;
    g->map_bytes = body + page;
    g->map = mmap(NULL, g->map_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_true(g->map != MAP_FAILED);
    assert_int_equal(mprotect(g->map + body, page, PROT_NONE), 0);
    g->data_at = body - bytes;
    memset(g->map, GUARD_BYTE, body);
    return g->map + g->data_at;
}

static inline void guard_free(struct guard *g)
{
    for (size_t i = 0; i < g->data_at; i++) {
        assert_int_equal(g->map[i], GUARD_BYTE);
    }
    munmap(g->map, g->map_bytes);
}

#endif
