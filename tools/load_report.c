/* load_report: figures of a run, and the run as JSON. */
#include "tools/load_report.h"

#include "base/clock.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- figures ---- */

static double ms(int64_t ns)
{
    return (double)ns / (double)NS_PER_MS;
}

static void count_request(const struct load_request *q, const struct slo *slo,
                          struct run_figures *f, struct samples *ttft, struct samples *tpot,
                          struct samples *total)
{
    f->n_counted++;
    f->n_rejected += q->status == REQUEST_REJECTED;
    f->n_unfinished += q->status == REQUEST_UNFINISHED;
    f->n_failed += q->status == REQUEST_FAILED;
    if (q->status != REQUEST_OK)
        return;
    f->n_ok++;
    double first = ms(q->first_ns - q->due_ns), each = 0;
    if (q->n_got > 1)
        each = ms(q->last_ns - q->first_ns) / (q->n_got - 1);
    if (q->n_got > 0) {
        samples_add(ttft, first);
        samples_add(total, ms(q->last_ns - q->due_ns));
    }
    if (q->n_got > 1)
        samples_add(tpot, each);
    f->n_good +=
        (slo->ttft_ms <= 0 || first <= slo->ttft_ms) && (slo->tpot_ms <= 0 || each <= slo->tpot_ms);
}

static void count_cluster(const struct load_result *r, struct run_figures *f)
{
    double mean = 0, max = 0, said = 0;
    int n_said = 0;
    for (int i = 0; i < r->n_slice; i++) {
        mean += r->slice[i].mean;
        max += r->slice[i].max;
        if (r->slice[i].balancedness >= 0) {
            said += r->slice[i].balancedness;
            n_said++;
        }
    }
    f->balancedness = max > 0 ? mean / max : n_said > 0 ? said / n_said : 0;
    for (int i = 0; r->worker_busy && i < r->n_worker; i++) {
        f->busy_mean += r->worker_busy[i] / r->n_worker;
        f->busy_max = fmax(f->busy_max, r->worker_busy[i]);
    }
}

int run_figures_make(struct load_result *r, const struct slo *slo, struct run_figures *out,
                     struct err *err)
{
    struct samples ttft = {0}, tpot = {0}, total = {0};
    struct run_figures f = {0};
    for (int i = 0; i < r->n_request; i++)
        if (r->request[i].due_ns >= r->warmup_ns)
            count_request(&r->request[i], slo, &f, &ttft, &tpot, &total);
    double seconds = ms(r->duration_ns - r->warmup_ns) / 1000;
    int64_t done = 0;
    for (int i = 0; i < r->n_request; i++) /* those that ended within the time that counts */
        done += r->request[i].status == REQUEST_OK && r->request[i].last_ns >= r->warmup_ns &&
                r->request[i].last_ns < r->duration_ns;
    f.offered_per_s = f.n_counted / seconds;
    f.ok_per_s = (double)done / seconds;
    f.good_per_s = f.n_good / seconds;
    f.tokens_per_s = (double)r->tokens / seconds;
    int lost = ttft.failed || tpot.failed || total.failed || r->gap_ms.failed;
    samples_summary(&ttft, &f.ttft_ms);
    samples_summary(&tpot, &f.tpot_ms);
    samples_summary(&total, &f.total_ms);
    samples_summary(&r->gap_ms, &f.gap_ms);
    samples_free(&ttft);
    samples_free(&tpot);
    samples_free(&total);
    count_cluster(r, &f);
    if (lost)
        return err_set(err, ERR_NOMEM, "no memory for the latencies of %d requests", r->n_request);
    *out = f;
    return 0;
}

/* ---- JSON ---- */

static json_t *summary_json(const struct summary *s)
{
    return json_pack("{s:I, s:f, s:f, s:f, s:f, s:f, s:f, s:f}", "n", (json_int_t)s->n, "mean",
                     s->mean, "min", s->min, "p50", s->p50, "p90", s->p90, "p95", s->p95, "p99",
                     s->p99, "max", s->max);
}

