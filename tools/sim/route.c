/* route: see route.h. A trace is read whole, as 16-bit ids, and each domain's tokens are listed in
 * the order they were recorded: a simulated sequence starts somewhere in its domain's list and goes
 * on from there, so that what follows what in the recording does so here too. Layers beyond the
 * recorded ones take them from the first again. */
#include "tools/sim/route.h"

#include "base/rng.h"
#include "router/routes.h"

#include <stdlib.h>
#include <string.h>

#define TRACE_BYTES_MAX  (UINT64_C(8) << 30)
#define STREAM_START     UINT64_C(0x7472616365)
#define STREAM_OWN_DRAW  UINT64_C(0x6f776e)
#define LOAD_ROWS_AT_ONE 256

struct trace {
    struct routes_reader *reader; /* NULL: none */
    int n_layer, n_domain, top_k;
    int64_t n_token;
    int16_t *expert; /* [n_layer, n_token, top_k] */
    int32_t *order;  /* [n_token] tokens, domain after domain */
    int64_t begin[LIMIT_DOMAINS + 1];
};

struct route_source {
    struct route_config config;
    struct gate_spec gate;
    struct trace trace;
    int32_t *sparse; /* [n_layer] which sparse layer it is */
    struct arena arena;
    int32_t *gate_expert, *token, *domain; /* [rows_max, top_k], [rows_max] */
    uint64_t *row_id;
    float *weight;
    /* Rows that draw together: their places, and what was drawn for them. */
    int32_t *member, *drawn;
};

/* ---- the trace ---- */

static void block_copy(struct trace *t, const struct routes_block *b, int64_t first)
{
    size_t k = (size_t)t->top_k;
    for (int layer = 0; layer < t->n_layer; layer++) {
        const int32_t *from = b->expert + (size_t)layer * (size_t)b->n_token * k;
        int16_t *to = t->expert + ((size_t)layer * (size_t)t->n_token + (size_t)first) * k;
        for (size_t i = 0; i < (size_t)b->n_token * k; i++)
            to[i] = (int16_t)from[i];
    }
}

/* label [n_token] <- the domain of each token of a block, 0 where there is none. */
static void block_label(const struct trace *t, const struct routes_block *b, int32_t *label)
{
    for (int r = 0, at = 0; r < b->n_run; r++)
        for (int i = 0; i < b->run[r].n_token; i++, at++)
            label[at] =
                b->run[r].domain > 0 && b->run[r].domain < t->n_domain ? b->run[r].domain : 0;
}

static void order_by_domain(struct trace *t, const int32_t *label)
{
    int64_t at = 0;
    for (int d = 0; d < t->n_domain; d++) {
        t->begin[d] = at;
        for (int64_t i = 0; i < t->n_token; i++)
            if (label[i] == d)
                t->order[at++] = (int32_t)i;
    }
    t->begin[t->n_domain] = at;
}

static int trace_check(const struct route_source *s, const struct routes_spec *spec, int64_t n,
                       struct err *err)
{
    const struct model_desc *d = s->config.desc;
    const char *path = s->config.trace;
    if (spec->n_expert != d->n_expert || spec->top_k != d->top_k)
        return err_set(err, ERR_MODEL,
                       "%s is of %d experts, top-%d; the model has %d experts, top-%d", path,
                       spec->n_expert, spec->top_k, d->n_expert, d->top_k);
    if (n < 1)
        return err_set(err, ERR_MODEL, "%s holds no token", path);
    if ((uint64_t)n * (uint64_t)spec->n_layer * (uint64_t)spec->top_k * 2 > TRACE_BYTES_MAX)
        return err_set(err, ERR_LIMIT, "%s holds %lld tokens, more than fit in memory here", path,
                       (long long)n);
    return 0;
}

