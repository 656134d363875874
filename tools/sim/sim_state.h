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

enum event_kind {
    EVENT_ARRIVAL,
    EVENT_TASK,
    EVENT_HOST,
    EVENT_LAND, /* a message has crossed to the other side's host */
    EVENT_SLICE
};
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

/* ---- hosts ---- */

/* A task is one computation at a time of one coordinator, worker, front or client, by n_thread
 * threads that share its work. Without a host it has a machine of its own and takes as long as its
 * work; on a host its threads meet those of others (sim_host.c). */
typedef void task_fn(struct sim *sim, void *owner);
struct sim_thread {
    struct task *task;
    int cpu, runnable; /* where it runs or ran last; it runs or waits to */
    double load;       /* of the time it was runnable, faded, as of load_ns */
    int64_t load_ns;
    struct sim_thread *next;  /* of the host */
    struct sim_thread *below; /* in a line of those that wait for the CPU */
};
struct task {
    task_fn *done; /* may start the task again */
    void *owner;
    struct host *host;
    int n_thread, running;
    struct sim_thread *thread; /* [n_thread]; NULL without a host */
    double left_ns;            /* summed over threads */
    double felt, memory;       /* of the time: what the CPU's pace stretches, what memory bounds */
    int64_t begun_ns;
    double spent_ns; /* CPU time, all threads */
};
struct sim_cpu {
    struct sim_thread *run, *waiting;
};
struct host {
    struct sim_cpu *cpu; /* [n_cpu] */
    int n_cpu, n_thread;
    struct sim_thread *threads; /* all of them */
    int waker;                  /* the CPU of who wakes others now, or -1 */
    int64_t updated_ns;
    int64_t pace_from; /* the bin of cost->pace that time begins in */
    uint64_t version;
};
int host_create(struct host *h, int n_cpu, int64_t pace_from);
void host_destroy(struct host *h);
int task_create(struct task *task, struct host *host, int n_thread, task_fn *done, void *owner);
void task_destroy(struct task *task);
/* task_start: work of each thread. */
void task_start(struct sim *sim, struct task *task, struct work work);
void host_event(struct sim *sim, struct host *host, uint64_t version);

/* ---- messages on hosts ---- */

/* A process's thread that moves messages (ZeroMQ's), one after the other. */
struct sim_porter {
    struct task task;
    struct sim_job *first, **last;
};
int porter_create(struct sim_porter *p, struct host *host);
void porter_destroy(struct sim_porter *p);
/* message_send: a request of job->bytes is built, or (of who is on no host) will be at at_ns.
 * message_reply: a worker has its reply. They end in worker_take_message and coord_reply. */
void message_send(struct sim *sim, struct sim_job *job, int64_t at_ns);
void message_reply(struct sim *sim, struct sim_job *job, double bytes);
void message_landed(struct sim *sim, struct sim_job *job); /* EVENT_LAND */

/* ---- front and client ---- */

/* What a server's HTTP thread, or the client, still has to do, in order. */
struct sim_word {
    int request, token; /* token 0: the request itself */
};
struct sim_desk {
    struct task task;
    struct coord *coord;   /* whose front; NULL: the client's */
    struct sim_word *word; /* [n_max] ring */
    int n, n_max, head;
};
int desk_create(struct sim_desk *d, struct host *host, struct coord *coord);
void desk_destroy(struct sim_desk *d);
/* desk_put: something to do there; a request goes from the client's desk by the front to its
 * coordinator, a token back the same way. */
void desk_put(struct sim *sim, struct sim_desk *d, struct sim_word word);

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
    struct sim_job *behind; /* in a porter's line */
    int back;               /* it is a reply by now */
    double bytes;           /* of what is on its way */
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
    struct sim_porter porter;
    double busy_ns, slots;
};
void worker_take_message(struct sim *sim, struct sim_job *job);
void worker_done(struct sim *sim, void *worker);

/* ---- coordinators ---- */

enum micro_state { SIM_READY, SIM_AWAY };
struct sim_micro {
    struct route_row *row; /* [rows_max] */
    int n_row, layer;
    enum micro_state state;
    struct work context; /* attention of its sequences, of one layer without a window */
    int n_left, n_sent;  /* replies that have not come; requests that have left (on hosts) */
    int seen_done;       /* they had come when the pool was last asked */
    struct sim_plan own;
    const struct sim_plan *plan;
    struct sim_job *job; /* [n_job_max] */
    int n_job_max;
    int64_t sent_ns;
};
enum arrow {
    ARROW_NONE,
    ARROW_DENSE,
    ARROW_KEYS, /* of a last layer that no row goes through */
    ARROW_ATTENTION,
    ARROW_BUILD, /* the next message; on hosts */
    ARROW_SEND,
    ARROW_READ, /* replies, while it waits for others */
    ARROW_COMBINE,
    ARROW_HEAD
};
struct coord {
    int id;
    struct kv kv;
    struct sched sched;
    struct sim_micro micro[2];
    int n_micro, n_span, n_row;
    int turn, moved;
    int stepping, waiting;
    int n_unread;                /* replies that have come and not been taken */
    struct work unread;          /* to take them */
    int64_t step_ns, waiting_ns; /* since when */
    int64_t waited_ns;           /* of this step */
    enum arrow arrow;
    int arrow_micro;
    struct task task;
    struct sim_porter porter;
    struct sim_desk front;
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
    struct host *host; /* [n_host] */
    int n_host;
    double stretch; /* of what is felt, where nobody shares a host: that of the pace's mean */
    struct sim_desk client;
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
/* host_of: the host of an index in the configuration, or NULL. */
struct host *host_of(struct sim *sim, const int *index, int i);
struct bank *bank_create(int n_layer, int n_variant, uint64_t seed);
void bank_destroy(struct bank *b);
/* bank_draw: a plan to use again, or NULL; then *fresh is where the caller makes one. */
const struct sim_plan *bank_draw(struct bank *b, int layer, int n_row, struct sim_plan **fresh);

#endif
