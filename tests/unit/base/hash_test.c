/* hash: known answers of XXH3-128 (seed 0), and pieces equal the whole. */
#include "base/hash.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

static void hash_of_nothing_is_the_published_one(void **state)
{
    (void)state;
    char hex[33];
    hash_hex(hash_bytes("", 0), hex);
    assert_string_equal(hex, "99aa06d3014798d86001c324468d497f");
}

static void hash_stream_equals_the_whole(void **state)
{
    (void)state;
    unsigned char data[1500];
    for (size_t i = 0; i < sizeof(data); i++)
        data[i] = (unsigned char)(i * 31 + i / 7);
    struct hash128 whole = hash_bytes(data, sizeof(data));
    for (size_t step = 1; step < 600; step += 37) {
        struct hash_stream *stream = hash_stream_create();
        assert_non_null(stream);
        for (size_t at = 0; at < sizeof(data); at += step)
            hash_stream_update(stream, data + at,
                               at + step < sizeof(data) ? step : sizeof(data) - at);
        hash_stream_update(stream, NULL, 0);
        assert_true(hash_equal(hash_stream_digest(stream), whole));
        assert_true(hash_equal(hash_stream_digest(stream), whole));
        hash_stream_destroy(stream);
    }
    hash_stream_destroy(NULL);
}

static void hash_differs_in_every_bit_of_the_input(void **state)
{
    (void)state;
    unsigned char data[64] = {0};
    struct hash128 zero = hash_bytes(data, sizeof(data));
    for (int bit = 0; bit < 512; bit++) {
        data[bit / 8] ^= (unsigned char)(1 << bit % 8);
        assert_false(hash_equal(hash_bytes(data, sizeof(data)), zero));
        data[bit / 8] ^= (unsigned char)(1 << bit % 8);
    }
    assert_true(hash_equal(hash_bytes(data, sizeof(data)), zero));
}

static void hash_hex_writes_the_high_half_first(void **state)
{
    (void)state;
    char hex[33];
    hash_hex((struct hash128){.lo = 0x1, .hi = 0xfedcba9876543210}, hex);
    assert_string_equal(hex, "fedcba98765432100000000000000001");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(hash_of_nothing_is_the_published_one),
        cmocka_unit_test(hash_stream_equals_the_whole),
        cmocka_unit_test(hash_differs_in_every_bit_of_the_input),
        cmocka_unit_test(hash_hex_writes_the_high_half_first),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
