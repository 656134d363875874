/* worker_cmd: `sigmoe worker`. Options become a worker_config; the loop runs until SIGTERM or
 * SIGINT, finishes what has arrived and ends with 0. */
#include "worker/worker.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/opt.h"
#include "base/pages.h"
#include "base/report.h"
#include "proto/msg.h"
#include "proto/sock.h"
#include "router/placement.h"
#include "worker/gpu.h"

#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define LISTEN_DEFAULT "tcp://127.0.0.1:5701"
/* Frames of activations are above malloc's default limit for mapping; mapped and unmapped for every
 * request they would cost a page fault a page. */
#define MALLOC_KEEP_BYTES (32 << 20)
#define THREADS_MAX       4096

struct worker_args {
    const char *model, *listen, *experts, *part, *placement, *domain, *precision, *activations,
        *name, *packed, *device;
    const char *key, *allow;
    int64_t threads, credits, row_limit, spin_us, ready_fd, fetch_rate, memory;
    int insecure, fixed, no_shm;
};

/* ---- which experts ---- */

static void hold_in_all(uint8_t *held, const struct model_desc *desc, const int32_t *expert, int n)
{
    for (int layer = 0; layer < desc->n_layer; layer++)
        for (int i = 0; i < n; i++)
            held[(size_t)layer * (size_t)desc->n_expert + (size_t)expert[i]] = 1;
}

/* part_parse: "I/N", I from 0 to N - 1. */
static int part_parse(const char *text, int *part, int *n_part, struct err *err)
{
    int used = 0;
    if (sscanf(text, "%9d/%9d%n", part, n_part, &used) != 2 || text[used] || *n_part < 1 ||
        *n_part > LIMIT_WORKERS || *part < 0 || *part >= *n_part)
        return err_set(err, ERR_USAGE,
                       "--part '%s' is not I/N with I from 0 to N-1; the parts of two workers are "
                       "0/2 and 1/2",
                       text);
    return 0;
}

/* domains_parse: the experts of the domains in a list; each domain once. */
static int domains_parse(const char *list, const struct model_desc *desc, int32_t *expert,
                         struct err *err)
{
    uint8_t named[LIMIT_DOMAINS] = {0};
    int n = 0;
    for (const char *p = list;; p++) {
        char name[LIMIT_NAME_BYTES];
        size_t length = strcspn(p, ",");
        snprintf(name, sizeof(name), "%.*s",
                 (int)(length < sizeof(name) ? length : sizeof(name) - 1), p);
        int found = desc_domain_find(desc, name, err);
        if (found < 0)
            return found;
        const struct domain_desc *domain = &desc->domain[found];
        for (int i = 0; !named[found] && i < domain->n_expert; i++)
            expert[n++] = domain->first + i;
        named[found] = 1;
        p += length;
        if (*p == '\0')
            return n;
    }
}

static int hold_list(const struct worker_args *a, const struct model_desc *desc, uint8_t *held,
                     struct err *err)
{
    int32_t *expert = calloc((size_t)desc->n_expert, sizeof(*expert));
    if (!expert)
        return err_set(err, ERR_NOMEM, "no memory for a list of experts");
    int part = 0, n_part = 1, n;
    if (a->domain) {
        n = domains_parse(a->domain, desc, expert, err);
    } else if (a->experts && strcmp(a->experts, "none") == 0)
        n = 0;
    else if (a->experts)
        n = opt_parse_ids(a->experts, desc->n_expert, expert, desc->n_expert, err);
    else {
        n = part_parse(a->part, &part, &n_part, err);
        if (n == 0)
            n = placement_contiguous(desc->n_expert, part, n_part, expert);
    }
    if (n > 0)
        hold_in_all(held, desc, expert, n);
    free(expert);
    return n < 0 ? n : 0;
}

