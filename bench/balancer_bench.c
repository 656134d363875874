/* balancer_bench: how even the balancer makes real traffic, beside contiguous placement and the
 * published greedy balancer (EPLB), and how long it takes. Prints the tables of RESULTS.md.
 *
 *   balancer_bench [DESCRIPTION.json [SCORES.json.xz]]
 *
 * DESCRIPTION: routing of DeepSeek-V2-Lite (26 layers, top 6 of 64), see tools/import_esft.c;
 * SCORES: expert scores of DeepSeek-V3 (58 layers, 256 experts). Defaults: ../shared/data/routes.
 *
 * Each domain's first half is what is planned from; the later half and the next domain are what
 * comes. Imbalance is (max - mean) / mean over workers, relative to speed; figures are the mean
 * over layers and the worst layer. Replicated experts are split as well as can be over the window,
 * for all placements alike; "dispatched" is what router/plan.c really does with steps of 512
 * tokens: the whole window's rows a worker, and (waits) the mean over steps, which few rows a step
 * make uneven under any placement. */
#include "base/clock.h"
#include "router/load.h"
#include "router/strategy.h"
#include "tools/import.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define N_WORKER    8
#define N_REDUNDANT 8 /* 12.5 % of 64 */
#define STEP_TOKENS 512
#define SPLIT_ROWS  16
#define N_DOMAIN    4
#define RUNS        101
#define DATA        "../shared/data/routes/"

struct traffic {
    struct routes_spec spec;
    int n_token[N_DOMAIN];
    int32_t *slot[N_DOMAIN]; /* [n_layer, n_token, top_k] */
    char name[N_DOMAIN][ROUTES_NAME_MAX];
};

_Noreturn static void die(const char *what)
{
    fprintf(stderr, "balancer_bench: %s\n", what);
    exit(1);
}

static size_t slot_at(const struct traffic *t, int domain, int layer, int token)
{
    return ((size_t)layer * (size_t)t->n_token[domain] + (size_t)token) * (size_t)t->spec.top_k;
}

/* gather reads all tokens of the four domains, each in one piece. */
static void gather(struct traffic *t, struct routes_reader *r)
{
    struct routes_block b;
    struct err err = {0};
    int filled[N_DOMAIN] = {0};
    t->spec = *routes_spec_of(r);
    if (t->spec.n_domain < N_DOMAIN)
        die("the recording has fewer than four domains");
    for (int pass = 0; pass < 2; pass++) {
        for (int i = 0; i < routes_n_block(r); i++) {
            if (routes_read(r, i, &b, &err))
                die(err.text);
            for (int k = 0, at = 0; k < b.n_run; at += b.run[k++].n_token) {
                int d = b.run[k].domain, n = b.run[k].n_token;
                if (d < 0 || d >= N_DOMAIN)
                    continue;
                if (pass == 0) {
                    t->n_token[d] += n;
                    continue;
                }
                for (int l = 0; l < t->spec.n_layer; l++) {
                    size_t from = ((size_t)l * (size_t)b.n_token + (size_t)at);
                    memcpy(t->slot[d] + slot_at(t, d, l, filled[d]),
                           b.expert + from * (size_t)t->spec.top_k,
                           (size_t)n * (size_t)t->spec.top_k * sizeof(int32_t));
                }
                filled[d] += n;
            }
        }
        for (int d = 0; pass == 0 && d < N_DOMAIN; d++)
            if (!(t->slot[d] = malloc(slot_at(t, d, t->spec.n_layer, 0) * sizeof(int32_t))))
                die("no memory");
    }
    for (int d = 0; d < N_DOMAIN; d++)
        memcpy(t->name[d], t->spec.domain[d], ROUTES_NAME_MAX);
}

static void traffic_read(struct traffic *t, const char *path)
{
    char to[] = "/tmp/balancer-bench-XXXXXX";
    struct routes_reader *r;
    struct err err = {0};
    struct import import = {.from = path, .to = to};
    int fd = mkstemp(to);
    if (fd < 0)
        die("cannot write to /tmp");
    close(fd);
    if (import_run(import_find("esft"), &import, &err) || routes_open(to, &r, &err)) {
        unlink(to);
        die(err.text);
    }
    unlink(to);
    gather(t, r);
    routes_close(r);
}

static double *loads_of(const struct traffic *t, int domain, int first, int end)
{
    size_t cells = (size_t)t->spec.n_layer * (size_t)t->spec.n_expert;
    double *load = calloc(cells, sizeof(*load));
    if (!load)
        die("no memory");
    for (int l = 0; l < t->spec.n_layer; l++) {
        const int32_t *slot = t->slot[domain] + slot_at(t, domain, l, first);
        for (size_t i = 0; i < (size_t)(end - first) * (size_t)t->spec.top_k; i++)
            load[(size_t)l * (size_t)t->spec.n_expert + (size_t)slot[i]]++;
    }
    return load;
}

