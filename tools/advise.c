/* advise: the search. First whether the load can be carried at all; then the fewest coordinators
 * and, for them, the fewest workers that carry it; around that cluster the other questions, one
 * changed at a time. */
#include "tools/advise_state.h"

#include "base/report.h"
#include "tools/loadtest.h"

#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#define KINDS_MAX        8
#define COORDINATORS_MAX 64

void advise_options(struct advise_ask *ask, struct opt *out)
{
    *ask = (struct advise_ask){.kinds = "cpu-16core",
                               .activations = "int8",
                               .rate = 1,
                               .prompt = 512,
                               .output = 128,
                               .workers_max = 64,
                               .seed = 1};
    const struct opt table[ADVISE_OPTIONS + 1] = {
        {"calibration", 'c', OPT_STR, &ask->kinds, "KIND,...",
         "machines to choose from: files of sigmoe calibrate, or\nnames (cpu-16core, h100, ...)", 0,
         0},
        {"activations", 0, OPT_STR, &ask->activations, "TYPE",
         "of weights that are integers: int8 (default), bf16; a\ncalibration must be of the same",
         0, 0},
        {"rate", 0, OPT_FLOAT, &ask->rate, "R", "requests a second to carry (1)", 1e-6, 1e6},
        {"prompt", 0, OPT_INT, &ask->prompt, "N", "mean tokens of a prompt (512)", 1, 1000000},
        {"output", 0, OPT_INT, &ask->output, "N", "mean tokens generated (128)", 1, 1000000},
        {"slo-ttft", 0, OPT_FLOAT, &ask->slo_ttft_ms, "MS", "to the first token (no bound)", 0,
         1e9},
        {"slo-tpot", 0, OPT_FLOAT, &ask->slo_tpot_ms, "MS", "a token after it (no bound)", 0, 1e9},
        {"workers-max", 0, OPT_INT, &ask->workers_max, "N", "that may be had (64)", 1, 4096},
        {"memory", 0, OPT_SIZE, &ask->memory_bytes, "BYTES",
         "for weights in one machine (no bound)", 0, 1e15},
        {"advice-seed", 0, OPT_INT, &ask->seed, "SEED", "of the simulated load (1)", 0, 1e15},
        {.name = NULL}};
    memcpy(out, table, sizeof(table));
}

void say(struct adviser *a, const char *topic, json_t *figures, const char *format, ...)
{
    char text[1024];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    json_array_append_new(a->sentences, json_pack("{s:s, s:s, s:s, s:o}", "topic", topic, "kind",
                                                  a->kind->name, "says", text, "figures", figures));
}

/* ---- sizes ---- */

static double expert_bytes_all(const struct adviser *a)
{
    return (double)weights_expert_bytes(a->desc, a->precision) * a->desc->n_expert *
           desc_n_sparse(a->desc);
}

/* Workers that the weights alone need. */
static int workers_for_memory(const struct adviser *a, int n_redundant)
{
    if (a->ask->memory_bytes <= 0)
        return 1;
    double copies = 1 + (double)n_redundant / a->desc->n_expert;
    return (int)ceil(expert_bytes_all(a) * copies / (double)a->ask->memory_bytes);
}

static json_t *trial_json(const struct trial *t)
{
    return json_pack("{s:i, s:i, s:i, s:i, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:f}", "workers",
                     t->n_worker, "coordinators", t->n_coordinator, "micro_batches", t->n_micro,
                     "redundant", t->n_redundant, "rate", t->rate, "goodput_per_s", t->f.good_per_s,
                     "ttft_p95_ms", t->f.ttft_ms.p95, "tpot_p95_ms", t->f.tpot_ms.p95,
                     "worker_busy", t->f.busy_mean, "coordinator_busy", t->coordinator_busy,
                     "balancedness", t->f.balancedness, "stalled", t->stalled, "rows_a_step",
                     t->rows_a_step);
}

/* ---- how many ---- */

static int try_workers(struct adviser *a, struct trial *t, int n_worker)
{
    t->n_worker = n_worker;
    return trial_run(a, t);
}

/* The fewest workers between lo (too few, or 0) and hi (enough) for t's coordinators; leaves the
 * trial of the answer in *t. */
