/* calibrate: `sigmoe calibrate`. Measures on this machine what the simulator and the advice need to
 * know: the coordinator's stages, a worker's batches, the wire. The code measured is the code that
 * serves. */
#include "tools/calibrate.h"

#include "base/arena.h"
#include "base/clock.h"
#include "base/opt.h"
#include "base/report.h"
#include "tools/commands.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct options {
    const char *dir, *out, *precision, *activations, *transport;
    int64_t threads, worker_threads, rows;
    double budget_ms;
};

static const char about[] =
    "Measures how fast this machine computes a model's dense layers and experts and how long a\n"
    "message takes, with the code that serves, and writes it as JSON for sigmoe loadtest simulate\n"
    "and sigmoe plan --advise. A few layers are enough: sigmoe synth SHAPE --layers 2 makes them\n"
    "for a model that is not there. Run it on an idle machine.\n"
    "\n"
    "  sigmoe synth qwen3-30b-a3b --layers 2 -o /tmp/two && sigmoe calibrate /tmp/two -o "
    "host.json\n"
    "  sigmoe loadtest simulate qwen3-30b-a3b --calibration host.json --workers 8";

static int parse(int argc, char **argv, struct options *o, struct err *err)
{
    *o = (struct options){.out = "calibration.json",
                          .precision = "bf16",
                          .transport = "tcp",
                          .rows = 512,
                          .activations = "int8",
                          .budget_ms = 60};
    const struct opt opts[] = {
        {"out", 'o', OPT_STR, &o->out, "FILE", "to write (calibration.json)", 0, 0},
        {"precision", 0, OPT_STR, &o->precision, "P", "bf16 (default) or f32", 0, 0},
        {"activations", 0, OPT_STR, &o->activations, "TYPE",
         "what rows are made for weights that are integers: int8 (default), bf16", 0, 0},
        {"threads", 't', OPT_INT, &o->threads, "N", "of the coordinator; 0: one a CPU (0)", 0,
         1024},
        {"worker-threads", 0, OPT_INT, &o->worker_threads, "N", "of a worker; 0: one a CPU (0)", 0,
         1024},
        {"transport", 0, OPT_STR, &o->transport, "T",
         "tcp (default), ipc, inproc, or shm: memory that processes\nof one host share", 0, 0},
        {"rows", 0, OPT_INT, &o->rows, "N", "up to which curves go (512)", 16, 4096},
        {"budget", 0, OPT_FLOAT, &o->budget_ms, "MS", "for each point of a curve (60)", 0, 60000},
        {.name = NULL}};
    const struct opt_command cmd = {"calibrate", "sigmoe calibrate MODEL_DIR [options]", about,
                                    opts};
    int n = 1, rc = opt_parse(&cmd, argc, argv, &o->dir, &n, err);
    if (rc)
        return rc;
    if (n != 1)
        return err_set(err, ERR_USAGE, "which model? sigmoe calibrate MODEL_DIR");
    if (strcmp(o->precision, "bf16") != 0 && strcmp(o->precision, "f32") != 0)
        return err_set(err, ERR_USAGE, "--precision '%.20s' is neither bf16 nor f32", o->precision);
    if (strcmp(o->transport, "tcp") != 0 && strcmp(o->transport, "ipc") != 0 &&
        strcmp(o->transport, "inproc") != 0 && strcmp(o->transport, "shm") != 0)
        return err_set(err, ERR_USAGE, "--transport '%.20s' is none of tcp, ipc, inproc, shm",
                       o->transport);
    return 0;
}

/* ---- points ---- */

/* As much as the last-level cache twice; where the system does not tell, as most have. */
#define SWEEP_BYTES ((size_t)256 << 20)
#define SWEEP_CHUNK ((size_t)1 << 20)
#define LINE_BYTES  64

static _Atomic unsigned char swept; /* so that the reading is not optimised away */

static void sweep_chunks(void *arg, int begin, int end, int thread)
{
    const struct calibrate *c = arg;
    unsigned char sum = 0;
    (void)thread;
    for (size_t i = (size_t)begin * SWEEP_CHUNK; i < (size_t)end * SWEEP_CHUNK; i += LINE_BYTES)
        sum = (unsigned char)(sum + c->sweep[i]);
    atomic_store_explicit(&swept, sum, memory_order_relaxed);
}

void calibrate_sweep(const struct calibrate *c)
{
    if (c->sweep)
        team_run(c->all_cpus, sweep_chunks, (void *)(uintptr_t)c,
                 (int)(c->sweep_bytes / SWEEP_CHUNK), 1);
}

