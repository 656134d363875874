/* pack_job: one tensor of the checkpoint on its way into memory: rows of a packed matrix, or a
 * vector widened to f32. Inside the room only; dense weights and experts are both lists of such
 * jobs. */
#ifndef MODEL_PACK_JOB_H
#define MODEL_PACK_JOB_H

#include "base/report.h"
#include "base/team.h"
#include "kernels/kernels.h"
#include "model/checkpoint.h"
#include "model/quant.h"

/* pack_job: rows [src_row, src_row + n_row) of src [*, k] become rows [row, row + n_row) of `data`,
 * a packed [n, k]. k 0: src [n_row] becomes f32 elements [row, row + n_row) of `data`. */
struct pack_job {
    const struct tensor *src; /* of integers: the packed ones */
    void *data;
    enum dtype dtype;
    int n, k, row, n_row, src_row;
    struct quant_source quant; /* packed NULL: src is floats. dtype I8, I4: kept as integers in
                                  groups of quant.group; F32: made floats */
};

/* pack_jobs_run does the jobs one after another, the rows of each shared out over the team (NULL:
 * the caller alone), reads ahead for the next one, lets the file's pages go and moves the progress
 * bar (NULL: none). `data` is zeroed memory of mem_map. ck NULL: the tensors lie in memory.
 * ERR_NOMEM: no room for a row of integers. */
int pack_jobs_run(const struct pack_job *job, int n_job, const struct checkpoint *ck,
                  struct team *team, struct progress *progress, struct err *err);
/* pack_jobs_hash: of where the jobs put what, from `base` on, and of the layout their packing has
 * in this build on this CPU: what must agree before a slab that was packed elsewhere is used here.
 * `layout` is pack_layout_hash, which packs a few rows of every kind. 0: no memory. */
uint64_t pack_jobs_hash(const struct pack_job *job, int n_job, const void *base, uint64_t layout);
uint64_t pack_layout_hash(void);
/* memory_check: ERR_NOMEM, in words, when `bytes` are more than this machine has at all. Memory is
 * mapped without reservation, so without this the kernel would end the process much later. */
int memory_check(uint64_t bytes, const char *what, const char *remedy, struct err *err);

#endif
