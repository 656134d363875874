/* load_report_io: a report on a terminal, in a file, as a page, and back. The page is a template
 * (tools/report.html, embedded when sigmoe is built) with the report's JSON in the middle: it opens
 * without a network and holds everything it shows. */
#include "model/json.h"
#include "tools/load_report.h"
#include "tools/report_page.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define REPORT_BYTES_MAX ((size_t)1 << 30)
#define REPORT_MARK      "/*REPORT*/"
#define SEEDS_MAX        1024

/* ---- terminal ---- */

/* The runs of one name and rate; mean and half interval of one figure over them; returns how
 * many have it. */
static int over_seeds(const json_t *runs, const char *name, double rate, const char *path,
                      double *mean, double *half)
{
    double x[SEEDS_MAX];
    int n = 0;
    const json_t *run;
    size_t i;
    json_array_foreach(runs, i, run)
    {
        double v = run_number(run, path);
        if (strcmp(run_name(run), name) == 0 && run_number(run, "rate") == rate && isfinite(v) &&
            n < SEEDS_MAX)
            x[n++] = v;
    }
    mean_interval(x, n, 0.95, mean, half);
    return n;
}

static int seen_before(const json_t *runs, size_t at)
{
    const json_t *run = json_array_get(runs, at);
    for (size_t i = 0; i < at; i++) {
        const json_t *other = json_array_get(runs, i);
        if (strcmp(run_name(run), run_name(other)) == 0 &&
            run_number(run, "rate") == run_number(other, "rate"))
            return 1;
    }
    return 0;
}

static void put_cell(FILE *out, double mean, double half, int width)
{
    char text[48];
    int digits = fabs(mean) >= 1000 ? 0 : fabs(mean) >= 10 ? 1 : 2;
    if (half > 0)
        snprintf(text, sizeof(text), "%.*f+-%.*f", digits, mean, digits, half);
    else
        snprintf(text, sizeof(text), "%.*f", digits, mean);
    fprintf(out, " %*s", width, text);
}

static const struct column {
    const char *head, *path;
    int width;
} columns[] = {
    {"tokens/s", "throughput.tokens_per_s", 13}, {"good/s", "throughput.goodput_per_s", 11},
    {"TTFT p50", "latency_ms.ttft.p50", 12},     {"p95 ms", "latency_ms.ttft.p95", 12},
    {"TPOT p50", "latency_ms.tpot.p50", 10},     {"p95 ms", "latency_ms.tpot.p95", 10},
    {"gap p99", "latency_ms.gap.p99", 10},       {"total p95", "latency_ms.total.p95", 12},
    {"balance", "cluster.balancedness", 9},      {"busy", "cluster.worker_busy_mean", 9},
};
#define N_COLUMN (sizeof(columns) / sizeof(columns[0]))

static void put_losses(const json_t *run, FILE *out)
{
    static const char *const why[] = {"rejected", "unfinished", "failed"};
    for (int i = 0; i < 3; i++) {
        char path[64];
        snprintf(path, sizeof(path), "requests.%s", why[i]);
        double n = run_number(run, path);
        if (n > 0)
            fprintf(out, "  %.0f of %.0f %s", n, run_number(run, "requests.counted"), why[i]);
    }
}

static void put_found(const json_t *run, FILE *out)
{
    double rate = run_number(run, "cluster.prefix_hit_rate");
    if (isfinite(rate))
        fprintf(out, "  %.1f %% of prompts cached", 100 * rate);
}

