/* cluster: the workers of one run and the pool that speaks to them. Starts what it needs (workers
 * in this process over inproc, or processes of this program over ipc or tcp on loopback) or
 * connects to workers that already run; stops what it started. */
#ifndef COORDINATOR_CLUSTER_H
#define COORDINATOR_CLUSTER_H

#include "coordinator/pool.h"
#include "model/weights.h"
#include "worker/worker.h"

enum cluster_transport { CLUSTER_INPROC, CLUSTER_IPC, CLUSTER_TCP };
/* Which experts the workers started here hold: runs of equal length; each domain on few workers
 * (router/placement_groups.h); each domain over all. */
enum cluster_place { CLUSTER_CONTIGUOUS, CLUSTER_COLOCATED, CLUSTER_SPREAD };

struct cluster_config {
    const struct model *model;
    enum precision precision;
    const struct kernels *kernels;
    const struct clock *clock;
    struct team *team; /* for experts computed in this process */
    int n_worker;      /* started here */
    enum cluster_place place;
    enum cluster_transport transport;
    enum replica_choice choice; /* see pool_config */
    int split_rows;
    int worker_threads, spin_us; /* of processes; 0 threads: one a CPU */
    const char *packed_cache;    /* as of --packed-cache, told to processes started; or NULL */
    enum wire_rows rows;         /* what they travel as */
    int no_shm;                  /* rows to workers on this host go by ZeroMQ too */
    int no_local;                /* what no worker holds fails instead of being computed here */
    const char *workers_at;      /* "tcp://a,tcp://b": connect, start nothing; or NULL */
    const char *key_path;        /* our keys and those of workers started here; NULL: none */
    int insecure;                /* workers of other hosts without keys */
};

struct cluster;
/* cluster_start returns when every expert is reachable. ERR_NET or ERR_MODEL else. */
int cluster_start(const struct cluster_config *config, struct cluster **out, struct err *err);
void cluster_stop(struct cluster *c);
struct pool *cluster_pool(struct cluster *c);
void cluster_bytes(const struct cluster *c, uint64_t *sent, uint64_t *received);

#endif
