/* micro: the buffers of a micro-batch. One table gives every buffer's place and size, so that what
 * is summed and what is carved cannot differ. */
#include "coordinator/forward.h"

#include "base/arena.h"
#include "base/pages.h"
#include "base/team.h"
#include "coordinator/seq.h"
#include <stdlib.h>
#include <string.h>

/* Rows whose angles are worth waking a thread for. */
#define ANGLE_ROWS 16

struct piece {
    void **at;
    size_t n, each;
};

static int max_int(int a, int b)
{
    return a > b ? a : b;
}

#define PIECE(field, n, each)                                                                      \
    {                                                                                              \
        (void **)(void *)&m->field, (size_t)(n), (size_t)(each)                                    \
    }

/* Fills the table; returns how many pieces. */
static int micro_pieces(const struct forward *f, struct micro *m, struct piece *p)
{
    const struct model_desc *d = f->desc;
    size_t rows = (size_t)m->n_row_max, e = dtype_bytes(f->dtype);
    int d_qkv = (d->n_head + 2 * d->n_kv_head) * d->d_head;
    int d_h = k_padded(max_int(max_int(d->d_ff, d->d_ff_shared), 1));
    int slots = max_int(d->top_k, 1), experts = max_int(d->n_expert, 1);
    m->ld_a = (size_t)k_padded(d->d_model);
    m->ld_att = (size_t)k_padded(d->n_head * d->d_head);
    const struct piece table[] = {
        PIECE(span, rows, sizeof *m->span),
        PIECE(span_seq, rows, sizeof(struct seq *)),
        PIECE(token, rows, 4),
        PIECE(pos, rows, 4),
        PIECE(domain, rows, 4),
        PIECE(step_row, rows, 4),
        PIECE(tail, rows, 4),
        PIECE(cos, rows * (size_t)(d->rope.d_rot / 2), 4),
        PIECE(sin, rows * (size_t)(d->rope.d_rot / 2), 4),
        PIECE(x, rows * (size_t)d->d_model, 4),
        PIECE(a, rows * m->ld_a, e),
        PIECE(a32, f->dtype == DTYPE_F32 ? 0 : rows * m->ld_a, 4),
        PIECE(qkv, rows * (size_t)d_qkv, 4),
        PIECE(att, rows * m->ld_att, e),
        PIECE(ints, f->k->ints != NULL ? rows * (m->ld_a > m->ld_att ? m->ld_a : m->ld_att) : 0, e),
        PIECE(proj, rows * (size_t)d->d_model, 4),
        PIECE(shared, d->d_ff_shared > 0 ? rows * (size_t)d->d_model : 0, 4),
        PIECE(h, rows * (size_t)d_h, e),
        PIECE(router, rows * (size_t)experts, 4),
        PIECE(router_scratch, 2 * experts * team_size(f->team), 4),
        PIECE(slot_expert, rows * (size_t)slots, 4),
        PIECE(slot_weight, rows * (size_t)slots, 4),
        PIECE(slot_row, rows * (size_t)slots, sizeof(void *)),
        PIECE(slot_worker, rows * (size_t)slots, sizeof *m->slot_worker),
    };
    memcpy(p, table, sizeof table);
    return (int)(sizeof table / sizeof *table);
}

int micro_create(const struct forward *f, int n_row_max, struct micro **out, struct err *err)
{
    struct micro *m = calloc(1, sizeof *m);
    if (m == NULL) {
        return err_set(err, ERR_NOMEM, "no memory for a micro-batch");
    }
    m->n_row_max = n_row_max;
    struct piece piece[32];
    int n = micro_pieces(f, m, piece);
    for (int i = 0; i < n; i++) {
        m->memory_bytes += (piece[i].n * piece[i].each + 63) / 64 * 64;
    }
    m->memory = mem_map(m->memory_bytes);
    if (m->memory == NULL) {
        int rc = err_set(err, ERR_NOMEM, "no memory for a micro-batch of %d rows (%zu MiB)",
                         n_row_max, m->memory_bytes >> 20);
        free(m);
        return rc;
    }
    unsigned char *at = m->memory;
    for (int i = 0; i < n; i++) {
        *piece[i].at = at;
        at += (piece[i].n * piece[i].each + 63) / 64 * 64;
    }
    if (f->dtype == DTYPE_F32) {
        m->a32 = m->a;
    }
    *out = m;
    return 0;
}

