/* pool: the coordinator's workers. Takes a micro-batch's slots for one layer, plans them over the
 * placement, sends, and says when every slot has its row. The only part that knows that a worker
 * may die: a call that misses its deadline, is refused (NotHeld) or whose worker is gone is planned
 * again over the holders left with a new epoch, or computed here by the worker's own code (same
 * bits).
 *
 * Invariants. 1. A call id is used once; a reply to an unknown, answered or abandoned call is
 * dropped.
 * 2. At most `credits` calls are outstanding at a worker; others wait in the pool, in order.
 * 3. A dispatch ends exactly once: with every slot filled, or with an error if the pool cannot.
 * 4. The rows a slot points at stay until dispatch_release. */
#ifndef COORDINATOR_POOL_H
#define COORDINATOR_POOL_H

#include "base/clock.h"
#include "base/err.h"
#include "model/weights.h"
#include "proto/frames.h"
#include "proto/msg.h"
#include "router/plan.h"
#include <ev.h>

/* Rows of the engine's largest step, unless it is told otherwise: what memory shared with a worker
 * is sized for. */
#define STEP_ROWS 1024

struct wire_keys; /* proto/keys.h */

/* transport: how frames reach workers; ZeroMQ in life, a seeded simulation in tests. Links are
 * small integers given by the pool. */
struct transport {
    void *self;
    /* open connects link `link` to an endpoint. Nothing of an earlier connection of this link is
     * received on it. */
    int (*open)(void *self, int link, const char *endpoint, struct err *err);
    void (*close)(void *self, int link);
    /* send takes the frames over; 0, ERR_AGAIN (try later: the frames are left with the caller
     * then: the peer's queue is full or it is not connected) or ERR_GONE. Never waits. */
    int (*send)(void *self, int link, struct frames *f);
    /* recv: 1 and a message, 0 when none is there, or ERR_GONE: what link *link reached has ended,
     * and all that it said before has been received. */
    int (*recv)(void *self, int *link, struct frames *f);
    /* wait until a message may be there or `until_ns` of the clock has come. */
    void (*wait)(void *self, int64_t until_ns);
    /* awaited: whether what comes from this link is reason to end a wait (as it is at first). What
     * comes from one that is not awaited may lie until the wait ends for another reason. NULL:
     * everything ends it. */
    void (*awaited)(void *self, int link, int yes);
    /* trouble: why a link does not connect, a line, or NULL. The function may be NULL. */
    const char *(*trouble)(void *self, int link);
    /* offered: the worker of this link would share memory, which the transport may take up or not:
     * rings that hold about so many bytes are enough. NULL: it never does. */
    void (*offered)(void *self, int link, const struct shm_offer *offer, size_t to_bytes,
                    size_t from_bytes);
    /* via: how rows reach the link just now: "shm", or the endpoint's own way. NULL: that one. */
    const char *(*via)(void *self, int link);
};
struct sock; /* proto/sock.h */

/* transport_zmq: on its own libev loop. wire bytes are counted into *sent and *received. keys
 * encrypt every link that leaves the process (proto/keys.h) and outlive it; without them (NULL)
 * workers of other hosts are refused unless `insecure`. Messages
 * with tensors go through shared memory where a worker offers it (proto/shm.h). */
struct transport_zmq;
int transport_zmq_create(void *zmq_context, const struct clock *clock, const struct wire_keys *keys,
                         int insecure, struct transport_zmq **out, struct err *err);
struct transport *transport_zmq_interface(struct transport_zmq *t);
/* transport_zmq_set_spin: a wait looks at shared memory so long before it parks, while that pays
 * (base/spin.h); 0, the default: parks at once. ZeroMQ's own threads are never waited for so. */
void transport_zmq_set_spin(struct transport_zmq *t, int spin_us);
/* transport_zmq_set_shm: 0: no offer is taken up. */
void transport_zmq_set_shm(struct transport_zmq *t, int on);
/* transport_zmq_loop: it runs inside recv and wait, on the caller's thread, and so does what else
 * is on it. */
struct ev_loop *transport_zmq_loop(struct transport_zmq *t);
/* transport_zmq_beside: links to this socket's endpoint, which is on the loop above, go to it
 * straight; it outlives them. 0 or ERR_NOMEM. */
