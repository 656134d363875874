/* eval_matrix: `sigmoe eval matrix`: every text under every group of experts. A model whose domains
 * are worth having predicts each text best under the text's own group. */
#include "tools/commands.h"
#include "tools/eval.h"

#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

struct row {
    char name[32];
    const char *path;
    int own;               /* the domain of that name */
    struct eval_sum *sum;  /* [n_domain] */
    struct eval_sum *part; /* [n_domain] under each domain's submodel */
    uint64_t *found;       /* [n_domain] prompts whose detected domain is this one */
};

struct matrix {
    struct host host;
    struct host_options options;
    const char *dir, *submodels;
    struct opt_strs texts;
    int64_t window, stride, bytes_max, n_auto, auto_tokens;
    int json;
    struct eval_windows windows;
    int *domain; /* [n_domain] 0, 1, ... */
    int n_domain, n_row;
    struct row row[OPT_STRS_MAX];
    struct err *err;
};

static int row_read(struct matrix *m, const char *text, struct row *row)
{
    const char *equal = strchr(text, '=');
    size_t n = equal ? (size_t)(equal - text) : 0;
    if (n == 0 || n >= sizeof(row->name) || equal[1] == '\0')
        return err_set(m->err, ERR_USAGE, "--text wants DOMAIN=FILE, not '%.60s'", text);
    snprintf(row->name, sizeof(row->name), "%.*s", (int)n, text);
    row->path = equal + 1;
    row->own = desc_domain_find(&m->host.model->desc, row->name, m->err);
    if (row->own < 0)
        return row->own;
    row->sum = calloc((size_t)m->n_domain, sizeof(*row->sum));
    row->part = calloc((size_t)m->n_domain, sizeof(*row->part));
    row->found = calloc((size_t)m->n_domain, sizeof(*row->found));
    m->n_row++;
    return row->sum && row->part && row->found
               ? 0
               : err_set(m->err, ERR_NOMEM, "no memory for the matrix");
}

static int rows_read(struct matrix *m)
{
    const struct model_desc *d = &m->host.model->desc;
    m->n_domain = d->n_domain;
    if (d->n_domain == 0)
        return err_set(m->err, ERR_USAGE,
                       "%s is a %s: it has no domains; sigmoe eval perplexity takes any model",
                       m->dir, d->family);
    m->domain = calloc((size_t)d->n_domain, sizeof(*m->domain));
    if (!m->domain)
        return err_set(m->err, ERR_NOMEM, "no memory for %d domains", d->n_domain);
    for (int i = 0; i < d->n_domain; i++)
        m->domain[i] = i;
    int rc = 0;
    for (int i = 0; i < m->texts.n && rc == 0; i++)
        rc = row_read(m, m->texts.at[i], &m->row[i]);
    return rc;
}

static int row_score(struct matrix *m, struct row *row)
{
    struct eval_text text;
    int rc = eval_text_open(&text, row->path, m->host.tok, (uint64_t)m->bytes_max, m->err);
    if (rc)
        return rc;
    rc = eval_score(&m->host, &text, &m->windows, m->domain, m->n_domain, row->sum, m->err);
    eval_text_close(&text);
    if (rc || m->n_auto == 0)
        return rc;
    rc = eval_text_open(&text, row->path, m->host.tok, (uint64_t)m->bytes_max, m->err);
    if (rc)
        return rc;
    rc = eval_detect(&m->host, &text, (int)m->auto_tokens, (int)m->n_auto, row->found, m->err);
    eval_text_close(&text);
    return rc;
}

static int kv_tokens(const struct matrix *m)
{
    struct eval_windows prompts = {(int)m->auto_tokens, 1};
    int score = eval_kv_tokens(&m->windows, m->n_domain);
    int detect = m->n_auto ? eval_kv_tokens(&prompts, 1) : 0;
    return score > detect ? score : detect;
}

static int submodels_score(struct matrix *m)
{
    struct eval_submodels *s = calloc(1, sizeof(*s));
    if (!s)
        return err_set(m->err, ERR_NOMEM, "no memory for the submodels");
    *s = (struct eval_submodels){.full = m->host.model,
                                 .options = &m->options,
                                 .folder = m->submodels,
                                 .windows = &m->windows,
                                 .bytes_max = (uint64_t)m->bytes_max,
                                 .n_text = m->n_row};
    for (int i = 0; i < m->n_row; i++) {
        s->text[i].path = m->row[i].path;
        s->text[i].sum = m->row[i].part;
    }
    int rc = eval_submodels_score(s, m->err);
    free(s);
    return rc;
}

