/* experiment: see experiment.h. All memory is there from the start; that a strategy has what it
 * needs is tried out then, on a row of its own, so that serving cannot fail for it. */
#include "coordinator/experiment.h"

#include "base/log.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct experiment {
    const struct strategy *strategy;
    struct route_input input; /* what does not change from layer to layer */
    struct arena mem;
    int32_t *expert; /* [rows_max, top_k] the gate's own choice */
    float *weight;
    uint64_t *row_id; /* [rows_max] */
    char text[256];
};

static int take_number(struct experiment *x, const char *key, const char *value, struct err *err)
{
    struct route_input *in = &x->input;
    const struct {
        const char *key;
        double *real;
        int *whole;
        double min, max;
    } known[] = {
        {"zipf", &in->zipf_exponent, NULL, 0, 10},
        {"hot-share", &in->hot_share, NULL, 0, 1},
        {"hot-experts", NULL, &in->n_hot, 1, in->n_expert},
        {"domain-share", &in->domain_share, NULL, 0, 1},
        {"capacity", &in->capacity_factor, NULL, 0.01, 1000},
        {"groups", NULL, &in->n_group, 1, in->n_expert},
        {"topk-groups", NULL, &in->topk_group, 1, in->n_expert},
    };
    char *end;
    double v = strtod(value, &end);
    if (end == value || *end)
        return err_set(err, ERR_USAGE, "--route: %s=%s is no number", key, value);
    if (strcmp(key, "seed") == 0) {
        in->seed = v >= 0 && v < 9e15 ? (uint64_t)v : 0;
        return 0;
    }
    for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
        if (strcmp(key, known[i].key) != 0)
            continue;
        if (!(v >= known[i].min && v <= known[i].max))
            return err_set(err, ERR_USAGE, "--route: %s must be from %g to %g, not %s", key,
                           known[i].min, known[i].max, value);
        if (known[i].real)
            *known[i].real = v;
        else
            *known[i].whole = (int)v;
        return 0;
    }
    return err_set(err, ERR_USAGE,
                   "--route knows no %s; it knows zipf, hot-share, hot-experts, domain-share, "
                   "capacity, groups, topk-groups and seed",
                   key);
}

static int parse(struct experiment *x, struct err *err)
{
    char text[sizeof(x->text)], *rest = text;
    memcpy(text, x->text, sizeof(text));
    const char *name = strsep(&rest, ",");
    int rc = strategy_get(STRATEGY_ROUTE, "--route", name, &x->strategy, err);
    while (rc == 0 && rest) {
        char *key = strsep(&rest, ","), *value = strchr(key, '=');
        if (!value)
            return err_set(err, ERR_USAGE, "--route: '%s' is not key=value", key);
        *value = 0;
        rc = take_number(x, key, value + 1, err);
    }
    return rc;
}

static int reserve(struct experiment *x, int rows_max, struct err *err)
{
    size_t slots = (size_t)rows_max * (size_t)x->input.top_k;
    x->expert = calloc(slots, sizeof(*x->expert));
    x->weight = calloc(slots, sizeof(*x->weight));
    x->row_id = calloc((size_t)rows_max, sizeof(*x->row_id));
    if (!x->expert || !x->weight || !x->row_id ||
        arena_init(&x->mem, strategy_route_bytes(rows_max, x->input.top_k, x->input.n_expert)) != 0)
        return err_set(err, ERR_NOMEM, "no memory to route %d rows", rows_max);
    return 0;
}

static int route(struct experiment *x, const struct experiment_rows *rows, int32_t *slot_expert,
                 float *slot_weight, struct err *err)
{
    struct route_input in = x->input;
    size_t slots = (size_t)rows->n_row * (size_t)in.top_k;
    for (int r = 0; r < rows->n_row; r++)
        x->row_id[r] = (uint64_t)(uint32_t)rows->token[r] << 32 | (uint32_t)rows->pos[r];
    memcpy(x->expert, slot_expert, slots * sizeof(*slot_expert));
    memcpy(x->weight, slot_weight, slots * sizeof(*slot_weight));
    in.n_row = rows->n_row;
    in.layer = rows->layer;
    in.logits = rows->logits;
    in.gate_expert = x->expert;
    in.gate_weight = x->weight;
    in.token = rows->token;
    in.domain = rows->domain;
    in.row_id = x->row_id;
    size_t mark = arena_mark(&x->mem);
    int rc = strategy_route(x->strategy, &in, slot_expert, slot_weight, NULL, &x->mem, err);
    arena_release(&x->mem, mark);
    return rc;
}

/* try_out: a row of zeros, with what every later row will have. */
static int try_out(struct experiment *x, const struct model_desc *desc, struct err *err)
{
    size_t k = (size_t)desc->top_k;
    int32_t zero = 0, *expert = calloc(k, sizeof(*expert));
    float *weight = calloc(k, sizeof(*weight)),
          *logits = calloc((size_t)desc->n_expert, sizeof(*logits));
    struct experiment_rows rows = {.n_row = 1,
                                   .logits = desc->gate == GATE_TABLE ? NULL : logits,
                                   .token = &zero,
                                   .pos = &zero,
                                   .domain = desc->n_domain > 0 ? &zero : NULL};
    int rc =
        !expert || !weight || !logits ? err_set(err, ERR_NOMEM, "no memory to try a route out") : 0;
    for (size_t i = 0; rc == 0 && i < k; i++)
        expert[i] = (int32_t)i;
    rc = rc ? rc : route(x, &rows, expert, weight, err);
    free(expert);
    free(weight);
    free(logits);
    return rc;
}

int experiment_create(const char *text, const struct model_desc *desc, int rows_max,
                      struct experiment **out, struct err *err)
{
    if (strcmp(text, "model") == 0) {
        *out = NULL;
        return 0;
    }
    if (desc->n_expert <= 0)
        return err_set(err, ERR_USAGE, "--route: a dense model has no experts to route to");
    if (strlen(text) >= sizeof((*out)->text))
        return err_set(err, ERR_USAGE, "--route is too long");
    struct experiment *x = calloc(1, sizeof(*x));
    if (!x)
        return err_set(err, ERR_NOMEM, "no memory for a route");
    memcpy(x->text, text, strlen(text));
    x->input.n_expert = desc->n_expert;
    x->input.top_k = desc->top_k;
    x->input.n_domain = desc->n_domain;
    int rc = parse(x, err);
    rc = rc ? rc : reserve(x, rows_max, err);
    rc = rc ? rc : try_out(x, desc, err);
    if (rc) {
        experiment_destroy(x);
        return rc;
    }
    *out = x;
    return 0;
}

void experiment_destroy(struct experiment *x)
{
    if (!x)
        return;
    arena_fini(&x->mem);
    free(x->expert);
    free(x->weight);
    free(x->row_id);
    free(x);
}

const char *experiment_text(const struct experiment *x)
{
    return x->text;
}

void experiment_route(struct experiment *x, const struct experiment_rows *rows,
                      int32_t *slot_expert, float *slot_weight)
{
    struct err err = {0};
    size_t slots = (size_t)rows->n_row * (size_t)x->input.top_k;
    if (route(x, rows, slot_expert, slot_weight, &err) == 0)
        return;
    log_error("engine", "layer %d: %s; the model's own gate is used", rows->layer, err.text);
    memcpy(slot_expert, x->expert, slots * sizeof(*slot_expert));
    memcpy(slot_weight, x->weight, slots * sizeof(*slot_weight));
}
