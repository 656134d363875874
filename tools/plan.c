/* plan: `sigmoe plan`: which worker should hold which expert, from observed loads. */
#include "tools/plan.h"
#include "base/limits.h"
#include "tools/advise.h"
#include "tools/commands.h"
#include "tools/shapes.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define ABOUT_BYTES 4096
#define FLOP_A_S    75e9 /* of a worker of speed 1, where --row-us says nothing: one CPU core */
#define ROW_S       1e-4 /* and where the model is not known either */

static int model_read(struct plan_job *job, struct err *err)
{
    struct stat st;
    char *text;
    const char *what = job->ask.model;
    if (!what)
        return 0;
    if (stat(what, &st) == 0 && S_ISDIR(st.st_mode))
        return desc_load(what, &job->desc, err);
    int rc = shape_or_file(what, &text, err);
    if (rc)
        return rc;
    rc = desc_from_config(text, strlen(text), what, &job->desc, err);
    free(text);
    return rc;
}

/* layers_from_model: the sparse ones; or check that those of a recording are among them. */
static int layers_from_model(struct plan_job *job, struct err *err)
{
    const struct model_desc *d = &job->desc;
    struct plan_loads *l = &job->loads;
    if (d->n_expert == 0)
        return err_set(err, ERR_USAGE, "%s has no experts to place", job->ask.model);
    job->n_layer_model = d->n_layer;
    if (l->reader && l->n_expert != d->n_expert)
        return err_set(err, ERR_USAGE, "%s records %d experts a layer, %s has %d", job->ask.loads,
                       l->n_expert, job->ask.model, d->n_expert);
    for (int i = 0; l->reader && i < l->n_layer; i++)
        if (l->layer[i] >= d->n_layer || !d->layer[l->layer[i]].sparse)
            return err_set(err, ERR_USAGE, "%s records layer %d, which is not sparse in %s",
                           job->ask.loads, l->layer[i], job->ask.model);
    if (l->reader && l->n_layer != desc_n_sparse(d))
        return err_set(err, ERR_USAGE, "%s records %d layers, %s has %d sparse ones",
                       job->ask.loads, l->n_layer, job->ask.model, desc_n_sparse(d));
    if (l->reader)
        return 0;
    l->n_expert = d->n_expert;
    l->top_k = d->top_k;
    for (int i = 0; i < d->n_layer; i++)
        if (d->layer[i].sparse)
            l->layer[l->n_layer++] = i;
    return 0;
}

static int precision_of(const struct plan_job *job, enum precision *out, struct err *err)
{
    const char *name = job->ask.precision;
    *out = strcmp(name, "f32") == 0 ? PRECISION_F32 : PRECISION_BF16;
    return strcmp(name, "f32") == 0 || strcmp(name, "bf16") == 0
               ? 0
               : err_set(err, ERR_USAGE, "--precision must be bf16 or f32, it is '%s'", name);
}

/* domain_loads: by label of the recording, or by the model's own groups of experts. */
static int domain_loads(struct plan_job *job, size_t cells, struct err *err)
{
    struct plan_loads *l = &job->loads;
    int n = l->reader ? l->n_domain : job->desc.n_domain, rc = 0;
    if (n < 1)
        return 0;
    l->domain_load = calloc((size_t)n * cells, sizeof(*l->domain_load));
    if (!l->domain_load)
        return err_set(err, ERR_NOMEM, "no memory for the loads of %d domains", n);
    for (int d = 0; rc == 0 && d < n; d++) {
        double *load = l->domain_load + (size_t)d * cells;
        int64_t n_token;
        if (l->reader) {
            rc = plan_loads_sum(l, job->ask.window, d, load, &n_token, err);
            continue;
        }
        const struct domain_desc *group = &job->desc.domain[d];
        for (int layer = 0; layer < l->n_layer; layer++)
            for (int e = group->first; e < group->first + group->n_expert; e++)
                load[(size_t)layer * (size_t)l->n_expert + (size_t)e] = 1;
    }
    l->n_domain = n;
    return rc;
}

