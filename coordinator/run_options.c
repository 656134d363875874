/* run_options: see run_options.h. */
#include "coordinator/run_options.h"

#include "base/opt.h"
#include <string.h>

/* What the table fills; checked and narrowed afterwards. */
struct raw {
    const char *transport, *precision;
    int64_t workers, threads, worker_threads, spin_us, max_tokens, prefill_chunk, rows_max, n_micro,
        kv_tokens, seqs_max, top_k, seed;
    double temperature, top_p, min_p, repetition, presence, frequency;
};

static const char about[] =
    "Generates text (or token ids) with a checkpoint whose experts are on workers. Without\n"
    "--workers-at it starts the workers itself: as threads (inproc) or as processes (ipc, tcp).\n"
    "The tokens do not depend on how many workers there are or how they are reached.\n"
    "\n"
    "  sigmoe run ./olmoe --prompt 'Once upon a time' --max-tokens 64\n"
    "  sigmoe run ./olmoe --workers 2 --transport tcp --prompt 'Hello' --temperature 0.8 --seed 7\n"
    "  sigmoe run ./olmoe --workers-at tcp://10.0.0.2:5701,tcp://10.0.0.3:5701 --token-ids 1,2,3";

static int choose(const char *option, const char *value, const char *const *names, int n,
                  const char *list, int *out, struct err *err)
{
    for (int i = 0; i < n; i++) {
        if (strcmp(value, names[i]) == 0) {
            *out = i;
            return 0;
        }
    }
    return err_set(err, ERR_USAGE, "--%s is %s, not \"%s\"", option, list, value);
}

static int check(struct run_options *o, const struct raw *r, struct err *err)
{
    static const char *const transports[] = {"inproc", "ipc", "tcp"};
    static const char *const precisions[] = {"bf16", "f32"};
    int transport = 0, precision = 0;
    int rc =
        choose("transport", r->transport, transports, 3, "inproc, ipc or tcp", &transport, err);
    if (rc == 0) {
        rc = choose("precision", r->precision, precisions, 2, "bf16 or f32", &precision, err);
    }
    if (rc != 0) {
        return rc;
    }
    int n_prompts = (o->prompt != NULL) + (o->token_ids != NULL) + (o->token_ids_file != NULL);
    if (n_prompts != 1) {
        return err_set(err, ERR_USAGE,
                       "give one of --prompt TEXT, --token-ids LIST and --token-ids-file FILE");
    }
    o->transport = (enum cluster_transport)transport;
    o->precision = precision == 1 ? PRECISION_F32 : PRECISION_BF16;
    o->n_worker = (int)r->workers;
    o->threads = (int)r->threads;
    o->worker_threads = (int)r->worker_threads;
    o->spin_us = (int)r->spin_us;
    o->max_tokens = (int)r->max_tokens;
    o->prefill_chunk = (int)r->prefill_chunk;
    o->rows_max = (int)r->rows_max;
    o->n_micro = (int)r->n_micro;
    o->kv_tokens = (int)r->kv_tokens;
    o->seqs_max = (int)r->seqs_max;
    o->sampling = (struct sampling){.temperature = (float)r->temperature,
                                    .top_k = (int)r->top_k,
                                    .top_p = (float)r->top_p,
                                    .min_p = (float)r->min_p,
                                    .repetition_penalty = (float)r->repetition,
                                    .presence_penalty = (float)r->presence,
                                    .frequency_penalty = (float)r->frequency,
                                    .seed = (uint64_t)r->seed};
    return 0;
}

