/* run_cmd: `sigmoe run`. Makes the model ready, feeds every prompt to the engine and steps it until
 * all have ended. */
#include "coordinator/run.h"

#include "coordinator/run_output.h"
#include <stdio.h>

/* All that lives as long as the run. */
struct run {
    struct run_options options;
    struct host host;
    struct prompts prompts;
    struct run_output output;
};

static int read_prompts(struct run *r, struct err *err)
{
    const struct run_options *o = &r->options;
    if (o->token_ids != NULL) {
        return prompts_from_ids(&r->prompts, o->token_ids, err);
    }
    if (o->token_ids_file != NULL) {
        return prompts_from_file(&r->prompts, o->token_ids_file, err);
    }
    return r->host.tok != NULL
               ? prompts_from_text(&r->prompts, r->host.tok, o->prompt, err)
               : err_set(
                     err, ERR_MODEL,
                     "%s has no tokenizer (tokenizer.json, tokenizer.model or tok512.bin); give "
                     "the prompt as --token-ids",
                     o->dir);
}

/* Said before anything is loaded for prompts that cannot run. */
static int check_prompts(const struct run *r, struct err *err)
{
    int rc = 0;
    for (int i = 0; rc == 0 && i < r->prompts.n; i++) {
        struct request request = {.prompt = r->prompts.at[i].id,
                                  .n_prompt = r->prompts.at[i].n,
                                  .domain = r->prompts.at[i].domain,
                                  .max_tokens = r->options.max_tokens};
        rc = request_check(&request, &r->host.model->desc, err);
    }
    return rc;
}

/* Positions for all prompts that can run at once. */
static int kv_tokens_needed(const struct run *r)
{
    int64_t seqs = r->options.host.seqs_max;
    int64_t n = r->prompts.n < seqs ? r->prompts.n : seqs;
    int longest = 0;
    for (int i = 0; i < r->prompts.n; i++) {
        longest = r->prompts.at[i].n > longest ? r->prompts.at[i].n : longest;
    }
    int64_t sum = n * kv_pages_for((int64_t)longest + r->options.max_tokens) * KV_PAGE;
    return sum < LIMIT_CONTEXT ? (int)sum : LIMIT_CONTEXT;
}

static int load(struct run *r, struct err *err)
{
    int rc = host_open(&r->host, r->options.dir, err);
    if (rc == 0) {
        rc = read_prompts(r, err);
    }
    if (rc == 0) {
        rc = prompts_domains(&r->prompts, &r->host.model->desc, r->options.domain, err);
    }
    if (rc == 0) {
        rc = check_prompts(r, err);
    }
    return rc != 0 ? rc
                   : host_start(&r->host, &r->options.host, kv_tokens_needed(r), r->prompts.n, err);
}

static int generate(struct run *r, struct err *err)
{
    struct run_output *o = &r->output;
    int rc = run_output_init(o, &r->options, &r->host.model->desc, r->host.tok, &clock_real,
                             &r->prompts, err);
    o->start_ns = clock_now(&clock_real);
    for (int i = 0; rc == 0 && i < r->prompts.n; i++) {
        struct request request;
        uint64_t id;
        run_request(o, i, &r->prompts, &request);
        rc = engine_submit(r->host.engine, &request, &id, err);
    }
    while (rc == 0 && o->n_done < o->n) {
        int moved = engine_step(r->host.engine, err);
        rc = moved < 0 ? moved : 0;
    }
    o->end_ns = clock_now(&clock_real);
    return rc;
}

static int finish(struct run *r, struct err *err)
{
    struct host *h = &r->host;
    struct run_facts f = {
        .model = h->model, .kernels = h->kernels, .numerics = h->numerics, .load_ns = h->load_ns};
    engine_stats_get(h->engine, &f.engine);
    if (h->cluster != NULL) {
        pool_stats_get(host_pool(h), &f.pool);
        cluster_bytes(h->cluster, &f.bytes_sent, &f.bytes_received);
        f.n_worker = pool_n_worker(host_pool(h));
    }
    int rc = run_output_end(&r->output, &f, err);
    return rc != 0 ? rc : host_trace_end(h, &r->options.host, err);
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
    run_output_fini(&r.output);
    prompts_fini(&r.prompts);
    host_close(&r.host);
    if (rc != 0) {
        fprintf(stderr, "sigmoe run: %s\n", err.text);
    }
    return err_exit_code(rc);
}
