/* balancer: see balancer.h. The problem is solved over the sparse layers and the experts without a
 * rule, numbered anew (`expert`), and the workers that can hold some. */
#include "coordinator/balancer.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Fewer slots an expert than this say nothing of which are hot. */
#define SLOTS_AN_EXPERT 8
/* Workers whose speeds differ less than this from the median are alike: how fast one looks also
 * depends on how full its experts' batches were. */
#define ALIKE 1.3
/* The work of a layer that ends last must shrink by this part, or moving is noise. */
#define WORTH 0.02
/* Time of a slot on a worker of speed 1, where none was measured; part of a worker's speed that
 * loading costs it. */
#define SLOT_S   1e-4
#define SLOWDOWN 0.5
/* Of its speed a worker keeps at least this beside ruled experts. */
#define SPEED_MIN 0.05

struct problem {
    const struct balancer_facts *f;
    const struct balancer_ask *ask;
    struct balance_input in;
    int32_t *layer;  /* [n_layer] the model's */
    int32_t *expert; /* [n_expert] the model's */
    int32_t *worker; /* [n_pool] the problem's, -1: none */
    double *load;    /* [n_layer, n_expert] */
    double *domain_load;
    struct balance_worker *by_worker;
    double *scratch; /* [n_worker] */
    double slot_s;   /* of a worker of speed 1 */
    struct arena mem;
    struct balance_table now, next;
};

static int problem_alloc(struct problem *p, struct err *err)
{
    const struct model_desc *d = p->f->desc;
    size_t e = (size_t)d->n_expert, l = (size_t)desc_n_sparse(d), w = (size_t)p->f->n_worker;
    p->layer = calloc(l + 1, sizeof(*p->layer));
    p->expert = calloc(e + 1, sizeof(*p->expert));
    p->worker = calloc((size_t)p->f->n_pool + 1, sizeof(*p->worker));
    p->load = calloc(l * e + 1, sizeof(*p->load));
    p->domain_load = calloc((size_t)d->n_domain * l * e + 1, sizeof(*p->domain_load));
    p->by_worker = calloc(w + 1, sizeof(*p->by_worker));
    p->scratch = calloc(w + 1, sizeof(*p->scratch));
    return p->scratch && p->layer && p->expert && p->worker && p->load && p->domain_load &&
                   p->by_worker
               ? 0
               : err_set(err, ERR_NOMEM, "no memory to balance %zu workers", w);
}

static void problem_free(struct problem *p)
{
    free(p->layer);
    free(p->expert);
    free(p->worker);
    free(p->load);
    free(p->domain_load);
    free(p->by_worker);
    free(p->scratch);
    arena_fini(&p->mem);
}

/* ---- numbering anew ---- */

static void number(struct problem *p)
{
    const struct model_desc *d = p->f->desc;
    for (int l = 0; l < d->n_layer; l++) {
        if (d->layer[l].sparse) {
            p->layer[p->in.n_layer++] = l;
        }
    }
    for (int e = 0; e < d->n_expert; e++) {
        if (!p->f->ruled[e]) {
            p->expert[p->in.n_expert++] = e;
        }
    }
    for (int i = 0; i < p->f->n_pool; i++) {
        p->worker[i] = -1;
    }
    for (int w = 0; w < p->f->n_worker; w++) {
        p->worker[p->f->worker[w].index] = w;
    }
    p->in.n_worker = p->f->n_worker;
}

static void take_loads(struct problem *p)
{
    const struct model_desc *d = p->f->desc;
    size_t cells = (size_t)p->in.n_layer * (size_t)p->in.n_expert;
    for (int l = 0; l < p->in.n_layer; l++) {
        for (int i = 0; i < p->in.n_expert; i++) {
            int e = p->expert[i];
            size_t cell = (size_t)l * (size_t)p->in.n_expert + (size_t)i;
            p->load[cell] = p->f->load[(size_t)l * (size_t)d->n_expert + (size_t)e];
            for (int g = 0; g < d->n_domain; g++) {
                const struct domain_desc *group = &d->domain[g];
                int in_group = e >= group->first && e < group->first + group->n_expert;
                p->domain_load[(size_t)g * cells + cell] = in_group ? p->load[cell] : 0;
            }
        }
    }
    p->in.load = p->load;
    p->in.n_domain = d->n_domain;
    p->in.domain_load = d->n_domain > 0 ? p->domain_load : NULL;
    p->in.expert_bytes = p->f->expert_bytes;
}

