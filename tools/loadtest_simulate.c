/* loadtest_simulate: options to a simulated cluster, and one run for each combination of routing,
 * placement, replica choice, load and seed. */
#include "model/weights.h"
#include "tools/loadtest.h"
#include "tools/loadtest_hosts.h"
#include "tools/loadtest_place.h"
#include "tools/shapes.h"
#include "tools/sim/sim.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NAMES_MAX     16
#define BANK_VARIANTS 6       /* of --fast */
#define BANK_ABOVE    2000000 /* workers x sparse layers from which plans are drawn again */
#define SEED_PLAN     UINT64_C(0x706c616e) /* plans are made from other rows than are served */

struct simulate {
    struct traffic traffic;
    const char *shape, *workers_text, *calibration, *coordinator_hw, *worker_hw, *precision_text,
        *activations;
    const char *routes_text, *places_text, *replicas_text, *trace, *hosts_text, *pace;
    double zipf, hot_share, domain_share, capacity, link_gbps, link_us;
    int64_t pace_seed, hot_experts, domains, redundant, coordinators, cores, threads,
        worker_threads;
    int64_t rows, chunk, seqs, waiting, kv_tokens, micro, split_rows, bank;
    int no_prefix_cache, steady;
    /* What they mean. */
    struct model_desc *desc;
    enum precision precision;
    struct cost_model cost;
    double *speed; /* [n_worker] */
    int n_worker;
    const struct strategy *route[NAMES_MAX], *replica[NAMES_MAX];
    struct loadtest_place place[NAMES_MAX];
    int n_route, n_place, n_replica;
    char place_words[1024];
    struct loadtest_hosts hosts;
};

static char about[4096];

static void about_make(void)
{
    char lists[2600], *at = lists;
    size_t left = sizeof(lists);
    static const struct {
        const char *head;
        enum strategy_kind kind;
    } kinds[] = {{"--route (an experiment changes what the model says)", STRATEGY_ROUTE},
                 {"--placement", STRATEGY_PLACE},
                 {"--replica", STRATEGY_REPLICA}};
    for (int i = 0; i < 3; i++) {
        int n = snprintf(at, left, "%s:\n", kinds[i].head);
        if (n < 0 || (size_t)n >= left)
            break;
        at += n;
        left -= (size_t)n;
        strategy_list(kinds[i].kind, at, left);
        size_t used = strlen(at);
        at += used;
        left -= used;
    }
    snprintf(
        about, sizeof(about),
        "Predicts latency and throughput of a cluster from a shape's name or a config.json, by\n"
        "simulating each message and batch. Which experts rows choose, where experts lie and\n"
        "who computes is decided by the code that serves; time comes from sigmoe calibrate or\n"
        "from named hardware (%s).\n"
        "Several values of --route, --placement, --replica, --rate and --seeds give one run\n"
        "for each combination.\n"
        "\n"
        "  sigmoe loadtest simulate qwen3-30b-a3b --workers 8 --rate 1,2,4\n"
        "  sigmoe loadtest simulate ./olmoe/config.json --calibration host.json\n"
        "      --workers 4,2:0.5 --placement contiguous,balanced --redundant 8\n"
        "\n%s",
        hardware_names(), lists);
    size_t n = strlen(about);
    if (n > 0 && about[n - 1] == '\n')
        about[n - 1] = 0;
}

