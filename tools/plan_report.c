/* plan_report: a plan as a table for people and as JSON. */
#include "base/report.h"
#include "tools/plan.h"

#include <stdlib.h>
#include <string.h>

#define WORKERS_SHOWN 64 /* in the table; JSON has all */

static int row_count(const struct balance_table *t, int layer, int w)
{
    int n = 0;
    for (int s = t->begin[w]; s < t->begin[w + 1]; s++)
        n += t->expert[(size_t)layer * (size_t)t->n_slot + (size_t)s] >= 0;
    return n;
}

uint64_t plan_bytes(const struct plan_job *job, const struct balance_table *table, int w)
{
    uint64_t n = 0;
    for (int layer = 0; layer < table->n_layer; layer++)
        n += (uint64_t)row_count(table, layer, w);
    return n * job->in.expert_bytes;
}

/* shares: of all work, over all layers, that each worker gets. */
static double *shares(const struct plan_job *job, const struct balance_table *t)
{
    size_t n = (size_t)t->n_worker;
    double *share = calloc(n, sizeof(*share)), *work = malloc(n * sizeof(*work)), sum = 0;
    void *scratch = malloc(balance_load_scratch(t));
    for (int l = 0; share && work && scratch && l < t->n_layer; l++) {
        balance_worker_load(t, l, job->in.load + (size_t)l * (size_t)t->n_expert, job->in.worker,
                            SPLIT_BEST, work, scratch);
        for (size_t w = 0; w < n; w++) {
            share[w] += work[w];
            sum += work[w];
        }
    }
    for (size_t w = 0; share && sum > 0 && w < n; w++)
        share[w] /= sum;
    free(work);
    free(scratch);
    return share;
}

static void print_figures(const struct plan_job *job)
{
    printf("\nimbalance (max - mean) / mean%s, mean over layers (worst layer)\n",
           job->strategy->place == strategy_find(STRATEGY_PLACE, "balanced")->place
               ? ""
               : ", relative to speed");
    printf("  %-28s %9s  %-17s %s\n", "traffic", "tokens",
           job->has_current ? "in use" : "contiguous", job->strategy->name);
    for (int i = 0; i < job->n_figures; i++) {
        const struct plan_figures *f = &job->figures[i];
        const char *name = f->window[0] ? f->window : "all";
        printf("  %-28s %9lld  %.3f (%.3f)     %.3f (%.3f)%s\n",
               f->n_token > 0 ? name : "none: even loads", (long long)f->n_token, f->before,
               f->before_worst, f->after, f->after_worst, i == 0 ? "  planned from" : "");
    }
}

static void print_workers(const struct plan_job *job)
{
    double *before = shares(job, &job->before), *after = shares(job, &job->table);
    printf("\n  %-16s %-12s %6s %6s %10s %10s  %6s  %6s\n", "worker", "host", "speed", "slots",
           "experts", "of memory", "load", "was");
    for (int w = 0; before && after && w < job->in.n_worker && w < WORKERS_SHOWN; w++) {
        char bytes[32], limit[32] = "";
        if (job->worker[w].memory_bytes > 0)
            human_bytes((double)job->worker[w].memory_bytes, limit, sizeof(limit));
        if (job->in.expert_bytes > 0)
            human_bytes((double)plan_bytes(job, &job->table, w), bytes, sizeof(bytes));
        else
            snprintf(bytes, sizeof(bytes), "-");
        printf("  %-16.16s %-12.12s %6g %6d %10s %10s  %5.1f%%  %5.1f%%\n", job->named[w].name,
               job->named[w].host[0] ? job->named[w].host : "-", job->worker[w].speed,
               job->table.begin[w + 1] - job->table.begin[w], bytes, limit[0] ? limit : "-",
               100 * after[w], 100 * before[w]);
    }
    if (job->in.n_worker > WORKERS_SHOWN)
        printf("  and %d more; --json lists all\n", job->in.n_worker - WORKERS_SHOWN);
    free(before);
    free(after);
}

static void print_moves(const struct plan_job *job)
{
    const struct balance_moves *m = &job->moves;
    char all[32], one[32], load[32], gain[32], cost[32];
    if (!job->has_current)
        return;
    printf("\nmoves from %s: %d copies", job->ask.current, m->n_move);
    if (job->in.expert_bytes > 0)
        printf(", %s; the busiest worker loads %s, which takes it %s",
               human_bytes((double)m->bytes, all, sizeof(all)),
               human_bytes((double)m->bytes_worker_max, one, sizeof(one)),
               human_ns(m->load_s * 1e9, load, sizeof(load)));
    printf("\n");
    if (m->n_changed > 0)
        printf("  %d layers change: they gain %s within the horizon of %.0f tokens and cost %s\n",
               m->n_changed, human_ns(m->gain_s * 1e9, gain, sizeof(gain)), job->ask.horizon_tokens,
               human_ns(m->cost_s * 1e9, cost, sizeof(cost)));
    if (m->n_broken > 0)
        printf("  in %d of them some expert has no holder now: they must change\n", m->n_broken);
    if (m->n_refused > 0) {
        printf("  %d layers stay as they are, since moving would not pay back within the horizon:",
               m->n_refused);
        for (int l = 0; l < job->in.n_layer; l++)
            if (job->refused[l])
                printf(" %d", job->loads.layer[l]);
        printf("\n");
    }
    if (m->n_changed == 0 && m->n_refused == 0)
        printf("  the placement in use is as even as can be found: nothing moves\n");
}