static int matrix_run(struct matrix *m)
{
    int rc = host_open(&m->host, m->dir, m->err);
    if (rc == 0)
        rc = rows_read(m);
    if (rc == 0 && !m->host.tok)
        rc = err_set(m->err, ERR_MODEL, "%s has no tokenizer, so it cannot read a text", m->dir);
    m->windows = (struct eval_windows){(int)m->window, (int)m->stride};
    if (rc == 0)
        rc = eval_windows_check(&m->windows, &m->host.model->desc, m->err);
    if (rc == 0)
        rc = host_start(&m->host, &m->options, kv_tokens(m), 0, m->err);
    for (int i = 0; i < m->n_row && rc == 0; i++)
        rc = row_score(m, &m->row[i]);
    return rc == 0 && m->submodels ? submodels_score(m) : rc;
}

/* ---- what the numbers say -------------------------------------------------------------------- */

static int best_of(const struct matrix *m, const struct eval_sum *sum)
{
    int best = 0;
    for (int i = 1; i < m->n_domain; i++)
        best = eval_per_byte(&sum[i]) < eval_per_byte(&sum[best]) ? i : best;
    return best;
}

/* gain: how far the own group's perplexity per byte lies below the mean of the others'. */
static double gain(const struct matrix *m, const struct row *row)
{
    double others = 0;
    for (int i = 0; i < m->n_domain; i++)
        others += i == row->own ? 0 : eval_per_byte(&row->sum[i]);
    if (m->n_domain < 2)
        return 0;
    return 1 - eval_per_byte(&row->sum[row->own]) * (m->n_domain - 1) / others;
}

static double mean_gain(const struct matrix *m, int *n_best)
{
    double sum = 0;
    *n_best = 0;
    for (int i = 0; i < m->n_row; i++) {
        sum += gain(m, &m->row[i]);
        *n_best += best_of(m, m->row[i].sum) == m->row[i].own;
    }
    return sum / m->n_row;
}

/* detected: prompts of a text, and of those the ones put under its own domain. */
static uint64_t detected(const struct matrix *m, const struct row *row, uint64_t *right)
{
    uint64_t n = 0;
    for (int i = 0; i < m->n_domain; i++)
        n += row->found[i];
    *right = row->found[row->own];
    return n;
}

static void print_head(const struct matrix *m)
{
    printf("%-14s", "");
    for (int i = 0; i < m->n_domain; i++)
        printf(" %12.12s ", m->host.model->desc.domain[i].name);
}

static void print_sums(const struct matrix *m, const char *name, const struct eval_sum *sum)
{
    int best = best_of(m, sum);
    printf("%-14.14s", name);
    for (int i = 0; i < m->n_domain; i++)
        printf(" %12.4f%c", eval_per_byte(&sum[i]), i == best ? '*' : ' ');
}

static void print(const struct matrix *m)
{
    int n_best;
    double mean = mean_gain(m, &n_best);
    printf("perplexity per byte: texts down, groups of experts across, * the best of a row\n\n");
    print_head(m);
    printf(" %9s", "own gain");
    printf(m->n_auto ? " %12s\n" : "\n", "auto right");
    for (int r = 0; r < m->n_row; r++) {
        const struct row *row = &m->row[r];
        print_sums(m, row->name, row->sum);
        printf(" %7.1f %%", 100 * gain(m, row));
        uint64_t right, n = detected(m, row, &right);
        if (n > 0)
            printf(" %5llu of %llu", (unsigned long long)right, (unsigned long long)n);
        printf("\n");
    }
    printf("\nown group best in %d of %d; on average %.1f %% below the mean of the others\n",
           n_best, m->n_row, 100 * mean);
    if (!m->submodels)
        return;
    printf("\nunder each domain's submodel in %s\n\n", m->submodels);
    print_head(m);
    printf("\n");
    for (int r = 0; r < m->n_row; r++) {
        print_sums(m, m->row[r].name, m->row[r].part);
        printf("\n");
    }
}

static json_t *sums_json(const struct matrix *m, const struct eval_sum *sum)
{
    json_t *out = json_object();
    for (int i = 0; i < m->n_domain; i++)
        json_object_set_new(out, m->host.model->desc.domain[i].name,
                            json_pack("{s:f, s:f}", "perplexity_per_byte", eval_per_byte(&sum[i]),
                                      "perplexity_per_token", eval_per_token(&sum[i])));
    return out;
}

static json_t *row_json(const struct matrix *m, const struct row *row)
{
    const struct model_desc *d = &m->host.model->desc;
    json_t *found = json_object();
    for (int i = 0; i < m->n_domain; i++)
        if (row->found[i])
            json_object_set_new(found, d->domain[i].name, json_integer((json_int_t)row->found[i]));
    uint64_t right, n = detected(m, row, &right);
    json_t *out =
        json_pack("{s:s, s:s, s:I, s:I, s:s, s:f, s:o}", "domain", row->name, "text", row->path,
                  "bytes", (json_int_t)row->sum[0].n_byte, "tokens",
                  (json_int_t)row->sum[0].n_token, "best", d->domain[best_of(m, row->sum)].name,
                  "own_gain", gain(m, row), "groups", sums_json(m, row->sum));
    if (out && m->submodels)
        json_object_set_new(out, "submodels", sums_json(m, row->part));
    if (out && n > 0)
        json_object_set_new(out, "detected",
                            json_pack("{s:I, s:I, s:O}", "prompts", (json_int_t)n, "right",
                                      (json_int_t)right, "found", found));
    json_decref(found);
    return out;
}