void micro_touch(const struct forward *f, struct micro *m, int n_row)
{
    struct piece piece[32];
    int n = micro_pieces(f, m, piece);
    size_t rows = (size_t)m->n_row_max, some = n_row < m->n_row_max ? (size_t)n_row : rows;
    for (int i = 0; i < n; i++) {
        pages_touch(*piece[i].at, piece[i].n * piece[i].each / rows * some);
    }
}

void micro_destroy(struct micro *m)
{
    if (m == NULL) {
        return;
    }
    mem_unmap(m->memory, m->memory_bytes);
    free(m->attn_scratch);
    free(m);
}

/* Rows [begin, end) of one span of the step, which meet this micro-batch's rows at `at`. */
static void fill_span(const struct forward *f, struct micro *m, const struct sched_span *s,
                      int begin, int end, int at)
{
    struct attn_span *span = &m->span[m->n_span];
    span->begin = begin - at;
    span->end = end - at;
    span->pos = s->pos + (begin - s->begin);
    span->page = s->seq->page;
    m->span_seq[m->n_span++] = s->seq;
    int32_t domain = f->desc->n_domain > 0 ? s->seq->request.domain : 0;
    for (int r = span->begin; r < span->end; r++) {
        m->pos[r] = span->pos + (r - span->begin);
        m->token[r] = s->seq->token[m->pos[r]];
        m->domain[r] = domain;
        m->step_row[r] = r + at;
    }
}

struct angles_job {
    const struct forward *f;
    struct micro *m;
};

/* Rotation angles of rows [begin, end). */
static void angles_rows(void *arg, int begin, int end, int thread)
{
    (void)thread;
    const struct angles_job *j = arg;
    struct micro *m = j->m;
    size_t half = (size_t)(j->f->desc->rope.d_rot / 2);
    for (int s = 0; s < m->n_span; s++) {
        int e = m->span[s].end < end ? m->span[s].end : end;
        for (int r = max_int(m->span[s].begin, begin); r < e; r++) {
            rope_angles(&j->f->desc->rope, m->pos[r],
                        max_int(m->pos[r] + 1, m->span_seq[s]->n_prompt), m->cos + (size_t)r * half,
                        m->sin + (size_t)r * half);
        }
    }
}

struct row_field {
    void *at;
    size_t bytes; /* a row */
};

void micro_keep_tails(const struct forward *f, struct micro *m)
{
    const struct model_desc *d = f->desc;
    size_t top_k = (size_t)max_int(d->top_k, 1), e = dtype_bytes(f->dtype);
    const struct row_field field[] = {
        {m->token, 4},
        {m->pos, 4},
        {m->domain, 4},
        {m->step_row, 4},
        {m->x, (size_t)d->d_model * 4},
        {m->a, m->ld_a * e},
        {m->a32, f->dtype != DTYPE_F32 ? m->ld_a * 4 : 0},
        {m->qkv, (size_t)((d->n_head + 2 * d->n_kv_head) * d->d_head) * 4},
        {m->slot_expert, top_k * 4},
        {m->slot_weight, top_k * 4},
    };
    int n = 0, n_span = 0;
    for (int s = 0; s < m->n_span; s++) {
        struct attn_span span = m->span[s];
        int from = span.end - m->tail[s], begin = n;
        for (int r = from; r < span.end; r++, n++) {
            for (size_t i = 0; r != n && i < sizeof field / sizeof *field; i++) {
                char *rows = field[i].at;
                memcpy(rows + (size_t)n * field[i].bytes, rows + (size_t)r * field[i].bytes,
                       field[i].bytes);
            }
        }
        if (n > begin) {
            m->span[n_span] = (struct attn_span){begin, n, span.pos + from - span.begin, span.page};
            m->span_seq[n_span++] = m->span_seq[s];
        }
    }
    m->n_row = n;
    m->n_span = n_span;
}

void micro_fill(const struct forward *f, struct micro *m, const struct sched_span *span, int n_span,
                int begin, int end)
{
    m->n_span = m->for_logits = m->normed = 0;
    m->n_row = end - begin;
    for (int i = 0; i < n_span; i++) {
        int b = max_int(span[i].begin, begin), e = span[i].end < end ? span[i].end : end;
        if (b < e) {
            fill_span(f, m, &span[i], b, e, begin);
        }
    }
    if (f->desc->rope.d_rot > 0) {
        struct angles_job job = {f, m};
        team_run(f->team, angles_rows, &job, m->n_row, ANGLE_ROWS);
    }
}