static int trace_read(struct route_source *s, struct err *err)
{
    struct trace *t = &s->trace;
    int rc = routes_open(s->config.trace, &t->reader, err);
    if (rc)
        return rc;
    const struct routes_spec *spec = routes_spec_of(t->reader);
    t->n_token = routes_n_token(t->reader);
    rc = trace_check(s, spec, t->n_token, err);
    if (rc)
        return rc;
    t->n_layer = spec->n_layer;
    t->top_k = spec->top_k;
    t->n_domain = spec->n_domain > 0 ? spec->n_domain : 1;
    size_t n = (size_t)t->n_token;
    int32_t *label = calloc(n, sizeof(*label));
    t->expert = malloc(n * (size_t)t->n_layer * (size_t)t->top_k * sizeof(*t->expert));
    t->order = malloc(n * sizeof(*t->order));
    if (!label || !t->expert || !t->order)
        rc = err_set(err, ERR_NOMEM, "no memory for the trace %s", s->config.trace);
    for (int i = 0; rc == 0 && i < routes_n_block(t->reader); i++) {
        struct routes_block b;
        int64_t first = routes_block_first(t->reader, i);
        rc = routes_read(t->reader, i, &b, err);
        if (rc == 0) {
            block_copy(t, &b, first);
            block_label(t, &b, label + first);
        }
    }
    if (rc == 0)
        order_by_domain(t, label);
    free(label);
    return rc;
}

static int64_t trace_token(const struct route_source *s, const struct route_row *row)
{
    const struct trace *t = &s->trace;
    int d = row->domain >= 0 ? row->domain % t->n_domain : 0;
    int64_t n = t->begin[d + 1] - t->begin[d];
    if (n == 0) {
        d = 0;
        n = t->n_token; /* an empty domain: any token */
    }
    double u = rng_uniform(s->config.seed, STREAM_START, row->seq);
    int64_t at = ((int64_t)(u * (double)n) + row->pos) % n;
    return t->order[t->begin[d] + at];
}

/* ---- life ---- */

static int scratch_create(struct route_source *s, struct err *err)
{
    size_t n = (size_t)s->config.rows_max, k = (size_t)s->config.desc->top_k;
    s->sparse = calloc((size_t)s->config.desc->n_layer, sizeof(int32_t));
    s->gate_expert = malloc(n * k * sizeof(int32_t));
    s->drawn = malloc(n * k * sizeof(int32_t));
    s->weight = malloc(n * k * sizeof(float));
    s->token = malloc(n * sizeof(int32_t));
    s->domain = malloc(n * sizeof(int32_t));
    s->member = malloc(n * sizeof(int32_t));
    s->row_id = malloc(n * sizeof(uint64_t));
    if (!s->sparse || !s->gate_expert || !s->drawn || !s->weight || !s->token || !s->domain ||
        !s->member || !s->row_id ||
        arena_init(&s->arena, strategy_route_bytes(s->config.rows_max, s->config.desc->top_k,
                                                   s->config.desc->n_expert)))
        return err_set(err, ERR_NOMEM, "no memory to route %zu rows", n);
    for (int layer = 0, i = 0; layer < s->config.desc->n_layer; layer++)
        s->sparse[layer] = s->config.desc->layer[layer].sparse ? i++ : i;
    return 0;
}

int route_source_create(const struct route_config *config, struct route_source **out,
                        struct err *err)
{
    struct route_source *s = calloc(1, sizeof(*s));
    if (!s)
        return err_set(err, ERR_NOMEM, "no memory for routing");
    s->config = *config;
    gate_spec_from(&s->gate, config->desc);
    int rc = scratch_create(s, err);
    if (rc == 0 && config->trace)
        rc = trace_read(s, err);
    if (rc == 0) { /* what the strategy needs and does not find is said now, not an hour later */
        struct route_row row = {.seq = 1};
        int32_t slot[LIMIT_TOP_K];
        rc = route_fill(s, 0, &row, 1, slot, NULL, err);
    }
    if (rc) {
        route_source_destroy(s);
        return rc;
    }
    *out = s;
    return 0;
}

