/* cluster: see cluster.h. Processes are started before the ZeroMQ context exists (it does not
 * survive a fork), workers of this process after. */
#include "coordinator/cluster.h"

#include "base/log.h"
#include "base/opt.h"
#include "base/team.h"
#include "coordinator/local.h"
#include "coordinator/spawn.h"
#include "proto/keys.h"
#include "router/placement.h"
#include "router/placement_groups.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SPIN_US 20 /* a wait for workers that share memory; see base/spin.h */

/* spin_of: what worker processes and their coordinator wait by where the user does not say; -1: the
 * default of each. Where the threads of worker processes are more than the CPUs, whoever polls
 * keeps somebody from running (bench/cluster.py, 2 workers of 2 threads on 2 CPUs: parked is some
 * per cent faster, within the noise of the host). */
static int spin_of(const struct cluster_config *cfg)
{
    int cpus = cpu_count(), threads = cfg->worker_threads > 0 ? cfg->worker_threads : cpus;
    int processes = cfg->workers_at == NULL && cfg->transport != CLUSTER_INPROC;
    return cfg->spin_us < 0 && processes && cfg->n_worker * threads > cpus ? 0 : cfg->spin_us;
}

struct cluster {
    void *zmq;
    struct wire_keys *keys; /* NULL: none */
    int n;
    char **endpoint;         /* [n] */
    struct worker **worker;  /* [n] when inproc, on the transport's loop */
    struct spawned *process; /* [n] when ipc or tcp */
    char dir[64];            /* of ipc sockets */
    struct transport_zmq *transport;
    struct pool *pool;
    struct local *local;
    char numerics[NUMERICS_BYTES];
};

struct pool *cluster_pool(struct cluster *c)
{
    return c->pool;
}

void cluster_bytes(const struct cluster *c, uint64_t *sent, uint64_t *received)
{
    transport_zmq_bytes(c->transport, sent, received);
}

static int set_endpoint(struct cluster *c, int i, const char *text, struct err *err)
{
    c->endpoint[i] = strdup(text);
    return c->endpoint[i] != NULL ? 0 : err_set(err, ERR_NOMEM, "no memory for an endpoint");
}

static int allocate(struct cluster *c, int n, struct err *err)
{
    c->n = n;
    c->endpoint = calloc((size_t)n, sizeof *c->endpoint);
    c->worker = calloc((size_t)n, sizeof *c->worker);
    c->process = calloc((size_t)n, sizeof *c->process);
    if (c->endpoint == NULL || c->worker == NULL || c->process == NULL) {
        return err_set(err, ERR_NOMEM, "no memory for %d workers", n);
    }
    return 0;
}

/* ---- workers that already run ---------------------------------------------------------------- */

static int use_running(struct cluster *c, const char *list, struct err *err)
{
    int n = 1;
    for (const char *p = list; *p != 0; p++) {
        n += *p == ',';
    }
    if (n > LIMIT_WORKERS) {
        return err_set(err, ERR_USAGE, "--workers-at names %d workers, at most %d are possible", n,
                       LIMIT_WORKERS);
    }
    int rc = allocate(c, n, err);
    for (int i = 0; rc == 0 && i < n; i++) {
        size_t length = strcspn(list, ",");
        char one[256];
        if (length == 0 || length >= sizeof one) {
            return err_set(err, ERR_USAGE,
                           "--workers-at: endpoint %d is empty or too long; write "
                           "tcp://host:port,tcp://host:port",
                           i + 1);
        }
        memcpy(one, list, length);
        one[length] = 0;
        rc = set_endpoint(c, i, one, err);
        list += length + 1;
    }
    return rc;
}

/* ---- which experts -------------------------------------------------------------------------- */

/* The experts of worker i into part [n_expert], ascending; how many. */
static int part_of(const struct cluster *c, const struct cluster_config *cfg, int i, int32_t *part)
{
    const struct model_desc *d = &cfg->model->desc;
    int32_t group_end[LIMIT_DOMAINS] = {d->n_expert};
    for (int g = 0; g < d->n_domain; g++) {
        group_end[g] = d->domain[g].first + d->domain[g].n_expert;
    }
    switch (cfg->place) {
    case CLUSTER_COLOCATED:
        return placement_colocated(group_end, d->n_domain > 0 ? d->n_domain : 1, i, c->n, part);
    case CLUSTER_SPREAD:
        return placement_round_robin(d->n_expert, i, c->n, part);
    default:
        return placement_contiguous(d->n_expert, i, c->n, part);
    }
}

/* ---- processes ------------------------------------------------------------------------------- */