/* held_choose: the table the options ask for, or NULL in *out for everything. */
static int held_choose(const struct worker_args *a, const struct model *model, uint8_t **out,
                       struct err *err)
{
    const struct model_desc *desc = &model->desc;
    int n_given = !!a->experts + !!a->part + !!a->placement + !!a->domain;
    *out = NULL;
    if (n_given > 1)
        return err_set(err, ERR_USAGE,
                       "give one of --experts, --part, --placement and --domain, not %d", n_given);
    if (a->placement && !a->name)
        return err_set(err, ERR_USAGE, "--placement needs --name: which worker of %s is this?",
                       a->placement);
    if (n_given == 0 || desc->n_expert <= 0)
        return 0; /* of a dense model worker_create says what is wrong */
    uint8_t *held = calloc((size_t)desc->n_layer, (size_t)desc->n_expert);
    if (!held)
        return err_set(err, ERR_NOMEM, "no memory for a table of experts");
    int rc = a->placement ? placement_file_worker(a->placement, a->name, desc->n_layer,
                                                  desc->n_expert, held, err)
                          : hold_list(a, desc, held, err);
    if (rc) {
        free(held);
        return rc;
    }
    *out = held;
    return 0;
}

/* ---- the other options ---- */

/* device_open: cpu, cuda or cuda:N; *out NULL for the CPUs. */
static int device_open(const char *text, struct gpu **out, struct err *err)
{
    int ordinal = 0, used = 0;
    *out = NULL;
    if (strcmp(text, "cpu") == 0)
        return 0;
    if (strcmp(text, "cuda") == 0)
        return gpu_open(0, out, err);
    if (sscanf(text, "cuda:%4d%n", &ordinal, &used) != 1 || text[used] || ordinal < 0)
        return err_set(err, ERR_USAGE, "--device '%s' is neither cpu nor cuda nor cuda:N", text);
    return gpu_open(ordinal, out, err);
}

static int precision_parse(const char *text, enum precision *out, struct err *err)
{
    if (strcmp(text, "bf16") == 0)
        *out = PRECISION_BF16;
    else if (strcmp(text, "f32") == 0)
        *out = PRECISION_F32;
    else
        return err_set(err, ERR_USAGE, "--precision '%s' is neither bf16 nor f32", text);
    return 0;
}

static int listen_check(const struct worker_args *a, struct err *err)
{
    int rc = endpoint_check(a->listen, err);
    if (rc)
        return rc;
    if (strncmp(a->listen, "inproc://", 9) == 0)
        return err_set(err, ERR_USAGE,
                       "--listen %s: nobody outside this process could connect; "
                       "give tcp://HOST:PORT or ipc://PATH",
                       a->listen);
    if (a->allow && !a->key)
        return err_set(err, ERR_USAGE, "--allow needs --wire-key: the worker's own key");
    return 0;
}

