/* slabs: pieces are apart, zero when taken, and given back to the system. */
#include "model/slabs.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#define BYTES ((size_t)3 << 20)
#define N     9

static size_t resident_pages(void *p, size_t bytes)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE), n = bytes / page, sum = 0;
    unsigned char *in = malloc(n);
    assert_non_null(in);
    assert_int_equal(mincore(p, bytes, in), 0);
    for (size_t i = 0; i < n; i++)
        sum += in[i] & 1;
    free(in);
    return sum;
}

static void pieces_are_apart(void **state)
{
    (void)state;
    unsigned char *piece[N];
    struct slabs *s = slabs_create(N, BYTES);
    assert_non_null(s);
    for (int i = 0; i < N; i++) {
        piece[i] = slabs_take(s);
        assert_non_null(piece[i]);
        assert_int_equal((uintptr_t)piece[i] % 4096, 0);
        assert_int_equal(piece[i][0] | piece[i][BYTES - 1], 0);
        memset(piece[i], i + 1, BYTES);
    }
    assert_null(slabs_take(s));
    for (int i = 0; i < N; i++) {
        assert_int_equal(piece[i][0], i + 1);
        assert_int_equal(piece[i][BYTES - 1], i + 1);
        slabs_give(s, piece[i]);
    }
    slabs_destroy(s);
}

static void given_back_is_gone(void **state)
{
    (void)state;
    struct slabs *s = slabs_create(N, BYTES);
    unsigned char *first = slabs_take(s), *second = slabs_take(s);
    memset(first, 1, BYTES);
    memset(second, 2, BYTES);
    assert_true(resident_pages(first, BYTES) > 0);
    slabs_give(s, first);
    assert_int_equal(second[0], 2);
    assert_int_equal(second[BYTES - 1], 2);
    unsigned char *again = slabs_take(s);
    assert_ptr_equal(again, first); /* the lowest */
    for (size_t i = 0; i < BYTES; i++)
        assert_int_equal(again[i], 0);
    slabs_give(s, second);
    slabs_give(s, again);
    slabs_give(s, NULL);
    slabs_destroy(s);
    slabs_destroy(NULL);
}

/* Small and huge ones side by side, in turn at the same place. */
static void pieces_beside(void **state)
{
    (void)state;
    unsigned char *piece[N];
    struct slabs *s = slabs_create(N, BYTES);
    for (int round = 0; round < 3; round++) {
        for (int i = 0; i < N; i++) {
            piece[i] = (i + round) % 2 ? slabs_take_beside(s) : slabs_take(s);
            assert_non_null(piece[i]);
            assert_int_equal(piece[i][0] | piece[i][BYTES / 2] | piece[i][BYTES - 1], 0);
            memset(piece[i], i + 1, BYTES);
        }
        assert_null(slabs_take_beside(s));
        for (int i = 0; i < N; i++) {
            assert_int_equal(piece[i][0], i + 1);
            assert_int_equal(piece[i][BYTES - 1], i + 1);
            slabs_give(s, piece[i]);
        }
    }
    slabs_destroy(s);
}

/* More address space than there is: pieces still come. */
static void without_a_reservation(void **state)
{
    (void)state;
    struct slabs *s = slabs_create(N, (size_t)1 << 46);
    assert_non_null(s);
    slabs_destroy(s);
    s = slabs_create((size_t)1 << 16, (size_t)1 << 32);
    assert_non_null(s);
    unsigned char *p = slabs_take(s);
    assert_non_null(p);
    p[0] = 1;
    slabs_give(s, p);
    p = slabs_take_beside(s);
    assert_non_null(p);
    p[0] = 1;
    slabs_give(s, p);
    slabs_destroy(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pieces_are_apart),
        cmocka_unit_test(given_back_is_gone),
        cmocka_unit_test(pieces_beside),
        cmocka_unit_test(without_a_reservation),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