static int spawn_one(struct cluster *c, const struct cluster_config *cfg, int i, struct err *err)
{
    int n_expert = cfg->model->desc.n_expert;
    size_t text_bytes = (size_t)n_expert * 12 + 1;
    int32_t *part = malloc((size_t)n_expert * sizeof *part);
    char *experts = malloc(text_bytes);
    if (part == NULL || experts == NULL) {
        free(part);
        free(experts);
        return err_set(err, ERR_NOMEM, "no memory for a worker");
    }
    opt_ids_text(part, part_of(c, cfg, i, part), experts, text_bytes);
    free(part);
    char listen[256], threads[16], spin[16];
    snprintf(threads, sizeof threads, "%d", cfg->worker_threads);
    int spin_us = spin_of(cfg);
    snprintf(spin, sizeof spin, "%d", spin_us);
    if (cfg->transport == CLUSTER_IPC) {
        snprintf(listen, sizeof listen, "ipc://%s/%d", c->dir, i);
    } else {
        snprintf(listen, sizeof listen, "tcp://127.0.0.1:*");
    }
    char *argv[32] = {
        "sigmoe",    "worker", "--model",     (char *)(uintptr_t)cfg->model->dir,
        "--listen",  listen,   "--experts",   experts,
        "--threads", threads,  "--precision", cfg->precision == PRECISION_F32 ? "f32" : "bf16"};
    int n = 12;
    if (cfg->model->activations == ACTIVATIONS_BF16) {
        argv[n++] = "--activations";
        argv[n++] = "bf16";
    }
    if (spin_us >= 0) {
        argv[n++] = "--spin-us";
        argv[n++] = spin;
    }
    if (cfg->packed_cache != NULL) {
        argv[n++] = "--packed-cache";
        argv[n++] = (char *)(uintptr_t)cfg->packed_cache;
    }
    if (cfg->key_path != NULL) {
        argv[n++] = "--wire-key";
        argv[n++] = (char *)(uintptr_t)cfg->key_path;
    }
    if (cfg->no_shm) {
        argv[n++] = "--no-shm";
    }
    argv[n] = NULL;
    int rc = spawn_worker(&c->process[i], argv, err);
    free(experts);
    return rc;
}

static int start_processes(struct cluster *c, const struct cluster_config *cfg, struct err *err)
{
    if (cfg->transport == CLUSTER_IPC) {
        snprintf(c->dir, sizeof c->dir, "/tmp/sigmoe-XXXXXX");
        if (mkdtemp(c->dir) == NULL) {
            c->dir[0] = 0;
            return err_sys(err, ERR_IO, "cannot make a folder for ipc sockets in /tmp");
        }
    }
    int rc = 0;
    for (int i = 0; rc == 0 && i < c->n; i++) {
        rc = spawn_one(c, cfg, i, err);
    }
    for (int i = 0; rc == 0 && i < c->n; i++) {
        rc = spawn_wait_ready(&c->process[i], err);
        if (rc == 0) {
            rc = set_endpoint(c, i, c->process[i].endpoint, err);
        }
    }
    return rc;
}

/* ---- this process ---------------------------------------------------------------------------- */

/* Workers here are run by the loop of the transport that awaits them, so by the thread that would
 * sleep until they answer, and compute on its team: nobody is woken, and no two teams take turns on
 * one set of CPUs. */
static int start_here(struct cluster *c, const struct cluster_config *cfg, struct err *err)
{
    const struct model_desc *d = &cfg->model->desc;
    uint8_t *held = malloc((size_t)d->n_layer * (size_t)d->n_expert);
    int32_t *part = malloc((size_t)d->n_expert * sizeof *part);
    int rc = held == NULL || part == NULL ? err_set(err, ERR_NOMEM, "no memory for a worker") : 0;
    for (int i = 0; rc == 0 && i < c->n; i++) {
        memset(held, 0, (size_t)d->n_layer * (size_t)d->n_expert);
        int n_part = part_of(c, cfg, i, part);
        for (int l = 0; l < d->n_layer; l++) {
            for (int k = 0; k < n_part; k++) {
                held[(size_t)l * (size_t)d->n_expert + (size_t)part[k]] = 1;
            }
        }
        char listen[64];
        snprintf(listen, sizeof listen, "inproc://worker-%d", i);
        struct worker_config wc = {.listen = listen,
                                   .model = cfg->model,
                                   .precision = cfg->precision,
                                   .kernels = cfg->kernels,
                                   .team = cfg->team,
                                   .held = held};
        rc = worker_create(&wc, c->zmq, transport_zmq_loop(c->transport), &c->worker[i], err);
        if (rc == 0) {
            rc = set_endpoint(c, i, worker_endpoint(c->worker[i]), err);
        }
        if (rc == 0 && transport_zmq_beside(c->transport, worker_sock(c->worker[i])) != 0) {
            rc = err_set(err, ERR_NOMEM, "no memory for a link to worker %d", i);
        }
    }
    free(held);
    free(part);
    return rc;
}