/* ---- workers ---- */

static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Relative to the median of those that were seen; the others count as it. */
static void speeds(struct problem *p)
{
    int n = 0;
    for (int w = 0; w < p->in.n_worker; w++) {
        if (p->f->worker[w].speed > 0) {
            p->scratch[n++] = p->f->worker[w].speed;
        }
    }
    qsort(p->scratch, (size_t)n, sizeof(*p->scratch), by_size);
    double median = n > 0 ? p->scratch[n / 2] : 0;
    for (int w = 0; w < p->in.n_worker; w++) {
        double x = median > 0 && p->f->worker[w].speed > 0 ? p->f->worker[w].speed / median : 1;
        p->by_worker[w].speed = x < ALIKE && x > 1 / ALIKE ? 1 : x;
    }
    p->slot_s = median > 0 ? 1 / median : SLOT_S;
}

/* Slots that ruled experts bring each worker, as a part of what all have, comes off its speed. */
static void ruled_work(struct problem *p)
{
    const struct model_desc *d = p->f->desc;
    double all = 0, power = 0;
    double *work = p->scratch;
    memset(work, 0, (size_t)p->in.n_worker * sizeof(*work));
    for (int l = 0; l < p->in.n_layer; l++) {
        for (int e = 0; e < d->n_expert; e++) {
            const int32_t *holder;
            double load = p->f->load[(size_t)l * (size_t)d->n_expert + (size_t)e];
            int n = placement_holders(p->f->now, p->layer[l], e, &holder);
            all += load;
            for (int i = 0; p->f->ruled[e] && i < n; i++) {
                int w = holder[i] < p->f->n_pool ? p->worker[holder[i]] : -1;
                if (w >= 0) {
                    work[w] += load / n;
                }
            }
        }
    }
    for (int w = 0; w < p->in.n_worker; w++) {
        power += p->by_worker[w].speed;
    }
    for (int w = 0; all > 0 && w < p->in.n_worker; w++) {
        double speed = p->by_worker[w].speed, left = speed - work[w] / all * power;
        p->by_worker[w].speed = left > speed * SPEED_MIN ? left : speed * SPEED_MIN;
    }
}

/* Experts of the problem that each worker holds in its fullest layer; copies a layer, at most. */
static int held_now(const struct problem *p, int32_t *n_slot)
{
    int most = 0;
    int32_t *n = calloc((size_t)p->in.n_worker, sizeof(*n));
    memset(n_slot, 0, (size_t)p->in.n_worker * sizeof(*n_slot));
    for (int l = 0; n && l < p->in.n_layer; l++) {
        int copies = 0;
        memset(n, 0, (size_t)p->in.n_worker * sizeof(*n));
        for (int i = 0; i < p->in.n_expert; i++) {
            const int32_t *holder;
            int n_holder = placement_holders(p->f->now, p->layer[l], p->expert[i], &holder);
            for (int h = 0; h < n_holder; h++) {
                int w = holder[h] < p->f->n_pool ? p->worker[holder[h]] : -1;
                if (w >= 0) {
                    n_slot[w] = ++n[w] > n_slot[w] ? n[w] : n_slot[w];
                    copies++;
                }
            }
        }
        most = copies > most ? copies : most;
    }
    free(n);
    return n ? most : -1;
}

/* slots: room for what each worker holds now, and for its share of what was asked for. */
static int slots(struct problem *p, struct err *err)
{
    int32_t *held = calloc((size_t)p->in.n_worker * 2, sizeof(*held));
    int copies = held ? held_now(p, held) : -1, rc = 0;
    if (copies < 0) {
        free(held);
        return err_set(err, ERR_NOMEM, "no memory to balance %d workers", p->in.n_worker);
    }
    int32_t *share = held + p->in.n_worker;
    int redundant = p->ask->n_redundant;
    int most = p->in.n_expert * (p->in.n_worker - 1);
    if (redundant == BALANCER_AS_NOW) {
        redundant = copies > p->in.n_expert ? copies - p->in.n_expert : 0;
    } else if (redundant < 0) {
        redundant = most;
    }
    p->in.n_redundant = redundant < most || p->ask->n_redundant > 0 ? redundant : most;
    p->in.worker = p->by_worker;
    rc = balance_check(&p->in, err);
    rc = rc ? rc : balance_slots(&p->in, share, err);
    for (int w = 0; w < p->in.n_worker && !rc; w++) {
        p->by_worker[w].n_slot = share[w] > held[w] ? share[w] : held[w];
        /* A worker with no room has no place in a table. */
        p->by_worker[w].n_slot += p->by_worker[w].n_slot == 0;
    }
    free(held);
    return rc;
}

