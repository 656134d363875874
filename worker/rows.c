/* rows: rows that travel as fp8 (base/dtype.h). What comes so is widened when its request is taken,
 * which is exact, so that whoever computes knows nothing of it; results are rounded before they
 * leave. */
#include "worker/worker_state.h"

#define ROWS_CHUNK 16

struct rows_job {
    const struct kernels *k;
    size_t d, fp8_bytes;
    uint16_t *wide;     /* [n, d] */
    unsigned char *fp8; /* [n, fp8_bytes] */
};

static void widen(void *arg, int begin, int end, int thread)
{
    (void)thread;
    const struct rows_job *j = arg;
    for (size_t i = (size_t)begin; i < (size_t)end; i++)
        j->k->fp8_decode(j->fp8 + i * j->fp8_bytes, j->d, j->wide + i * j->d);
}

static void narrow(void *arg, int begin, int end, int thread)
{
    (void)thread;
    const struct rows_job *j = arg;
    for (size_t i = (size_t)begin; i < (size_t)end; i++)
        j->k->fp8_encode(j->wide + i * j->d, j->d, j->fp8 + i * j->fp8_bytes);
}

static struct rows_job rows_job_of(const struct worker *w)
{
    size_t d = (size_t)w->shape.d_wire;
    return (struct rows_job){.k = w->kernels, .d = d, .fp8_bytes = fp8_row_bytes(d)};
}

int job_rows_in(struct worker *w, struct job *job)
{
    struct msg_request *m = &job->msg.u.request;
    struct rows_job j = rows_job_of(w);
    if (m->dtype != DTYPE_FP8)
        return 0;
    job->rows = wirebuf_get(w->bufs, (size_t)m->n_row * j.d * sizeof(uint16_t));
    if (!job->rows)
        return -1;
    j.wide = wirebuf_data(job->rows);
    j.fp8 = (unsigned char *)(uintptr_t)m->rows;
    team_run(w->team, widen, &j, m->n_row, ROWS_CHUNK);
    m->rows = j.wide;
    m->dtype = w->shape.dtype;
    return 0;
}

int job_rows_out(struct worker *w, struct job *job)
{
    const struct msg_request *m = &job->msg.u.request;
    struct rows_job j = rows_job_of(w);
    if (m->reply_dtype != DTYPE_FP8)
        return 0;
    struct wirebuf *out = wirebuf_get(w->bufs, (size_t)m->n_assign * j.fp8_bytes);
    if (!out)
        return -1;
    j.wide = wirebuf_data(job->out);
    j.fp8 = wirebuf_data(out);
    team_run(w->team, narrow, &j, m->n_assign, ROWS_CHUNK);
    wirebuf_unref(job->out);
    job->out = out;
    return 0;
}
