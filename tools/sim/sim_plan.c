/* sim_plan: from rows to what each worker gets, by the functions that serve: the routing strategy
 * chooses experts, plan_build chooses holders and cuts. Kept is what time depends on: rows, slots
 * and segments of each worker. */
#include "tools/sim/sim_state.h"

#include <stdlib.h>
#include <string.h>

void sim_plan_free(struct sim_plan *p)
{
    free(p->part);
    free(p->seg_expert);
    free(p->seg_count);
    *p = (struct sim_plan){0};
}

static int grow(void *memory, int *n_max, int n, size_t each)
{
    void **at = memory;
    void *more = realloc(*at, (size_t)n * 2 * each);
    if (!more)
        return ERR_NOMEM;
    *at = more;
    *n_max = n * 2;
    return 0;
}

static int reserve(struct sim_plan *p, int n_part, int n_seg)
{
    int rc = 0, ignore;
    if (n_part > p->n_part_max)
        rc = grow(&p->part, &p->n_part_max, n_part, sizeof(*p->part));
    if (rc == 0 && n_seg > p->n_seg_max) {
        rc = grow(&p->seg_expert, &ignore, n_seg, sizeof(int32_t));
        rc = rc ? rc : grow(&p->seg_count, &p->n_seg_max, n_seg, sizeof(int32_t));
    }
    return rc;
}

static int keep(struct sim *sim, const struct plan *plan, int layer, struct sim_plan *out)
{
    int n_seg = 0;
    for (int i = 0; i < plan->n_part; i++)
        n_seg += plan->part[i].n_seg;
    if (reserve(out, plan->n_part > 0 ? plan->n_part : 1, n_seg > 0 ? n_seg : 1))
        return err_set(sim->err, ERR_NOMEM, "no memory for a plan of %d workers", plan->n_part);
    out->n_part = plan->n_part;
    out->n_seg = out->n_assign = out->most = 0;
    out->n_holder = sim->n_holder[layer];
    for (int i = 0; i < plan->n_part; i++) {
        const struct plan_part *p = &plan->part[i];
        out->part[i] = (struct sim_part){p->worker, p->n_row, p->n_assign, out->n_seg, p->n_seg};
        for (int s = 0; s < p->n_seg; s++) {
            out->seg_expert[out->n_seg] = p->seg_expert[s];
            out->seg_count[out->n_seg++] = p->seg_count[s];
        }
        out->n_assign += p->n_assign;
        out->most = p->n_assign > out->most ? p->n_assign : out->most;
    }
    return 0;
}

static int build(struct sim *sim, struct coord *c, const struct sim_micro *m, struct sim_plan *out)
{
    const struct sim_config *s = &sim->config;
    struct route_stats stats = {0};
    int rc = route_fill(s->route, m->layer, m->row, m->n_row, sim->slot_expert, &stats, sim->err);
    if (rc)
        return rc;
    sim->dropped.n_dropped += stats.n_dropped;
    sim->dropped.n_moved += stats.n_moved;
    struct plan_input in = {.placement = s->placement,
                            .layer = m->layer,
                            .n_row = m->n_row,
                            .top_k = s->desc->top_k,
                            .slot_expert = sim->slot_expert,
                            .choice = s->choice,
                            .load = c->load,
                            .speed = sim->speed,
                            .seed = sim->n_dispatch,
                            .split_rows = s->split_rows,
                            .n_worker = s->n_worker};
    struct plan plan;
    arena_reset(&sim->arena);
    rc = plan_build(&plan, &in, &sim->arena, sim->err);
    if (rc == 0 && plan.n_orphan > 0)
        rc = err_set(sim->err, ERR_USAGE, "expert %d of layer %d is held by no worker",
                     sim->slot_expert[plan.orphan_slot[0]], m->layer);
    return rc ? rc : keep(sim, &plan, m->layer, out);
}

int plan_make(struct sim *sim, struct coord *c, int micro, const struct sim_plan **out)
{
    struct sim_micro *m = &c->micro[micro];
    struct sim_plan *fresh = &m->own;
    sim->n_dispatch++;
    if (sim->bank) {
        const struct sim_plan *known = bank_draw(sim->bank, m->layer, m->n_row, &fresh);
        if (known) {
            *out = known;
            return 0;
        }
        fresh = fresh ? fresh : &m->own;
    }
    int rc = build(sim, c, m, fresh);
    *out = fresh;
    return rc;
}
