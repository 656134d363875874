/* loadtest: `sigmoe loadtest MODE`, and the options that its modes have in common. */
#include "tools/loadtest.h"
#include "tools/commands.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct mode {
    const char *name;
    int (*run)(int argc, char **argv);
    const char *about;
} modes[] = {
    {"simulate", loadtest_simulate, "predict a cluster that need not exist"},
    {"live", loadtest_live, "load a running server (OpenAI's interface) and measure it"},
    {"pace", loadtest_pace, "watch how much others slow this host meanwhile"},
    {"compare", loadtest_compare, "rank strategies in reports, with confidence intervals"},
};
#define N_MODE ((int)(sizeof(modes) / sizeof(modes[0])))

static const char about[] =
    "Answers which routing strategy and placement to run, on which machines, under your traffic:\n"
    "before you deploy (simulate) and after (live). Both write the same report: a table, JSON, "
    "and\n"
    "a page with plots that needs no network.\n"
    "\n"
    "modes (sigmoe loadtest MODE --help tells more):\n"
    "  simulate SHAPE       predict a cluster that need not exist\n"
    "  live URL             load a running server (OpenAI's interface) and measure it\n"
    "  pace                 watch how much others slow this host meanwhile\n"
    "  compare REPORT...    rank strategies in reports, with confidence intervals\n"
    "\n"
    "  sigmoe loadtest simulate qwen3-30b-a3b --workers 8 --rate 2,4,8 --html report.html\n"
    "  sigmoe loadtest live http://127.0.0.1:8000 --rate 2 --duration 60";

int cmd_loadtest(int argc, char **argv)
{
    struct err err = {0};
    for (int i = 0; argc > 1 && i < N_MODE; i++)
        if (strcmp(argv[1], modes[i].name) == 0)
            return modes[i].run(argc - 1, argv + 1);
    static const struct opt none[] = {{.name = NULL}};
    const struct opt_command cmd = {"loadtest", "sigmoe loadtest MODE [options]", about, none};
    const char *word = NULL;
    int n = 1, rc = opt_parse(&cmd, argc, argv, &word, &n, &err);
    if (rc == 1)
        return 0;
    if (rc == 0 && n == 0)
        rc = err_set(&err, ERR_USAGE, "which mode? simulate, live, pace or compare");
    if (rc == 0) {
        const char *names[N_MODE + 1] = {0};
        for (int i = 0; i < N_MODE; i++)
            names[i] = modes[i].name;
        const char *near = opt_nearest(word, names);
        rc = err_set(&err, ERR_USAGE, "there is no mode '%.60s'; %s%s", word,
                     near ? "did you mean " : "give simulate, live, pace or compare",
                     near ? near : "");
    }
    fprintf(stderr, "sigmoe loadtest: %s\n", err.text);
    return err_exit_code(rc);
}

/* ---- options in common ---- */

void traffic_options(struct traffic *t, struct opt *out)
{
    *t = (struct traffic){.arrivals = "poisson",
                          .rate_text = NULL,
                          .prompt = 256,
                          .output = 64,
                          .cv = 0.5,
                          .duration_s = 60,
                          .warmup_s = -1,
                          .drain_s = 60,
                          .block_tokens = 512,
                          .seed = 1,
                          .seeds = 1};
    const struct opt table[TRAFFIC_OPTIONS + 1] = {
        {"arrivals", 0, OPT_STR, &t->arrivals, "KIND",
         "poisson (default), uniform, bursts[:FACTOR,SECONDS,PART],\nor a file: Azure's CSV or "
         "Mooncake's JSON lines",
         0, 0},
        {"rate", 'r', OPT_STR, &t->rate_text, "R,R,...",
         "requests a second, one run each (1); of a file: as\nrecorded, or stretched to this", 0,
         0},
        {"prompt", 0, OPT_INT, &t->prompt, "N", "mean tokens of a prompt (256)", 1, 10000000},
        {"output", 0, OPT_INT, &t->output, "N", "mean tokens generated (64)", 1, 10000000},
        {"length-cv", 0, OPT_FLOAT, &t->cv, "X",
         "standard deviation / mean of both, log-normal (0.5)", 0, 20},
        {"prompt-max", 0, OPT_INT, &t->prompt_max, "N", "longer prompts are cut (no bound)", 0,
         10000000},
        {"output-max", 0, OPT_INT, &t->output_max, "N", "longer outputs are cut (no bound)", 0,
         10000000},
        {"shared", 0, OPT_STR, &t->shared_text, "GROUPS,TOKENS",
         "prompts begin with one of so many texts so long; --prompt\nis what follows (no)", 0, 0},
        {"block-tokens", 0, OPT_INT, &t->block_tokens, "N",
         "tokens that each of a file's hash_ids stands for (512)", 1, 1000000},
        {"mix", 0, OPT_STR, &t->mix_text, "W,W,...",
         "weights of the domains, or points in time that it moves\nbetween: 0:1,0/60:0,1", 0, 0},
        {"duration", 'd', OPT_FLOAT, &t->duration_s, "S", "time in which requests arrive (60)",
         0.001, 1e7},
        {"warmup", 0, OPT_FLOAT, &t->warmup_s, "S", "of it, left out of the figures (a tenth)", 0,
         1e7},
        {"drain", 0, OPT_FLOAT, &t->drain_s, "S", "what running requests get after it (60)", 0,
         1e7},
        {"seeds", 0, OPT_INT, &t->seeds, "N", "runs with seeds SEED, SEED + 1, ... (1)", 1, 1000},
        {"seed", 0, OPT_INT, &t->seed, "SEED", "of arrivals, lengths and routes (1)", 0, 1e15},
        {"slo-ttft", 0, OPT_FLOAT, &t->slo.ttft_ms, "MS",
         "a good request has its first token within (no bound)", 0, 1e9},
        {"slo-tpot", 0, OPT_FLOAT, &t->slo.tpot_ms, "MS",
         "and takes so long a token after it (no bound)", 0, 1e9},
        {"json", 0, OPT_STR, &t->json_path, "FILE", "the report as JSON; - is stdout", 0, 0},
        {"html", 0, OPT_STR, &t->html_path, "FILE", "the report as a page with plots", 0, 0},
        {.name = NULL},
    };
    memcpy(out, table, sizeof(table));
}

