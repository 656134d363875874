/* pack_job: see pack_job.h. Matrices are cut at multiples of whole panels of the packed layout, so
 * two threads never write into one panel; one job ends before the next begins, so the same holds
 * where two tensors share a panel (the fused q, k, v). */
#include "model/pack_job.h"

#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
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

/* What a thread unpacks rows of integers into: as many as a panel has, which are packed fastest. */
struct scratch {
    int8_t *q;       /* [PANEL, k] */
    uint16_t *scale; /* [PANEL, groups] */
    float *f;        /* [k] */
};

struct packing {
    const struct pack_job *job;
    struct scratch *scratch; /* [threads], NULL where nothing is integers */
    int alone;               /* without a team */
};

/* Rows [low, high) of integers made floats. */
static void quant_rows_widen(const struct pack_job *job, const struct scratch *s, int low, int high)
{
    const struct quant_source *q = &job->quant;
    for (int r = low; r < high; r++) {
        quant_row(q, r - job->row + job->src_row, s->q, s->scale);
        for (int i = 0; i < q->k; i++)
            s->f[i] = (float)s->q[i] * bf16_to_f32(s->scale[i / q->group]);
        pack_rows(job->data, DTYPE_F32, job->n, job->k, r, 1, s->f, DTYPE_F32, (size_t)job->k);
    }
}

static void quant_rows_pack(const struct pack_job *job, const struct scratch *s, int low, int high)
{
    const struct quant_source *q = &job->quant;
    struct quant_rows rows = {s->q, (size_t)q->k, s->scale, (size_t)quant_groups(q->k, q->group)};
    while (low < high) {
        int end = (low / PANEL + 1) * PANEL;
        end = end < high ? end : high;
        for (int r = low; r < end; r++)
            quant_row(q, r - job->row + job->src_row, s->q + (size_t)(r - low) * rows.ld_q,
                      s->scale + (size_t)(r - low) * rows.ld_scale);
        pack_quant_rows(job->data, job->dtype, job->n, job->k, q->group, low, end - low, &rows);
        low = end;
    }
}

/* Who packs alone may do so beside others that compute, at the lowest priority (worker/loader.c).
 * Low priority is not enough: a fair scheduler owes such a thread a turn whenever another has just
 * had a long one, and who wakes in that turn waits for the next tick, up to 4 ms. So it offers its
 * CPU often.
 */
static void rows_pack(void *arg, int begin, int end, int thread)
{
    const struct packing *packing = arg;
    const struct pack_job *job = packing->job;
    int first = job->row / UNIT_ROWS, last = job->row + job->n_row;
    for (int unit = begin; unit < end; unit++) {
        if (packing->alone)
            sched_yield();
        int low = (first + unit) * UNIT_ROWS, high = low + UNIT_ROWS;
        low = low < job->row ? job->row : low;
        high = high > last ? last : high;
        if (job->quant.packed) {
            const struct scratch *own = &packing->scratch[thread];
            if (job->dtype == DTYPE_F32)
                quant_rows_widen(job, own, low, high);
            else
                quant_rows_pack(job, own, low, high);
            continue;
        }
        const char *src = job->src->data;
        size_t src_row = (size_t)(low - job->row) + (size_t)job->src_row;
        src += src_row * (size_t)job->k * dtype_bytes(job->src->dtype);
        pack_rows(job->data, job->dtype, job->n, job->k, low, high - low, src, job->src->dtype,
                  (size_t)job->k);
    }
}

static void job_run(const struct pack_job *job, struct scratch *scratch, struct team *team)
{
    if (job->k == 0) {
        vector_widen(job);
        return;
    }
    int last = job->row + job->n_row;
    int n_unit = (last + UNIT_ROWS - 1) / UNIT_ROWS - job->row / UNIT_ROWS;
    struct packing packing = {job, scratch, team == NULL};
    team_run(team, rows_pack, &packing, n_unit, 1);
}

static void scratch_free(struct scratch *s, int n)
{
    for (int i = 0; s && i < n; i++) {
        free(s[i].q);
        free(s[i].scale);
        free(s[i].f);
    }
    free(s);
}

/* For the widest row of integers among the jobs; *out stays NULL where there is none. */
static int scratch_create(const struct pack_job *job, int n_job, int n, struct scratch **out)
{
    int k = 0;
    for (int i = 0; i < n_job; i++)
        k = job[i].quant.packed && job[i].k > k ? job[i].k : k;
    *out = NULL;
    if (k == 0)
        return 0;
    struct scratch *s = calloc((size_t)n, sizeof(*s));
    int whole = s != NULL;
    for (int i = 0; whole && i < n; i++) {
        s[i].q = malloc(PANEL * (size_t)k);
        s[i].scale = malloc(PANEL * (size_t)quant_groups(k, K_BLOCK) * sizeof(*s[i].scale));
        s[i].f = malloc((size_t)k * sizeof(*s[i].f));
        whole = s[i].q && s[i].scale && s[i].f;
    }
    if (!whole) {
        scratch_free(s, n);
        return -1;
    }
    *out = s;
    return 0;
}

static void source_done(const struct pack_job *job, const struct checkpoint *ck)
{
    checkpoint_done(ck, job->src);
    if (job->quant.packed)
        checkpoint_done(ck, job->quant.scale);
}

int pack_jobs_run(const struct pack_job *job, int n_job, const struct checkpoint *ck,
                  struct team *team, struct progress *progress, struct err *err)
{
    struct scratch *scratch;
    int n_thread = team ? team_size(team) : 1;
    if (scratch_create(job, n_job, n_thread, &scratch) != 0)
        return err_set(err, ERR_NOMEM, "no memory to unpack rows of integers");
    for (int i = 0; i < n_job; i++) {
        if (ck && i + 1 < n_job)
            checkpoint_want(ck, job[i + 1].src);
        job_run(&job[i], scratch, team);
        if (ck)
            source_done(&job[i], ck);
        if (progress)
            progress_add(progress, job[i].src->bytes);
    }
    scratch_free(scratch, n_thread);
    return 0;
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