void plan_print(const struct plan_job *job)
{
    int copies = 0;
    for (int w = 0; w < job->table.n_worker; w++)
        copies += row_count(&job->table, 0, w);
    printf("%s: %d sparse layers x %d experts on %d workers, %d copies a layer (%+d)\n",
           job->strategy->name, job->in.n_layer, job->in.n_expert, job->in.n_worker, copies,
           copies - job->in.n_expert);
    print_figures(job);
    print_workers(job);
    print_moves(job);
    if (job->ask.out)
        printf("\nwritten to %s (epoch %lld): sigmoe worker --placement, sigmoe rebalance "
               "--placement\n",
               job->ask.out, (long long)job->current_epoch + 1);
}

static json_t *list(const double *value, int n)
{
    json_t *array = json_array();
    for (int i = 0; i < n; i++)
        json_array_append_new(array, json_real(value[i]));
    return array;
}

static json_t *figures_json(const struct plan_job *job)
{
    json_t *array = json_array();
    for (int i = 0; i < job->n_figures; i++) {
        const struct plan_figures *f = &job->figures[i];
        json_array_append_new(
            array, json_pack("{s:s, s:I, s:f, s:f, s:f, s:f, s:o, s:o}", "window", f->window,
                             "tokens", (json_int_t)f->n_token, "before", f->before, "before_worst",
                             f->before_worst, "after", f->after, "after_worst", f->after_worst,
                             "before_by_layer", list(f->excess_before, job->in.n_layer),
                             "after_by_layer", list(f->excess_after, job->in.n_layer)));
    }
    return array;
}

static json_t *workers_json(const struct plan_job *job)
{
    json_t *array = json_array();
    double *share = shares(job, &job->table);
    for (int w = 0; share && w < job->in.n_worker; w++)
        json_array_append_new(
            array, json_pack("{s:s, s:s, s:f, s:i, s:I, s:I, s:f}", "name", job->named[w].name,
                             "host", job->named[w].host, "speed", job->worker[w].speed, "slots",
                             (int)(job->table.begin[w + 1] - job->table.begin[w]), "bytes",
                             (json_int_t)plan_bytes(job, &job->table, w), "memory_bytes",
                             (json_int_t)job->worker[w].memory_bytes, "load", share[w]));
    free(share);
    return array;
}

static json_t *moves_json(const struct plan_job *job)
{
    const struct balance_moves *m = &job->moves;
    json_t *refused = json_array();
    if (!job->has_current) {
        json_decref(refused);
        return json_null();
    }
    for (int l = 0; l < job->in.n_layer; l++)
        if (job->refused[l])
            json_array_append_new(refused, json_integer(job->loads.layer[l]));
    return json_pack("{s:i, s:I, s:I, s:i, s:f, s:f, s:f, s:o}", "copies", m->n_move, "bytes",
                     (json_int_t)m->bytes, "bytes_worker_max", (json_int_t)m->bytes_worker_max,
                     "layers", m->n_changed, "load_s", m->load_s, "gain_s", m->gain_s, "cost_s",
                     m->cost_s, "refused_layers", refused);
}

int plan_print_json(const struct plan_job *job, struct err *err)
{
    json_t *layers = json_array();
    for (int l = 0; l < job->in.n_layer; l++)
        json_array_append_new(layers, json_integer(job->loads.layer[l]));
    json_t *root =
        json_pack("{s:s, s:b, s:o, s:i, s:i, s:I, s:o, s:o, s:o}", "strategy", job->strategy->name,
                  "changes_output", job->strategy->changes_output, "layers", layers, "experts",
                  job->in.n_expert, "slots", job->table.n_slot, "expert_bytes",
                  (json_int_t)job->in.expert_bytes, "imbalance", figures_json(job), "workers",
                  workers_json(job), "moves", moves_json(job));
    char *text = root ? json_dumps(root, JSON_INDENT(1)) : NULL;
    json_decref(root);
    if (!text)
        return err_set(err, ERR_NOMEM, "no memory for the JSON, or a name is no UTF-8");
    puts(text);
    free(text);
    return 0;
}