static int fewest_workers(struct adviser *a, struct trial *t, int lo, int hi)
{
    struct trial best = *t;
    while (hi - lo > 1) {
        struct trial middle = *t;
        int rc = try_workers(a, &middle, lo + (hi - lo) / 2);
        if (rc)
            return rc;
        if (trial_good(&middle)) {
            hi = middle.n_worker;
            best = middle;
        } else {
            lo = middle.n_worker;
        }
    }
    *t = best;
    return 0;
}

static int cannot(struct adviser *a, const struct trial *t)
{
    return err_set(
        a->err, ERR_USAGE,
        "%s: %d coordinators and %d workers carry %.3g of %.3g requests/s within the SLO "
        "(TTFT p95 %.4g ms, TPOT p95 %.4g ms); relax the SLO, allow more --workers-max, "
        "or take faster machines",
        a->kind->name, t->n_coordinator, t->n_worker, t->f.good_per_s, t->f.offered_per_s,
        t->f.ttft_ms.p95, t->f.tpot_ms.p95);
}

/* As many workers as may be had show whether so many coordinators are enough. */
static int find_cluster(struct adviser *a, struct trial *t)
{
    int least = workers_for_memory(a, 0), most = (int)a->ask->workers_max;
    if (most > a->desc->n_expert)
        most = a->desc->n_expert;
    if (least > most) {
        char need[32], room[32];
        return err_set(a->err, ERR_USAGE,
                       "%s: %s of experts do not fit %d workers of %s; %d are needed",
                       a->kind->name, human_bytes(expert_bytes_all(a), need, sizeof(need)), most,
                       human_bytes((double)a->ask->memory_bytes, room, sizeof(room)), least);
    }
    double good = -1;
    for (t->n_coordinator = 1;; t->n_coordinator *= 2) {
        int rc = try_workers(a, t, most);
        if (rc)
            return rc;
        if (trial_good(t))
            break;
        /* More coordinators that do not help: the SLO is out of reach. */
        if (t->n_coordinator >= COORDINATORS_MAX || t->f.good_per_s <= good * 1.02)
            return cannot(a, t);
        good = t->f.good_per_s;
    }
    return fewest_workers(a, t, least - 1, most);
}

static void say_workers(struct adviser *a, const struct trial *t)
{
    char bytes[32];
    double each = expert_bytes_all(a) / t->n_worker;
    say(a, "workers", trial_json(t),
        "%d worker%s and %d coordinator%s of kind %s carry %.4g requests/s of %lld + %lld tokens: "
        "%.4g/s within the SLO, TTFT p95 %.4g ms, TPOT p95 %.4g ms. Workers compute %.0f %% of the "
        "time, coordinators %.0f %%; each worker holds %s of experts.",
        t->n_worker, t->n_worker == 1 ? "" : "s", t->n_coordinator,
        t->n_coordinator == 1 ? "" : "s", a->kind->name, t->rate, (long long)a->ask->prompt,
        (long long)a->ask->output, t->f.good_per_s, t->f.ttft_ms.p95, t->f.tpot_ms.p95,
        100 * t->f.busy_mean, 100 * t->coordinator_busy, human_bytes(each, bytes, sizeof(bytes)));
}

/* ---- ping-pong ---- */

static int advise_ping_pong(struct adviser *a, const struct trial *best)
{
    struct trial one = *best, two = *best;
    one.n_micro = 1;
    two.n_micro = 2;
    int rc = trial_run(a, &one);
    rc = rc ? rc : trial_run(a, &two);
    if (rc)
        return rc;
    double gain = one.f.total_ms.p50 / two.f.total_ms.p50 - 1;
    const char *answer = gain > 0.02 ? "on (--micro-batches 2, or leave it to the coordinator)"
                         : gain < -0.02
                             ? "off (--micro-batches 1): each half reads the experts' weights again"
                             : "either way: it makes no difference here";
    say(a, "ping-pong", json_pack("{s:o, s:o}", "one", trial_json(&one), "two", trial_json(&two)),
        "Ping-pong %s: whole requests take %.4g ms (p50) with one micro-batch, %.4g ms with two "
        "(%+.1f %%); a coordinator waits for experts %.0f %% of a step with one, %.0f %% with two, "
        "at %.3g rows a step.",
        answer, one.f.total_ms.p50, two.f.total_ms.p50, -100 * gain / (1 + gain), 100 * one.stalled,
        100 * two.stalled, one.rows_a_step);
    return 0;
}