/* sweep_begin: as much as the model has, so that one that fits into a cache stays there. */
static void sweep_begin(struct calibrate *c)
{
    const struct model_desc *d = &c->model->desc;
    double bytes = cost_expert_bytes(d, c->precision) * d->n_expert * desc_n_sparse(d);
    long cache = sysconf(_SC_LEVEL3_CACHE_SIZE);
    size_t most = cache > 0 && 2 * (size_t)cache > SWEEP_BYTES ? 2 * (size_t)cache : SWEEP_BYTES;
    c->sweep_bytes = (bytes < (double)most ? (size_t)bytes : most) / SWEEP_CHUNK * SWEEP_CHUNK;
    unsigned char *p = c->sweep_bytes > 0 ? mem_map(c->sweep_bytes) : NULL;
    if (p)
        memset(p, 1, c->sweep_bytes);
    c->sweep = p;
}

static void sweep_end(struct calibrate *c)
{
    if (c->sweep)
        mem_unmap((void *)(uintptr_t)c->sweep, c->sweep_bytes);
    c->sweep = NULL;
}

int calibrate_rows(int max, int *rows)
{
    /* Tiles have sixteen rows, and one row more costs a whole tile: a staircase. Its steps' ends
     * are measured while they are large, then the middles of some, so that lines between them go
     * through the stairs and not along their lower edge. */
    static const int known[] = {1,  2,  4,  8,   12,  16,  17,  32,  33,  48,   49,
                                64, 65, 72, 104, 136, 200, 264, 392, 520, 1032, 2048};
    int n = 0;
    for (size_t i = 0; i < sizeof(known) / sizeof(known[0]) && known[i] < max; i++)
        rows[n++] = known[i];
    rows[n++] = max;
    return n;
}

int calibrate_rows_few(int max, int *rows)
{
    static const int known[] = {1, 8, 32, 128};
    int n = 0;
    for (size_t i = 0; i < sizeof(known) / sizeof(known[0]) && known[i] < max; i++)
        rows[n++] = known[i];
    rows[n++] = max;
    return n;
}

/* ---- passes ---- */

/* Stages and experts, pass by pass; the last one's curves are of the samples of all. */
static int passes(struct calibrate *c, struct err *err)
{
    int rc = calibrate_points_begin(c, err);
    for (int p = 0; rc == 0 && p < CALIBRATE_PASSES; p++) {
        c->next_point = 0;
        c->feel = 1;
        rc = calibrate_expert(c, err);
        rc = rc ? rc : calibrate_dense(c, err);
    }
    if (rc == 0 && c->cost.gate.y[0] > 0) /* of all stages the one that is least a product */
        c->cost.other_feel = c->cost.gate.felt[0] / c->cost.gate.y[0];
    return rc;
}

/* ---- what carries over to other shapes ---- */

static double slope_end(const struct cost_curve *c)
{
    int n = c->n;
    double rows = c->x[n - 1] - c->x[n - 2], ns = c->y[n - 1] - c->y[n - 2];
    return ns > 0 ? ns / rows : c->y[n - 1] / c->x[n - 1];
}

void calibrate_hardware(struct calibrate *c)
{
    const struct model_desc *d = &c->model->desc;
    struct cost_model *cost = &c->cost;
    double link_s = cost->link_s, latency_ns = cost->one_way.y[0];
    struct hardware *w = &cost->worker, *k = &cost->coordinator;
    w->bytes_s = cost_expert_bytes(d, c->precision) / cost->expert.y[0] * 1e9;
    w->flop_s = cost_expert_flop(d) / slope_end(&cost->expert) * 1e9;
    w->overhead_ns = cost->expert_call_ns;
    double params = (double)d->d_model * d->d_head * (2.0 * d->n_head + 2.0 * d->n_kv_head);
    k->bytes_s = params * cost->wire_bytes / cost->attn.y[0] * 1e9;
    k->flop_s = 2 * params / slope_end(&cost->attn) * 1e9;
    k->overhead_ns = cost->expert_call_ns;
    w->link_s = k->link_s = link_s;
    w->latency_ns = k->latency_ns = latency_ns;
    w->message_ns = k->message_ns = cost->gather.y[0];
}

/* ---- the command ---- */

#define PACE_SLOW 0.6 /* worth telling */

static void put(const char *what, const struct cost_curve *c)
{
    char first[32], last[32];
    printf("%-22s", what);
    if (c->n == 0) {
        printf(" -\n");
        return;
    }
    double y = c->y[c->n - 1];
    printf(" %10s at %-6.4g %10s at %-6.4g  feels %.2f, %.2f\n",
           human_ns(c->y[0], first, sizeof(first)), c->x[0], human_ns(y, last, sizeof(last)),
           c->x[c->n - 1], c->y[0] > 0 ? c->felt[0] / c->y[0] : 1,
           y > 0 ? c->felt[c->n - 1] / y : 1);
}

static void put_pace(const struct cost_pace *pace)
{
    double sum = 0, slow = 0;
    int n = pace->n_cpu * pace->n_bin;
    for (int i = 0; i < n; i++) {
        double x = (double)pace->bin[i / pace->n_bin][i % pace->n_bin];
        sum += x;
        slow += x < PACE_SLOW;
    }
    if (n > 0)
        printf("pace of the CPUs       %9.1f %% of the undisturbed on average; below %.0f %% in "
               "%.1f %% "
               "of the time\n",
               100 * sum / n, 100 * PACE_SLOW, 100 * slow / n);
}

