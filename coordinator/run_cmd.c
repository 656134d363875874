/* run_cmd: `sigmoe run`. Opens the model, starts or finds the workers, feeds every prompt to the
 * engine and steps it until all have ended. */
#include "coordinator/run.h"

#include "base/team.h"
#include "coordinator/run_output.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* All that lives as long as the run. */
struct run {
    struct run_options options;
    const struct kernels *kernels;
    struct model *model;
    struct tokenizer *tok;
    struct prompts prompts;
    struct cluster *cluster;
    struct team *team;
    struct dense_weights *weights;
    struct engine *engine;
    struct trace trace;
    struct run_output output;
    int64_t load_ns;
};

static int has_file(const char *dir, const char *name)
{
    char path[4096 + 64];
    struct stat st;
    snprintf(path, sizeof path, "%s/%s", dir, name);
    return stat(path, &st) == 0;
}

static int open_tokenizer(struct run *r, struct err *err)
{
    const char *dir = r->options.dir;
    int there = has_file(dir, "tokenizer.json") || has_file(dir, "tokenizer.model") ||
                has_file(dir, "tok512.bin");
    if (there) {
        return tokenizer_open(dir, &r->tok, err);
    }
    return r->options.prompt == NULL
               ? 0
               : err_set(
                     err, ERR_MODEL,
                     "%s has no tokenizer (tokenizer.json, tokenizer.model or tok512.bin); give "
                     "the prompt as --token-ids",
                     dir);
}

static int read_prompts(struct run *r, struct err *err)
{
    const struct run_options *o = &r->options;
    if (o->prompt != NULL) {
        return prompts_from_text(&r->prompts, r->tok, o->prompt, err);
    }
    return o->token_ids != NULL ? prompts_from_ids(&r->prompts, o->token_ids, err)
                                : prompts_from_file(&r->prompts, o->token_ids_file, err);
}

/* Said before anything is loaded for prompts that cannot run. */
static int check_prompts(const struct run *r, struct err *err)
{
    int rc = 0;
    for (int i = 0; rc == 0 && i < r->prompts.n; i++) {
        struct request request = {.prompt = r->prompts.at[i].id,
                                  .n_prompt = r->prompts.at[i].n,
                                  .max_tokens = r->options.max_tokens};
        rc = request_check(&request, &r->model->desc, err);
    }
    return rc;
}

static int start_cluster(struct run *r, struct err *err)
{
    const struct run_options *o = &r->options;
    if (desc_n_sparse(&r->model->desc) == 0) {
        return 0; /* a dense model has no experts to serve */
    }
    struct cluster_config c = {.model = r->model,
                               .precision = o->precision,
                               .kernels = r->kernels,
                               .clock = &clock_real,
                               .team = r->team,
                               .n_worker = o->n_worker,
                               .transport = o->transport,
                               .worker_threads = o->worker_threads,
                               .spin_us = o->spin_us,
                               .workers_at = o->workers_at};
    return cluster_start(&c, &r->cluster, err);
}

/* Positions for all prompts that can run at once. */
static int kv_tokens_needed(const struct run *r)
{
    int64_t sum = 0;
    int n = r->prompts.n < r->options.seqs_max ? r->prompts.n : r->options.seqs_max;
    int longest = 0;
    for (int i = 0; i < r->prompts.n; i++) {
        longest = r->prompts.at[i].n > longest ? r->prompts.at[i].n : longest;
    }
    sum = (int64_t)n * kv_pages_for((int64_t)longest + r->options.max_tokens) * KV_PAGE;
    return sum < LIMIT_CONTEXT ? (int)sum : LIMIT_CONTEXT;
}

