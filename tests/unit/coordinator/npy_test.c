/* The NumPy file that routing comes in, byte by byte. */
#include "coordinator/npy.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static size_t decode(const char *text, unsigned char *out)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    size_t n = 0;
    assert_int_equal(strlen(text) % 4, 0);
    for (; *text != 0; text += 4) {
        uint32_t v = 0;
        int pad = 0;
        for (int i = 0; i < 4; i++) {
            pad += text[i] == '=';
            v = v << 6 | (text[i] == '=' ? 0u : (uint32_t)(strchr(digits, text[i]) - digits));
        }
        for (int i = 0; i < 3 - pad; i++) {
            out[n++] = (unsigned char)(v >> (16 - 8 * i));
        }
    }
    return n;
}

static void check(int n, int n_layer, int top_k, int bytes, const char *head)
{
    unsigned char data[256], file[1024];
    for (int i = 0; i < 256; i++) {
        data[i] = (unsigned char)(255 - i);
    }
    char *text = npy_base64(data, n, n_layer, top_k, bytes);
    assert_non_null(text);
    size_t size = decode(text, file), want = (size_t)(n * n_layer * top_k * bytes);
    free(text);
    assert_memory_equal(file, "\x93NUMPY\x01\x00", 8);
    size_t n_head = 10u + file[8] + 256u * file[9];
    assert_int_equal(n_head % 64, 0);
    assert_memory_equal(file + 10, head, strlen(head));
    assert_int_equal(file[n_head - 1], '\n');
    assert_int_equal(size, n_head + want);
    assert_memory_equal(file + n_head, data, want);
}

static void a_file_says_its_type_and_shape(void **state)
{
    (void)state;
    check(3, 5, 2, 1, "{'descr': '|u1', 'fortran_order': False, 'shape': (3, 5, 2), }");
    check(1, 1, 1, 1, "{'descr': '|u1', 'fortran_order': False, 'shape': (1, 1, 1), }");
    check(2, 3, 4, 2, "{'descr': '<u2', 'fortran_order': False, 'shape': (2, 3, 4), }");
    check(2, 2, 2, 4, "{'descr': '<i4', 'fortran_order': False, 'shape': (2, 2, 2), }");
    check(0, 2, 2, 1, "{'descr': '|u1', 'fortran_order': False, 'shape': (0, 2, 2), }");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_file_says_its_type_and_shape),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