static int print_json(const struct matrix *m)
{
    char hex[33];
    int n_best;
    double mean = mean_gain(m, &n_best);
    json_t *rows = json_array();
    for (int i = 0; i < m->n_row; i++)
        json_array_append_new(rows, row_json(m, &m->row[i]));
    hash_hex(m->host.model->fingerprint, hex);
    json_t *root =
        json_pack("{s:s, s:s, s:i, s:i, s:s, s:s, s:i, s:f, s:o}", "model", m->dir, "fingerprint",
                  hex, "window", m->windows.window, "stride", m->windows.stride, "precision",
                  m->options.precision == PRECISION_F32 ? "f32" : "bf16", "activations",
                  model_activations(m->host.model, m->options.precision), "own_best", n_best,
                  "mean_own_gain", mean, "texts", rows);
    char *text = root ? json_dumps(root, JSON_INDENT(1) | JSON_REAL_PRECISION(12)) : NULL;
    json_decref(root);
    if (!text)
        return err_set(m->err, ERR_NOMEM, "no memory for the JSON, or a path is no UTF-8");
    puts(text);
    free(text);
    return 0;
}

static void matrix_free(struct matrix *m)
{
    host_close(&m->host);
    for (int i = 0; i < m->n_row; i++) {
        free(m->row[i].sum);
        free(m->row[i].part);
        free(m->row[i].found);
    }
    free(m->domain);
    free(m);
}

static const char about[] =
    "Scores each text under each group of experts of a model with domains: perplexity per byte,\n"
    "the best of each row marked. --text is given once for each text, with the domain it is of.\n"
    "--auto N also lets the model find the domain of N prompts cut from each text and counts how\n"
    "often it is the right one. --submodels DIR also scores the texts under each domain's "
    "submodel,\n"
    "DIR/DOMAIN, extracting those that are not there yet.\n\n"
    "  sigmoe eval matrix ./sigma --text zh=zh.txt --text en=en.txt --text code=code.txt --auto "
    "100";

int eval_matrix(int argc, char **argv)
{
    struct err err = {0};
    struct matrix *m = calloc(1, sizeof(*m));
    if (!m)
        return err_exit_code(ERR_NOMEM);
    m->err = &err;
    m->auto_tokens = 256;
    struct opt opts[HOST_OPTIONS_MAX + 9] = {
        {"text", 0, OPT_STRS, &m->texts, "DOMAIN=FILE", "a text and its domain; many times", 0, 0},
        {"auto", 0, OPT_INT, &m->n_auto, "N", "prompts of each text whose domain is found out (0)",
         0, 1000000},
        {"auto-tokens", 0, OPT_INT, &m->auto_tokens, "N", "tokens of such a prompt (256)", 1,
         LIMIT_CONTEXT},
        {"submodels", 0, OPT_STR, &m->submodels, "DIR",
         "score under submodels too; they stay in DIR", 0, 0},
        {"window", 0, OPT_INT, &m->window, "N", "tokens a window; 0: the context, at most 1024", 0,
         LIMIT_CONTEXT},
        {"stride", 0, OPT_INT, &m->stride, "N", "tokens between windows; 0: half a window", 0,
         LIMIT_CONTEXT},
        {"max-bytes", 0, OPT_SIZE, &m->bytes_max, "BYTES", "only a text's beginning; 0: all", 0,
         1e15},
        {"json", 0, OPT_FLAG, &m->json, NULL, "print JSON", 0, 0}};
    host_options_table(&m->options, opts + 8);
    const struct opt_command cmd = {
        "eval matrix", "sigmoe eval matrix MODEL --text DOMAIN=FILE [options]", about, opts};
    int n = 1, rc = opt_parse(&cmd, argc, argv, &m->dir, &n, &err);
    if (rc == 0 && (n == 0 || m->texts.n == 0))
        rc = err_set(&err, ERR_USAGE, "%s is missing; see sigmoe eval matrix --help",
                     n == 0 ? "MODEL" : "--text DOMAIN=FILE");
    if (rc == 0)
        rc = host_options_check(&m->options, &err);
    if (rc == 0)
        rc = matrix_run(m);
    if (rc == 0 && m->json)
        rc = print_json(m);
    else if (rc == 0)
        print(m);
    matrix_free(m);
    if (rc < 0)
        fprintf(stderr, "sigmoe eval matrix: %s\n", err.text);
    return rc == 1 ? 0 : err_exit_code(rc);
}