static int loads_read(struct plan_job *job, struct err *err)
{
    struct plan_loads *l = &job->loads;
    int rc = job->ask.loads ? plan_loads_open(l, job->ask.loads, err) : 0;
    if (rc == 0 && job->ask.model)
        rc = layers_from_model(job, err);
    else if (rc == 0 && l->reader)
        job->n_layer_model = l->layer[l->n_layer - 1] + 1;
    else if (rc == 0)
        rc = err_set(err, ERR_USAGE, "what is to be placed? --model MODEL, --loads FILE, or both");
    if (rc)
        return rc;
    size_t cells = (size_t)l->n_layer * (size_t)l->n_expert;
    l->load = malloc(cells * sizeof(*l->load));
    if (!l->load)
        return err_set(err, ERR_NOMEM, "no memory for %zu loads", cells);
    for (size_t i = 0; i < cells; i++)
        l->load[i] = 1;
    if (l->reader)
        rc = plan_loads_sum(l, job->ask.window, -1, l->load, &l->n_token, err);
    else if (job->ask.window || job->ask.against.n > 0)
        rc = err_set(err, ERR_USAGE, "--window and --against need a recording: --loads FILE");
    return rc ? rc : domain_loads(job, cells, err);
}

static int input_make(struct plan_job *job, struct err *err)
{
    struct balance_input *in = &job->in;
    enum precision precision;
    int rc = precision_of(job, &precision, err);
    if (rc)
        return rc;
    in->n_layer = job->loads.n_layer;
    in->n_expert = job->loads.n_expert;
    in->load = job->loads.load;
    in->n_group = (int)(job->ask.n_group > 0 ? job->ask.n_group : job->desc.n_group);
    in->n_domain = job->loads.domain_load ? job->loads.n_domain : 0;
    in->domain_load = job->loads.domain_load;
    in->slots_a_step = (double)job->ask.step_rows * job->loads.top_k;
    in->expert_bytes = (uint64_t)job->ask.expert_bytes;
    if (in->expert_bytes == 0 && job->desc.n_expert > 0)
        in->expert_bytes = weights_expert_bytes(&job->desc, precision);
    rc = balance_redundant_parse(job->ask.redundant, in->n_expert, &in->n_redundant, err);
    for (int w = 0; rc == 0 && in->expert_bytes == 0 && w < in->n_worker; w++)
        if (job->worker[w].memory_bytes > 0)
            rc =
                err_set(err, ERR_USAGE,
                        "worker %s has a memory; how large an expert is, --model or --expert-bytes "
                        "tells",
                        job->named[w].name);
    return rc;
}

static int solve(struct plan_job *job, struct err *err)
{
    const struct strategy *plain = strategy_find(STRATEGY_PLACE, "contiguous");
    size_t bytes = balance_arena_bytes(&job->in);
    if (arena_init(&job->mem, 2 * bytes))
        return err_set(err, ERR_NOMEM, "no memory to place %d experts on %d workers",
                       job->in.n_expert, job->in.n_worker);
    int rc = job->strategy->place(&job->in, &job->table, &job->mem, err);
    if (rc == 0)
        rc = plain->place(&job->in, &job->before, &job->mem, err);
    return rc;
}

static void cost_make(struct plan_job *job)
{
    const struct plan_ask *ask = &job->ask;
    double row_s = ROW_S;
    if (job->desc.n_expert > 0)
        row_s = 2 * (double)desc_expert_params(&job->desc) / FLOP_A_S;
    job->cost = (struct balance_cost){
        .expert_bytes = job->in.expert_bytes,
        .bytes_per_s = ask->load_rate,
        .row_s = ask->row_us > 0 ? ask->row_us * 1e-6 : row_s,
        .window_slots =
            (double)(job->loads.n_token > 0 ? job->loads.n_token : 1) * job->loads.top_k,
        .horizon_slots = ask->horizon_tokens * job->loads.top_k,
        .slowdown = ask->slowdown,
    };
}

static int settle(struct plan_job *job, struct err *err)
{
    struct arena mem;
    job->before_name = "contiguous";
    if (!job->ask.current)
        return 0;
    int rc = plan_current_read(job, err);
    if (rc)
        return rc;
    job->has_current = 1;
    job->before_name = job->ask.current;
    cost_make(job);
    job->refused = calloc((size_t)job->in.n_layer, 1);
    if (!job->refused || arena_init(&mem, balance_settle_bytes(&job->table)))
        return err_set(err, ERR_NOMEM, "no memory to compare placements");
    rc = balance_settle(&job->before, &job->table, &job->in, &job->cost, job->refused, &job->moves,
                        &mem, err);
    arena_fini(&mem);
    return rc;
}

static double worst(const double *excess, int n)
{
    double most = 0;
    for (int i = 0; i < n; i++)
        most = excess[i] > most ? excess[i] : most;
    return most;
}