static int start_engine(struct run *r, struct err *err)
{
    const struct run_options *o = &r->options;
    if (o->trace_hash != NULL && (r->trace.out = fopen(o->trace_hash, "w")) == NULL) {
        return err_sys(err, ERR_IO, "cannot write %s", o->trace_hash);
    }
    struct engine_config c = {.model = r->model,
                              .weights = r->weights,
                              .kernels = r->kernels,
                              .precision = o->precision,
                              .team = r->team,
                              .pool = r->cluster != NULL ? cluster_pool(r->cluster) : NULL,
                              .clock = &clock_real,
                              .trace = o->trace_hash != NULL ? &r->trace : NULL,
                              .kv_tokens = o->kv_tokens > 0 ? o->kv_tokens : kv_tokens_needed(r),
                              .rows_max = o->rows_max,
                              .prefill_chunk = o->prefill_chunk,
                              .seqs_max = o->seqs_max,
                              .waiting_max = r->prompts.n,
                              .n_micro = o->n_micro};
    return engine_create(&c, &r->engine, err);
}

static int load(struct run *r, struct err *err)
{
    int64_t from = clock_now(&clock_real);
    int rc = kernels_open(&r->kernels, err);
    if (rc == 0) {
        rc = model_open(r->options.dir, &r->model, err);
    }
    if (rc == 0) {
        rc = open_tokenizer(r, err);
    }
    if (rc == 0) {
        rc = read_prompts(r, err);
    }
    if (rc == 0) {
        rc = check_prompts(r, err);
    }
    if (rc == 0) {
        r->team = team_create(r->options.threads, r->options.spin_us);
        rc = r->team == NULL
                 ? err_set(err, ERR_NOMEM, "cannot start %d threads", r->options.threads)
                 : 0;
    }
    if (rc == 0) {
        rc = start_cluster(r, err);
    }
    if (rc == 0) {
        rc = weights_load_dense(r->model, r->options.precision, r->team, &r->weights, err);
    }
    if (rc == 0) {
        rc = start_engine(r, err);
    }
    r->load_ns = clock_now(&clock_real) - from;
    return rc;
}

static int generate(struct run *r, struct err *err)
{
    struct run_output *o = &r->output;
    int rc = run_output_init(o, &r->options, r->tok, &clock_real, &r->prompts, err);
    o->start_ns = clock_now(&clock_real);
    for (int i = 0; rc == 0 && i < r->prompts.n; i++) {
        struct request request;
        uint64_t id;
        run_request(o, i, &r->prompts, &request);
        rc = engine_submit(r->engine, &request, &id, err);
    }
    while (rc == 0 && o->n_done < o->n) {
        int moved = engine_step(r->engine, err);
        rc = moved < 0 ? moved : 0;
    }
    o->end_ns = clock_now(&clock_real);
    return rc;
}

static int finish(struct run *r, struct err *err)
{
    struct run_facts f = {.model = r->model, .kernels = r->kernels, .load_ns = r->load_ns};
    engine_stats_get(r->engine, &f.engine);
    if (r->cluster != NULL) {
        pool_stats_get(cluster_pool(r->cluster), &f.pool);
        cluster_bytes(r->cluster, &f.bytes_sent, &f.bytes_received);
        f.n_worker = pool_n_worker(cluster_pool(r->cluster));
    }
    int rc = run_output_end(&r->output, &f, err);
    if (r->trace.out != NULL && fclose(r->trace.out) != 0 && rc == 0) {
        rc = err_sys(err, ERR_IO, "cannot write %s", r->options.trace_hash);
    }
    r->trace.out = NULL;
    return rc;
}

static void close_all(struct run *r)
{
    if (r->trace.out != NULL) {
        fclose(r->trace.out);
    }
    run_output_fini(&r->output);
    engine_destroy(r->engine);
    cluster_stop(r->cluster);
    weights_free_dense(r->weights);
    team_destroy(r->team);
    prompts_fini(&r->prompts);
    tokenizer_close(r->tok);
    model_close(r->model);
}

int cmd_run(int argc, char **argv)
{
    struct run r = {0};
    struct err err = {0};
    int rc = run_options_parse(argc, argv, &r.options, &err);
    if (rc == 1) {
        return 0;
    }
    if (rc == 0) {
        rc = load(&r, &err);
    }
    if (rc == 0) {
        rc = generate(&r, &err);
    }
    if (rc == 0) {
        rc = finish(&r, &err);
    }
    close_all(&r);
    if (rc != 0) {
        fprintf(stderr, "sigmoe run: %s\n", err.text);
    }
    return err_exit_code(rc);
}
