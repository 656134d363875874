/* trace: a hash of every row after every stage, one line each: `seq pos layer stage hash`. A line
 * depends on the row alone, not on its batch, so that the sorted traces of two runs that differ are
 * compared down to the first wrong stage, whatever their batching. */
#ifndef COORDINATOR_TRACE_H
#define COORDINATOR_TRACE_H

#include "coordinator/forward.h"
#include <stdio.h>

struct trace {
    FILE *out;
};

/* trace_rows writes a line for each row of m: `bytes` bytes at data + row * stride. */
void trace_rows(const struct forward *f, const struct micro *m, int layer, const char *stage,
                const void *data, size_t stride, size_t bytes);

#endif
