/* record: see record.h. The cost is a copy of slots a layer and their coding a step, and is
 * measured as it runs: two looks at the clock a layer. */
#include "coordinator/record.h"
#include "base/log.h"
#include "base/report.h"
#include "coordinator/seq.h"
#include "router/routes.h"

#include <stdlib.h>
#include <string.h>

#define MICROS 2

struct record {
    struct routes_writer *writer; /* NULL once it failed */
    const struct clock *clock;
    int n_sparse, rows_max;
    size_t ld; /* slots of a layer: rows_max * top_k */
    int top_k, n_domain;
    int32_t *expert[MICROS]; /* [n_sparse, rows_max, top_k] */
    float *weight[MICROS];
    int next[MICROS]; /* the sparse layer that is due */
    int64_t start_ns, spent_ns, n_token;
    struct err err; /* why the writer failed */
};

static void record_free(struct record *r)
{
    for (int i = 0; i < MICROS; i++) {
        free(r->expert[i]);
        free(r->weight[i]);
    }
    free(r);
}

static int buffers_alloc(struct record *r)
{
    size_t n = r->ld * (size_t)r->n_sparse;
    int there = 1;
    for (int i = 0; i < MICROS; i++) {
        r->expert[i] = malloc(n * sizeof *r->expert[i]);
        r->weight[i] = malloc(n * sizeof *r->weight[i]);
        there = there && r->expert[i] != NULL && r->weight[i] != NULL;
    }
    return there ? 0 : -1;
}

static void spec_fill(struct routes_spec *spec, const struct model_desc *d)
{
    *spec = (struct routes_spec){
        .n_expert = d->n_expert, .top_k = d->top_k, .has_weight = 1, .has_token = 1};
    strncpy(spec->model, d->family, sizeof spec->model - 1);
    for (int l = 0; l < d->n_layer; l++) {
        if (d->layer[l].sparse) {
            spec->layer[spec->n_layer++] = l;
        }
    }
}

/* Labels get the model's own numbers of domains. */
static int label_all(struct record *r, const struct model_desc *d, struct err *err)
{
    for (int i = 0; i < d->n_domain; i++) {
        int at = routes_writer_domain(r->writer, d->domain[i].name, err);
        if (at < 0) {
            return at;
        }
    }
    return 0;
}

int record_start(const char *path, const struct model_desc *desc, int rows_max,
                 const struct clock *clock, struct record **out, struct err *err)
{
    struct routes_spec spec;
    spec_fill(&spec, desc);
    if (spec.n_layer == 0) {
        return err_set(err, ERR_USAGE, "--record: a dense model has no experts to choose");
    }
    struct record *r = calloc(1, sizeof *r);
    if (r == NULL) {
        return err_set(err, ERR_NOMEM, "no memory to record");
    }
    r->clock = clock;
    r->n_sparse = spec.n_layer;
    r->rows_max = rows_max;
    r->top_k = spec.top_k;
    r->n_domain = desc->n_domain;
    r->ld = (size_t)rows_max * (size_t)spec.top_k;
    r->start_ns = clock_now(clock);
    int rc = buffers_alloc(r) ? err_set(err, ERR_NOMEM, "no memory to record %d rows of %d layers",
                                        rows_max, spec.n_layer)
                              : routes_create(path, &spec, &r->writer, err);
    if (rc == 0 && (rc = label_all(r, desc, err)) != 0) {
        routes_abandon(r->writer);
    }
    if (rc != 0) {
        record_free(r);
        return rc;
    }
    *out = r;
    return 0;
}

static void give_up(struct record *r)
{
    log_warn("record", "recording ends: %s", r->err.text);
    routes_abandon(r->writer);
    r->writer = NULL;
}

static void write_runs(struct record *r, int micro, const struct micro *m)
{
    uint64_t now_us = (uint64_t)(clock_now(r->clock) - r->start_ns) / NS_PER_US;
    for (int s = 0; s < m->n_span; s++) {
        /* Not what was recorded before its sequence gave way to others. */
        int begin = m->span[s].begin, again = m->span_seq[s]->n_told - m->pos[begin];
        begin += again > 0 ? again : 0;
        int n = m->span[s].end - begin;
        if (n <= 0) {
            continue;
        }
        struct routes_run run = {.seq = m->span_seq[s]->id,
                                 .domain = r->n_domain > 0 ? m->domain[begin] : -1,
                                 .first_pos = m->pos[begin],
                                 .n_token = n,
                                 .begins = m->pos[begin] == 0,
                                 .time_us = now_us};
        size_t slot = (size_t)begin * (size_t)r->top_k;
        if (routes_write(r->writer, &run, m->token + begin, r->expert[micro] + slot,
                         r->weight[micro] + slot, r->ld, &r->err)) {
            give_up(r);
            return;
        }
        r->n_token += n;
    }
}

void record_layer(struct record *r, int micro, const struct micro *m, int sparse)
{
    if (r == NULL || r->writer == NULL || m->n_row > r->rows_max) {
        return;
    }
    int64_t from = clock_now(r->clock);
    size_t n = (size_t)m->n_row * (size_t)r->top_k, at = r->ld * (size_t)sparse;
    r->next[micro] = sparse == 0 || sparse == r->next[micro] ? sparse + 1 : -1;
    memcpy(r->expert[micro] + at, m->slot_expert, n * sizeof *m->slot_expert);
    memcpy(r->weight[micro] + at, m->slot_weight, n * sizeof *m->slot_weight);
    if (r->next[micro] == r->n_sparse) {
        write_runs(r, micro, m);
    }
    r->spent_ns += clock_now(r->clock) - from;
}

int record_stop(struct record *r, struct err *err)
{
    if (r == NULL) {
        return 0;
    }
    char spent[32];
    int64_t whole_ns = clock_now(r->clock) - r->start_ns;
    int rc = r->writer != NULL ? routes_finish(r->writer, err)
                               : err_set(err, r->err.code, "%s", r->err.text);
    if (rc == 0) {
        log_info("record", "%lld tokens recorded, %s of the engine's time, %.2f %% of all",
                 (long long)r->n_token, human_ns((double)r->spent_ns, spent, sizeof spent),
                 whole_ns > 0 ? 100.0 * (double)r->spent_ns / (double)whole_ns : 0.0);
    }
    record_free(r);
    return rc;
}