/* ---- life ------------------------------------------------------------------------------------ */

static int open_transport(struct cluster *c, const struct cluster_config *cfg, struct err *err)
{
    c->zmq = zmq_ctx_new();
    if (c->zmq == NULL) {
        return err_sys(err, ERR_NOMEM, "cannot start ZeroMQ");
    }
    int rc = cfg->key_path != NULL ? wire_keys_open(cfg->key_path, NULL, &c->keys, err) : 0;
    if (rc == 0) {
        rc = transport_zmq_create(c->zmq, cfg->clock, c->keys, cfg->insecure, &c->transport, err);
    }
    if (rc == 0) {
        int spin_us = spin_of(cfg);
        transport_zmq_set_spin(c->transport, spin_us < 0 ? SPIN_US : spin_us);
        transport_zmq_set_shm(c->transport, !cfg->no_shm);
    }
    return rc;
}

static int connect_pool(struct cluster *c, const struct cluster_config *cfg, struct err *err)
{
    int rc = local_create(cfg->model, cfg->precision, cfg->kernels, cfg->team, &c->local, err);
    if (rc != 0) {
        return rc;
    }
    struct pool_config pc = {
        .model = cfg->model,
        .precision = cfg->precision,
        .numerics = model_numerics(cfg->model, cfg->precision, cfg->kernels, c->numerics),
        .rows = cfg->rows,
        .k = cfg->kernels,
        .clock = cfg->clock,
        .transport = transport_zmq_interface(c->transport),
        .choice = cfg->choice,
        .split_rows = cfg->split_rows,
        .local = cfg->no_local ? NULL : local_compute,
        .local_user = c->local};
    rc = pool_create(&pc, &c->pool, err);
    if (rc == 0) {
        rc = pool_connect(c->pool, (const char *const *)c->endpoint, c->n, err);
    }
    int uncovered = rc == 0 ? pool_uncovered(c->pool) : 0;
    if (uncovered > 0) {
        return err_set(err, ERR_NET,
                       "%d experts are held by none of the %d workers; start workers for them (see "
                       "sigmoe worker --experts)",
                       uncovered, c->n);
    }
    return rc;
}

int cluster_start(const struct cluster_config *cfg, struct cluster **out, struct err *err)
{
    struct cluster *c = calloc(1, sizeof *c);
    if (c == NULL) {
        return err_set(err, ERR_NOMEM, "no memory for a cluster");
    }
    int rc, n_expert = cfg->model->desc.n_expert;
    if (cfg->workers_at != NULL) {
        rc = use_running(c, cfg->workers_at, err);
    } else {
        /* A worker without an expert would have nothing to do. */
        rc = allocate(c, cfg->n_worker < n_expert ? cfg->n_worker : n_expert, err);
        if (rc == 0 && cfg->transport != CLUSTER_INPROC) {
            rc = start_processes(c, cfg, err);
        }
    }
    if (rc == 0) {
        rc = open_transport(c, cfg, err);
    }
    if (rc == 0 && cfg->workers_at == NULL && cfg->transport == CLUSTER_INPROC) {
        rc = start_here(c, cfg, err);
    }
    if (rc == 0) {
        rc = connect_pool(c, cfg, err);
    }
    if (rc != 0) {
        cluster_stop(c);
        return rc;
    }
    *out = c;
    return 0;
}

void cluster_stop(struct cluster *c)
{
    if (c == NULL) {
        return;
    }
    pool_destroy(c->pool);
    for (int i = 0; c->worker != NULL && i < c->n; i++) {
        worker_destroy(c->worker[i]);
    }
    transport_zmq_destroy(c->transport);
    local_destroy(c->local);
    for (int i = 0; i < c->n; i++) {
        if (c->process != NULL) {
            spawn_stop(&c->process[i]);
        }
        if (c->endpoint != NULL) {
            free(c->endpoint[i]);
        }
    }
    if (c->zmq != NULL) {
        zmq_ctx_term(c->zmq);
    }
    wire_keys_close(c->keys);
    if (c->dir[0] != 0) {
        rmdir(c->dir);
    }
    free(c->worker);
    free(c->process);
    free(c->endpoint);
    free(c);
}
