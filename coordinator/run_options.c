/* run_options: see run_options.h. */
#include "coordinator/run_options.h"

#include <string.h>

/* What the table fills; narrowed afterwards. */
struct raw {
    int64_t max_tokens, top_k, seed;
    double temperature, top_p, min_p, repetition, presence, frequency;
};

static const char about[] =
    "Generates text (or token ids) with a checkpoint whose experts are on workers. Without\n"
    "--workers-at it starts the workers itself: as threads (inproc) or as processes (ipc, tcp).\n"
    "The tokens do not depend on how many workers there are or how they are reached.\n"
    "\n"
    "  sigmoe run ./olmoe --prompt 'Once upon a time' --max-tokens 64\n"
    "  sigmoe run ./olmoe --workers 2 --transport tcp --prompt 'Hello' --temperature 0.8 --seed 7\n"
    "  sigmoe run ./sigma --domain code --prompt 'def main():'\n"
    "  sigmoe run ./olmoe --workers-at tcp://10.0.0.2:5701,tcp://10.0.0.3:5701 --token-ids 1,2,3";

static int own_table(struct run_options *o, struct raw *r, struct opt *out)
{
    const struct opt table[] = {
        {"prompt", 'p', OPT_STR, &o->prompt, "TEXT", "text to continue (needs a tokenizer)", 0, 0},
        {"token-ids", 0, OPT_STR, &o->token_ids, "LIST", "token ids to continue: 1,2,3", 0, 0},
        {"token-ids-file", 0, OPT_STR, &o->token_ids_file, "FILE",
         "one prompt of token ids a line; all run as one batch", 0, 0},
        {"domain", 0, OPT_STR, &o->domain, "NAME",
         "of the prompt, or auto (default): found out from it; with\n"
         "--token-ids-file also one a line: zh,en,auto",
         0, 0},
        {"max-tokens", 'n', OPT_INT, &r->max_tokens, "N",
         "tokens generated at most a prompt (128); 0 only evaluates", 0, LIMIT_CONTEXT},
        {"ignore-eos", 0, OPT_FLAG, &o->ignore_eos, NULL, "go on past the end-of-text token", 0, 0},
        {"temperature", 't', OPT_FLOAT, &r->temperature, "T", "0 (default): the likeliest token", 0,
         100},
        {"top-k", 0, OPT_INT, &r->top_k, "K", "draw from the K likeliest; 0: all", 0, LIMIT_VOCAB},
        {"top-p", 0, OPT_FLOAT, &r->top_p, "P", "draw from the likeliest that sum to P (1: all)",
         1e-9, 1},
        {"min-p", 0, OPT_FLOAT, &r->min_p, "P", "drop tokens below P times the likeliest (0: none)",
         0, 1},
        {"repetition-penalty", 0, OPT_FLOAT, &r->repetition, "R",
         "divide logits of tokens seen by R (1: off)", 1e-3, 1e3},
        {"presence-penalty", 0, OPT_FLOAT, &r->presence, "X", "subtract from tokens generated (0)",
         -100, 100},
        {"frequency-penalty", 0, OPT_FLOAT, &r->frequency, "X",
         "subtract for each time a token was generated (0)", -100, 100},
        {"seed", 0, OPT_INT, &r->seed, "S", "of the draws (0); same seed, same text", 0, 0},
        {"dump-logits", 0, OPT_STR, &o->dump_logits, "FILE",
         "write the f32 logits of every position, prompt after prompt", 0, 0},
        {"json", 0, OPT_FLAG, &o->json, NULL, "print one JSON object instead of text", 0, 0},
    };
    memcpy(out, table, sizeof table);
    return (int)(sizeof table / sizeof *table);
}

int run_options_parse(int argc, char **argv, struct run_options *o, struct err *err)
{
    memset(o, 0, sizeof *o);
    struct raw r = {.max_tokens = 128, .top_p = 1.0, .repetition = 1.0};
    struct opt opts[HOST_OPTIONS_MAX + 18] = {{0}};
    int n_own = own_table(o, &r, opts);
    host_options_table(&o->host, opts + n_own);
    const struct opt_command cmd = {"run", "sigmoe run MODEL_DIR --prompt TEXT [options]", about,
                                    opts};
    int n = 1, rc = opt_parse(&cmd, argc, argv, &o->dir, &n, err);
    if (rc != 0) {
        return rc;
    }
    if (n != 1) {
        return err_set(err, ERR_USAGE, "which model? sigmoe run MODEL_DIR --prompt TEXT");
    }
    if ((o->prompt != NULL) + (o->token_ids != NULL) + (o->token_ids_file != NULL) != 1) {
        return err_set(err, ERR_USAGE,
                       "give one of --prompt TEXT, --token-ids LIST and --token-ids-file FILE");
    }
    o->max_tokens = (int)r.max_tokens;
    o->sampling = (struct sampling){.temperature = (float)r.temperature,
                                    .top_k = (int)r.top_k,
                                    .top_p = (float)r.top_p,
                                    .min_p = (float)r.min_p,
                                    .repetition_penalty = (float)r.repetition,
                                    .presence_penalty = (float)r.presence,
                                    .frequency_penalty = (float)r.frequency,
                                    .seed = (uint64_t)r.seed};
    return host_options_check(&o->host, err);
}
