/* sim_state: what one simulation is made of; private to tools/sim. */
#ifndef TOOLS_SIM_SIM_STATE_H
#define TOOLS_SIM_SIM_STATE_H

#include "base/arena.h"
#include "base/clock.h"
#include "coordinator/sched.h"
#include "tools/sim/sim.h"
#include "worker/queue.h"

struct sim;

/* ---- events ---- */

enum event_kind { EVENT_ARRIVAL, EVENT_TASK, EVENT_HOST, EVENT_MESSAGE, EVENT_REPLY, EVENT_SLICE };
struct event {
    int64_t at_ns;
    uint64_t order; /* ties: first made, first taken */
    enum event_kind kind;
    void *what;
    uint64_t version;
};
struct heap {
    struct event *at;
    size_t n, n_max;
    uint64_t order;
    int failed; /* memory ran out: the simulation ends with an error */
};
void heap_push(struct heap *h, int64_t at_ns, enum event_kind kind, void *what, uint64_t version);
int heap_pop(struct heap *h, struct event *out);
void heap_free(struct heap *h);

/* ---- machines ---- */

/* A task is one computation at a time of one coordinator or worker. On a machine with fewer cores
 * than threads that want to run, all running tasks slow down alike. */
struct task {
    void (*done)(struct sim *sim, void *owner);
    void *owner;
    struct host *host; /* NULL: a machine of its own */
    int threads, running;
    double left_ns;
    int64_t begun_ns;
};
struct host {
    int n_core, n_running;
    struct task **running;
    int64_t updated_ns;
    uint64_t version;
};
void task_start(struct sim *sim, struct task *task, double work_ns);
void host_event(struct sim *sim, struct host *host, uint64_t version);

/* ---- plans ---- */

/* What one worker gets of one dispatch. */
struct sim_part {
    int32_t worker, n_row, n_assign, seg, n_seg; /* seg: its first segment */
};
struct sim_plan {
    struct sim_part *part;
    int32_t *seg_expert, *seg_count;
    int n_part, n_part_max, n_seg, n_seg_max;
    int n_assign, most; /* slots in all; of the fullest worker */
    double n_holder;    /* workers that hold anything of the layer */
};
void sim_plan_free(struct sim_plan *plan);
/* plan_make: the plan of these rows in this layer, from the bank or made. load [n_worker] or NULL.
 * *out lives until the next call for the same (layer, rows) or, if made into `own`, as own does. */
struct coord;
int plan_make(struct sim *sim, struct coord *c, int micro, const struct sim_plan **out);

/* ---- workers ---- */

/* A message on its way, at a worker, or answered. `job` comes first: the worker's queue knows only
 * that. */
struct sim_job {
    struct job job;
    struct coord *coord;
    int micro;
    const struct sim_part *part;
    const struct sim_plan *plan;
    struct sim_worker *worker;
};
struct sim_worker {
    int id;
    double speed;
    struct queue *queue;
    struct job *batch; /* being computed */
    struct task task;
    double busy_ns, slots;
};
void worker_take_message(struct sim *sim, struct sim_job *job);
void worker_done(struct sim *sim, void *worker);

/* ---- coordinators ---- */

enum micro_state { SIM_READY, SIM_AWAY };
struct sim_micro {
    struct route_row *row; /* [rows_max] */
    int n_row, n_span, layer;
    enum micro_state state;
    double context_ns; /* attention over the rows' contexts, of one layer without a window */
    int n_left;        /* replies that have not come */
    int seen_done;     /* they had come when the pool was last asked */
    struct sim_plan own;
    const struct sim_plan *plan;
    struct sim_job *job; /* [n_job_max] */
    int n_job_max;
    int64_t sent_ns;
};
enum arrow { ARROW_NONE, ARROW_DENSE, ARROW_ATTENTION, ARROW_SEND, ARROW_COMBINE, ARROW_HEAD };
struct coord {
    int id;
    struct kv kv;
    struct sched sched;
    struct sim_micro micro[2];
    int n_micro, n_span, n_row;
    int turn, moved;
    int stepping, waiting;
    int64_t step_ns, waiting_ns; /* since when */
    enum arrow arrow;
    int arrow_micro;
    struct task task;
    int64_t egress_ns, ingress_ns; /* until when its port is taken */
    int32_t *load;                 /* [n_worker] slots outstanding */
    double busy_ns;
};
int coord_create(struct sim *sim, struct coord *c, int id);
void coord_destroy(struct coord *c);
void coord_arrival(struct sim *sim, struct coord *c, int request);
void coord_reply(struct sim *sim, struct sim_job *job);
void coord_done(struct sim *sim, void *coord);

/* ---- all ---- */

struct bank; /* sim_bank.c */

struct sim {
    struct sim_config config;
    const struct cost_model *cost;
    struct heap heap;
    int64_t now_ns, stop_ns;
    struct host host;
    struct coord *coord;
    struct sim_worker *worker;
    int next_arrival, n_open; /* requests that have arrived and not ended */
    int32_t *prompt;          /* [longest prompt] zeros */
    struct arena arena;       /* of one plan */
    int32_t *slot_expert;     /* [rows_max, top_k] */
    int32_t *n_holder;        /* [n_layer] workers that hold anything of it */
    int32_t *count;           /* [n_expert] zeros between batches */
    int32_t *touched;         /* [n_expert] */
    float *speed;             /* [n_worker] as plan_build wants them, or NULL */
    uint64_t n_dispatch;
    struct bank *bank;
    struct route_stats dropped;
    struct load_result *out;
    int64_t slice_ns;
    int rc;
    struct err *err;
};

/* sim_fail: the simulation ends with this error; the first one stays. */
void sim_fail(struct sim *sim, int rc);
struct load_slice *slice_at(struct sim *sim, int64_t at_ns);
/* in_figures: within [warmup, duration). */
int in_figures(const struct sim *sim, int64_t at_ns);
/* wire_send: when a message of `bytes` that is ready at `at_ns` is at the worker; wire_reply: one
 * of a worker at the coordinator. */
int64_t wire_send(struct sim *sim, struct coord *c, int64_t at_ns, double bytes);
int64_t wire_reply(struct sim *sim, struct coord *c, int64_t at_ns, double bytes);

struct bank *bank_create(int n_layer, int n_variant, uint64_t seed);
void bank_destroy(struct bank *b);
/* bank_draw: a plan to use again, or NULL; then *fresh is where the caller makes one. */
const struct sim_plan *bank_draw(struct bank *b, int layer, int n_row, struct sim_plan **fresh);

#endif
