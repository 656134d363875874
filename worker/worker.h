/* worker: holds experts, answers requests, keeps nothing between them. The same code runs on a
 * thread of the coordinator (inproc), in another process (ipc, tcp) and on another host; it does
 * not know the coordinator. One libev loop on one thread; a team for the arithmetic. Requests that
 * queued for the same layer, of any coordinator, are computed as one batch. */
#ifndef WORKER_WORKER_H
#define WORKER_WORKER_H

#include "base/err.h"
#include "model/weights.h"
#include <ev.h>

struct gpu; /* worker/gpu.h */
struct sock;
struct worker;
struct wire_keys; /* proto/keys.h */

#define FETCH_BYTES_S ((int64_t)256 << 20)

struct worker_config {
    const char *name;          /* for logs; NULL: made from the endpoint */
    const char *listen;        /* endpoint */
    const struct model *model; /* open; outlives the worker */
    enum precision precision;
    const struct kernels *kernels;
    int n_thread, spin_us;        /* team; 0 threads: one a CPU; spin < 0: default */
    struct team *team;            /* to compute on, of whoever runs the loop; NULL: its own */
    int credits;                  /* requests a coordinator may have outstanding; 0: 8 */
    int row_limit;                /* rows a request; 0: 4096 */
    struct gpu *gpu;              /* where experts lie and are computed; NULL: on the CPUs */
    const uint8_t *held;          /* [n_layer, n_expert] 0/1: what to load; NULL: everything */
    int64_t memory_bytes;         /* that its experts may take; 0: what the system has */
    int fixed;                    /* coordinators may not change what is held */
    const struct wire_keys *keys; /* encrypt, and who may ask (proto/keys.h); NULL: in the clear */
    int insecure;                 /* in the clear where other hosts reach it */
    int no_shm;                   /* coordinators on this host go by ZeroMQ too */
    int64_t fetch_bytes_s; /* how fast weights are given away; 0: FETCH_BYTES_S; < 0: never */
};

/* worker_create binds, so that an occupied port is told at once, then loads the experts (progress
 * shown on a terminal). A dense model, an address that cannot be had: an error in words. */
int worker_create(const struct worker_config *config, void *zmq_context, struct ev_loop *loop,
                  struct worker **out, struct err *err);
/* worker_finish computes and answers what has arrived so far; before an orderly end. */
void worker_finish(struct worker *w);
/* worker_destroy answers what is queued with nothing and closes. */
void worker_destroy(struct worker *w);
const char *worker_endpoint(const struct worker *w);
/* worker_sock: where it is called; for a caller on its loop (sock_config.beside). */
struct sock *worker_sock(const struct worker *w);

struct worker_stats {
    uint64_t requests, rows, assignments, errors, not_held, batches, bytes_in, bytes_out;
    uint64_t compute_ns, queue_ns;
    int peers, queued, experts, experts_mapped; /* mapped: from the packed cache */
    uint64_t expert_bytes;
};
void worker_stats_get(const struct worker *w, struct worker_stats *out);

/* worker_thread: a worker on a thread of its own with its own loop. Returns once it is
 * bound and loaded (or has failed). zmq_context is shared with the coordinator. */
struct worker_thread;
int worker_thread_start(const struct worker_config *config, void *zmq_context,
                        struct worker_thread **out, struct err *err);
const char *worker_thread_endpoint(const struct worker_thread *t);
/* worker_thread_stop finishes what has arrived, ends the thread and frees t; NULL is fine. */
void worker_thread_stop(struct worker_thread *t);

/* worker_compute: the pure part. One request's segments through the experts of `set`: rows of dtype
 * [n_row, d_wire] -> out [n_assign, d_wire] of the same dtype. Used by the loop and by a
 * coordinator that has to compute an expert itself: same code, same bits. scratch grows as needed.
 */
struct compute_item {
    int layer, n_seg;
    const uint32_t *seg_expert, *seg_count;
    const void *rows;
    int n_row;
    const int32_t *row_index;
    void *out;
};
struct compute; /* scratch and team */
int compute_create(const struct model *model, enum precision precision, const struct kernels *k,
                   struct team *team, struct compute **out, struct err *err);
void compute_destroy(struct compute *c);
/* compute_on: by the device where the experts lie; NULL: by the team. */
void compute_on(struct compute *c, struct gpu *gpu);
/* compute_run: n items of ONE layer as one grouped product (experts merged across items). Every
 * expert is held by `set` (the caller checked). 0 or ERR_NOMEM; ERR_IO when a device failed. */
int compute_run(struct compute *c, const struct expert_set *set, const struct compute_item *item,
                int n, struct err *err);

/* held_load loads what a table [n_layer, n_expert] of 0/1 asks for; NULL: everything. */
int held_load(struct expert_set *set, const struct model_desc *desc, const uint8_t *held,
              struct team *team, struct err *err);

/* The subcommand. */
int cmd_worker(int argc, char **argv);

#endif