int run_options_parse(int argc, char **argv, struct run_options *o, struct err *err)
{
    memset(o, 0, sizeof *o);
    struct raw r = {.transport = "inproc",
                    .precision = "bf16",
                    .workers = 1,
                    .spin_us = -1,
                    .max_tokens = 128,
                    .seqs_max = 64,
                    .top_p = 1.0,
                    .repetition = 1.0};
    const struct opt opts[] = {
        {"prompt", 'p', OPT_STR, &o->prompt, "TEXT", "text to continue (needs a tokenizer)", 0, 0},
        {"token-ids", 0, OPT_STR, &o->token_ids, "LIST", "token ids to continue: 1,2,3", 0, 0},
        {"token-ids-file", 0, OPT_STR, &o->token_ids_file, "FILE",
         "one prompt of token ids a line; all run as one batch", 0, 0},
        {"max-tokens", 'n', OPT_INT, &r.max_tokens, "N",
         "tokens generated at most a prompt (128); 0 only evaluates", 0, LIMIT_CONTEXT},
        {"ignore-eos", 0, OPT_FLAG, &o->ignore_eos, NULL, "go on past the end-of-text token", 0, 0},
        {"temperature", 't', OPT_FLOAT, &r.temperature, "T", "0 (default): the likeliest token", 0,
         100},
        {"top-k", 0, OPT_INT, &r.top_k, "K", "draw from the K likeliest; 0: all", 0, LIMIT_VOCAB},
        {"top-p", 0, OPT_FLOAT, &r.top_p, "P", "draw from the likeliest that sum to P (1: all)",
         1e-9, 1},
        {"min-p", 0, OPT_FLOAT, &r.min_p, "P", "drop tokens below P times the likeliest (0: none)",
         0, 1},
        {"repetition-penalty", 0, OPT_FLOAT, &r.repetition, "R",
         "divide logits of tokens seen by R (1: off)", 1e-3, 1e3},
        {"presence-penalty", 0, OPT_FLOAT, &r.presence, "X", "subtract from tokens generated (0)",
         -100, 100},
        {"frequency-penalty", 0, OPT_FLOAT, &r.frequency, "X",
         "subtract for each time a token was generated (0)", -100, 100},
        {"seed", 0, OPT_INT, &r.seed, "S", "of the draws (0); same seed, same text", 0, 0},
        {"workers", 'w', OPT_INT, &r.workers, "N", "workers to start (1)", 1, LIMIT_WORKERS},
        {"transport", 0, OPT_STR, &r.transport, "KIND",
         "how workers are reached: inproc (threads, default), ipc, tcp", 0, 0},
        {"workers-at", 0, OPT_STR, &o->workers_at, "LIST",
         "workers that already run: tcp://a:1,tcp://b:1", 0, 0},
        {"threads", 0, OPT_INT, &r.threads, "N", "of the coordinator; 0: one a CPU", 0, 4096},
        {"worker-threads", 0, OPT_INT, &r.worker_threads, "N",
         "of each worker started here; 0: one a CPU", 0, 4096},
        {"spin-us", 0, OPT_INT, &r.spin_us, "US",
         "how long an idle thread spins before it parks; -1: default", -1, 1000000},
        {"precision", 0, OPT_STR, &r.precision, "P", "bf16 (default), or f32: the reference mode",
         0, 0},
        {"prefill-chunk", 0, OPT_INT, &r.prefill_chunk, "N",
         "prompt tokens of one sequence a step; 0: a whole step", 0, LIMIT_ROWS},
        {"max-batch-rows", 0, OPT_INT, &r.rows_max, "N", "rows a step; 0: 512", 0, LIMIT_ROWS},
        {"max-seqs", 0, OPT_INT, &r.seqs_max, "N", "sequences at once (64)", 1, LIMIT_ROWS},
        {"micro-batches", 0, OPT_INT, &r.n_micro, "N",
         "1 or 2 in flight; 0 (default): two when rows are enough", 0, 2},
        {"kv-tokens", 0, OPT_INT, &r.kv_tokens, "N",
         "positions the KV cache holds; 0: what the prompts need", 0, LIMIT_CONTEXT},
        {"dump-logits", 0, OPT_STR, &o->dump_logits, "FILE",
         "write the f32 logits of every position, prompt after prompt", 0, 0},
        {"trace-hash", 0, OPT_STR, &o->trace_hash, "FILE",
         "write a hash of every row after every stage: seq pos layer stage hash", 0, 0},
        {"json", 0, OPT_FLAG, &o->json, NULL, "print one JSON object instead of text", 0, 0},
        {0}};
    const struct opt_command cmd = {"run", "sigmoe run MODEL_DIR --prompt TEXT [options]", about,
                                    opts};
    int n = 1, rc = opt_parse(&cmd, argc, argv, &o->dir, &n, err);
    if (rc != 0) {
        return rc;
    }
    if (n != 1) {
        return err_set(err, ERR_USAGE, "which model? sigmoe run MODEL_DIR --prompt TEXT");
    }
    return check(o, &r, err);
}