void report_table(const json_t *report, FILE *out)
{
    const json_t *runs = json_object_get(report, "runs"), *run;
    size_t i;
    int width = 8, changed = 0;
    json_array_foreach(runs, i, run)
    {
        int n = (int)strlen(run_name(run));
        width = n > width ? n : width;
        changed |= json_is_true(json_object_get(run, "changes_output"));
    }
    fprintf(out, "%-*s %8s", width, "strategy", "load/s");
    for (size_t c = 0; c < N_COLUMN; c++)
        fprintf(out, " %*s", columns[c].width, columns[c].head);
    fputc('\n', out);
    json_array_foreach(runs, i, run)
    {
        if (seen_before(runs, i))
            continue;
        double rate = run_number(run, "rate"), mean, half;
        fprintf(out, "%-*s %8.4g", width, run_name(run), rate);
        for (size_t c = 0; c < N_COLUMN; c++) {
            if (over_seeds(runs, run_name(run), rate, columns[c].path, &mean, &half))
                put_cell(out, mean, half, columns[c].width);
            else
                fprintf(out, " %*s", columns[c].width, "-");
        }
        put_losses(run, out);
        put_found(run, out);
        fputc('\n', out);
    }
    if (changed)
        fprintf(out, "Synthetic routing stands in for the model's gate: it says how a cluster "
                     "would carry such a load, not what the model would answer.\n");
}

/* ---- files ---- */

static FILE *open_out(const char *path, struct err *err)
{
    FILE *f = strcmp(path, "-") == 0 ? stdout : fopen(path, "w");
    if (!f)
        err_sys(err, ERR_IO, "cannot write %s", path);
    return f;
}

static int close_out(FILE *f, const char *path, struct err *err)
{
    int bad = ferror(f) || fflush(f) != 0;
    if (f != stdout)
        bad |= fclose(f) != 0;
    return bad ? err_sys(err, ERR_IO, "cannot write %s", path) : 0;
}

int report_write_json(const json_t *report, const char *path, struct err *err)
{
    FILE *f = open_out(path, err);
    if (!f)
        return ERR_IO;
    json_dumpf(report, f, JSON_COMPACT | JSON_REAL_PRECISION(9));
    fputc('\n', f);
    return close_out(f, path, err);
}

/* In a script element "</script" would end it: "</" is written as "<\/", which JSON allows. */
static void put_script_json(const char *json, FILE *f)
{
    for (const char *at = json; *at; at++) {
        if (at[0] == '<' && at[1] == '/') {
            fputs("<\\/", f);
            at++;
        } else if (at[0] == '<' && at[1] == '!') {
            fputs("\\u003c", f);
        } else {
            fputc(*at, f);
        }
    }
}

int report_write_html(const json_t *report, const char *path, struct err *err)
{
    const char *page = (const char *)report_page, *end = page + report_page_bytes;
    const char *mark = memmem(page, report_page_bytes, REPORT_MARK, strlen(REPORT_MARK));
    char *json = json_dumps(report, JSON_COMPACT | JSON_REAL_PRECISION(6));
    FILE *f = json && mark ? open_out(path, err) : NULL;
    int rc = ERR_IO;
    if (f) {
        fwrite(page, 1, (size_t)(mark - page), f);
        put_script_json(json, f);
        mark += strlen(REPORT_MARK);
        fwrite(mark, 1, (size_t)(end - mark), f);
        rc = close_out(f, path, err);
    } else if (!json || !mark) {
        rc = err_set(err, ERR_NOMEM, "no memory for the page");
    }
    free(json);
    return rc;
}

int report_read(const char *path, json_t **out, struct err *err)
{
    char *text;
    size_t bytes, i;
    json_t *root = NULL, *run;
    int rc = file_read(path, REPORT_BYTES_MAX, &text, &bytes, err);
    if (rc)
        return rc;
    rc = json_parse_object(text, bytes, REPORT_BYTES_MAX, path, &root, err);
    free(text);
    if (rc)
        return rc;
    const json_t *runs = json_object_get(root, "runs");
    if (json_integer_value(json_object_get(root, "sigmoe_report")) != REPORT_VERSION)
        rc = err_set(err, ERR_MODEL, "%s is no load-test report of version %d", path,
                     REPORT_VERSION);
    else if (!json_is_array(runs) || json_array_size(runs) == 0)
        rc = err_set(err, ERR_MODEL, "%s has no runs", path);
    json_array_foreach(runs, i, run)
    {
        if (rc == 0 && (!json_is_string(json_object_get(run, "name")) ||
                        !isfinite(run_number(run, "rate")) || !isfinite(run_number(run, "seed"))))
            rc = err_set(err, ERR_MODEL, "%s: run %zu needs name, rate and seed", path, i);
    }
    if (rc)
        json_decref(root);
    else
        *out = root;
    return rc;
}