static int parse(int argc, char **argv, struct simulate *s, struct err *err)
{
    *s = (struct simulate){.workers_text = "8",
                           .coordinator_hw = "cpu-16core",
                           .worker_hw = "cpu-16core",
                           .precision_text = "bf16",
                           .activations = "int8",
                           .places_text = "contiguous",
                           .replicas_text = "least-outstanding",
                           .zipf = 1,
                           .hot_share = 0.9,
                           .capacity = 1.25,
                           .coordinators = 1,
                           .threads = 1,
                           .worker_threads = 1,
                           .seqs = 64,
                           .rows = 512,
                           .split_rows = 64,
                           .waiting = 1024,
                           .pace_seed = -1,
                           .bank = -1};
    struct opt opts[TRAFFIC_OPTIONS + 40] = {
        {"workers", 'w', OPT_STR, &s->workers_text, "N[:SPEED],...",
         "how many, and their speed if not all alike: 8 (default),\n4,4:0.5", 0, 0},
        {"coordinators", 0, OPT_INT, &s->coordinators, "N", "sharing the workers (1)", 1, 4096},
        {"calibration", 'c', OPT_STR, &s->calibration, "FILE", "of sigmoe calibrate", 0, 0},
        {"coordinator-hw", 0, OPT_STR, &s->coordinator_hw, "NAME",
         "without a calibration (cpu-16core)", 0, 0},
        {"worker-hw", 0, OPT_STR, &s->worker_hw, "NAME", "the same (cpu-16core)", 0, 0},
        {"link-gbps", 0, OPT_FLOAT, &s->link_gbps, "GBIT", "of each link, instead of theirs", 0,
         1e6},
        {"link-us", 0, OPT_FLOAT, &s->link_us, "US", "one way, instead of theirs", 0, 1e7},
        {"precision", 0, OPT_STR, &s->precision_text, "P", "bf16 (default) or f32", 0, 0},
        {"activations", 0, OPT_STR, &s->activations, "TYPE",
         "of weights that are integers: int8 (default), bf16; a\ncalibration must be of the same",
         0, 0},
        {"hosts", 0, OPT_STR, &s->hosts_text, "CPUS:WHO+..,..",
         "who shares the CPUs of a host: 2:all, or\n16:coordinators+client,8:w0-3,8:w4-7 "
         "(default: a machine each)",
         0, 0},
        {"cores", 0, OPT_INT, &s->cores, "N", "short for --hosts N:all", 0, 4096},
        {"steady", 0, OPT_FLAG, &s->steady, NULL,
         "nobody slows the CPUs, as others on the machine did while\nit was calibrated", 0, 0},
        {"pace", 0, OPT_STR, &s->pace, "FILE",
         "they are slowed as was watched meanwhile, from its beginning\n(sigmoe loadtest pace)", 0,
         0},
        {"pace-seed", 0, OPT_INT, &s->pace_seed, "SEED",
         "begin somewhere in what was calibrated or watched (--seed)", 0, 1e15},
        {"threads", 0, OPT_INT, &s->threads, "N", "of a coordinator on a host (1)", 1, 1024},
        {"worker-threads", 0, OPT_INT, &s->worker_threads, "N", "of a worker on a host (1)", 1,
         1024},
        {"route", 0, OPT_STR, &s->routes_text, "NAME,...",
         "how rows choose experts (zipf; with --trace: model)", 0, 0},
        {"placement", 0, OPT_STR, &s->places_text, "NAME,...",
         "where experts lie (contiguous), or a placement file", 0, 0},
        {"replica", 0, OPT_STR, &s->replicas_text, "NAME,...",
         "which of several holders computes (least-outstanding)", 0, 0},
        {"redundant", 0, OPT_INT, &s->redundant, "N",
         "copies a layer beyond one of each expert (0)", 0, 1000000},
        {"split-rows", 0, OPT_INT, &s->split_rows, "N",
         "an expert's rows are cut over its holders into pieces of\nat least N (64); 0: never", 0,
         8192},
        {"trace", 0, OPT_STR, &s->trace, "FILE", "recorded routes (docs/TRACE.md)", 0, 0},
        {"zipf", 0, OPT_FLOAT, &s->zipf, "X", "exponent of route zipf (1.0)", 0, 10},
        {"hot-share", 0, OPT_FLOAT, &s->hot_share, "P",
         "of the slots that hot experts get, route k-hot (0.9)", 0, 1},
        {"hot-experts", 0, OPT_INT, &s->hot_experts, "N", "how many are hot (top_k)", 0, 4096},
        {"domain-share", 0, OPT_FLOAT, &s->domain_share, "P",
         "of the rows that follow hot experts of their own domain (0)", 0, 1},
        {"domains", 0, OPT_INT, &s->domains, "N", "groups of experts, route rre (1)", 0, 1024},
        {"capacity", 0, OPT_FLOAT, &s->capacity, "X",
         "capacity factor of routes that have one (1.25)", 0.01, 1000},
        {"rows", 0, OPT_INT, &s->rows, "N", "of a step (512)", 1, LIMIT_ROWS},
        {"prefill-chunk", 0, OPT_INT, &s->chunk, "N", "of one prompt a step (--rows)", 0,
         LIMIT_ROWS},
        {"seqs", 0, OPT_INT, &s->seqs, "N", "running at once in a coordinator (64)", 1, 65536},
        {"queue", 0, OPT_INT, &s->waiting, "N", "waiting in it; more are rejected (1024)", 1,
         10000000},
        {"kv-tokens", 0, OPT_INT, &s->kv_tokens, "N",
         "positions its cache holds (enough for --seqs)", 0, 1000000000},
        {"no-prefix-cache", 0, OPT_FLAG, &s->no_prefix_cache, NULL,
         "prompts that begin alike are computed from their beginning", 0, 0},
        {"micro", 0, OPT_INT, &s->micro, "N",
         "micro-batches: 1, 2, or 0: two when rows are enough (0)", 0, 2},
        {"fast", 0, OPT_INT, &s->bank, "N",
         "draw again from N plans a layer and batch size; 0: never;\ndefault: 6 for clusters too "
         "large for every row",
         0, 1000},
    };
    int n = 0, n_pos = 1;
    while (opts[n].name)
        n++;
    traffic_options(&s->traffic, opts + n);
    about_make();
    const struct opt_command cmd = {
        "loadtest simulate", "sigmoe loadtest simulate SHAPE|CONFIG.JSON [options]", about, opts};
    int rc = opt_parse(&cmd, argc, argv, &s->shape, &n_pos, err);
    if (rc == 0 && n_pos != 1)
        rc = err_set(err, ERR_USAGE,
                     "which model? sigmoe loadtest simulate SHAPE or a path of a config.json");
    return rc;
}