static int figures_fill(struct plan_job *job, struct plan_figures *f, const double *load,
                        struct err *err)
{
    int n = job->in.n_layer;
    void *scratch = malloc(balance_excess_scratch(&job->table));
    f->excess_before = calloc((size_t)n, sizeof(double));
    f->excess_after = calloc((size_t)n, sizeof(double));
    if (!scratch || !f->excess_before || !f->excess_after) {
        free(scratch);
        return err_set(err, ERR_NOMEM, "no memory for the figures of %d layers", n);
    }
    f->before =
        balance_excess(&job->before, load, job->in.worker, SPLIT_BEST, f->excess_before, scratch);
    f->after =
        balance_excess(&job->table, load, job->in.worker, SPLIT_BEST, f->excess_after, scratch);
    f->before_worst = worst(f->excess_before, n);
    f->after_worst = worst(f->excess_after, n);
    free(scratch);
    return 0;
}

static int figures_make(struct plan_job *job, struct err *err)
{
    const struct opt_strs *against = &job->ask.against;
    size_t cells = (size_t)job->in.n_layer * (size_t)job->in.n_expert;
    double *load = malloc(cells * sizeof(*load));
    job->figures = calloc((size_t)against->n + 1, sizeof(*job->figures));
    if (!load || !job->figures) {
        free(load);
        return err_set(err, ERR_NOMEM, "no memory for figures");
    }
    job->figures[0].window = job->ask.window ? job->ask.window : "";
    job->figures[0].n_token = job->loads.n_token;
    job->n_figures = 1;
    int rc = figures_fill(job, &job->figures[0], job->in.load, err);
    for (int i = 0; rc == 0 && i < against->n; i++) {
        struct plan_figures *f = &job->figures[job->n_figures++];
        f->window = against->at[i];
        rc = plan_loads_sum(&job->loads, f->window, -1, load, &f->n_token, err);
        if (rc == 0)
            rc = figures_fill(job, f, load, err);
    }
    free(load);
    return rc;
}

static int run(struct plan_job *job, struct err *err)
{
    int rc = strategy_get(STRATEGY_PLACE, "--place", job->ask.place, &job->strategy, err);
    if (rc == 0)
        rc = model_read(job, err);
    if (rc == 0)
        rc = plan_workers_read(job, err);
    if (rc == 0)
        rc = loads_read(job, err);
    if (rc == 0)
        rc = input_make(job, err);
    if (rc == 0)
        rc = solve(job, err);
    if (rc == 0)
        rc = settle(job, err);
    if (rc == 0)
        rc = figures_make(job, err);
    if (rc == 0 && job->ask.out)
        rc = plan_file_write(job, job->ask.out, err);
    if (rc == 0 && job->ask.json)
        return plan_print_json(job, err);
    if (rc == 0)
        plan_print(job);
    return rc;
}

static void job_free(struct plan_job *job)
{
    for (int i = 0; i < job->n_figures; i++) {
        free(job->figures[i].excess_before);
        free(job->figures[i].excess_after);
    }
    free(job->figures);
    free(job->refused);
    free(job->worker);
    free(job->named);
    plan_loads_close(&job->loads);
    arena_fini(&job->mem);
}

static void about_text(char *out, size_t size)
{
    size_t used = (size_t)snprintf(
        out, size,
        "Says which worker should hold which expert, from loads that were observed. Prints how\n"
        "even the work is before and after, what has to move from the placement in use and which\n"
        "layers are better left alone, and writes the file that sigmoe worker and sigmoe\n"
        "rebalance take. Whatever the placement, a model says the same.\n"
        "\n"
        "  sigmoe plan --loads chat.routes --workers 8 --redundant 12.5%%\n"
        "  sigmoe plan --model qwen3-30b-a3b --loads chat.routes --worker big,speed=4,memory=48G "
        "\\\n"
        "      --worker small,speed=1,memory=12G --redundant all --out placement.json\n"
        "  sigmoe plan --loads chat.routes --window law@0-4000 --against law@4000- --against code "
        "\\\n"
        "      --workers 8\n"
        "\n"
        "How many workers of which kind a load needs is another question: sigmoe plan --advise "
        "--help.\n"
        "\n"
        "FILE of --loads is a route file or whatever sigmoe trace convert knows by its name.\n"
        "A window is LABEL, @FIRST-END or LABEL@FIRST-END: tokens of a domain, and which of them.\n"
        "\n"
        "strategies of --place:\n");
    if (used < size)
        strategy_list(STRATEGY_PLACE, out + used, size - used);
    used = strlen(out);
    if (used > 0 && out[used - 1] == '\n')
        out[used - 1] = '\0';
}