static int rates_parse(struct traffic *t, struct err *err)
{
    const char *at = t->rate_text ? t->rate_text : t->spec.kind == ARRIVAL_FILE ? "0" : "1";
    for (;;) {
        char *end;
        double rate = strtod(at, &end);
        if (end == at || (*end && *end != ',') || !isfinite(rate) || rate < 0 ||
            (rate == 0 && t->spec.kind != ARRIVAL_FILE) || t->n_rate == RATES_MAX)
            return err_set(err, ERR_USAGE,
                           "--rate '%.60s' is not a list of at most %d rates above 0, such as "
                           "1,2,4",
                           t->rate_text, RATES_MAX);
        t->rate[t->n_rate++] = rate;
        if (!*end)
            return 0;
        at = end + 1;
    }
}

int traffic_check(struct traffic *t, struct err *err)
{
    int rc = arrival_parse(t->arrivals, &t->spec, err);
    rc = rc ? rc : rates_parse(t, err);
    if (rc == 0 && t->mix_text)
        rc = domain_mix_parse(t->mix_text, &t->spec.mix, err);
    if (t->warmup_s < 0)
        t->warmup_s = t->duration_s / 10;
    if (rc == 0 && t->warmup_s >= t->duration_s)
        rc = err_set(err, ERR_USAGE, "--warmup %g leaves nothing of --duration %g", t->warmup_s,
                     t->duration_s);
    if (rc == 0 && t->shared_text)
        rc = shared_parse(t->shared_text, &t->spec, err);
    t->spec.block_tokens = (int)t->block_tokens;
    t->spec.prompt_mean = (int)t->prompt;
    t->spec.output_mean = (int)t->output;
    t->spec.prompt_max = (int)t->prompt_max;
    t->spec.output_max = (int)t->output_max;
    t->spec.length_cv = t->cv;
    t->spec.duration_s = t->duration_s;
    return rc;
}

int traffic_arrivals(const struct traffic *t, double rate, uint64_t seed, struct arrivals *out,
                     struct err *err)
{
    struct arrival_spec spec = t->spec;
    spec.rate = rate;
    spec.seed = seed;
    return arrivals_make(&spec, out, err);
}

void traffic_settings(const struct traffic *t, json_t *settings)
{
    json_object_set_new(settings, "arrivals", json_string(t->arrivals));
    if (t->spec.kind != ARRIVAL_FILE) {
        json_object_set_new(settings, "prompt_tokens", json_integer(t->prompt));
        json_object_set_new(settings, "output_tokens", json_integer(t->output));
        json_object_set_new(settings, "length_cv", json_real(t->cv));
    }
    if (t->shared_text)
        json_object_set_new(settings, "shared_beginnings", json_string(t->shared_text));
    if (t->mix_text)
        json_object_set_new(settings, "domain_mix", json_string(t->mix_text));
    json_object_set_new(settings, "duration_s", json_real(t->duration_s));
    json_object_set_new(settings, "warmup_s", json_real(t->warmup_s));
    json_object_set_new(settings, "seeds", json_integer(t->seeds));
    json_object_set_new(settings, "first_seed", json_integer(t->seed));
}

int traffic_report(const struct traffic *t, const json_t *report, struct err *err)
{
    int to_stdout = t->json_path && strcmp(t->json_path, "-") == 0;
    int rc = 0;
    if (!to_stdout)
        report_table(report, stdout);
    if (t->json_path)
        rc = report_write_json(report, t->json_path, err);
    if (rc == 0 && t->html_path)
        rc = report_write_html(report, t->html_path, err);
    return rc;
}

int list_split(char *text, const char **word, int max)
{
    int n = 0;
    for (char *save, *w = strtok_r(text, ",", &save); w; w = strtok_r(NULL, ",", &save)) {
        if (n == max)
            return -1;
        word[n++] = w;
    }
    return n > 0 ? n : -1;
}
