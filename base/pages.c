/* pages: see pages.h. */
#include "base/pages.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#define NODES_FILE "/sys/devices/system/node/has_memory"
#define HUGE_ORDER 9 /* of pages of 4 KiB */
#define PAGE_BYTES 4096
#define WORD_BITS  (8 * sizeof(unsigned long))
/* linux/mempolicy.h, which not every system has installed. */
#define POLICY_INTERLEAVE 3

static void node_add(struct node_set *s, long node)
{
    unsigned long *word = &s->bit[(size_t)node / WORD_BITS], bit = 1ul << (size_t)node % WORD_BITS;
    s->count += (*word & bit) == 0;
    *word |= bit;
}

int node_set_parse(const char *text, struct node_set *out)
{
    memset(out, 0, sizeof(*out));
    for (const char *p = text;;) {
        char *end;
        if (*p < '0' || *p > '9')
            return -1;
        long first = strtol(p, &end, 10), last = first;
        if (*end == '-') {
            p = end + 1;
            if (*p < '0' || *p > '9')
                return -1;
            last = strtol(p, &end, 10);
        }
        if (first > last || last >= NODES_MAX)
            return -1;
        for (long node = first; node <= last; node++)
            node_add(out, node);
        if (*end == '\0' || *end == '\n')
            return 0;
        if (*end != ',')
            return -1;
        p = end + 1;
    }
}

void nodes_with_memory(struct node_set *out)
{
    char line[4096];
    FILE *f = fopen(NODES_FILE, "r");
    int found = f && fgets(line, sizeof(line), f) && node_set_parse(line, out) == 0;
    if (f)
        fclose(f);
    if (!found)
        node_set_parse("0", out);
}

void pages_interleave(void *p, size_t bytes)
{
    struct node_set nodes;
    nodes_with_memory(&nodes);
    if (nodes.count > 1)
        syscall(SYS_mbind, p, bytes, POLICY_INTERLEAVE, nodes.bit, (unsigned long)NODES_MAX + 1,
                0ul);
}

void pages_small(void *p, size_t bytes, int small)
{
    /* Refused where the kernel has no huge pages, and then there is nothing to ask for. */
    madvise(p, bytes, small ? MADV_NOHUGEPAGE : MADV_HUGEPAGE);
}

void pages_touch(void *p, size_t bytes)
{
#ifdef MADV_POPULATE_WRITE
    size_t page = (size_t)sysconf(_SC_PAGESIZE), head = (uintptr_t)p % page;
    if (bytes > 0)
        madvise((unsigned char *)p - head, bytes + head, MADV_POPULATE_WRITE);
#else
    (void)p;
    (void)bytes;
#endif
}

void pages_give(void *p, size_t bytes)
{
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE), begin = (uintptr_t)p, end = begin + bytes;
    begin = (begin + page - 1) / page * page;
    end = end / page * page;
    if (begin < end)
        madvise((unsigned char *)p + (begin - (uintptr_t)p), end - begin, MADV_DONTNEED);
}

void pages_read(void *p, size_t bytes)
{
#ifdef MADV_POPULATE_READ
    if (madvise(p, bytes, MADV_POPULATE_READ) == 0)
        return;
#endif
    madvise(p, bytes, MADV_WILLNEED);
}

/* Node 0, zone   Normal   4381   2710 ...: how many free blocks of 1, 2, 4 ... pages. */
uint64_t pages_huge_parse(const char *line)
{
    uint64_t bytes = 0;
    const char *p = strstr(line, "zone ");
    p = p ? p + strlen("zone ") : "";
    p += strspn(p, " ");
    p += strcspn(p, " ");
    for (unsigned order = 0;; order++) {
        char *end;
        uint64_t n = strtoull(p, &end, 10);
        if (end == p)
            return bytes;
        p = end;
        if (order >= HUGE_ORDER && order < 32)
            bytes += n * ((uint64_t)PAGE_BYTES << order);
    }
}

uint64_t pages_huge_ready(void)
{
    char line[512];
    uint64_t bytes = 0;
    FILE *f = sysconf(_SC_PAGESIZE) == PAGE_BYTES ? fopen("/proc/buddyinfo", "r") : NULL;
    while (f && fgets(line, sizeof(line), f))
        bytes += pages_huge_parse(line);
    if (f)
        fclose(f);
    return bytes;
}

uint64_t pages_huge_bytes(void)
{
    char line[256];
    unsigned long long kib = 0;
    FILE *f = fopen("/proc/self/smaps_rollup", "r");
    while (f && fgets(line, sizeof(line), f))
        if (sscanf(line, "AnonHugePages: %llu kB", &kib) == 1)
            break;
    if (f)
        fclose(f);
    return (uint64_t)kib * 1024;
}
