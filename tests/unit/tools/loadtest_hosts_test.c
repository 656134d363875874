/* Who is on which host, as users write it: what is meant, and what is refused with words. */
#include "tools/loadtest_hosts.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

static void hosts_are_what_was_written(void **state)
{
    (void)state;
    struct loadtest_hosts h;
    struct err err = {0};
    assert_int_equal(loadtest_hosts_parse(NULL, 4, 2, &h, &err), 0);
    assert_int_equal(h.n_host, 0);
    loadtest_hosts_free(&h);

    assert_int_equal(loadtest_hosts_parse("16:c0+client,8:w1-2,3:w3+c1", 4, 2, &h, &err), 0);
    assert_int_equal(h.n_host, 3);
    assert_int_equal(h.cpus[0], 16);
    assert_int_equal(h.cpus[2], 3);
    assert_int_equal(h.client, 1);
    const int worker[4] = {-1, 1, 1, 2}, coordinator[2] = {0, 2};
    assert_memory_equal(h.worker, worker, sizeof(worker));
    assert_memory_equal(h.coordinator, coordinator, sizeof(coordinator));
    loadtest_hosts_free(&h);

    assert_int_equal(loadtest_hosts_parse("2:all", 4, 2, &h, &err), 0);
    assert_int_equal(h.n_host, 1);
    assert_int_equal(h.worker[3], 0);
    assert_int_equal(h.coordinator[1], 0);
    assert_int_equal(h.client, 1);
    loadtest_hosts_free(&h);
}

static void nonsense_is_told(void **state)
{
    (void)state;
    static const struct {
        const char *text, *says;
    } bad[] = {{"", "not CPUS:WHO"},         {"2", "not CPUS:WHO"},
               {"0:all", "not CPUS:WHO"},    {"2:all,", NULL},
               {"2:", "none of all"},        {"2:x", "none of all"},
               {"2:w4", "there are 4"},      {"2:w2-1", "there are 4"},
               {"2:w1-", "there are 4"},     {"2:w1x", "there are 4"},
               {"2:w0+w0", "is on host 0"},  {"2:all,1:client", "is on host"},
               {"5000:all", "not CPUS:WHO"}, {"2:w-1", "there are 4"}};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct loadtest_hosts h;
        struct err err = {0};
        int rc = loadtest_hosts_parse(bad[i].text, 4, 2, &h, &err);
        if (!bad[i].says)
            assert_int_equal(rc, 0);
        else if (rc != ERR_USAGE || !strstr(err.text, bad[i].says))
            fail_msg("'%s': %d, %s", bad[i].text, rc, err.text);
        loadtest_hosts_free(&h);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(hosts_are_what_was_written),
        cmocka_unit_test(nonsense_is_told),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