static int args_parse(int argc, char **argv, struct worker_args *a, struct err *err)
{
    const struct opt opts[] = {
        {"model", 'm', OPT_STR, &a->model, "DIR", "the checkpoint: config.json and safetensors", 0,
         0},
        {"listen", 'l', OPT_STR, &a->listen, "ENDPOINT",
         "where coordinators connect, tcp://HOST:PORT or ipc://PATH\n"
         "(default " LISTEN_DEFAULT "; port 0: any that is free)",
         0, 0},
        {"experts", 'e', OPT_STR, &a->experts, "IDS",
         "experts to hold in every sparse layer, as 0-15,32-47 or none\n(default: all)", 0, 0},
        {"part", 0, OPT_STR, &a->part, "I/N",
         "hold part I (from 0) of N equal parts of the experts", 0, 0},
        {"placement", 0, OPT_STR, &a->placement, "FILE",
         "hold what FILE gives to the worker of this --name", 0, 0},
        {"domain", 0, OPT_STR, &a->domain, "LIST",
         "hold the experts of these domains: zh,code (models that have domains)", 0, 0},
        {"name", 'n', OPT_STR, &a->name, "NAME",
         "name in logs and placement files (default: the endpoint)", 0, 0},
        {"precision", 'p', OPT_STR, &a->precision, "TYPE",
         "bf16 or f32, as the coordinator runs (default bf16)", 0, 0},
        {"activations", 0, OPT_STR, &a->activations, "TYPE",
         "what rows are made for weights that are integers, as the\ncoordinator runs: int8 "
         "(default) or bf16",
         0, 0},
        {"packed-cache", 0, OPT_STR, &a->packed, "WHERE",
         "keep packed weights on disk, so that the next start maps them:\n"
         "auto (in the checkpoint's folder), a folder, or off (default)",
         0, 0},
        {"device", 'd', OPT_STR, &a->device, "WHERE",
         "where experts lie and are computed: cpu (default), cuda or cuda:N", 0, 0},
        {"threads", 't', OPT_INT, &a->threads, "N", "threads (default 0: one a CPU)", 0,
         THREADS_MAX},
        {"credits", 0, OPT_INT, &a->credits, "N",
         "requests a coordinator may have outstanding (default 8)", 1, LIMIT_CREDITS},
        {"row-limit", 0, OPT_INT, &a->row_limit, "N", "rows a request may have (default 4096)", 1,
         LIMIT_ROWS},
        {"spin-us", 0, OPT_INT, &a->spin_us, "N",
         "microseconds that waiting threads spin (50; for messages 20)", 0, 1000000},
        {"fixed", 0, OPT_FLAG, &a->fixed, NULL,
         "let no coordinator change what this worker holds (sigmoe rebalance)", 0, 0},
        {"memory", 0, OPT_SIZE, &a->memory, "BYTES",
         "that its experts may take: coordinators give it no more (default 0:\n"
         "what the host and the control group have left)",
         0, 0},
        {"fetch-rate", 0, OPT_SIZE, &a->fetch_rate, "BYTES",
         "a second, given to sigmoe extract --from (default 256M);\n0: no weights are given away",
         0, 0},
        {"wire-key", 0, OPT_STR, &a->key, "FILE",
         "this worker's key (sigmoe keys new): what passes is encrypted,\n"
         "and only coordinators that have the same key may ask, or those\n"
         "that --allow names",
         0, 0},
        {"allow", 0, OPT_STR, &a->allow, "FILE", "public keys that may ask, a line each", 0, 0},
        {"no-shm", 0, OPT_FLAG, &a->no_shm, NULL,
         "share no memory with coordinators on this host: rows go the\nendpoint's way", 0, 0},
        {"insecure", 0, OPT_FLAG, &a->insecure, NULL,
         "listen on an address that other hosts reach, without keys", 0, 0},
        {"ready-fd", 0, OPT_INT, &a->ready_fd, "FD",
         "write the ready line to this descriptor (default 1)", 0, 1048576},
        {NULL, 0, OPT_FLAG, NULL, NULL, NULL, 0, 0}};
    const struct opt_command command = {
        .name = "worker",
        .usage = "sigmoe worker --model DIR [--listen ENDPOINT] [options]",
        .about =
            "Holds experts of a model and computes them for coordinators (sigmoe run "
            "--workers-at).\n"
            "A worker keeps nothing between requests: it can be stopped, started and shared at "
            "any\n"
            "time. When it is loaded it prints one line, `ready ENDPOINT experts=N bytes=B`.\n\n"
            "  sigmoe worker --model olmoe --part 0/2 --listen tcp://127.0.0.1:5701\n"
            "  sigmoe worker --model olmoe --part 1/2 --listen tcp://127.0.0.1:5702\n"
            "  sigmoe run olmoe --workers-at tcp://127.0.0.1:5701,tcp://127.0.0.1:5702 ...",
        .opts = opts};
    const char *positional[1];
    int n_positional = 0;
    int rc = opt_parse(&command, argc, argv, positional, &n_positional, err);
    if (rc)
        return rc;
    if (!a->model)
        return err_set(err, ERR_USAGE,
                       "--model is missing: which checkpoint? see sigmoe worker "
                       "--help");
    return listen_check(a, err);
}