/* ---- what options mean ---- */

static int workers_parse(struct simulate *s, struct err *err)
{
    s->speed = calloc(LIMIT_WORKERS, sizeof(*s->speed));
    if (!s->speed)
        return err_set(err, ERR_NOMEM, "no memory for workers");
    const char *at = s->workers_text;
    for (;;) {
        char *end;
        long n = strtol(at, &end, 10);
        double speed = 1;
        int bad = end == at || n < 1 || n > LIMIT_WORKERS - s->n_worker;
        if (!bad && *end == ':') {
            at = end + 1;
            speed = strtod(at, &end);
            bad = end == at || !(speed > 0) || !isfinite(speed);
        }
        if (bad || (*end && *end != ','))
            return err_set(err, ERR_USAGE,
                           "--workers '%.60s' is not N or N:SPEED joined by commas, in all 1 to %d",
                           s->workers_text, LIMIT_WORKERS);
        for (long i = 0; i < n; i++)
            s->speed[s->n_worker++] = speed;
        if (!*end)
            return 0;
        at = end + 1;
    }
}

static int strategies_get(enum strategy_kind kind, const char *option, const char *list,
                          const struct strategy **out, int *n, struct err *err)
{
    char text[512];
    const char *word[NAMES_MAX];
    snprintf(text, sizeof(text), "%s", list);
    *n = list_split(text, word, NAMES_MAX);
    if (*n < 0)
        return err_set(err, ERR_USAGE, "%s '%.60s' is no list of at most %d names", option, list,
                       NAMES_MAX);
    int rc = 0;
    for (int i = 0; rc == 0 && i < *n; i++)
        rc = strategy_get(kind, option, word[i], &out[i], err);
    return rc;
}

static int places_get(struct simulate *s, struct err *err)
{
    const char *word[NAMES_MAX];
    snprintf(s->place_words, sizeof(s->place_words), "%s", s->places_text);
    s->n_place = list_split(s->place_words, word, NAMES_MAX);
    if (s->n_place < 0)
        return err_set(err, ERR_USAGE, "--placement '%.60s' is no list of at most %d names",
                       s->places_text, NAMES_MAX);
    int rc = 0;
    for (int i = 0; rc == 0 && i < s->n_place; i++)
        rc = loadtest_place_get(word[i], &s->place[i], err);
    return rc;
}