void route_source_destroy(struct route_source *s)
{
    if (!s)
        return;
    if (s->trace.reader)
        routes_close(s->trace.reader);
    free(s->trace.expert);
    free(s->trace.order);
    free(s->sparse);
    free(s->gate_expert);
    free(s->drawn);
    free(s->weight);
    free(s->token);
    free(s->domain);
    free(s->member);
    free(s->row_id);
    arena_fini(&s->arena);
    free(s);
}

int route_domains(const struct route_source *s)
{
    return s->trace.reader ? routes_spec_of(s->trace.reader)->n_domain : 0;
}

const char *route_domain_name(const struct route_source *s, int domain)
{
    return domain < route_domains(s) ? routes_spec_of(s->trace.reader)->domain[domain] : "";
}

/* ---- filling ---- */

static void gather(struct route_source *s, int layer, const struct route_row *row,
                   const int32_t *member, int n)
{
    const struct trace *t = &s->trace;
    size_t k = (size_t)s->config.desc->top_k;
    for (int i = 0; i < n; i++) {
        const struct route_row *r = &row[member[i]];
        s->row_id[i] = r->seq << 32 | (uint32_t)r->pos;
        s->domain[i] = r->domain;
        /* Strategies that go by token id get one that a vocabulary's skew does not shape. */
        s->token[i] = (int32_t)(rng_uniform(s->config.seed, r->seq, (uint64_t)r->pos) *
                                s->config.desc->vocab);
        if (!t->reader)
            continue;
        size_t at = (size_t)(s->sparse[layer] % t->n_layer) * (size_t)t->n_token +
                    (size_t)trace_token(s, r);
        for (size_t j = 0; j < k; j++)
            s->gate_expert[(size_t)i * k + j] = t->expert[at * k + j];
    }
}

/* One call of the strategy: rows member[n] that share a seed. */
static int draw(struct route_source *s, int layer, const struct route_row *row,
                const int32_t *member, int n, uint64_t seed, int32_t *slot_expert,
                struct route_stats *stats, struct err *err)
{
    const struct route_config *c = &s->config;
    size_t k = (size_t)c->desc->top_k;
    gather(s, layer, row, member, n);
    struct route_input in = {.n_expert = c->desc->n_expert,
                             .top_k = c->desc->top_k,
                             .n_row = n,
                             .layer = layer,
                             .seed = seed,
                             .gate = &s->gate,
                             .gate_expert = s->trace.reader ? s->gate_expert : NULL,
                             .token = s->token,
                             .domain = s->domain,
                             .row_id = s->row_id,
                             .zipf_exponent = c->zipf_exponent,
                             .hot_share = c->hot_share,
                             .n_hot = c->n_hot,
                             .capacity_factor = c->capacity_factor,
                             .n_domain = c->n_domain};
    struct route_stats some = {0};
    arena_reset(&s->arena);
    int rc = c->strategy->route(&in, s->drawn, s->weight, &some, &s->arena, err);
    for (int i = 0; rc == 0 && i < n; i++)
        memcpy(slot_expert + (size_t)member[i] * k, s->drawn + (size_t)i * k, k * sizeof(int32_t));
    if (stats) {
        stats->n_dropped += some.n_dropped;
        stats->n_moved += some.n_moved;
    }
    return rc;
}

/* seed_of: the seed of a row that follows its domain, or the common one. Which row does is drawn
 * by row and layer, so it does not depend on the batch. */
static uint64_t seed_of(const struct route_source *s, int layer, const struct route_row *r)
{
    const struct route_config *c = &s->config;
    if (!(c->domain_share > 0))
        return c->seed;
    uint64_t stream = STREAM_OWN_DRAW + (uint64_t)layer;
    double u = rng_uniform(c->seed ^ stream, r->seq, (uint64_t)r->pos);
    return u < c->domain_share ? c->seed + 0x9e3779b97f4a7c15u * (uint64_t)(r->domain + 1)
                               : c->seed;
}