int transport_zmq_beside(struct transport_zmq *t, struct sock *serve);
void transport_zmq_bytes(const struct transport_zmq *t, uint64_t *sent, uint64_t *received);
void transport_zmq_destroy(struct transport_zmq *t);

/* What hidden states travel as: bf16 (or f32, the run's own); those that go to experts in fp8; the
 * results too. Not only what travels is rounded so, but also what a worker that does not know fp8,
 * or this process, computes with: results depend on this choice and on nothing else. */
enum wire_rows { WIRE_ROWS_OWN, WIRE_ROWS_FP8, WIRE_ROWS_FP8_BOTH };

struct pool_config {
    const struct model *model;
    enum precision precision;
    const char *numerics;    /* model_numerics; outlives the pool */
    enum wire_rows rows;     /* fp8: in bf16 only */
    const struct kernels *k; /* what makes fp8 of rows; NULL where none is made */
    const struct clock *clock;
    struct transport *transport;
    int64_t connect_timeout_ns; /* Hello to Welcome at start; 0: 30 s */
    int64_t call_timeout_ns;    /* a call without a reply: the worker is given up; 0: 30 s */
    int64_t ping_interval_ns;   /* 0: 1 s */
    int64_t ping_timeout_ns;    /* a worker silent so long with calls out is gone; 0: 10 s */
    enum replica_choice choice; /* who of several holders computes, router/plan.h */
    int split_rows;             /* an expert with so many rows twice may be cut; 0: never */
    /* local computes what no worker can (layer, segments; see worker.h compute_item), on the
     * calling thread. NULL: a dispatch with such slots fails. */
    int (*local)(void *user, const struct msg_request *request, void *out, struct err *err);
    void *local_user;
    uint64_t seed; /* incarnations; 0: from the kernel */
};

struct pool;
int pool_create(const struct pool_config *config, struct pool **out, struct err *err);
void pool_destroy(struct pool *pool);
/* pool_connect says Hello to every endpoint and waits for the Welcomes; builds the placement. A
 * worker with another model, precision or wire version is ERR_MODEL or ERR_NET with its own words.
 * After a failure the pool can only be destroyed. Called again it adds workers. */
int pool_connect(struct pool *pool, const char *const *endpoint, int n, struct err *err);
/* pool_uncovered: experts (layer, expert) nobody holds, though somebody should (pool_excuse); 0
 * when all are covered. */
int pool_uncovered(const struct pool *pool);
/* pool_placement: valid until the next call of pool_connect, pool_dispatch, pool_poll or pool_wait.
 */
const struct placement *pool_placement(const struct pool *pool);

/* A dispatch belongs to the engine, which sets the first part and leaves the rest alone. */
struct dispatch {
    int layer, batch, n_row, top_k;
    const int32_t *slot_expert; /* [n_row, top_k]; negative: empty slot */
    const void *rows;           /* [n_row, d_model] of the precision's dtype, until done */
    size_t ld_row;              /* elements from row to row */
    const void **slot_row; /* [n_row * top_k] filled by the pool: a row of d_model elements of the
                              precision's dtype each; NULL for empty slots */
    int16_t *slot_worker;  /* [n_row * top_k] filled by the pool: who computed the slot's row, -1:
                              the  coordinator itself; NULL: nobody wants to know */
    void *user;

    int done; /* set by the pool; then `status` is 0 or an error in `err` */
    int status;
    struct err err;
    int64_t sent_ns, done_ns;         /* clock: dispatch begun, last row there */
    struct dispatch_time {            /* sums over this dispatch's calls */
        int64_t serialise_ns;         /* gathering rows, building messages, widening results */
        int64_t wire_ns;              /* round trip less the worker's own time */
        int64_t queue_ns, compute_ns; /* as the worker reports; of the slowest call */
        uint64_t bytes_sent, bytes_received;
        int calls;
    } time;
    struct dispatch_state *state; /* the pool's */
};

/* pool_dispatch plans and sends. n_row >= 1. 0, or an error with nothing begun. The dispatch may be
 * done on return (nothing to compute, or all of it here); the next poll or wait counts it. */