/* ---- replicas ---- */

static int advise_replicas(struct adviser *a, const struct trial *best)
{
    int n = a->desc->n_expert;
    const int redundant[] = {0, (n + 7) / 8, (n + 3) / 4};
    struct trial t[3];
    double most[3];
    int pick = 0;
    for (int i = 0; i < 3; i++) {
        t[i] = *best;
        t[i].n_redundant = redundant[i];
        if (best->n_worker == 1)
            t[i].n_redundant = 0;
        int rc = trial_run(a, &t[i]);
        rc = rc ? rc : trial_most(a, t[i], &most[i]);
        if (rc)
            return rc;
        if (most[i] > 1.03 * most[pick])
            pick = i;
    }
    json_t *figures = json_array();
    for (int i = 0; i < 3; i++) {
        json_t *o = trial_json(&t[i]);
        json_object_set_new(o, "most_per_s", json_real(most[i]));
        json_array_append_new(figures, o);
    }
    char bytes[32];
    double each = (double)weights_expert_bytes(a->desc, a->precision) * desc_n_sparse(a->desc) *
                  redundant[pick] / best->n_worker;
    say(a, "replicas", figures,
        "%d redundant experts a layer%s: the cluster ends at most %.4g requests/s without copies, "
        "%.4g with %d a layer, %.4g with %d (balancedness %.2f, %.2f, %.2f). They take %s more of "
        "each worker.",
        redundant[pick], pick == 0 ? " (none)" : "", most[0], most[1], redundant[1], most[2],
        redundant[2], t[0].f.balancedness, t[1].f.balancedness, t[2].f.balancedness,
        human_bytes(each, bytes, sizeof(bytes)));
    return 0;
}

/* ---- disaggregation ---- */

/* Against as many machines that each hold the whole model and compute alone: what both end at most,
 * a machine. */
static int advise_disaggregation(struct adviser *a, const struct trial *best)
{
    struct trial alone = *best;
    double split_most, alone_most, wire_ns = 2 * cost_at(&a->kind->cost.one_way, 0);
    alone.n_worker = alone.n_coordinator = 1;
    alone.together = 1;
    alone.n_micro = 1;
    alone.n_redundant = 0;
    int rc = trial_most(a, *best, &split_most);
    rc = rc ? rc : trial_most(a, alone, &alone_most);
    if (rc)
        return rc;
    int machines = best->n_worker + best->n_coordinator;
    double split = split_most / machines, floor_ms = wire_ns * desc_n_sparse(a->desc) / 1e6;
    double whole = expert_bytes_all(a) + (double)weights_dense_bytes(a->desc, a->precision);
    int fits = a->ask->memory_bytes <= 0 || whole <= (double)a->ask->memory_bytes;
    char bytes[32];
    human_bytes(whole, bytes, sizeof(bytes));
    json_t *figures = json_pack("{s:f, s:f, s:i, s:f, s:f, s:b}", "split_most_per_s", split_most,
                                "alone_most_per_s", alone_most, "machines", machines,
                                "wire_floor_ms", floor_ms, "whole_bytes", whole, "fits", fits);
    say(a, "disaggregation", figures,
        "Disaggregation %s: %d machines apart end at most %.4g requests/s, %.4g a machine; a "
        "machine "
        "with the whole model (%s) ends %.4g. The wire alone takes %.3g ms a token (%d sparse "
        "layers x %.3g us).",
        !fits                       ? "is needed, the model does not fit one machine"
        : split > 1.02 * alone_most ? "pays"
        : split < 0.98 * alone_most ? "does not pay for throughput; it does for models that do not "
                                      "fit, and for machines that come and go"
                                    : "costs nothing and gains nothing",
        machines, split_most, split, bytes, alone_most, floor_ms, desc_n_sparse(a->desc),
        wire_ns / 1e3);
    return 0;
}

/* ---- all ---- */

static int kind_get(const struct advise_ask *ask, const char *word, const struct model_desc *desc,
                    enum precision precision, struct kind *out, struct err *err)
{
    const struct hardware *h = hardware_find(word);
    snprintf(out->name, sizeof(out->name), "%.159s", word);
    if (h) {
        cost_roofline(&out->cost, desc, precision, h, h);
        return 0;
    }
    struct calibration c;
    int rc = cost_load(word, desc, precision, ask->activations, &c, err);
    if (rc == 0) {
        out->cost = c.cost;
        snprintf(out->name, sizeof(out->name), "%.100s (%.40s)", c.host, c.isa);
    }
    return rc;
}