/* ---- running ---- */

static void on_signal(struct ev_loop *loop, ev_signal *watcher, int revents)
{
    (void)revents;
    log_info("worker", "%s: ending, what has arrived is finished first",
             watcher->signum == SIGINT ? "SIGINT" : "SIGTERM");
    ev_break(loop, EVBREAK_ALL);
}

/* What SIGHUP reads again: who may call. A worker in a terminal ends with it, as always. */
struct reread {
    ev_signal signal;
    struct wire_keys *keys; /* or NULL */
    const char *allow;      /* or NULL */
};

static void on_hangup(struct ev_loop *loop, ev_signal *watcher, int revents)
{
    (void)loop;
    (void)revents;
    struct reread *r = watcher->data;
    struct err err = {0};
    if (!r->keys || !r->allow)
        log_info("worker", "SIGHUP: there is no --allow file to read again");
    else if (wire_keys_allow_again(r->keys, r->allow, &err))
        log_error("worker", "SIGHUP: %s; who was allowed stays allowed", err.text);
    else
        log_info("worker", "SIGHUP: %d keys are allowed", r->keys->n_allowed);
}

static int tell_ready(const struct worker *w, int fd, struct err *err)
{
    struct worker_stats stats;
    char line[LIMIT_NAME_BYTES + 128];
    worker_stats_get(w, &stats);
    int n = snprintf(line, sizeof(line), "ready %s experts=%d bytes=%llu\n", worker_endpoint(w),
                     stats.experts, (unsigned long long)stats.expert_bytes);
    if (write(fd, line, (size_t)n) != n)
        return err_sys(err, ERR_IO, "cannot tell descriptor %d that the worker is ready", fd);
    return 0;
}

/* What an operator looks for when a start was slow or memory is short. */
static void log_start(const struct worker *w, const struct gpu *gpu, int64_t start_ns)
{
    struct worker_stats s;
    struct node_set nodes;
    char bytes[32], huge[32], took[32];
    worker_stats_get(w, &s);
    nodes_with_memory(&nodes);
    log_info(
        "worker",
        "%s: start: device=%s experts=%d bytes=%s from_cache=%d huge_pages=%s memory_nodes=%d%s "
        "in=%s",
        worker_endpoint(w), gpu ? gpu_name(gpu) : "cpu", s.experts,
        human_bytes((double)s.expert_bytes, bytes, sizeof(bytes)), s.experts_mapped,
        human_bytes((double)pages_huge_bytes(), huge, sizeof(huge)), nodes.count,
        nodes.count > 1 ? " (interleaved)" : "",
        human_ns((double)(clock_now(&clock_real) - start_ns), took, sizeof(took)));
}

static void log_end(const struct worker *w)
{
    struct worker_stats s;
    char in[32], out[32], busy[32];
    worker_stats_get(w, &s);
    log_info("worker",
             "%s: end: requests=%llu batches=%llu rows=%llu assignments=%llu errors=%llu "
             "not_held=%llu in=%s out=%s compute=%s",
             worker_endpoint(w), (unsigned long long)s.requests, (unsigned long long)s.batches,
             (unsigned long long)s.rows, (unsigned long long)s.assignments,
             (unsigned long long)s.errors, (unsigned long long)s.not_held,
             human_bytes((double)s.bytes_in, in, sizeof(in)),
             human_bytes((double)s.bytes_out, out, sizeof(out)),
             human_ns((double)s.compute_ns, busy, sizeof(busy)));
}