/* A table, and the arena that holds it. */
struct placed {
    struct balance_table table;
    struct arena mem;
};

static int place(struct placed *p, const char *name, const struct balance_input *in)
{
    struct err err = {0};
    if (arena_init(&p->mem, balance_arena_bytes(in)))
        die("no memory");
    if (strategy_find(STRATEGY_PLACE, name)->place(in, &p->table, &p->mem, &err) == 0)
        return 0;
    arena_fini(&p->mem);
    return -1;
}

static void figure(const struct placed *p, const double *load, const struct balance_worker *worker)
{
    int n = p->table.n_layer;
    double *excess = calloc((size_t)n, sizeof(*excess)), most = 0;
    void *scratch = malloc(balance_excess_scratch(&p->table));
    if (!excess || !scratch)
        die("no memory");
    double mean = balance_excess(&p->table, load, worker, SPLIT_BEST, excess, scratch);
    for (int l = 0; l < n; l++)
        most = excess[l] > most ? excess[l] : most;
    printf(" %.4f (%.4f) |", mean, most);
    free(scratch);
    free(excess);
}

/* dispatched plans every step of tokens [first, end) as the coordinator does. */
static void dispatched(const struct traffic *t, int domain, int first, int end,
                       const struct placed *p, const struct balance_worker *worker)
{
    struct placement *table;
    struct arena mem;
    float speed[N_WORKER];
    double power[N_WORKER], window = 0, waits = 0, most = 0;
    int n_step = 0;
    size_t bytes = plan_arena_bytes(STEP_TOKENS, t->spec.top_k, t->spec.n_expert, N_WORKER);
    if (balance_to_placement(&p->table, &table, NULL) || arena_init(&mem, bytes))
        die("no memory");
    for (int w = 0; w < N_WORKER; w++) {
        speed[w] = (float)worker[w].speed;
        power[w] = worker[w].speed;
    }
    for (int l = 0; l < t->spec.n_layer; l++) {
        double sum[N_WORKER] = {0};
        struct load_figures f;
        for (int at = first; at < end; at += STEP_TOKENS) {
            struct plan plan;
            double step[N_WORKER] = {0};
            struct plan_input in = {.placement = table,
                                    .layer = l,
                                    .n_row = end - at < STEP_TOKENS ? end - at : STEP_TOKENS,
                                    .top_k = t->spec.top_k,
                                    .slot_expert = t->slot[domain] + slot_at(t, domain, l, at),
                                    .choice = REPLICA_BY_SPEED,
                                    .speed = speed,
                                    .split_rows = SPLIT_ROWS,
                                    .n_worker = N_WORKER};
            arena_reset(&mem);
            if (plan_build(&plan, &in, &mem, NULL))
                die("a plan failed");
            for (int i = 0; i < plan.n_part; i++)
                step[plan.part[i].worker] = plan.part[i].n_assign;
            for (int w = 0; w < N_WORKER; w++)
                sum[w] += step[w];
            load_figures(step, power, N_WORKER, &f);
            waits += f.excess;
            n_step++;
        }
        load_figures(sum, power, N_WORKER, &f);
        window += f.excess / t->spec.n_layer;
        most = f.excess > most ? f.excess : most;
    }
    printf(" %.4f (%.4f) | %.3f |\n", window, most, waits / n_step);
    arena_fini(&mem);
    placement_destroy(table);
}

