/* control_state: what the files of control share and nobody else includes.
 *
 *   control.c          between the threads; status; which command is which
 *   control_change.c   drain, join, rebalance to a file, domains: who holds what, as operators say
 *   control_balance.c  rebalance without a file, and by the clock: planned from the live load */
#ifndef COORDINATOR_CONTROL_STATE_H
#define COORDINATOR_CONTROL_STATE_H

#include "coordinator/balance_job.h"
#include "coordinator/control.h"

#include <pthread.h>

/* Half of what the balancer goes by is not older than this. */
#define WATCH_HALF_LIFE_NS (120 * NS_PER_S)

struct command {
    struct command *next;
    json_t *in, *out;
    void (*done)(void *user, const json_t *answer);
    void *user;
};

/* The balancer's side, on the engine's thread. */
struct balance_side {
    struct load_watch *watch;
    struct balance_job *job; /* NULL: none is planning */
    struct command *asked;   /* who waits for it; NULL: the clock asked */
    int dry_run;
    int64_t next_ns;                  /* when the clock asks next */
    uint64_t plans, started, refused; /* by the clock */
    double before, after;             /* imbalance, of the last plan */
    char last[480];                   /* what became of it */
};

/* Domains whose workers have changed are placed again once nothing has moved for a while. */
struct domain_side {
    struct domain_rules *rules;
    uint64_t seen;      /* of the workers, as they were last looked at */
    int64_t due_ns;     /* 0: nothing to do */
    uint64_t done_seen; /* changes that were done when rules were last settled */
};

struct control {
    struct control_config config;
    struct pool *pool;
    const struct clock *clock;
    ev_async wake;
    pthread_mutex_t lock;
    struct command *inbox, **inbox_tail, *outbox, **outbox_tail; /* under lock, as is view */
    struct control_view view;
    struct rebalance *rebalance; /* engine's thread; NULL: dense */
    int joining;                 /* a worker that gets its share when it is welcomed; -1: none */
    int64_t joining_until_ns;
    struct err join_error;
    struct balance_side balance;
    struct domain_side domains;
};

/* control_post gives a command's answer (taken over) back to the loop's thread. */
void control_post(struct control *c, struct command *command, json_t *answer);
json_t *control_answer(int rc, const struct err *err);
/* control_idle: may a change begin? ERR_AGAIN. */
int control_idle(const struct control *c, struct err *err);

/* Changes; 0 or an error. */
int control_drain(struct control *c, const json_t *in, struct err *err);
int control_join(struct control *c, const json_t *in, struct err *err);
int control_rebalance_file(struct control *c, const json_t *in, struct err *err);
int control_domains(struct control *c, const json_t *in, struct err *err);
int control_cancel(struct control *c, struct err *err);
void control_change_tick(struct control *c, int64_t now);

/* control_balance begins to plan; `command` is answered when that has ended, unless this fails. */
int control_balance(struct control *c, struct command *command, struct err *err);
void control_balance_tick(struct control *c, int64_t now);
json_t *control_balance_status(const struct control *c);

#endif