static int advise_kind(struct adviser *a, json_t *kinds)
{
    struct trial best = {.rate = a->ask->rate};
    int rc = find_cluster(a, &best);
    if (rc)
        return rc;
    json_array_append_new(kinds, json_pack("{s:s, s:s, s:o}", "name", a->kind->name, "costs",
                                           a->kind->cost.source, "cluster", trial_json(&best)));
    say_workers(a, &best);
    rc = advise_ping_pong(a, &best);
    rc = rc ? rc : advise_replicas(a, &best);
    return rc ? rc : advise_disaggregation(a, &best);
}

static int route_open(struct adviser *a, struct err *err)
{
    struct route_config rc = {.desc = a->desc,
                              .trace = a->trace,
                              .zipf_exponent = 1,
                              .rows_max = 512,
                              .seed = (uint64_t)a->ask->seed};
    rc.strategy = strategy_find(STRATEGY_ROUTE, a->trace ? "model" : "zipf");
    return route_source_create(&rc, &a->route, err);
}

int advise(const struct advise_ask *ask, const struct model_desc *desc, enum precision precision,
           const char *trace, json_t **out, struct err *err)
{
    char text[2048];
    const char *word[KINDS_MAX];
    struct adviser a = {
        .ask = ask, .desc = desc, .precision = precision, .trace = trace, .err = err};
    snprintf(text, sizeof(text), "%.2047s", ask->kinds);
    enum activations known;
    if (activations_parse(ask->activations, &known, err))
        return ERR_USAGE;
    int n = list_split(text, word, KINDS_MAX);
    if (n < 1)
        return err_set(err, ERR_USAGE, "--calibration '%.60s' is no list of at most %d machines",
                       ask->kinds, KINDS_MAX);
    if (desc->n_expert < 1)
        return err_set(err, ERR_MODEL, "a dense model has no experts to place on workers");
    struct kind *kind = calloc((size_t)n, sizeof(*kind));
    json_t *kinds = json_array();
    a.sentences = json_array();
    int rc = kind ? route_open(&a, err) : err_set(err, ERR_NOMEM, "no memory for advice");
    for (int i = 0; rc == 0 && i < n; i++) {
        a.kind = &kind[i];
        rc = kind_get(ask, word[i], desc, precision, &kind[i], err);
        rc = rc ? rc : advise_kind(&a, kinds);
    }
    route_source_destroy(a.route);
    free(kind);
    if (rc) {
        json_decref(kinds);
        json_decref(a.sentences);
        return rc;
    }
    *out = json_pack("{s:i, s:{s:f, s:I, s:I, s:f, s:f, s:s}, s:o, s:o}", "sigmoe_advice", 1,
                     "load", "rate", ask->rate, "prompt", (json_int_t)ask->prompt, "output",
                     (json_int_t)ask->output, "slo_ttft_ms", ask->slo_ttft_ms, "slo_tpot_ms",
                     ask->slo_tpot_ms, "routes", trace ? trace : "zipf", "kinds", kinds,
                     "sentences", a.sentences);
    return *out ? 0 : err_set(err, ERR_NOMEM, "no memory for advice");
}

#define LINE 96

/* Words of one sentence, lines of at most LINE characters, indented. */
static void put_wrapped(const char *text, FILE *out)
{
    size_t at = 0;
    for (const char *word = text; *word;) {
        size_t n = strcspn(word, " ");
        if (at > 0 && at + 1 + n > LINE) {
            fputc('\n', out);
            at = 0;
        }
        at += (size_t)fprintf(out, "%s%.*s", at == 0 ? "  " : " ", (int)n, word);
        word += n + strspn(word + n, " ");
    }
    fputc('\n', out);
}

void advise_print(const json_t *advice, FILE *out)
{
    const json_t *s;
    size_t i;
    json_array_foreach(json_object_get(advice, "sentences"), i, s)
    {
        fprintf(out, "%s%s\n", i ? "\n" : "", json_string_value(json_object_get(s, "topic")));
        put_wrapped(json_string_value(json_object_get(s, "says")), out);
    }
}