static int serve(const struct worker_config *config, struct reread *reread, void *zmq, int ready_fd,
                 int64_t start_ns, struct err *err)
{
    struct ev_loop *loop = ev_default_loop(0);
    struct worker *w;
    if (!loop)
        return err_set(err, ERR_IO, "the system refuses an event loop");
    int rc = worker_create(config, zmq, loop, &w, err);
    if (rc)
        return rc;
    ev_signal end[2];
    ev_signal_init(&end[0], on_signal, SIGTERM);
    ev_signal_init(&end[1], on_signal, SIGINT);
    for (int i = 0; i < 2; i++)
        ev_signal_start(loop, &end[i]);
    ev_signal_init(&reread->signal, on_hangup, SIGHUP);
    reread->signal.data = reread;
    if (!isatty(STDIN_FILENO))
        ev_signal_start(loop, &reread->signal);
    rc = tell_ready(w, ready_fd, err);
    if (rc == 0) {
        log_start(w, config->gpu, start_ns);
        ev_run(loop, 0);
        worker_finish(w);
        log_end(w);
    }
    for (int i = 0; i < 2; i++)
        ev_signal_stop(loop, &end[i]);
    ev_signal_stop(loop, &reread->signal);
    worker_destroy(w);
    return rc;
}

static int worker_main(const struct worker_args *a, struct err *err)
{
    int64_t start_ns = clock_now(&clock_real);
    struct model *model = NULL;
    uint8_t *held = NULL;
    void *zmq = NULL;
    struct wire_keys *keys = NULL;
    struct worker_config config = {.name = a->name,
                                   .listen = a->listen,
                                   .n_thread = (int)a->threads,
                                   .spin_us = (int)a->spin_us,
                                   .credits = (int)a->credits,
                                   .row_limit = (int)a->row_limit,
                                   .fixed = a->fixed,
                                   .insecure = a->insecure,
                                   .no_shm = a->no_shm,
                                   .memory_bytes = a->memory,
                                   .fetch_bytes_s = a->fetch_rate ? a->fetch_rate : -1};
    mallopt(M_MMAP_THRESHOLD, MALLOC_KEEP_BYTES);
    mallopt(M_TRIM_THRESHOLD, 4 * MALLOC_KEEP_BYTES);
    int rc = precision_parse(a->precision, &config.precision, err);
    rc = rc || !a->key ? rc : wire_keys_open(a->key, a->allow, &keys, err);
    rc = rc ? rc : kernels_open(&config.kernels, err);
    rc = rc ? rc : model_open(a->model, &model, err);
    rc = rc ? rc : activations_parse(a->activations, &model->activations, err);
    rc = rc ? rc : model_packed_cache(model, a->packed, err);
    rc = rc ? rc : held_choose(a, model, &held, err);
    rc = rc ? rc : device_open(a->device, &config.gpu, err);
    if (!rc && !(zmq = zmq_ctx_new()))
        rc = err_set(err, ERR_NOMEM, "no memory for ZeroMQ");
    config.model = model;
    config.held = held;
    config.keys = keys;
    struct reread reread = {.keys = keys, .allow = a->allow};
    rc = rc ? rc : serve(&config, &reread, zmq, (int)a->ready_fd, start_ns, err);
    if (zmq)
        zmq_ctx_term(zmq);
    wire_keys_close(keys);
    gpu_close(config.gpu);
    free(held);
    model_close(model);
    return rc;
}

int cmd_worker(int argc, char **argv)
{
    struct worker_args args = {.listen = LISTEN_DEFAULT,
                               .precision = "bf16",
                               .activations = "int8",
                               .packed = "off",
                               .device = "cpu",
                               .credits = 8,
                               .row_limit = 4096,
                               .spin_us = -1,
                               .fetch_rate = FETCH_BYTES_S,
                               .ready_fd = STDOUT_FILENO};
    struct err err = {0};
    int rc = args_parse(argc, argv, &args, &err);
    if (rc > 0)
        return 0;
    rc = rc ? rc : worker_main(&args, &err);
    if (rc)
        fprintf(stderr, "sigmoe worker: %s\n", err.text);
    return err_exit_code(rc);
}
