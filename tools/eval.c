/* eval: `sigmoe eval`, and its report `perplexity`: one text, under one domain, under the domain
 * that fits, or under each. */
#include "tools/eval.h"
#include "base/log.h"
#include "tools/commands.h"

#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define DETECT_TOKENS 256

struct perplexity {
    struct host host;
    struct host_options options;
    const char *dir, *text, *domain_name;
    int64_t window, stride, bytes_max;
    int json, detected;
    struct eval_windows windows;
    int domain[LIMIT_DOMAINS], n_domain;
    struct eval_sum sum[LIMIT_DOMAINS];
    struct err *err;
};

/* domains_choose: which columns the report has. `auto` keeps one place and fills it later. */
static int domains_choose(struct perplexity *p)
{
    const struct model_desc *d = &p->host.model->desc;
    p->n_domain = 1;
    if (d->n_domain == 0)
        return p->domain_name ? desc_domain_find(d, p->domain_name, p->err) : 0;
    if (p->domain_name && strcmp(p->domain_name, "all") == 0) {
        p->n_domain = d->n_domain;
        for (int i = 0; i < d->n_domain; i++)
            p->domain[i] = i;
        return 0;
    }
    return desc_domain_read(d, p->domain_name ? p->domain_name : "auto", &p->domain[0], p->err);
}

/* domain_detect finds the domain of the text from its first tokens, once, so that all windows are
 * scored under one. */
static int domain_detect(struct perplexity *p)
{
    const struct model_desc *d = &p->host.model->desc;
    uint64_t found[LIMIT_DOMAINS];
    struct eval_text text;
    if (d->n_domain == 0 || p->domain[0] != DOMAIN_AUTO)
        return 0;
    int rc = eval_text_open(&text, p->text, p->host.tok, (uint64_t)p->bytes_max, p->err);
    if (rc)
        return rc;
    int n = DETECT_TOKENS < p->windows.window ? DETECT_TOKENS : p->windows.window;
    rc = eval_detect(&p->host, &text, n, 1, found, p->err);
    eval_text_close(&text);
    for (int i = 0; i < d->n_domain && rc == 0; i++)
        if (found[i])
            p->domain[0] = i;
    p->detected = 1;
    return rc;
}

static int score(struct perplexity *p)
{
    struct eval_text text;
    int rc = eval_text_open(&text, p->text, p->host.tok, (uint64_t)p->bytes_max, p->err);
    if (rc)
        return rc;
    rc = eval_score(&p->host, &text, &p->windows, p->domain, p->n_domain, p->sum, p->err);
    eval_text_close(&text);
    return rc;
}

static int perplexity_run(struct perplexity *p)
{
    int rc = host_open(&p->host, p->dir, p->err);
    if (rc)
        return rc;
    if (!p->host.tok)
        return err_set(p->err, ERR_MODEL,
                       "%s has no tokenizer (tokenizer.json, tokenizer.model or tok512.bin), so it "
                       "cannot read a text",
                       p->dir);
    p->windows = (struct eval_windows){(int)p->window, (int)p->stride};
    rc = eval_windows_check(&p->windows, &p->host.model->desc, p->err);
    if (rc == 0)
        rc = domains_choose(p);
    if (rc == 0)
        rc = host_start(&p->host, &p->options, eval_kv_tokens(&p->windows, p->n_domain), 0, p->err);
    if (rc == 0)
        rc = domain_detect(p);
    return rc ? rc : score(p);
}

static const char *column_name(const struct perplexity *p, int i)
{
    const struct model_desc *d = &p->host.model->desc;
    return d->n_domain > 0 ? d->domain[p->domain[i]].name : "";
}

static void print(const struct perplexity *p)
{
    char bytes[32];
    const struct eval_sum *first = &p->sum[0];
    printf("text      %s, %s, %llu tokens predicted\n", p->text,
           human_bytes((double)first->n_byte, bytes, sizeof(bytes)),
           (unsigned long long)first->n_token);
    printf("windows   of %d tokens, %d apart\n\n", p->windows.window, p->windows.stride);
    printf("%-20s %12s %12s %12s\n", p->host.model->desc.n_domain > 0 ? "domain" : "", "per token",
           "per byte", "bits a byte");
    for (int i = 0; i < p->n_domain; i++) {
        const struct eval_sum *sum = &p->sum[i];
        printf("%-20s %12.4f %12.4f %12.4f%s\n", column_name(p, i), eval_per_token(sum),
               eval_per_byte(sum), log2(eval_per_byte(sum)), p->detected ? "  (detected)" : "");
    }
}

static int print_json(const struct perplexity *p)
{
    char hex[33];
    json_t *list = json_array();
    hash_hex(p->host.model->fingerprint, hex);
    for (int i = 0; i < p->n_domain; i++) {
        const struct eval_sum *sum = &p->sum[i];
        json_t *row = json_pack("{s:f, s:f, s:f, s:f}", "perplexity_per_token", eval_per_token(sum),
                                "perplexity_per_byte", eval_per_byte(sum), "bits_per_byte",
                                log2(eval_per_byte(sum)), "nll", sum->nll);
        if (p->host.model->desc.n_domain > 0)
            json_object_set_new(row, "domain", json_string(column_name(p, i)));
        json_array_append_new(list, row);
    }
    json_t *root =
        json_pack("{s:s, s:s, s:s, s:I, s:I, s:i, s:i, s:b, s:s, s:s, s:o}", "model", p->dir,
                  "fingerprint", hex, "text", p->text, "tokens", (json_int_t)p->sum[0].n_token,
                  "bytes", (json_int_t)p->sum[0].n_byte, "window", p->windows.window, "stride",
                  p->windows.stride, "detected", p->detected, "precision",
                  p->options.precision == PRECISION_F32 ? "f32" : "bf16", "activations",
                  model_activations(p->host.model, p->options.precision), "scores", list);
    char *text = root ? json_dumps(root, JSON_INDENT(1) | JSON_REAL_PRECISION(12)) : NULL;
    json_decref(root);
    if (!text)
        return err_set(p->err, ERR_NOMEM, "no memory for the JSON, or a path is no UTF-8");
    puts(text);
    free(text);
    return 0;
}

