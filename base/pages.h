/* pages: what this process's memory is made of: huge pages, and nodes of a machine whose memory is
 * not the same distance from every CPU (NUMA). Read from /sys and /proc; where those are not there,
 * one node and nothing huge. */
#ifndef BASE_PAGES_H
#define BASE_PAGES_H

#include <stddef.h>
#include <stdint.h>

#define NODES_MAX 1024
struct node_set {
    unsigned long bit[NODES_MAX / (8 * sizeof(unsigned long))];
    int count;
};

/* node_set_parse reads the kernel's form of a list, "0-1,3"; -1 for any other text. */
int node_set_parse(const char *text, struct node_set *out);
/* nodes_with_memory: at least one. */
void nodes_with_memory(struct node_set *out);
/* pages_interleave: pages of [p, p + bytes) that are not touched yet will come from all nodes in
 * turn. Threads share work out as they get to it, so no thread owns a piece of weights; spread
 * evenly, all of them have the bandwidth of all nodes. A hint: nothing with one node, or where the
 * system refuses. */
void pages_interleave(void *p, size_t bytes);
/* pages_small: no huge pages in [p, p + bytes) from now on, or huge ones again. For memory whose
 * first touch somebody waits for: a huge page is two megabytes cleared at once, and where none lies
 * ready the system makes one by moving pages that are in use, its own and other processes'. Who
 * touches such a page meanwhile waits for the thread that moves it, however seldom that one runs.
 */
#define HUGE_PAGE_BYTES ((size_t)2 << 20)
/* So much must lie ready besides: others want huge pages too, and not every free one may be had. */
#define HUGE_SPARE_BYTES ((uint64_t)256 << 20)
void pages_small(void *p, size_t bytes, int small);
/* pages_touch: [p, p + bytes) is there when this returns, with what it holds, so that nobody waits
 * for its first touch later. A hint: nothing where the system does not know how. */
void pages_touch(void *p, size_t bytes);
/* pages_read: the same for a file's mapping [p, p + bytes) that is only read; `p` begins a page.
 * Where the system does not know how, it is at least told that the file will be needed. */
void pages_read(void *p, size_t bytes);
/* pages_give: what lies in the whole pages of [p, p + bytes) is forgotten, and the system has their
 * memory; the address space stays. */
void pages_give(void *p, size_t bytes);
/* pages_huge_ready: bytes of memory that lie ready as huge pages; 0 where the system does not tell.
 * pages_huge_parse: of a line of /proc/buddyinfo. */
uint64_t pages_huge_ready(void);
uint64_t pages_huge_parse(const char *line);
/* pages_huge_bytes: how much of this process's own memory lies on huge pages now. */
uint64_t pages_huge_bytes(void);

#endif