int route_fill(struct route_source *s, int layer, const struct route_row *row, int n_row,
               int32_t *slot_expert, struct route_stats *stats, struct err *err)
{
    int32_t *member = s->member;
    if (!(s->config.domain_share > 0)) {
        for (int i = 0; i < n_row; i++)
            member[i] = i;
        return draw(s, layer, row, member, n_row, s->config.seed, slot_expert, stats, err);
    }
    int rc = 0, left = n_row;
    uint64_t *seed = calloc((size_t)n_row, sizeof(*seed)); /* 0: done */
    if (!seed)
        return err_set(err, ERR_NOMEM, "no memory to route %d rows", n_row);
    for (int i = 0; i < n_row; i++)
        seed[i] = seed_of(s, layer, &row[i]) | 1;
    for (int first = 0; rc == 0 && left > 0; first++) {
        uint64_t own = seed[first];
        int n = 0;
        for (int i = first; own && i < n_row; i++) {
            if (seed[i] != own)
                continue;
            seed[i] = 0;
            member[n++] = i;
        }
        left -= n;
        if (n > 0)
            rc = draw(s, layer, row, member, n, own, slot_expert, stats, err);
    }
    free(seed);
    return rc;
}

/* ---- expected loads ---- */

static void trace_load(const struct route_source *s, int domain, double *load)
{
    const struct trace *t = &s->trace;
    const struct model_desc *d = s->config.desc;
    int64_t from = domain < 0 ? 0 : t->begin[domain % t->n_domain];
    int64_t to = domain < 0 ? t->n_token : t->begin[domain % t->n_domain + 1];
    for (int layer = 0; layer < d->n_layer; layer++) {
        if (!d->layer[layer].sparse)
            continue;
        size_t base = (size_t)(s->sparse[layer] % t->n_layer) * (size_t)t->n_token;
        for (int64_t i = from; i < to; i++)
            for (int k = 0; k < t->top_k; k++) {
                int e = t->expert[(base + (size_t)t->order[i]) * (size_t)t->top_k + (size_t)k];
                if (e >= 0)
                    load[layer * d->n_expert + e]++;
            }
    }
}

int route_load(struct route_source *s, int domain, int n_row, double *load, struct err *err)
{
    const struct model_desc *d = s->config.desc;
    memset(load, 0, (size_t)d->n_layer * (size_t)d->n_expert * sizeof(*load));
    if (s->trace.reader && !s->config.strategy->changes_output) {
        trace_load(s, domain, load);
        return 0;
    }
    int at_once = s->config.rows_max < LOAD_ROWS_AT_ONE ? s->config.rows_max : LOAD_ROWS_AT_ONE;
    struct route_row *row = calloc((size_t)at_once, sizeof(*row));
    int32_t *slot = malloc((size_t)at_once * (size_t)d->top_k * sizeof(*slot));
    int rc = row && slot ? 0 : err_set(err, ERR_NOMEM, "no memory to sample routes");
    for (int layer = 0; rc == 0 && layer < d->n_layer; layer++) {
        if (!d->layer[layer].sparse)
            continue;
        for (int done = 0; rc == 0 && done < n_row; done += at_once) {
            for (int i = 0; i < at_once; i++) /* sequences that no request has */
                row[i] = (struct route_row){.seq = UINT32_MAX - (uint32_t)(done + i) % 4096,
                                            .pos = done + i,
                                            .domain = domain < 0 ? (done + i) % 4 : domain};
            rc = route_fill(s, layer, row, at_once, slot, NULL, err);
            for (int i = 0; rc == 0 && i < at_once * d->top_k; i++)
                if (slot[i] >= 0)
                    load[layer * d->n_expert + slot[i]]++;
        }
    }
    free(row);
    free(slot);
    return rc;
}