static int parse(struct plan_ask *ask, int argc, char **argv, struct err *err)
{
    char about[ABOUT_BYTES];
    int n = 0;
    const struct opt opts[] = {
        {"model", 'm', OPT_STR, &ask->model, "MODEL",
         "folder of a checkpoint, config.json, or a shape's name:\nsizes in bytes, layers, groups",
         0, 0},
        {"loads", 'l', OPT_STR, &ask->loads, "FILE", "observed traffic; without it, even loads", 0,
         0},
        {"window", 0, OPT_STR, &ask->window, "WINDOW", "plan from this part of it; default: all", 0,
         0},
        {"against", 0, OPT_STRS, &ask->against, "WINDOW",
         "show the imbalance on this part too; many times", 0, 0},
        {"workers", 'w', OPT_INT, &ask->n_worker, "N", "N workers, all alike", 1, LIMIT_WORKERS},
        {"worker", 0, OPT_STRS, &ask->worker, "SPEC",
         "NAME[,speed=S][,memory=24G][,host=H][,slots=N], for each", 0, 0},
        {"workers-file", 0, OPT_STR, &ask->workers_file, "FILE",
         "JSON: {\"workers\": [{\"name\": ..., \"speed\": ...}, ...]}", 0, 0},
        {"hosts", 0, OPT_INT, &ask->n_host, "N", "--workers stand on N hosts, side by side", 1,
         LIMIT_WORKERS},
        {"redundant", 'r', OPT_STR, &ask->redundant, "R",
         "copies a layer beyond one of each: 8, 12.5%, or all that fit (0)", 0, 0},
        {"place", 0, OPT_STR, &ask->place, "NAME", "strategy (capacity)", 0, 0},
        {"groups", 0, OPT_INT, &ask->n_group, "N",
         "hierarchical, eplb: groups of experts that share a host;\ndefault: the model's", 1,
         LIMIT_EXPERTS},
        {"step-rows", 0, OPT_INT, &ask->step_rows, "N", "fewest-active: rows of a step (16)", 1,
         LIMIT_ROWS},
        {"precision", 0, OPT_STR, &ask->precision, "P", "of the experts: bf16 (default) or f32", 0,
         0},
        {"expert-bytes", 0, OPT_SIZE, &ask->expert_bytes, "SIZE",
         "of one expert in one layer, where no --model tells", 0, 0},
        {"current", 'c', OPT_STR, &ask->current, "FILE", "the placement in use: count moves", 0, 0},
        {"horizon", 0, OPT_FLOAT, &ask->horizon_tokens, "TOKENS",
         "tokens until the next plan; moving must pay back (1e6)", 0, 1e18},
        {"load-rate", 0, OPT_FLOAT, &ask->load_rate, "BYTES/S",
         "at which a worker loads experts (1e9)", 1, 1e15},
        {"row-us", 0, OPT_FLOAT, &ask->row_us, "US",
         "one row of one expert on a worker of speed 1;\ndefault: from the model at 75 GFLOP/s", 0,
         1e9},
        {"slowdown", 0, OPT_FLOAT, &ask->slowdown, "X",
         "part of its speed that loading costs a worker (0.5)", 0, 1},
        {"out", 'o', OPT_STR, &ask->out, "FILE", "write the placement file", 0, 0},
        {"json", 0, OPT_FLAG, &ask->json, NULL, "print JSON", 0, 0},
        {0}};
    about_text(about, sizeof(about));
    const struct opt_command cmd = {"plan", "sigmoe plan --loads FILE --workers N [options]", about,
                                    opts};
    *ask = (struct plan_ask){.place = "capacity",
                             .redundant = "0",
                             .precision = "bf16",
                             .step_rows = 16,
                             .horizon_tokens = 1e6,
                             .load_rate = 1e9,
                             .slowdown = 0.5};
    return opt_parse(&cmd, argc, argv, NULL, &n, err);
}

int cmd_plan(int argc, char **argv)
{
    if (plan_advise_asked(argc, argv))
        return plan_advise(argc, argv);
    struct err err = {0};
    struct plan_job *job = calloc(1, sizeof(*job));
    int rc =
        job ? parse(&job->ask, argc, argv, &err) : err_set(&err, ERR_NOMEM, "no memory for a plan");
    if (rc == 0)
        rc = run(job, &err);
    if (job)
        job_free(job);
    free(job);
    if (rc == 1)
        return 0;
    if (rc)
        fprintf(stderr, "sigmoe plan: %s\n", err.text);
    return err_exit_code(rc);
}
