/* sim_world: a small cluster to simulate, whose costs are round numbers, so that answers can be
 * written down. Included by the tests of the simulator; each uses all of it. */
#ifndef TESTS_UNIT_TOOLS_SIM_WORLD_H
#define TESTS_UNIT_TOOLS_SIM_WORLD_H

#include "tools/sim/sim.h"

#include "base/clock.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define US 1e3

struct world {
    struct model_desc desc;
    struct cost_model cost;
    struct placement *placement;
    struct route_source *route;
    struct arrivals arrivals;
    struct sim_config config;
};

static void flat(struct cost_curve *c, double ns)
{
    c->n = 0;
    assert_int_equal(cost_curve_add(c, 1, ns), 0);
}

/* Row r of layer l goes to experts r + l, r + l + 1, ... */
static int route_in_turn(const struct route_input *in, int32_t *slot_expert, float *slot_weight,
                         struct route_stats *stats, struct arena *mem, struct err *err)
{
    (void)mem;
    (void)err;
    for (int i = 0; i < in->n_row * in->top_k; i++) {
        uint64_t row = in->row_id ? in->row_id[i / in->top_k] : (uint64_t)(i / in->top_k);
        uint64_t e = (row >> 32) + row + (uint64_t)in->layer + (uint64_t)(i % in->top_k);
        slot_expert[i] = (int32_t)(e % (uint64_t)in->n_expert);
        slot_weight[i] = 1;
    }
    if (stats)
        *stats = (struct route_stats){0};
    return 0;
}
static const struct strategy in_turn = {
    .kind = STRATEGY_ROUTE, .name = "in-turn", .about = "for tests", .route = route_in_turn};

static void world_costs(struct cost_model *c)
{
    flat(&c->attn, 10 * US);
    flat(&c->context, 0);
    flat(&c->gate, 1 * US);
    flat(&c->combine, 2 * US);
    flat(&c->head, 20 * US);
    flat(&c->expert, 5 * US);
    flat(&c->gather, 3 * US);
    flat(&c->one_way, 50 * US);
    c->expert_call_ns = 4 * US;
    c->receive_ns = 1 * US;
    c->other_feel = 1;
    c->link_s = 1e18;
    c->wire_bytes = 2;
}

static void world_open(struct world *w, int n_layer, int n_expert, int top_k, int n_worker)
{
    struct err err = {0};
    memset(w, 0, sizeof(*w));
    w->desc.n_layer = n_layer;
    w->desc.n_expert = n_expert;
    w->desc.top_k = top_k;
    w->desc.d_model = 64;
    w->desc.n_head = w->desc.n_kv_head = 4;
    w->desc.d_head = 16;
    w->desc.vocab = 100;
    for (int i = 0; i < n_layer; i++)
        w->desc.layer[i].sparse = 1;
    world_costs(&w->cost);
    assert_int_equal(placement_create(n_layer, n_expert, &w->placement, &err), 0);
    int32_t expert[64];
    for (int i = 0; i < n_worker; i++) {
        int n = placement_contiguous(n_expert, i, n_worker, expert);
        assert_int_equal(placement_add_all(w->placement, expert, n, i, &err), 0);
    }
    struct route_config rc = {.desc = &w->desc, .strategy = &in_turn, .rows_max = 512, .seed = 1};
    assert_int_equal(route_source_create(&rc, &w->route, &err), 0);
    w->config = (struct sim_config){.desc = &w->desc,
                                    .cost = &w->cost,
                                    .placement = w->placement,
                                    .choice = REPLICA_LEAST_LOADED,
                                    .route = w->route,
                                    .arrivals = &w->arrivals,
                                    .n_worker = n_worker,
                                    .n_coordinator = 1,
                                    .kv_tokens = 1 << 20,
                                    .duration_s = 10,
                                    .drain_s = 100,
                                    .seed = 1};
}

static void world_close(struct world *w)
{
    arrivals_free(&w->arrivals);
    route_source_destroy(w->route);
    placement_destroy(w->placement);
}

static void arrive(struct world *w, const char *kind, double rate, int prompt, int output,
                   double cv, double duration_s, uint64_t seed)
{
    struct err err = {0};
    struct arrival_spec s = {.rate = rate,
                             .prompt_mean = prompt,
                             .output_mean = output,
                             .length_cv = cv,
                             .duration_s = duration_s,
                             .seed = seed};
    arrivals_free(&w->arrivals);
    assert_int_equal(arrival_parse(kind, &s, &err), 0);
    assert_int_equal(arrivals_make(&s, &w->arrivals, &err), 0);
    w->config.duration_s = duration_s;
}

static void run(struct world *w, struct load_result *r)
{
    struct err err = {0};
    if (sim_run(&w->config, r, &err) != 0)
        fail_msg("%s", err.text);
}

/* Every token of every request once, in every place that counts them. */
static void check_all_served(const struct world *w, const struct load_result *r)
{
    uint64_t prompt = 0, slots = 0, generated = 0;
    for (int i = 0; i < r->n_request; i++) {
        const struct load_request *q = &r->request[i];
        assert_int_equal(q->status, REQUEST_OK);
        assert_int_equal(q->n_got, q->n_output);
        assert_true(q->first_ns > q->due_ns && q->last_ns >= q->first_ns);
        prompt += (uint64_t)q->n_prompt;
        generated += (uint64_t)q->n_output;
    }
    for (int i = 0; i < r->n_worker; i++)
        slots += (uint64_t)r->worker_slots[i];
    uint64_t heat = 0;
    for (int i = 0; i < r->n_layer * r->n_expert; i++)
        heat += (uint64_t)r->heat[i];
    /* The last token of a sequence is not fed back. */
    uint64_t rows = prompt + generated - (uint64_t)r->n_request;
    assert_int_equal(r->prompt_tokens, prompt);
    assert_int_equal(r->rows, rows);
    /* In the last layer only rows that give a token go to experts. */
    uint64_t all = (rows * (uint64_t)(w->desc.n_layer - 1) + generated) * (uint64_t)w->desc.top_k;
    assert_int_equal(heat, all);
    assert_int_equal(slots, all);
}

#endif
