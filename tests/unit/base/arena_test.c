/* arena: alignment, exact fullness (the same with and without ASan), marks, and sizes from outside.
 */
#include "base/arena.h"
#include "base/err.h"
#include "base/sanitizer.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

static void arena_pieces_are_aligned_and_apart(void **state)
{
    (void)state;
    struct arena a;
    assert_int_equal(arena_init(&a, 4096), 0);
    unsigned char *p = arena_alloc(&a, 1), *q = arena_alloc(&a, 65), *r = arena_alloc(&a, 0);
    assert_non_null(p);
    assert_non_null(q);
    assert_non_null(r);
    assert_int_equal((uintptr_t)p % 64, 0);
    assert_int_equal((uintptr_t)q % 64, 0);
    assert_int_equal((uintptr_t)r % 64, 0);
    assert_true(q >= p + 64 && r >= q + 128);
    memset(p, 1, 1);
    memset(q, 2, 65);
    assert_int_equal(*p, 1);
    arena_fini(&a);
}

static void arena_is_full_at_its_size_and_not_before(void **state)
{
    (void)state;
    struct arena a;
    assert_int_equal(arena_init(&a, 200), 0);
    assert_non_null(arena_alloc(&a, 100));
    assert_null(arena_alloc(&a, 73));
    assert_null(arena_alloc(&a, SIZE_MAX));
    assert_null(arena_alloc(&a, SIZE_MAX - 130));
    assert_non_null(arena_alloc(&a, 72));
    assert_null(arena_alloc(&a, 1));
    assert_int_equal(a.peak, 200);
    arena_fini(&a);
    assert_null(arena_alloc(&a, 1));
}

static void arena_reset_and_release_give_pieces_back(void **state)
{
    (void)state;
    struct arena a;
    assert_int_equal(arena_init(&a, 1024), 0);
    void *first = arena_alloc(&a, 64);
    size_t mark = arena_mark(&a);
    void *second = arena_alloc(&a, 512);
    assert_non_null(second);
    arena_release(&a, mark);
    assert_ptr_equal(arena_alloc(&a, 512), second);
    arena_reset(&a);
    assert_ptr_equal(arena_alloc(&a, 64), first);
    assert_int_equal(a.peak, 576);
    arena_fini(&a);
}

static void arena_zalloc_zeroes_used_memory(void **state)
{
    (void)state;
    struct arena a;
    assert_int_equal(arena_init(&a, 256), 0);
    memset(arena_alloc(&a, 128), 0xAB, 128);
    arena_reset(&a);
    unsigned char *p = arena_zalloc(&a, 128), zero[128] = {0};
    assert_memory_equal(p, zero, 128);
    assert_null(arena_zalloc(&a, 1024));
    arena_fini(&a);
}

static void arena_on_unaligned_memory_returns_aligned_pieces_inside(void **state)
{
    (void)state;
    static _Alignas(64) unsigned char memory[256];
    struct arena a;
    arena_init_on(&a, memory + 1, 255);
    unsigned char *p = arena_alloc(&a, 10), *q = arena_alloc(&a, 128);
    assert_ptr_equal(p, memory + 64);
    assert_ptr_equal(q, memory + 128);
    assert_null(arena_alloc(&a, 1));
    arena_fini(&a);
    memset(memory, 0, sizeof(memory));
}

static void arena_init_refuses_what_cannot_be_mapped(void **state)
{
    (void)state;
    struct arena a = {0};
    assert_int_equal(arena_init(&a, SIZE_MAX), ERR_NOMEM);
    assert_int_equal(arena_init(&a, SIZE_MAX / 2 - 5), ERR_NOMEM);
    assert_null(a.base);
    arena_fini(&a);
}

static void mem_map_gives_zeroed_aligned_pages(void **state)
{
    (void)state;
    static const size_t sizes[] = {1, 4096, (2u << 20) - 1, (2u << 20) + 1, 5u << 20};
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        unsigned char *p = mem_map(sizes[i]);
        assert_non_null(p);
        assert_int_equal((uintptr_t)p % (sizes[i] > 2u << 20 ? 2u << 20 : 4096), 0);
        assert_int_equal(p[0] | p[sizes[i] - 1] | p[sizes[i] / 2], 0);
        p[sizes[i] - 1] = 1;
        mem_unmap(p, sizes[i]);
    }
    assert_null(mem_map(0));
    assert_null(mem_map(SIZE_MAX));
    mem_unmap(NULL, 4096);
}

static void checked_arithmetic_refuses_overflow_and_leaves_out(void **state)
{
    (void)state;
    size_t out = 7;
    assert_int_equal(mul_size(SIZE_MAX / 2, 3, &out), -1);
    assert_int_equal(add_size(SIZE_MAX, 1, &out), -1);
    assert_int_equal(out, 7);
    assert_int_equal(mul_size(1u << 16, 1u << 16, &out), 0);
    assert_int_equal(out, 1ull << 32);
    assert_int_equal(add_size(SIZE_MAX - 1, 1, &out), 0);
    assert_true(out == SIZE_MAX);
}

#if SANITIZER_ADDRESS
static void arena_red_zones_are_poisoned_under_asan(void **state)
{
    (void)state;
    struct arena a;
    assert_int_equal(arena_init(&a, 1024), 0);
    char *p = arena_alloc(&a, 64), *q = arena_alloc(&a, 100);
    assert_true(__asan_address_is_poisoned(p + 64));
    assert_false(__asan_address_is_poisoned(p + 63));
    assert_true(__asan_address_is_poisoned(q + 100));
    assert_true(__asan_address_is_poisoned(q - 1));
    arena_reset(&a);
    assert_true(__asan_address_is_poisoned(p));
    arena_fini(&a);
}
#endif

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(arena_pieces_are_aligned_and_apart),
        cmocka_unit_test(arena_is_full_at_its_size_and_not_before),
        cmocka_unit_test(arena_reset_and_release_give_pieces_back),
        cmocka_unit_test(arena_zalloc_zeroes_used_memory),
        cmocka_unit_test(arena_on_unaligned_memory_returns_aligned_pieces_inside),
        cmocka_unit_test(arena_init_refuses_what_cannot_be_mapped),
        cmocka_unit_test(mem_map_gives_zeroed_aligned_pages),
        cmocka_unit_test(checked_arithmetic_refuses_overflow_and_leaves_out),
#if SANITIZER_ADDRESS
        cmocka_unit_test(arena_red_zones_are_poisoned_under_asan),
#endif
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