static int hardware_get(const char *option, const char *name, struct hardware *out, struct err *err)
{
    const struct hardware *h = hardware_find(name);
    if (!h)
        return err_set(err, ERR_USAGE, "%s '%.40s' is not known; there are %s", option, name,
                       hardware_names());
    *out = *h;
    return 0;
}

static int costs_get(struct simulate *s, struct err *err)
{
    if (s->calibration) {
        struct calibration c;
        int rc = cost_load(s->calibration, s->desc, s->precision, s->activations, &c, err);
        if (rc == 0)
            s->cost = c.cost;
        if (rc == 0 && s->pace)
            rc = cost_pace_load(s->pace, s->cost.piece_ns, &s->cost.pace, err);
        if (s->steady)
            s->cost.pace.n_cpu = 0;
        return rc;
    }
    if (s->pace)
        return err_set(err, ERR_USAGE, "--pace is held against a --calibration of the same host");
    struct hardware coordinator, worker;
    int rc = hardware_get("--coordinator-hw", s->coordinator_hw, &coordinator, err);
    rc = rc ? rc : hardware_get("--worker-hw", s->worker_hw, &worker, err);
    if (rc == 0) {
        if (s->link_gbps > 0)
            coordinator.link_s = worker.link_s = s->link_gbps * 1e9 / 8;
        if (s->link_us > 0)
            worker.latency_ns = s->link_us * 1e3;
        cost_roofline(&s->cost, s->desc, s->precision, &coordinator, &worker);
        snprintf(s->cost.source, sizeof(s->cost.source),
                 "roofline: coordinator %.40s, workers %.40s", s->coordinator_hw, s->worker_hw);
    }
    return rc;
}

static int model_get(struct simulate *s, struct err *err)
{
    char *text = NULL;
    s->desc = calloc(1, sizeof(*s->desc));
    if (!s->desc)
        return err_set(err, ERR_NOMEM, "no memory for a description");
    int rc = shape_or_file(s->shape, &text, err);
    rc = rc ? rc : desc_from_config(text, strlen(text), s->shape, s->desc, err);
    free(text);
    if (rc == 0 && (s->desc->n_expert < 1 || desc_n_sparse(s->desc) < 1))
        rc = err_set(err, ERR_MODEL, "%s is a dense model: it has no experts to place on workers",
                     s->shape);
    return rc;
}

static int hosts_get(struct simulate *s, struct err *err)
{
    char all[32];
    if (s->hosts_text && s->cores > 0)
        return err_set(err, ERR_USAGE, "--cores and --hosts say the same: give one of them");
    snprintf(all, sizeof(all), "%d:all", (int)s->cores);
    return loadtest_hosts_parse(s->cores > 0 ? all : s->hosts_text, s->n_worker,
                                (int)s->coordinators, &s->hosts, err);
}

static int mean_all(struct simulate *s, struct err *err)
{
    s->precision = strcmp(s->precision_text, "f32") == 0 ? PRECISION_F32 : PRECISION_BF16;
    if (s->precision == PRECISION_BF16 && strcmp(s->precision_text, "bf16") != 0)
        return err_set(err, ERR_USAGE, "--precision '%.20s' is neither bf16 nor f32",
                       s->precision_text);
    enum activations known;
    if (activations_parse(s->activations, &known, err))
        return ERR_USAGE;
    if (!s->routes_text)
        s->routes_text = s->trace ? "model" : "zipf";
    int rc = model_get(s, err);
    rc = rc ? rc : workers_parse(s, err);
    rc = rc ? rc : hosts_get(s, err);
    rc = rc ? rc
            : strategies_get(STRATEGY_ROUTE, "--route", s->routes_text, s->route, &s->n_route, err);
    rc = rc ? rc : places_get(s, err);
    rc = rc ? rc
            : strategies_get(STRATEGY_REPLICA, "--replica", s->replicas_text, s->replica,
                             &s->n_replica, err);
    rc = rc ? rc : costs_get(s, err);
    return rc ? rc : traffic_check(&s->traffic, err);
}