/* ---- tables ---- */

/* The placement in use, with the slots that `next` has. */
static int table_now(struct problem *p, struct err *err)
{
    size_t n_slot = (size_t)p->next.n_slot, cells = (size_t)p->in.n_layer * n_slot;
    int32_t *taken = arena_alloc(&p->mem, (size_t)p->in.n_worker * sizeof(*taken));
    p->now = p->next;
    p->now.expert = arena_alloc(&p->mem, cells * sizeof(*p->now.expert));
    if (!taken || !p->now.expert) {
        return err_set(err, ERR_NOMEM, "no memory for a table of %zu slots", cells);
    }
    memset(p->now.expert, -1, cells * sizeof(*p->now.expert));
    for (int l = 0; l < p->in.n_layer; l++) {
        memset(taken, 0, (size_t)p->in.n_worker * sizeof(*taken));
        for (int i = 0; i < p->in.n_expert; i++) {
            const int32_t *holder;
            int n = placement_holders(p->f->now, p->layer[l], p->expert[i], &holder);
            for (int h = 0; h < n; h++) {
                int w = holder[h] < p->f->n_pool ? p->worker[holder[h]] : -1;
                if (w >= 0) {
                    p->now.expert[(size_t)l * n_slot + (size_t)(p->now.begin[w] + taken[w]++)] = i;
                }
            }
        }
    }
    return 0;
}

static int solve(struct problem *p, struct balancer_answer *out, struct err *err)
{
    size_t bytes = balance_arena_bytes(&p->in) * 2 + (size_t)p->in.n_worker * 8 + 4096;
    if (arena_init(&p->mem, bytes)) {
        return err_set(err, ERR_NOMEM, "no memory to place %d experts", p->in.n_expert);
    }
    int rc = p->ask->place->place(&p->in, &p->next, &p->mem, err);
    rc = rc ? rc : table_now(p, err);
    struct balance_cost cost = {.expert_bytes = p->in.expert_bytes,
                                .bytes_per_s = p->f->bytes_per_s,
                                .row_s = p->slot_s,
                                .window_slots = out->slots,
                                .horizon_slots = out->slots / p->f->seconds * p->ask->horizon_s,
                                .slowdown = SLOWDOWN};
    struct arena mem;
    if (rc == 0 && arena_init(&mem, balance_settle_bytes(&p->next))) {
        return err_set(err, ERR_NOMEM, "no memory to compare placements");
    }
    if (rc == 0) {
        rc = balance_settle(&p->now, &p->next, &p->in, p->ask->force ? NULL : &cost, NULL,
                            &out->moves, &mem, err);
        arena_fini(&mem);
    }
    out->moves.load_s = (double)out->moves.bytes_worker_max / p->f->bytes_per_s;
    return rc;
}

/* ---- what it is worth ---- */

static double worst(const double *excess, int n)
{
    double most = 0;
    for (int i = 0; i < n; i++) {
        most = excess[i] > most ? excess[i] : most;
    }
    return most;
}

/* end_s: seconds that the workers which end last compute, over all layers and the window. */
static double end_s(const struct problem *p, const struct balance_table *t, double *work,
                    void *scratch)
{
    double sum = 0;
    for (int l = 0; l < p->in.n_layer; l++) {
        double end = 0;
        balance_worker_load(t, l, p->load + (size_t)l * (size_t)p->in.n_expert, p->by_worker,
                            SPLIT_BEST, work, scratch);
        for (int w = 0; w < p->in.n_worker; w++) {
            end = fmax(end, work[w] / p->by_worker[w].speed);
        }
        sum += end * p->slot_s;
    }
    return sum;
}