/* Four digits are what a plot shows. */
static json_t *rounded(double x)
{
    if (!isfinite(x))
        return json_real(0);
    double scale = x == 0 ? 1 : pow(10, 3 - floor(log10(fabs(x))));
    return json_real(round(x * scale) / scale);
}

static json_t *numbers(const double *x, int n)
{
    json_t *list = json_array();
    for (int i = 0; i < n; i++)
        json_array_append_new(list, rounded(x[i]));
    return list;
}

static json_t *heat_json(const struct load_result *r)
{
    json_t *layers = json_array();
    for (int layer = 0; layer < r->n_layer; layer++) {
        const double *row = r->heat + (size_t)layer * (size_t)r->n_expert;
        double sum = 0;
        for (int e = 0; e < r->n_expert; e++)
            sum += row[e];
        if (sum > 0) /* dense layers have no row */
            json_array_append_new(layers, json_pack("{s:i, s:o}", "layer", layer, "slots",
                                                    numbers(row, r->n_expert)));
    }
    return layers;
}

static json_t *slices_json(const struct load_result *r)
{
    json_t *list = json_array();
    for (int i = 0; i < r->n_slice; i++) {
        const struct load_slice *s = &r->slice[i];
        double seconds = s->end_s - s->begin_s;
        double even = s->max > 0 ? s->mean / s->max : s->balancedness;
        json_t *o = json_pack("{s:o, s:o, s:o, s:o, s:o, s:o, s:o}", "t_s", rounded(s->begin_s),
                              "tokens_per_s", rounded(s->tokens / seconds), "running",
                              rounded(s->running), "waiting", rounded(s->waiting), "bytes_per_s",
                              rounded(s->bytes / seconds), "stalled", rounded(s->stall_s / seconds),
                              "worker_busy", s->busy < 0 ? json_null() : rounded(s->busy));
        json_object_set_new(o, "balancedness", even < 0 ? json_null() : rounded(even));
        json_array_append_new(list, o);
    }
    return list;
}

static json_t *spent_json(const struct load_result *r)
{
    static const char *const name[SPENT_KINDS] = {"coordinator", "coordinator_wire", "front",
                                                  "workers",     "workers_wire",     "client"};
    json_t *o = json_object();
    for (int i = 0; i < SPENT_KINDS; i++)
        json_object_set_new(o, name[i], json_real(r->spent_s[i]));
    return o;
}

static json_t *cluster_json(const struct load_result *r, const struct run_figures *f, int detail)
{
    double steps = r->steps > 0 ? (double)r->steps : 1;
    json_t *o =
        json_pack("{s:i, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:I, s:I, s:I, s:I, s:I, s:I}",
                  "workers", r->n_worker, "balancedness", f->balancedness, "worker_busy_mean",
                  f->busy_mean, "worker_busy_max", f->busy_max, "coordinator_busy",
                  r->coordinator_busy, "stalled", r->step_s > 0 ? r->wait_s / r->step_s : 0.0,
                  "step_ms", 1000 * r->step_s / steps, "rows_a_step", (double)r->rows / steps,
                  "steps", (json_int_t)r->steps, "messages", (json_int_t)r->messages, "bytes_sent",
                  (json_int_t)r->bytes_sent, "bytes_received", (json_int_t)r->bytes_received,
                  "slots_dropped", (json_int_t)r->dropped, "slots_moved", (json_int_t)r->moved);
    static const char *const simulated[] = {
        "worker_busy_mean", "worker_busy_max", "coordinator_busy", "rows_a_step",
        "step_ms",          "steps",           "messages"};
    for (int i = 0; !r->worker_busy && i < 7; i++) /* a live server does not tell */
        json_object_set_new(o, simulated[i], json_null());
    json_object_set_new(o, "prefix_hit_rate",
                        r->lookup_tokens > 0
                            ? json_real((double)r->hit_tokens / (double)r->lookup_tokens)
                            : json_null());
    if (r->worker_busy)
        json_object_set_new(o, "cpu_s", spent_json(r));
    if (detail && r->worker_busy)
        json_object_set_new(o, "worker_busy", numbers(r->worker_busy, r->n_worker));
    if (detail && r->worker_slots)
        json_object_set_new(o, "worker_slots", numbers(r->worker_slots, r->n_worker));
    if (detail && r->heat)
        json_object_set_new(o, "heat", heat_json(r));
    return o;
}