int pool_dispatch(struct pool *pool, struct dispatch *d, struct err *err);
/* pool_poll handles what has arrived and what is overdue, without waiting; pool_wait waits first
 * until something arrives or `until_ns`. Both return how many dispatches became done. */
int pool_poll(struct pool *pool);
int pool_wait(struct pool *pool, int64_t until_ns);
/* dispatch_release gives the reply frames back once the rows were summed. Of a dispatch not yet
 * done: it is given up, and late answers are dropped. */
void dispatch_release(struct pool *pool, struct dispatch *d);

/* ---- changing who holds what, while serving (coordinator/rebalance.h drives it) ---- */

/* pool_add makes a link to one more worker and returns at once; it joins when it is welcomed.
 * *worker is its index. ERR_USAGE: the endpoint is known already and not retired. */
int pool_add(struct pool *pool, const char *endpoint, int *worker, struct err *err);
/* pool_retire: the worker leaves the placement for good, its calls are planned again, its
 * connection closes. pool_add brings it back. */
void pool_retire(struct pool *pool, int worker);
/* pool_target: from now on only copies that `target` names are planned for (the next dispatch is
 * the first), as far as their workers hold them; an expert with no such copy goes to whoever holds
 * it. NULL: all copies. Workers of `target` are indices of this pool; it is copied. */
int pool_target(struct pool *pool, const struct placement *target, struct err *err);
/* pool_excuse: experts [n_expert] 0/1 that nobody needs to hold: pool_uncovered does not count them
 * (copied; NULL: none). They are computed here, as all that nobody holds. */
int pool_excuse(struct pool *pool, const uint8_t *expert, struct err *err);
/* pool_epoch_out: the oldest epoch that a call still out was planned in; the current one when none
 * is. */
uint64_t pool_epoch_out(const struct pool *pool);
/* pool_held: does the worker say that it holds it? */
int pool_held(const struct pool *pool, int worker, int layer, int expert);
/* pool_assign tells a worker what to hold (bitmap as in Welcome; copied) and says it again until it
 * is answered, over reconnections too. One plan a worker at a time: a new one replaces it. */
int pool_assign(struct pool *pool, int worker, uint64_t plan, const uint8_t *held, int drop,
                struct err *err);
/* pool_assigned: the last that was heard of the worker's plan; state ASSIGN_NONE: nothing yet. */
const struct msg_assigned *pool_assigned(const struct pool *pool, int worker);
/* pool_assign_shown: does the worker's table say just what its plan names? Assigned, which says so
 * too, comes before the table. */
int pool_assign_shown(const struct pool *pool, int worker);
/* pool_unassign: forget the plan, say nothing more of it. */
void pool_unassign(struct pool *pool, int worker);

struct pool_worker_info {
    char name[LIMIT_NAME_BYTES], endpoint[LIMIT_NAME_BYTES], numerics[32];
    const char *via; /* how rows travel: "shm", "tcp", "ipc", "inproc" */
    int alive, outstanding, n_held, retired;
    uint64_t calls, failures, assignments;
    uint64_t answered;                   /* slots it has sent rows for */
    uint64_t bytes_sent, bytes_received; /* of requests to it and replies from it */
    int64_t rtt_ns;     /* a call's time on the wire, smoothed over some 16 calls */
    int64_t compute_ns; /* sum over calls, as it reports */
    uint64_t resident_bytes, available_bytes; /* of its memory, as it said last; 0: it did not */
};
int pool_n_worker(const struct pool *pool);
void pool_worker_info_get(const struct pool *pool, int worker, struct pool_worker_info *out);
/* pool_worker_trouble: why it does not connect, a line, or NULL. */
const char *pool_worker_trouble(const struct pool *pool, int worker);
/* pool_worker_layers: slots it has answered [n_layer]; sums to `answered`. */
const uint64_t *pool_worker_layers(const struct pool *pool, int worker);
struct pool_stats {
    uint64_t dispatches, calls, replans, not_held, timeouts, duplicates, local_slots, workers_lost;
};
void pool_stats_get(const struct pool *pool, struct pool_stats *out);

#endif