static const char perplexity_about[] =
    "How well a model predicts a text: perplexity per token, and per byte, which can be compared\n"
    "between models with other tokenizers. A window slides over the text; each token is predicted\n"
    "once, with at least window - stride tokens before it. The text is read in pieces cut at line\n"
    "ends and may be of any size.\n\n"
    "In a model with domains, --domain is a name, auto (default: found out from the first tokens)\n"
    "or all: each of them, one line a domain.\n\n"
    "  sigmoe eval perplexity ./model --text held-out.txt\n"
    "  sigmoe eval perplexity ./sigma --text zh.txt --domain all --window 512 --stride 256";

int eval_perplexity(int argc, char **argv)
{
    struct err err = {0};
    struct perplexity *p = calloc(1, sizeof(*p));
    if (!p)
        return err_exit_code(ERR_NOMEM);
    p->err = &err;
    struct opt opts[HOST_OPTIONS_MAX + 7] = {
        {"text", 0, OPT_STR, &p->text, "FILE", "the text", 0, 0},
        {"domain", 'd', OPT_STR, &p->domain_name, "NAME", "a domain's name, auto (default) or all",
         0, 0},
        {"window", 0, OPT_INT, &p->window, "N", "tokens a window; 0: the context, at most 1024", 0,
         LIMIT_CONTEXT},
        {"stride", 0, OPT_INT, &p->stride, "N", "tokens between windows; 0: half a window", 0,
         LIMIT_CONTEXT},
        {"max-bytes", 0, OPT_SIZE, &p->bytes_max, "BYTES", "only the text's beginning; 0: all", 0,
         1e15},
        {"json", 0, OPT_FLAG, &p->json, NULL, "print JSON", 0, 0}};
    host_options_table(&p->options, opts + 6);
    const struct opt_command cmd = {"eval perplexity",
                                    "sigmoe eval perplexity MODEL --text FILE [options]",
                                    perplexity_about, opts};
    int n = 1, rc = opt_parse(&cmd, argc, argv, &p->dir, &n, &err);
    if (rc == 0 && (n == 0 || !p->text))
        rc = err_set(&err, ERR_USAGE, "%s is missing; see sigmoe eval perplexity --help",
                     n == 0 ? "MODEL" : "--text FILE");
    if (rc == 0)
        rc = host_options_check(&p->options, &err);
    if (rc == 0)
        rc = perplexity_run(p);
    if (rc == 0 && p->json)
        rc = print_json(p);
    else if (rc == 0)
        print(p);
    host_close(&p->host);
    free(p);
    if (rc < 0)
        fprintf(stderr, "sigmoe eval perplexity: %s\n", err.text);
    return rc == 1 ? 0 : err_exit_code(rc);
}

static const char about[] =
    "Measures what a model knows of a text. Two reports; each has its own --help:\n\n"
    "  sigmoe eval perplexity MODEL --text FILE         one text\n"
    "  sigmoe eval matrix MODEL --text zh=FILE --text en=FILE\n"
    "                                                   each text under each group of experts";

int cmd_eval(int argc, char **argv)
{
    static const char *const names[] = {"perplexity", "matrix", NULL};
    /* Workers of a measurement come and go; SIGMOE_LOG=debug still shows it. */
    if (log_level_get() == LOG_INFO)
        log_set_level(LOG_WARN);
    if (argc > 1 && strcmp(argv[1], names[0]) == 0)
        return eval_perplexity(argc - 1, argv + 1);
    if (argc > 1 && strcmp(argv[1], names[1]) == 0)
        return eval_matrix(argc - 1, argv + 1);
    struct err err = {0};
    const struct opt opts[] = {{0}};
    const struct opt_command cmd = {"eval", "sigmoe eval perplexity|matrix MODEL [options]", about,
                                    opts};
    const char *word = argc > 1 && argv[1][0] != '-' ? argv[1] : NULL;
    const char *near = word ? opt_nearest(word, names) : NULL;
    int rc = word ? 0 : opt_parse(&cmd, argc, argv, NULL, NULL, &err);
    if (rc == 1)
        return 0;
    if (rc == 0 && near)
        rc = err_set(&err, ERR_USAGE, "unknown report '%s'; did you mean '%s'?", word, near);
    if (rc == 0 && word)
        rc = err_set(&err, ERR_USAGE, "unknown report '%s'; there are perplexity and matrix", word);
    if (rc == 0)
        rc = err_set(&err, ERR_USAGE, "which report, perplexity or matrix? See sigmoe eval --help");
    fprintf(stderr, "sigmoe eval: %s\n", err.text);
    return err_exit_code(rc);
}
