/* memory: what the system's files say, and what follows where they are not there. */
#include "base/memory.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

static char root[] = "/tmp/sigmoe-memory-XXXXXX";

static void put(const char *name, const char *text)
{
    char path[256];
    snprintf(path, sizeof(path), "%s/%s", root, name);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    assert_true(fputs(text, f) >= 0);
    assert_int_equal(fclose(f), 0);
}

static int make_root(void **state)
{
    static const char *const folder[] = {"proc",   "proc/self",     "sys",
                                         "sys/fs", "sys/fs/cgroup", "sys/fs/cgroup/a"};
    (void)state;
    assert_non_null(mkdtemp(root));
    for (size_t i = 0; i < sizeof(folder) / sizeof(*folder); i++) {
        char path[256];
        snprintf(path, sizeof(path), "%s/%s", root, folder[i]);
        assert_int_equal(mkdir(path, 0700), 0);
    }
    return 0;
}

static int remove_root(void **state)
{
    static const char *const name[] = {"sys/fs/cgroup/a/memory.max",
                                       "sys/fs/cgroup/a/memory.current",
                                       "sys/fs/cgroup/a/memory.stat",
                                       "sys/fs/cgroup/a",
                                       "sys/fs/cgroup",
                                       "sys/fs",
                                       "sys",
                                       "proc/self/cgroup",
                                       "proc/self",
                                       "proc/meminfo",
                                       "proc",
                                       ""};
    (void)state;
    for (size_t i = 0; i < sizeof(name) / sizeof(*name); i++) {
        char path[256];
        snprintf(path, sizeof(path), "%s/%s", root, name[i]);
        assert_int_equal(remove(path), 0);
    }
    return 0;
}

static void the_least_counts(void **state)
{
    (void)state;
    assert_true(memory_available_in(root) == 0); /* untold */
    put("proc/meminfo", "MemTotal:       900 kB\nMemAvailable:    100 kB\n");
    assert_true(memory_available_in(root) == 102400);
    put("proc/self/cgroup", "5:memory:/b\n0::/a\n");
    assert_true(memory_available_in(root) == 102400);
    put("sys/fs/cgroup/a/memory.max", "max\n");
    put("sys/fs/cgroup/a/memory.current", "70000\n");
    assert_true(memory_available_in(root) == 102400);
    put("sys/fs/cgroup/a/memory.max", "90000\n");
    assert_true(memory_available_in(root) == 20000);
    put("sys/fs/cgroup/a/memory.stat", "anon 60000\nfile 10000\nfile_dirty 5\n");
    assert_true(memory_available_in(root) == 30000);
    put("sys/fs/cgroup/a/memory.max", "60000\n");
    assert_true(memory_available_in(root) == 1); /* nothing, and told */
}

static void this_process(void **state)
{
    (void)state;
    uint64_t before = memory_resident();
    size_t bytes = (size_t)32 << 20;
    char *p = malloc(bytes);
    assert_non_null(p);
    memset(p, 1, bytes);
    assert_true(memory_resident() >= before + bytes / 2);
    free(p);
    assert_true(memory_available() > 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(the_least_counts, make_root, remove_root),
        cmocka_unit_test(this_process),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
