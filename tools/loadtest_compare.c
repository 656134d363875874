/* loadtest_compare: which strategy is better, and by how much at least. Runs of two strategies at
 * the same load and seed met the same requests, so their figures are compared pair by pair (paired
 * t: the mean of the differences and its confidence interval by Student's distribution). */
#include "tools/loadtest.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define REPORTS_MAX 64
#define NAMES_MAX   256
#define PAIRS_MAX   4096

static const struct metric {
    const char *name, *path;
    int more; /* is better */
} metrics[] = {
    {"tokens/s", "throughput.tokens_per_s", 1},  {"goodput", "throughput.goodput_per_s", 1},
    {"ttft-p50", "latency_ms.ttft.p50", 0},      {"ttft-p95", "latency_ms.ttft.p95", 0},
    {"tpot-p50", "latency_ms.tpot.p50", 0},      {"tpot-p95", "latency_ms.tpot.p95", 0},
    {"gap-p99", "latency_ms.gap.p99", 0},        {"total-p95", "latency_ms.total.p95", 0},
    {"balancedness", "cluster.balancedness", 1},
};
#define N_METRIC ((int)(sizeof(metrics) / sizeof(metrics[0])))

static const char about[] =
    "Ranks the strategies of one or several reports by a figure, for each load. The best is "
    "compared\n"
    "with each other one over the runs of the same load and seed, which met the same requests: "
    "the\n"
    "mean difference and its 95 % confidence interval (paired t). An interval that holds 0 says "
    "that\n"
    "these runs do not tell the two apart; more --seeds narrow it. Runs of different reports are\n"
    "pairs when load and seed agree: give them the same arrivals.\n"
    "\n"
    "  sigmoe loadtest simulate olmoe-1b-7b --placement contiguous,balanced --redundant 8 \\\n"
    "      --seeds 5 --json a.json && sigmoe loadtest compare a.json\n"
    "  sigmoe loadtest compare a.json b.json --by ttft-p95";

struct compare {
    const char *by, *json_path;
    double confidence;
    const struct metric *metric;
    json_t *report[REPORTS_MAX];
    const char *path[REPORTS_MAX];
    int n_report;
    /* A contender: a name within a report (named after it when there are several). */
    struct contender {
        int report;
        char name[320];
        const char *run;
    } who[NAMES_MAX];
    int n_who;
};

static int metric_get(struct compare *c, struct err *err)
{
    const char *names[N_METRIC + 1] = {0};
    char list[256] = "";
    for (int i = 0; i < N_METRIC; i++) {
        names[i] = metrics[i].name;
        size_t used = strlen(list);
        snprintf(list + used, sizeof(list) - used, "%s%s", i ? ", " : "", names[i]);
        if (strcmp(names[i], c->by) == 0)
            c->metric = &metrics[i];
    }
    return c->metric ? 0 : err_set(err, ERR_USAGE, "--by '%.40s' is none of %s", c->by, list);
}

static int parse(int argc, char **argv, struct compare *c, struct err *err)
{
    c->by = "tokens/s";
    c->confidence = 95;
    const struct opt opts[] = {
        {"by", 'b', OPT_STR, &c->by, "FIGURE",
         "tokens/s (default), goodput, ttft-p50, ttft-p95, tpot-p50,\ntpot-p95, gap-p99, "
         "total-p95, balancedness",
         0, 0},
        {"confidence", 0, OPT_FLOAT, &c->confidence, "PERCENT", "of the intervals (95)", 50, 99.99},
        {"json", 0, OPT_STR, &c->json_path, "FILE", "the ranking as JSON; - is stdout", 0, 0},
        {.name = NULL}};
    const struct opt_command cmd = {
        "loadtest compare", "sigmoe loadtest compare REPORT.json... [options]", about, opts};
    c->n_report = REPORTS_MAX;
    int rc = opt_parse(&cmd, argc, argv, c->path, &c->n_report, err);
    if (rc == 0 && c->n_report < 1)
        rc = err_set(err, ERR_USAGE, "which reports? sigmoe loadtest compare REPORT.json...");
    if (rc)
        c->n_report = 0;
    return rc ? rc : metric_get(c, err);
}

