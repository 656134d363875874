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
/* pages_huge_bytes: how much of this process's own memory lies on huge pages now. */
uint64_t pages_huge_bytes(void);

#endif