json_t *report_create(const char *kind, const char *title, const struct slo *slo, json_t *settings)
{
    return json_pack("{s:i, s:s, s:s, s:s, s:{s:f, s:f}, s:o, s:[]}", "sigmoe_report",
                     REPORT_VERSION, "kind", kind, "title", title, "sigmoe", SIGMOE_VERSION, "slo",
                     "ttft_ms", slo->ttft_ms, "tpot_ms", slo->tpot_ms, "settings", settings,
                     "runs");
}

static json_t *label_json(const struct run_label *l)
{
    char name[256];
    snprintf(name, sizeof(name), "%s%s%s%s%s", l->route ? l->route : "live",
             l->placement ? " / " : "", l->placement ? l->placement : "", l->replica ? " / " : "",
             l->replica ? l->replica : "");
    return json_pack("{s:s, s:s?, s:s?, s:s?, s:b, s:f, s:I}", "name", name, "route", l->route,
                     "placement", l->placement, "replica", l->replica, "changes_output",
                     l->changes_output, "rate", l->rate, "seed", (json_int_t)l->seed);
}

int report_add(json_t *report, const struct run_label *label, struct load_result *r, int detail,
               struct err *err)
{
    struct run_figures f;
    const json_t *slo_json = json_object_get(report, "slo");
    struct slo slo = {json_number_value(json_object_get(slo_json, "ttft_ms")),
                      json_number_value(json_object_get(slo_json, "tpot_ms"))};
    int rc = run_figures_make(r, &slo, &f, err);
    if (rc)
        return rc;
    json_t *run = label_json(label);
    json_object_set_new(run, "requests",
                        json_pack("{s:i, s:i, s:i, s:i, s:i, s:i, s:s}", "counted", f.n_counted,
                                  "ok", f.n_ok, "rejected", f.n_rejected, "unfinished",
                                  f.n_unfinished, "failed", f.n_failed, "within_slo", f.n_good,
                                  "first_error", r->error));
    json_object_set_new(run, "throughput",
                        json_pack("{s:f, s:f, s:f, s:f}", "offered_per_s", f.offered_per_s,
                                  "requests_per_s", f.ok_per_s, "goodput_per_s", f.good_per_s,
                                  "tokens_per_s", f.tokens_per_s));
    json_object_set_new(run, "latency_ms",
                        json_pack("{s:o, s:o, s:o, s:o}", "ttft", summary_json(&f.ttft_ms), "tpot",
                                  summary_json(&f.tpot_ms), "gap", summary_json(&f.gap_ms), "total",
                                  summary_json(&f.total_ms)));
    json_object_set_new(run, "cluster", cluster_json(r, &f, detail));
    json_object_set_new(run, "test_s",
                        json_pack("{s:f, s:f, s:f, s:f, s:f}", "duration",
                                  ms(r->duration_ns) / 1000, "warmup", ms(r->warmup_ns) / 1000,
                                  "end", ms(r->end_ns) / 1000, "wall", ms(r->wall_ns) / 1000, "cpu",
                                  ms(r->cpu_ns) / 1000));
    if (detail)
        json_object_set_new(run, "slices", slices_json(r));
    if (json_array_append_new(json_object_get(report, "runs"), run))
        return err_set(err, ERR_NOMEM, "no memory for the report");
    return 0;
}

/* ---- reading ---- */

double run_number(const json_t *run, const char *path)
{
    char key[64];
    const json_t *at = run;
    while (*path) {
        size_t n = strcspn(path, ".");
        snprintf(key, sizeof(key), "%.*s", (int)n, path);
        at = json_object_get(at, key);
        path += n + (path[n] == '.');
    }
    return json_is_number(at) ? json_number_value(at) : NAN;
}

const char *run_name(const json_t *run)
{
    const char *name = json_string_value(json_object_get(run, "name"));
    return name ? name : "?";
}