static int add_contenders(struct compare *c, int report, struct err *err)
{
    const json_t *runs = json_object_get(c->report[report], "runs"), *run;
    size_t i;
    int first = c->n_who;
    json_array_foreach(runs, i, run)
    {
        int known = 0;
        for (int k = first; k < c->n_who; k++)
            known |= strcmp(c->who[k].run, run_name(run)) == 0;
        if (known)
            continue;
        if (c->n_who == NAMES_MAX)
            return err_set(err, ERR_LIMIT, "more than %d strategies", NAMES_MAX);
        struct contender *w = &c->who[c->n_who++];
        w->report = report;
        w->run = run_name(run);
        snprintf(w->name, sizeof(w->name), "%s%s%s", c->n_report > 1 ? c->path[report] : "",
                 c->n_report > 1 ? ": " : "", w->run);
    }
    return 0;
}

static int read_all(struct compare *c, struct err *err)
{
    int rc = 0;
    for (int i = 0; rc == 0 && i < c->n_report; i++) {
        rc = report_read(c->path[i], &c->report[i], err);
        rc = rc ? rc : add_contenders(c, i, err);
    }
    return rc;
}

/* ---- figures ---- */

static const json_t *run_of(const struct compare *c, const struct contender *w, double rate,
                            double seed)
{
    const json_t *runs = json_object_get(c->report[w->report], "runs"), *run;
    size_t i;
    json_array_foreach(runs, i, run)
    {
        if (strcmp(run_name(run), w->run) == 0 && run_number(run, "rate") == rate &&
            run_number(run, "seed") == seed)
            return run;
    }
    return NULL;
}

/* Figures of one contender at one load, and the seeds they are of; returns how many. */
static int figures_of(const struct compare *c, const struct contender *w, double rate, double *x,
                      double *seed)
{
    const json_t *runs = json_object_get(c->report[w->report], "runs"), *run;
    size_t i;
    int n = 0;
    json_array_foreach(runs, i, run)
    {
        double v = run_number(run, c->metric->path);
        if (strcmp(run_name(run), w->run) != 0 || run_number(run, "rate") != rate || !isfinite(v) ||
            n == PAIRS_MAX)
            continue;
        x[n] = v;
        seed[n++] = run_number(run, "seed");
    }
    return n;
}

struct line {
    const struct contender *who;
    double mean, half;      /* of the figure */
    double worse, interval; /* than the best: mean difference, half its interval */
    int n, n_pair;
};

static void pair_up(const struct compare *c, struct line *l, const struct line *best, double rate)
{
    static double x[PAIRS_MAX], seed[PAIRS_MAX], d[PAIRS_MAX];
    int n = figures_of(c, l->who, rate, x, seed);
    l->n_pair = 0;
    for (int i = 0; i < n; i++) {
        const json_t *other = run_of(c, best->who, rate, seed[i]);
        double v = other ? run_number(other, c->metric->path) : NAN;
        if (isfinite(v))
            d[l->n_pair++] = c->metric->more ? v - x[i] : x[i] - v;
    }
    mean_interval(d, l->n_pair, c->confidence / 100, &l->worse, &l->interval);
}

static int by_mean(const struct compare *c, const struct line *a, const struct line *b)
{
    return c->metric->more ? a->mean > b->mean : a->mean < b->mean;
}

static const char *verdict(const struct line *l)
{
    if (l->n_pair < 2)
        return "one pair says nothing of chance; use --seeds";
    return l->worse - l->interval > 0 ? "worse" : "not told apart";
}

