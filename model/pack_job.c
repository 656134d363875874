/* pack_job: see pack_job.h. Matrices are cut at multiples of whole panels of the packed layout, so
 * two threads never write into one panel; one job ends before the next begins, so the same holds
 * where two tensors share a panel (the fused q, k, v). */
#include "model/pack_job.h"

#include <stdio.h>
#include <unistd.h>

#define UNIT_ROWS (4 * PANEL)

static float element(const void *src, enum dtype dtype, size_t i)
{
    if (dtype == DTYPE_F32)
        return ((const float *)src)[i];
    uint16_t h = ((const uint16_t *)src)[i];
    return dtype == DTYPE_BF16 ? bf16_to_f32(h) : f16_to_f32(h);
}

static void vector_widen(const struct pack_job *job)
{
    float *out = (float *)job->data + job->row;
    for (int i = 0; i < job->n_row; i++)
        out[i] = element(job->src->data, job->src->dtype, (size_t)i);
}

static void rows_pack(void *arg, int begin, int end, int thread)
{
    (void)thread;
    const struct pack_job *job = arg;
    int first = job->row / UNIT_ROWS, last = job->row + job->n_row;
    for (int unit = begin; unit < end; unit++) {
        int low = (first + unit) * UNIT_ROWS, high = low + UNIT_ROWS;
        low = low < job->row ? job->row : low;
        high = high > last ? last : high;
        const char *src = job->src->data;
        size_t src_row = (size_t)(low - job->row) + (size_t)job->src_row;
        src += src_row * (size_t)job->k * dtype_bytes(job->src->dtype);
        pack_rows(job->data, job->dtype, job->n, job->k, low, high - low, src, job->src->dtype,
                  (size_t)job->k);
    }
}

static void job_run(const struct pack_job *job, struct team *team)
{
    if (job->k == 0) {
        vector_widen(job);
        return;
    }
    int last = job->row + job->n_row;
    int n_unit = (last + UNIT_ROWS - 1) / UNIT_ROWS - job->row / UNIT_ROWS;
    struct pack_job copy = *job;
    team_run(team, rows_pack, &copy, n_unit, 1);
}

void pack_jobs_run(const struct pack_job *job, int n_job, const struct checkpoint *ck,
                   struct team *team, struct progress *progress)
{
    for (int i = 0; i < n_job; i++) {
        if (i + 1 < n_job)
            checkpoint_want(ck, job[i + 1].src);
        job_run(&job[i], team);
        checkpoint_done(ck, job[i].src);
        if (progress)
            progress_add(progress, job[i].src->bytes);
    }
}

int memory_check(uint64_t bytes, const char *what, const char *remedy, struct err *err)
{
    long pages = sysconf(_SC_PHYS_PAGES), page = sysconf(_SC_PAGESIZE);
    uint64_t have = pages > 0 && page > 0 ? (uint64_t)pages * (uint64_t)page : UINT64_MAX;
    if (bytes <= have)
        return 0;
    char need[32], has[32];
    return err_set(err, ERR_NOMEM, "%s need %s of memory, this machine has %s; %s", what,
                   human_bytes((double)bytes, need, sizeof(need)),
                   human_bytes((double)have, has, sizeof(has)), remedy);
}