/* ---- runs ---- */

static int kv_tokens(const struct simulate *s, const struct arrivals *a)
{
    if (s->kv_tokens > 0)
        return (int)s->kv_tokens;
    int64_t longest = 1;
    for (int i = 0; i < a->n; i++) {
        int64_t n = (int64_t)a->at[i].n_prompt + a->at[i].n_output;
        longest = n > longest ? n : longest;
    }
    int64_t all = s->seqs * (longest + KV_PAGE);
    return all < 1 << 30 ? (int)all : 1 << 30;
}

struct combination {
    const struct strategy *route, *replica;
    const struct loadtest_place *place;
    struct route_source *source;
    struct placement *placement;
};

static int run_one(const struct simulate *s, const struct combination *c, double rate,
                   uint64_t seed, int detail, json_t *report, struct err *err)
{
    struct arrivals arrivals;
    struct load_result result;
    int rc = traffic_arrivals(&s->traffic, rate, seed, &arrivals, err);
    if (rc)
        return rc;
    int large = (int64_t)s->n_worker * desc_n_sparse(s->desc) > BANK_ABOVE / 4;
    struct sim_config sim = {.desc = s->desc,
                             .cost = &s->cost,
                             .placement = c->placement,
                             .choice = c->replica->choice,
                             .split_rows = (int)s->split_rows,
                             .route = c->source,
                             .arrivals = &arrivals,
                             .n_worker = s->n_worker,
                             .speed = s->speed,
                             .n_coordinator = (int)s->coordinators,
                             .n_host = s->hosts.n_host,
                             .host_cpus = s->hosts.cpus,
                             .worker_host = s->hosts.worker,
                             .coord_host = s->hosts.coordinator,
                             .client_host = s->hosts.client,
                             .threads = (int)s->threads,
                             .worker_threads = (int)s->worker_threads,
                             .rows_max = (int)s->rows,
                             .prefill_chunk = (int)s->chunk,
                             .seqs_max = (int)s->seqs,
                             .waiting_max = (int)s->waiting,
                             .kv_tokens = kv_tokens(s, &arrivals),
                             .n_micro = (int)s->micro,
                             .no_prefix_cache = s->no_prefix_cache,
                             .duration_s = s->traffic.duration_s,
                             .warmup_s = s->traffic.warmup_s,
                             .drain_s = s->traffic.drain_s,
                             .bank = s->bank >= 0 ? (int)s->bank
                                     : large      ? BANK_VARIANTS
                                                  : 0,
                             .seed = seed,
                             .pace_from_start = s->pace && s->pace_seed < 0,
                             .pace_seed = s->pace_seed >= 0 ? (uint64_t)s->pace_seed : seed,
                             .progress = 1};
    struct run_label label = {.route = c->route->name,
                              .placement = c->place->name,
                              .replica = c->replica->name,
                              .changes_output = c->route->changes_output,
                              .rate = rate > 0 ? rate : arrivals.n / s->traffic.duration_s,
                              .seed = seed};
    rc = sim_run(&sim, &result, err);
    arrivals_free(&arrivals);
    if (rc)
        return rc;
    rc = report_add(report, &label, &result, detail, err);
    load_result_free(&result);
    return rc;
}

/* All loads and seeds of one combination. Details are kept of the first seed. */
static int run_loads(const struct simulate *s, const struct combination *c, json_t *report,
                     struct err *err)
{
    const struct traffic *t = &s->traffic;
    int rc = 0;
    for (int i = 0; rc == 0 && i < t->n_rate; i++)
        for (int64_t k = 0; rc == 0 && k < t->seeds; k++)
            rc = run_one(s, c, t->rate[i], (uint64_t)(t->seed + k), k == 0, report, err);
    return rc;
}