static void summary(const struct calibrate *c, const char *path)
{
    const struct cost_model *m = &c->cost;
    char text[32];
    printf(
        "coordinator, a layer   (undisturbed; first and last point: time at rows; decoding: at a "
        "position;\n                        feels: how much of it stretches with the CPU's "
        "pace)\n");
    put("  attention", &m->attn);
    put("  gate", &m->gate);
    put("  dense FFN", &m->dense);
    put("  shared expert", &m->shared);
    put("  combine", &m->combine);
    put("  LM head, a step", &m->head);
    put("  a sequence, decoding", &m->decode);
    put("worker: an expert", &m->expert);
    printf("  a batch besides      %10s\n", human_ns(m->expert_call_ns, text, sizeof(text)));
    put("message: build (bytes)", &m->gather);
    put("message: one way", &m->one_way);
    put("  CPU of each hop", &m->hop);
    printf("  to wake a thread     %10s\n", human_ns(m->wake_ns, text, sizeof(text)));
    printf("HTTP: a token          %10s on the server",
           human_ns(m->server.token_ns, text, sizeof(text)));
    printf(" %10s in the client\n", human_ns(m->client.token_ns, text, sizeof(text)));
    if (m->memory.n > 0)
        printf("memory, %3.0f threads    %10.3g GB/s (1 thread: %.3g)\n",
               m->memory.x[m->memory.n - 1], m->memory.y[m->memory.n - 1] / 1e9,
               m->memory.y[0] / 1e9);
    put_pace(&m->pace);
    printf("written to %s\n", path);
}

static int run(const struct options *o, struct calibrate *c, struct model *model, struct err *err)
{
    const struct model_desc *d = &model->desc;
    if (d->n_expert < 1 || desc_n_sparse(d) < 1)
        return err_set(err, ERR_MODEL, "%s is a dense model: it has no experts to measure", o->dir);
    while (!d->layer[c->sparse].sparse)
        c->sparse++;
    c->team = team_create((int)o->threads, -1);
    c->worker_team = team_create((int)o->worker_threads, -1);
    c->all_cpus = team_create(0, -1);
    if (!c->team || !c->worker_team || !c->all_cpus)
        return err_set(err, ERR_NOMEM, "the system refuses the threads asked for");
    sweep_begin(c);
    int rc = passes(c, err);
    rc = rc ? rc : calibrate_memory(c, err);
    rc = rc ? rc : calibrate_pace(c, err);
    sweep_end(c);
    rc = rc ? rc : calibrate_wire(c, err); /* paced by the coordinator's own work */
    rc = rc ? rc : calibrate_front(c, err);
    if (rc)
        return rc;
    calibrate_hardware(c);
    struct calibration out = {.cost = c->cost,
                              .cpus = cpu_count(),
                              .threads = team_size(c->team),
                              .worker_threads = team_size(c->worker_team)};
    if (gethostname(out.host, sizeof(out.host) - 1))
        snprintf(out.host, sizeof(out.host), "?");
    snprintf(out.isa, sizeof(out.isa), "%s", c->kernels->name);
    snprintf(out.model, sizeof(out.model), "%.127s", o->dir);
    snprintf(out.transport, sizeof(out.transport), "%s", o->transport);
    snprintf(out.activations, sizeof(out.activations), "%s",
             model_activations(model, c->precision));
    return cost_save(o->out, d, c->precision, &out, err);
}

int cmd_calibrate(int argc, char **argv)
{
    struct options o;
    struct err err = {0};
    struct model *model = NULL;
    int rc = parse(argc, argv, &o, &err);
    if (rc == 1)
        return 0;
    struct calibrate c = {.budget_ns = (int64_t)(o.budget_ms * (double)NS_PER_MS),
                          .rows_max = (int)o.rows,
                          .transport = o.transport,
                          .worker_threads = (int)o.worker_threads};
    rc = rc ? rc : kernels_open(&c.kernels, &err);
    rc = rc ? rc : model_open(o.dir, &model, &err);
    rc = rc ? rc : activations_parse(o.activations, &model->activations, &err);
    if (rc == 0) {
        c.precision = strcmp(o.precision, "f32") == 0 ? PRECISION_F32 : PRECISION_BF16;
        c.model = model;
        rc = run(&o, &c, model, &err);
    }
    if (rc == 0)
        summary(&c, o.out);
    else
        fprintf(stderr, "sigmoe calibrate: %s\n", err.text);
    calibrate_points_end(&c);
    team_destroy(c.team);
    team_destroy(c.worker_team);
    team_destroy(c.all_cpus);
    model_close(model);
    return err_exit_code(rc);
}