static void put_rate(const struct compare *c, double rate, const struct line *line, int n,
                     json_t *out)
{
    int width = 8;
    for (int i = 0; i < n; i++) {
        int w = (int)strlen(line[i].who->name);
        width = w > width ? w : width;
    }
    FILE *f = c->json_path && strcmp(c->json_path, "-") == 0 ? stderr : stdout;
    fprintf(f, "load %.4g/s, by %s (%s is better), %.4g %% confidence, paired t\n", rate,
            c->metric->name, c->metric->more ? "more" : "less", c->confidence);
    json_t *list = json_array();
    for (int i = 0; i < n; i++) {
        const struct line *l = &line[i];
        fprintf(f, "  %d. %-*s %10.5g +- %-8.3g", i + 1, width, l->who->name, l->mean, l->half);
        if (i > 0)
            fprintf(f, "  best is ahead by %.4g +- %.3g (%.1f %%): %s", l->worse, l->interval,
                    l->mean != 0 ? 100 * l->worse / fabs(l->mean) : 0, verdict(l));
        fputc('\n', f);
        json_array_append_new(
            list, json_pack("{s:i, s:s, s:i, s:f, s:f, s:f, s:f, s:i, s:s}", "rank", i + 1, "name",
                            l->who->name, "runs", l->n, "mean", l->mean, "half_interval", l->half,
                            "behind_best", l->worse, "behind_half_interval", l->interval, "pairs",
                            l->n_pair, "verdict", i == 0 ? "best" : verdict(l)));
    }
    json_array_append_new(
        out, json_pack("{s:f, s:s, s:o}", "rate", rate, "by", c->metric->name, "ranking", list));
}

static void rank_rate(const struct compare *c, double rate, json_t *out)
{
    static struct line line[NAMES_MAX];
    static double x[PAIRS_MAX], seed[PAIRS_MAX];
    int n = 0;
    for (int i = 0; i < c->n_who; i++) {
        struct line l = {.who = &c->who[i]};
        l.n = figures_of(c, l.who, rate, x, seed);
        if (l.n == 0)
            continue;
        mean_interval(x, l.n, c->confidence / 100, &l.mean, &l.half);
        int at = n++;
        for (; at > 0 && by_mean(c, &l, &line[at - 1]); at--)
            line[at] = line[at - 1];
        line[at] = l;
    }
    for (int i = 1; i < n; i++)
        pair_up(c, &line[i], &line[0], rate);
    if (n > 0)
        put_rate(c, rate, line, n, out);
}

static void rank_all(const struct compare *c, json_t *out)
{
    double done[PAIRS_MAX];
    int n_done = 0;
    for (int i = 0; i < c->n_report; i++) {
        const json_t *runs = json_object_get(c->report[i], "runs"), *run;
        size_t k;
        json_array_foreach(runs, k, run)
        {
            double rate = run_number(run, "rate");
            int known = 0;
            for (int j = 0; j < n_done; j++)
                known |= done[j] == rate;
            if (known || n_done == PAIRS_MAX)
                continue;
            done[n_done++] = rate;
            rank_rate(c, rate, out);
        }
    }
}

int loadtest_compare(int argc, char **argv)
{
    struct compare *c = calloc(1, sizeof(*c));
    struct err err = {0};
    int rc = c ? parse(argc, argv, c, &err) : err_set(&err, ERR_NOMEM, "no memory");
    if (rc == 1) {
        free(c);
        return 0;
    }
    rc = rc ? rc : read_all(c, &err);
    if (rc == 0) {
        json_t *out = json_array();
        rank_all(c, out);
        json_t *root = json_pack("{s:i, s:f, s:s, s:o}", "sigmoe_comparison", 1, "confidence",
                                 c->confidence, "method", "paired t", "loads", out);
        if (c->json_path)
            rc = report_write_json(root, c->json_path, &err);
        json_decref(root);
    }
    if (rc)
        fprintf(stderr, "sigmoe loadtest compare: %s\n", err.text);
    for (int i = 0; c && i < c->n_report; i++)
        json_decref(c->report[i]);
    free(c);
    return err_exit_code(rc);
}
