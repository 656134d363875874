/* calibrate_front: what a request and a token cost the thread of a server that speaks HTTP, and a
 * client, in CPU time: a server of this very program is asked for few tokens, then for many. Where
 * a model has no tokenizer, or is too large to be served beside what else is measured, nothing is
 * said: where the front has CPUs of its own it is next to nothing. */
#include "tools/calibrate.h"

#include "base/clock.h"
#include "coordinator/spawn.h"
#include "tools/live_client.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define SERVED_BYTES_MAX 6e9
#define REQUESTS         24
#define RATE             24.0
#define PROMPT           32
#define FEW              1
#define MANY             25

/* CPU time of the first thread of a process; negative where the system does not tell. */
static double thread_cpu_ns(pid_t pid)
{
    char path[96];
    double ns = -1;
    snprintf(path, sizeof(path), "/proc/%d/task/%d/schedstat", (int)pid, (int)pid);
    FILE *f = fopen(path, "r");
    if (f && fscanf(f, "%lf", &ns) != 1)
        ns = -1;
    if (f)
        fclose(f);
    return ns;
}

static double my_cpu_ns(void)
{
    struct timespec t = {0};
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

struct asked {
    double server_ns, client_ns; /* of a request with its tokens */
};

/* ask: REQUESTS of n_token each; 0, or ERR_NET when one was not answered. */
static int ask(const struct calibrate *c, const struct spawned *s, int n_token, struct asked *out,
               struct err *err)
{
    struct arrival at[REQUESTS];
    for (int i = 0; i < REQUESTS; i++)
        at[i] = (struct arrival){.at_ns = (int64_t)(i * (double)NS_PER_S / RATE),
                                 .n_prompt = PROMPT,
                                 .n_output = n_token};
    const struct arrivals arrivals = {.at = at, .n = REQUESTS};
    const struct live_config config = {.url = s->endpoint,
                                       .model = "model",
                                       .vocab = c->model->desc.vocab,
                                       .arrivals = &arrivals,
                                       .duration_ns = (int64_t)(REQUESTS / RATE * (double)NS_PER_S),
                                       .drain_ns = 60 * NS_PER_S,
                                       .n_slice = 1,
                                       .seed = 1};
    struct load_result r;
    double server = thread_cpu_ns(s->pid), client = my_cpu_ns();
    int rc = live_run(&config, &r, err);
    if (rc)
        return rc;
    out->server_ns = (thread_cpu_ns(s->pid) - server) / REQUESTS;
    out->client_ns = (my_cpu_ns() - client) / REQUESTS;
    for (int i = 0; rc == 0 && i < REQUESTS; i++)
        if (r.request[i].status != REQUEST_OK)
            rc = err_set(err, ERR_NET, "the server that was started to be measured: %.200s",
                         r.error[0] ? r.error : "a request did not end");
    load_result_free(&r);
    return rc;
}

static struct front_cost between(double few_ns, double many_ns)
{
    double token = (many_ns - few_ns) / (MANY - FEW);
    token = token > 0 ? token : 0;
    double request = few_ns - FEW * token;
    return (struct front_cost){request > 0 ? request : 0, token};
}

static int ask_both(struct calibrate *c, const struct spawned *s, struct err *err)
{
    struct asked warm, few, many;
    int rc = ask(c, s, FEW, &warm, err);
    rc = rc ? rc : ask(c, s, FEW, &few, err);
    rc = rc ? rc : ask(c, s, MANY, &many, err);
    if (rc == 0 && thread_cpu_ns(s->pid) >= 0) {
        c->cost.server = between(few.server_ns, many.server_ns);
        c->cost.client = between(few.client_ns, many.client_ns);
    }
    return rc;
}

int calibrate_front(struct calibrate *c, struct err *err)
{
    const struct model_desc *d = &c->model->desc;
    double bytes = cost_expert_bytes(d, c->precision) * d->n_expert * desc_n_sparse(d) +
                   cost_dense_bytes(d, c->precision) * d->n_layer;
    char dir[4096], threads[16], name[] = "sigmoe";
    char *argv[] = {name,          "serve",
                    dir,           "--port",
                    "0",           "--threads",
                    threads,       "--admin",
                    "none",        "--served-model-name",
                    "model",       "--no-prefix-cache",
                    "--speculate", "off",
                    NULL};
    struct spawned s = {0};
    struct err quiet = {0};
    if (bytes > SERVED_BYTES_MAX || d->max_context < PROMPT + MANY)
        return 0;
    snprintf(dir, sizeof(dir), "%s", c->model->dir);
    snprintf(threads, sizeof(threads), "%d", team_size(c->team));
    int rc = spawn_worker(&s, argv, err);
    if (rc)
        return rc;
    if (spawn_wait_ready(&s, &quiet) == 0)
        rc = ask_both(c, &s, err);
    spawn_stop(&s);
    return rc;
}