static int figures(struct problem *p, struct balancer_answer *out, struct err *err)
{
    size_t room = balance_excess_scratch(&p->next), more = balance_load_scratch(&p->next);
    int n = p->in.n_layer;
    void *scratch = malloc(room > more ? room : more);
    double *work = calloc((size_t)(p->in.n_worker + n), sizeof(*work));
    if (!scratch || !work) {
        free(scratch);
        free(work);
        return err_set(err, ERR_NOMEM, "no memory for the figures of %d layers", n);
    }
    out->before = balance_excess(&p->now, p->load, p->by_worker, SPLIT_BEST, work, scratch);
    out->before_worst = worst(work, n);
    out->after = balance_excess(&p->next, p->load, p->by_worker, SPLIT_BEST, work, scratch);
    out->after_worst = worst(work, n);
    double before = end_s(p, &p->now, work, scratch), after = end_s(p, &p->next, work, scratch);
    double times = p->ask->horizon_s / p->f->seconds;
    out->gain_s = (before - after) * times;
    out->cost_s = out->moves.load_s * SLOWDOWN;
    out->payback_s = before > after ? out->cost_s / (before - after) * p->f->seconds : 0;
    int better = before - after >= before * WORTH;
    out->pays =
        out->moves.n_move > 0 && (out->moves.n_broken > 0 || (better && out->gain_s > out->cost_s));
    free(scratch);
    free(work);
    return 0;
}

static void judge(const struct problem *p, struct balancer_answer *out)
{
    if (out->moves.n_move == 0 && out->moves.n_refused == 0) {
        snprintf(out->reason, sizeof(out->reason),
                 "the placement in use is as even as can be found");
    } else if (p->ask->force) {
        snprintf(out->reason, sizeof(out->reason), "%s", out->pays ? "" : "forced");
        out->pays = out->moves.n_move > 0;
    } else if (!out->pays) {
        snprintf(out->reason, sizeof(out->reason),
                 "moving does not pay back within the horizon of %.0f s", p->ask->horizon_s);
    }
}

/* ---- the target ---- */

/* Experts of the problem as `next` has them, all others as they are. */
static int target_make(const struct problem *p, struct placement **out, struct err *err)
{
    struct placement *t = NULL;
    int rc = placement_copy(p->f->now, &t, err);
    for (int l = 0; l < p->in.n_layer && !rc; l++) {
        for (int i = 0; i < p->in.n_expert; i++) {
            for (int w = 0; w < p->f->n_pool; w++) {
                placement_remove(t, p->layer[l], p->expert[i], w);
            }
        }
        for (int w = 0; w < p->in.n_worker; w++) {
            for (int s = p->next.begin[w]; s < p->next.begin[w + 1] && !rc; s++) {
                int i = p->next.expert[(size_t)l * (size_t)p->next.n_slot + (size_t)s];
                rc = i < 0
                         ? 0
                         : placement_add(t, p->layer[l], p->expert[i], p->f->worker[w].index, err);
            }
        }
    }
    if (rc) {
        placement_destroy(t);
        return rc;
    }
    *out = t;
    return 0;
}

static int seen_enough(const struct problem *p, struct balancer_answer *out)
{
    double sum = 0;
    for (size_t i = 0; i < (size_t)p->in.n_layer * (size_t)p->in.n_expert; i++) {
        sum += p->load[i];
    }
    out->slots = sum / p->in.n_layer;
    out->seconds = p->f->seconds;
    out->horizon_s = p->ask->horizon_s;
    return p->f->seconds > 0 && out->slots >= (double)SLOTS_AN_EXPERT * p->in.n_expert;
}

static int plan(struct problem *p, struct balancer_answer *out, struct err *err)
{
    int rc = problem_alloc(p, err);
    if (rc) {
        return rc;
    }
    number(p);
    if (p->in.n_expert == 0 || p->in.n_worker == 0) {
        snprintf(out->reason, sizeof(out->reason), "%s",
                 p->in.n_expert ? "no worker can hold experts" : "rules place every expert");
        return 0;
    }
    take_loads(p);
    if (!seen_enough(p, out)) {
        snprintf(out->reason, sizeof(out->reason),
                 "too little traffic was seen to plan from: %.0f slots a layer, %d are needed",
                 out->slots, SLOTS_AN_EXPERT * p->in.n_expert);
        return 0;
    }
    speeds(p);
    ruled_work(p);
    rc = slots(p, err);
    rc = rc ? rc : solve(p, out, err);
    rc = rc ? rc : figures(p, out, err);
    if (rc == 0) {
        judge(p, out);
        rc = out->moves.n_move > 0 ? target_make(p, &out->target, err) : 0;
    }
    return rc;
}

int balancer_plan(const struct balancer_facts *facts, const struct balancer_ask *ask,
                  struct balancer_answer *out, struct err *err)
{
    struct problem p = {.f = facts, .ask = ask};
    *out = (struct balancer_answer){0};
    int rc = plan(&p, out, err);
    problem_free(&p);
    return rc;
}