static int place_one(const struct simulate *s, struct combination *c, struct err *err)
{
    const struct place_input in = {.desc = s->desc,
                                   .precision = s->precision,
                                   .n_worker = s->n_worker,
                                   .speed = s->speed,
                                   .n_redundant = (int)s->redundant,
                                   .slots_a_step = (double)s->rows * s->desc->top_k,
                                   .n_domain = s->traffic.spec.mix.n_domain};
    return loadtest_place_make(c->place, &in, c->source, &c->placement, err);
}

static int source_make(const struct simulate *s, const struct strategy *route,
                       struct route_source **out, struct err *err)
{
    struct route_config config = {.desc = s->desc,
                                  .strategy = route,
                                  .trace = s->trace,
                                  .zipf_exponent = s->zipf,
                                  .hot_share = s->hot_share,
                                  .n_hot = (int)s->hot_experts,
                                  .n_domain = (int)s->domains,
                                  .domain_share = s->domain_share,
                                  .capacity_factor = s->capacity,
                                  .rows_max = (int)s->rows > 256 ? (int)s->rows : 256,
                                  .seed = (uint64_t)s->traffic.seed ^ SEED_PLAN};
    return route_source_create(&config, out, err);
}

static int run_all(const struct simulate *s, json_t *report, struct err *err)
{
    int rc = 0;
    for (int r = 0; rc == 0 && r < s->n_route; r++) {
        struct combination c = {.route = s->route[r]};
        rc = source_make(s, c.route, &c.source, err);
        for (int p = 0; rc == 0 && p < s->n_place; p++) {
            c.place = &s->place[p];
            rc = place_one(s, &c, err);
            for (int k = 0; rc == 0 && k < s->n_replica; k++) {
                c.replica = s->replica[k];
                rc = run_loads(s, &c, report, err);
            }
            placement_destroy(c.placement);
            c.placement = NULL;
        }
        route_source_destroy(c.source);
    }
    return rc;
}

static json_t *settings_of(const struct simulate *s)
{
    char of_model[160];
    snprintf(of_model, sizeof(of_model), "%.60s: %d layers (%d sparse), %d experts, top-%d",
             s->shape, s->desc->n_layer, desc_n_sparse(s->desc), s->desc->n_expert, s->desc->top_k);
    json_t *o =
        json_pack("{s:s, s:s, s:I, s:s, s:s, s:I, s:I, s:I, s:I}", "model", of_model, "workers",
                  s->workers_text, "coordinators", (json_int_t)s->coordinators, "costs",
                  s->cost.source, "precision", s->precision_text, "redundant",
                  (json_int_t)s->redundant, "split_rows", (json_int_t)s->split_rows, "rows_a_step",
                  (json_int_t)s->rows, "micro_batches", (json_int_t)s->micro);
    if (s->cores > 0)
        json_object_set_new(o, "one_machine_of_cores", json_integer(s->cores));
    if (s->hosts_text)
        json_object_set_new(o, "hosts", json_string(s->hosts_text));
    if (s->trace)
        json_object_set_new(o, "trace", json_string(s->trace));
    else
        json_object_set_new(o, "domain_share", json_real(s->domain_share));
    traffic_settings(&s->traffic, o);
    return o;
}

int loadtest_simulate(int argc, char **argv)
{
    struct simulate *s = calloc(1, sizeof(*s));
    struct err err = {0};
    json_t *report = NULL;
    int rc = s ? parse(argc, argv, s, &err) : err_set(&err, ERR_NOMEM, "no memory");
    if (rc == 1) {
        free(s);
        return 0;
    }
    rc = rc ? rc : mean_all(s, &err);
    if (rc == 0) {
        report = report_create("simulate", s->shape, &s->traffic.slo, settings_of(s));
        rc = report ? run_all(s, report, &err) : err_set(&err, ERR_NOMEM, "no memory");
    }
    rc = rc ? rc : traffic_report(&s->traffic, report, &err);
    if (rc)
        fprintf(stderr, "sigmoe loadtest simulate: %s\n", err.text);
    json_decref(report);
    if (s) {
        free(s->desc);
        free(s->speed);
        loadtest_hosts_free(&s->hosts);
    }
    free(s);
    return err_exit_code(rc);
}
