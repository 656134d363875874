/* trace: see trace.h. */
#include "coordinator/trace.h"

#include "base/hash.h"
#include "coordinator/seq.h"

void trace_rows(const struct forward *f, const struct micro *m, int layer, const char *stage,
                const void *data, size_t stride, size_t bytes)
{
    if (f->trace == NULL) {
        return;
    }
    for (int s = 0; s < m->n_span; s++) {
        for (int r = m->span[s].begin; r < m->span[s].end; r++) {
            if (m->pos[r] < m->span_seq[s]->n_told) {
                continue; /* computed again: its line is there */
            }
            char hex[33];
            hash_hex(hash_bytes((const char *)data + (size_t)r * stride, bytes), hex);
            fprintf(f->trace->out, "%llu %d %d %s %s\n", (unsigned long long)m->span_seq[s]->id,
                    m->pos[r], layer, stage, hex);
        }
    }
}