static void table_print(const struct traffic *t, const struct balance_worker *worker,
                        const char *const *names, int n_name)
{
    printf("| planned from | placement | that window | later, same domain | next domain | "
           "dispatched, that window | waits |\n|---|---|---|---|---|---|---|\n");
    for (int d = 0; d < N_DOMAIN; d++) {
        int half = t->n_token[d] / 2, next = (d + 1) % N_DOMAIN;
        double *now = loads_of(t, d, 0, half), *later = loads_of(t, d, half, t->n_token[d]);
        double *other = loads_of(t, next, 0, t->n_token[next]);
        struct balance_input in = {.n_layer = t->spec.n_layer,
                                   .n_expert = t->spec.n_expert,
                                   .n_worker = N_WORKER,
                                   .load = now,
                                   .worker = worker,
                                   .n_redundant = N_REDUNDANT};
        for (int i = 0; i < n_name; i++) {
            struct placed p;
            if (place(&p, names[i], &in))
                continue;
            printf("| %s | %s |", t->name[d], names[i]);
            figure(&p, now, worker);
            figure(&p, later, worker);
            figure(&p, other, worker);
            dispatched(t, d, 0, half, &p, worker);
            arena_fini(&p.mem);
        }
        free(now);
        free(later);
        free(other);
    }
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* scores_read: {"layer_3": {"scores": [256 numbers]}, ...}, layers ascending. */
static double *scores_read(const char *path, int *n_layer, int *n_expert)
{
    char command[4096];
    json_error_t where;
    const json_t *layer, *score;
    const char *key;
    size_t i, at = 0;
    snprintf(command, sizeof(command), "xz -dc '%s'", path);
    FILE *f = popen(command, "r");
    json_t *root = f ? json_loadf(f, 0, &where) : NULL;
    if (f)
        pclose(f);
    if (!json_is_object(root))
        return NULL;
    *n_layer = (int)json_object_size(root);
    *n_expert = (int)json_array_size(
        json_object_get(json_object_iter_value(json_object_iter(root)), "scores"));
    double *load = calloc((size_t)*n_layer * (size_t)*n_expert + 1, sizeof(*load));
    json_object_foreach(root, key, layer)
    {
        json_array_foreach(json_object_get(layer, "scores"), i, score)
        {
            if (load && at < (size_t)*n_layer * (size_t)*n_expert)
                load[at++] = json_number_value(score);
        }
    }
    json_decref(root);
    return load;
}

/* cpu_ns: of this thread, so that a machine that is shared does not count. */
static int64_t cpu_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (int64_t)t.tv_sec * NS_PER_S + t.tv_nsec;
}

static void solve_print(const char *path)
{
    static const char *const names[] = {"capacity", "eplb"};
    enum { WORKERS = 32, REDUNDANT = 32 };
    struct balance_worker worker[WORKERS];
    int n_layer = 0, n_expert = 0;
    double *load = scores_read(path, &n_layer, &n_expert), ms[RUNS];
    if (!load || n_layer < 1 || n_expert < 1) {
        printf("\nno scores at %s\n", path);
        return;
    }
    for (int w = 0; w < WORKERS; w++)
        worker[w] = (struct balance_worker){.speed = 1};
    printf("\nsolving %d layers x %d experts onto %d workers, %d redundant, one thread, CPU time, "
           "median of "
           "%d (fastest, slowest)\n\n| placement | ms | imbalance before | after "
           "|\n|---|---|---|---|\n",
           n_layer, n_expert, WORKERS, REDUNDANT, RUNS);
    struct balance_input in = {.n_layer = n_layer,
                               .n_expert = n_expert,
                               .n_worker = WORKERS,
                               .load = load,
                               .worker = worker,
                               .n_redundant = REDUNDANT};
    struct placed plain, p;
    if (place(&plain, "contiguous", &in))
        die("contiguous placement failed");
    for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++) {
        const struct strategy *s = strategy_find(STRATEGY_PLACE, names[i]);
        if (place(&p, names[i], &in))
            die("a placement failed");
        for (int run = 0; run < RUNS; run++) {
            arena_reset(&p.mem);
            int64_t start = cpu_ns();
            s->place(&in, &p.table, &p.mem, NULL);
            ms[run] = (double)(cpu_ns() - start) / 1e6;
        }
        qsort(ms, RUNS, sizeof(*ms), by_value);
        printf("| %s | %.2f (%.2f, %.2f) |", names[i], ms[RUNS / 2], ms[0], ms[RUNS - 1]);
        figure(&plain, load, worker);
        figure(&p, load, worker);
        putchar('\n');
        arena_fini(&p.mem);
    }
    arena_fini(&plain.mem);
    free(load);
}

int main(int argc, char **argv)
{
    static const char *const names[] = {"contiguous", "eplb", "balanced", "capacity"};
    static struct traffic t;
    struct balance_worker worker[N_WORKER];
    traffic_read(&t, argc > 1 ? argv[1] : DATA "dsv2lite.json");
    for (int w = 0; w < N_WORKER; w++)
        worker[w] = (struct balance_worker){.speed = 1};
    printf("%d workers, %d redundant experts a layer\n\n", N_WORKER, N_REDUNDANT);
    table_print(&t, worker, names, 3);
    for (int w = 0; w < N_WORKER; w++)
        worker[w].speed = 1 << w % 3;
    printf("\nspeeds 1:2:4 in turn, slots in proportion\n\n");
    table_print(&t, worker, names, 4);
    for (int w = 0; w < N_WORKER; w++)
        worker[w].n_slot = (t.spec.n_expert + N_REDUNDANT) / N_WORKER;
    printf("\nspeeds 1:2:4 in turn, 9 slots each: what slots allow\n\n");
    table_print(&t, worker, names, 4);
    solve_print(argc > 2 ? argv[2] : DATA "dsv3_0324_expert_scores_4k.json.xz");
    return 0;
}
