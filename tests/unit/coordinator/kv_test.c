/* The paged cache: every page of every layer is there, zero and apart, whatever kind of memory it
 * lies on and in whatever order pages come. */
#include "coordinator/kv.h"

#include "base/pages.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#define N_PAGE 70

static unsigned char *at(const struct kv *kv, int layer, int side, int page)
{
    unsigned char *base = side ? kv_v(kv, layer) : kv_k(kv, layer);
    return base + (size_t)page * kv->page_bytes;
}

static void fill(const struct kv *kv, int page)
{
    for (int layer = 0; layer < kv->n_layer; layer++) {
        for (int side = 0; side < 2; side++) {
            unsigned char *p = at(kv, layer, side, page);
            assert_int_equal(p[0] | p[kv->page_bytes - 1], 0);
            memset(p, 1 + (page * 7 + layer * 3 + side) % 250, kv->page_bytes);
        }
    }
}

static void check(const struct kv *kv, int page)
{
    for (int layer = 0; layer < kv->n_layer; layer++) {
        for (int side = 0; side < 2; side++) {
            const unsigned char *p = at(kv, layer, side, page);
            int want = 1 + (page * 7 + layer * 3 + side) % 250;
            assert_int_equal(p[0], want);
            assert_int_equal(p[kv->page_bytes - 1], want);
        }
    }
}

static void pages_come_and_go(int n_kv_head, int d_head)
{
    struct kv kv;
    struct model_desc desc = {.n_layer = 3, .n_kv_head = n_kv_head, .d_head = d_head};
    int32_t page[N_PAGE];
    assert_int_equal(kv_init(&kv, &desc, DTYPE_BF16, N_PAGE, NULL), 0);
    assert_int_equal(kv.n_met, 0);
    for (int n = 0; n < N_PAGE; n += 7) {
        assert_int_equal(kv_take(&kv, 7, page + n), 0);
        for (int i = n; i < n + 7; i++) {
            assert_true(page[i] < kv.n_met && kv.n_met <= N_PAGE);
            fill(&kv, page[i]);
        }
    }
    assert_int_equal(kv_take(&kv, 1, page), ERR_AGAIN);
    assert_int_equal(kv.n_met, N_PAGE);
    for (int i = 0; i < N_PAGE; i++) {
        check(&kv, page[i]);
    }
    kv_give(&kv, N_PAGE, page);
    assert_int_equal(kv_take(&kv, N_PAGE, page), 0);
    kv_give(&kv, N_PAGE, page);
    kv_fini(&kv);
}

/* Some KiB; a divisor of a huge page; none; more than one. */
static void pages_of_all_sizes(void **state)
{
    (void)state;
    pages_come_and_go(1, 16);
    pages_come_and_go(4, 128);
    pages_come_and_go(3, 96);
    pages_come_and_go(16, 1056);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pages_of_all_sizes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
