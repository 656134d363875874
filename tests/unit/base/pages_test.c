/* pages: the kernel's lists of nodes and of free blocks, and hints that do no harm. */
#include "base/arena.h"
#include "base/memory.h"
#include "base/pages.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

static void lists_are_read(void **state)
{
    (void)state;
    struct node_set s;
    assert_int_equal(node_set_parse("0\n", &s), 0);
    assert_int_equal(s.count, 1);
    assert_int_equal(s.bit[0], 1);
    assert_int_equal(node_set_parse("0-1,3", &s), 0);
    assert_int_equal(s.count, 3);
    assert_int_equal(s.bit[0], 0xb);
    assert_int_equal(node_set_parse("2,2,0-2", &s), 0);
    assert_int_equal(s.count, 3);
    assert_int_equal(node_set_parse("1023", &s), 0);
    assert_int_equal(s.count, 1);
    assert_true(s.bit[NODES_MAX / 64 - 1] == 1ul << 63);
}

static void other_texts_are_refused(void **state)
{
    (void)state;
    struct node_set s;
    static const char *const bad[] = {"",    "\n",  "x",  "-1",   "1-",     "2-1",
                                      "1,,", "0,x", "1;", "1024", "0-9999", "99999999999999999999"};
    for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++)
        assert_int_equal(node_set_parse(bad[i], &s), -1);
}

static void free_blocks_are_summed(void **state)
{
    (void)state;
    static const uint64_t mib = 1 << 20;
    assert_true(pages_huge_parse("Node 0, zone   Normal 9 9 9 9 9 9 9 9 9 5 3 \n") == 22 * mib);
    assert_true(pages_huge_parse("Node 1, zone    DMA32 0 0 0 0 0 0 0 0 0 1 0 2\n") == 18 * mib);
    assert_true(pages_huge_parse("Node 0, zone Normal 1 2 3\n") == 0);
    assert_true(pages_huge_parse("Node 0, zone Normal\n") == 0);
    assert_true(pages_huge_parse("zone ") == 0);
    assert_true(pages_huge_parse("1 1 1 1 1 1 1 1 1 1 1 1") == 0);
    assert_true(pages_huge_parse("") == 0);
}

static void this_machine(void **state)
{
    (void)state;
    struct node_set s;
    nodes_with_memory(&s);
    assert_true(s.count >= 1);
    size_t bytes = (size_t)8 << 20;
    unsigned char *p = mem_map(bytes);
    assert_non_null(p);
    pages_interleave(p, bytes);
    pages_small(p, bytes / 2, 1);
    pages_small(p, bytes / 4, 0);
    assert_true(pages_huge_ready() % HUGE_PAGE_BYTES == 0);
    memset(p, 7, bytes);
    assert_int_equal(p[bytes - 1], 7);
    assert_true(pages_huge_bytes() % 4096 == 0);
    pages_give(p + 1, bytes - 2); /* but for the pages at both ends */
    assert_int_equal(p[4095], 7);
    assert_int_equal(p[65536], 0);
    assert_int_equal(p[bytes - 1 - 65536], 0);
    assert_int_equal(p[bytes - 1], 7);
    pages_give(p + 1, 1);
    assert_int_equal(p[1], 7);
    mem_unmap(p, bytes);
}

/* A file's pages are mapped before anybody touches them, where the kernel knows how (Linux 5.14).
 */
static void a_file_is_mapped_whole(void **state)
{
    (void)state;
    size_t bytes = (size_t)16 << 20;
    FILE *f = tmpfile();
    assert_non_null(f);
    assert_int_equal(ftruncate(fileno(f), (off_t)bytes), 0);
    assert_int_equal(pwrite(fileno(f), "end", 3, (off_t)bytes - 3), 3);
    unsigned char *p = mmap(NULL, bytes, PROT_READ, MAP_SHARED, fileno(f), 0);
    assert_true(p != MAP_FAILED);
    uint64_t before = memory_resident();
    pages_read(p, bytes);
#ifdef MADV_POPULATE_READ
    if (madvise(p, 0, MADV_POPULATE_READ) == 0)
        assert_true(memory_resident() >= before + bytes / 2);
#endif
    assert_true(memory_resident() + bytes / 2 >= before);
    assert_memory_equal(p + bytes - 3, "end", 3);
    munmap(p, bytes);
    fclose(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lists_are_read),         cmocka_unit_test(other_texts_are_refused),
        cmocka_unit_test(free_blocks_are_summed), cmocka_unit_test(this_machine),
        cmocka_unit_test(a_file_is_mapped_whole),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
