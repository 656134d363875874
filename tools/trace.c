/* trace: `sigmoe trace info|convert|head`: what a route file holds, other formats made into one,
 * and its first tokens as text. */
#include "base/limits.h"
#include "base/opt.h"
#include "base/report.h"
#include "router/load.h"
#include "router/routes.h"
#include "tools/commands.h"
#include "tools/import.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define ABOUT_BYTES 4096

struct trace_ask {
    const char *format, *model, *domain;
    int64_t top_k, n_expert, n_head;
    int recover, json;
};

/* What the whole file adds up to. */
struct summary {
    const struct routes_spec *spec;
    int64_t n_token, n_seq, n_empty, file_bytes;
    int64_t *domain_token; /* [n_domain + 1]; the last: no label */
    double *load;          /* [n_layer, n_expert] */
    double excess, worst;  /* (max - mean) / mean over experts: mean over layers, worst layer */
    int worst_layer;
    double entropy;
};

static void add_block(struct summary *s, const struct routes_block *b)
{
    int64_t slots = (int64_t)b->n_token * s->spec->top_k;
    for (int l = 0; l < s->spec->n_layer; l++)
        for (int64_t i = 0; i < slots; i++) {
            int32_t e = b->expert[l * slots + i];
            if (e < 0)
                s->n_empty++;
            else
                s->load[(int64_t)l * s->spec->n_expert + e]++;
        }
    for (int i = 0; i < b->n_run; i++) {
        int d = b->run[i].domain < 0 ? s->spec->n_domain : b->run[i].domain;
        s->domain_token[d] += b->run[i].n_token;
        s->n_seq += b->run[i].begins;
    }
}

static int summary_make(struct routes_reader *r, struct summary *s, struct err *err)
{
    struct routes_block block;
    s->spec = routes_spec_of(r);
    s->n_token = routes_n_token(r);
    s->domain_token = calloc((size_t)s->spec->n_domain + 1, sizeof(*s->domain_token));
    s->load = calloc((size_t)s->spec->n_layer * (size_t)s->spec->n_expert, sizeof(*s->load));
    if (!s->domain_token || !s->load)
        return err_set(err, ERR_NOMEM, "no memory for %d layers x %d experts", s->spec->n_layer,
                       s->spec->n_expert);
    int rc = 0;
    for (int i = 0; rc == 0 && i < routes_n_block(r); i++) {
        rc = routes_read(r, i, &block, err);
        if (rc == 0)
            add_block(s, &block);
    }
    for (int l = 0; l < s->spec->n_layer; l++) {
        struct load_figures f;
        load_figures(s->load + (size_t)l * (size_t)s->spec->n_expert, NULL, s->spec->n_expert, &f);
        s->excess += f.excess / s->spec->n_layer;
        s->entropy += f.entropy / s->spec->n_layer;
        if (f.excess > s->worst || l == 0) {
            s->worst = f.excess;
            s->worst_layer = s->spec->layer[l];
        }
    }
    return rc;
}

static void summary_free(struct summary *s)
{
    free(s->domain_token);
    free(s->load);
}

static void summary_print(const struct summary *s, const char *path)
{
    char bytes[32];
    const struct routes_spec *spec = s->spec;
    printf("%s\n", path);
    if (spec->model[0])
        printf("  model        %s\n", spec->model);
    printf("  layers       %d sparse, from layer %d to %d\n", spec->n_layer, spec->layer[0],
           spec->layer[spec->n_layer - 1]);
    printf("  experts      top %d of %d\n", spec->top_k, spec->n_expert);
    printf("  tokens       %lld in %lld sequences%s%s\n", (long long)s->n_token,
           (long long)s->n_seq, spec->has_token ? ", with ids" : "",
           spec->has_weight ? ", with weights" : "");
    if (s->n_empty > 0)
        printf("  empty slots  %lld\n", (long long)s->n_empty);
    for (int d = 0; d <= spec->n_domain; d++)
        if (s->domain_token[d] > 0)
            printf("  %-12s %-24s %lld tokens\n", d == 0 || d == spec->n_domain ? "domain" : "",
                   d < spec->n_domain ? spec->domain[d] : "(none)", (long long)s->domain_token[d]);
    printf("  size         %s, %.1f bytes a token\n",
           human_bytes((double)s->file_bytes, bytes, sizeof(bytes)),
           s->n_token > 0 ? (double)s->file_bytes / (double)s->n_token : 0);
    printf("  skew         the hottest expert has %.2f times the mean load (layer %d: %.2f); "
           "entropy %.3f\n",
           s->excess + 1, s->worst_layer, s->worst + 1, s->entropy);
}

static int summary_json(const struct summary *s, const char *path, struct err *err)
{
    json_t *layers = json_array(), *domains = json_object();
    for (int l = 0; l < s->spec->n_layer; l++)
        json_array_append_new(layers, json_integer(s->spec->layer[l]));
    for (int d = 0; d <= s->spec->n_domain; d++)
        if (d < s->spec->n_domain || s->domain_token[d] > 0)
            json_object_set_new(domains, d < s->spec->n_domain ? s->spec->domain[d] : "",
                                json_integer(s->domain_token[d]));
    json_t *root = json_pack(
        "{s:s, s:s, s:o, s:i, s:i, s:I, s:I, s:I, s:b, s:b, s:o, s:I, s:f, s:f, s:f}", "file", path,
        "model", s->spec->model, "layers", layers, "experts", s->spec->n_expert, "top_k",
        s->spec->top_k, "tokens", (json_int_t)s->n_token, "sequences", (json_int_t)s->n_seq,
        "empty_slots", (json_int_t)s->n_empty, "weights", s->spec->has_weight, "token_ids",
        s->spec->has_token, "domains", domains, "bytes", (json_int_t)s->file_bytes, "excess",
        s->excess, "excess_worst", s->worst, "entropy", s->entropy);
    char *text = root ? json_dumps(root, JSON_INDENT(1)) : NULL;
    json_decref(root);
    if (!text)
        return err_set(err, ERR_NOMEM, "%s: no memory for the JSON, or a name is no UTF-8", path);
    puts(text);
    free(text);
    return 0;
}

static int open_file(const char *path, const struct trace_ask *ask, struct routes_reader **r,
                     struct err *err)
{
    return ask->recover ? routes_open_cut_off(path, r, err) : routes_open(path, r, err);
}

static int trace_info(const char *path, const struct trace_ask *ask, struct err *err)
{
    struct routes_reader *r;
    struct summary s = {0};
    struct stat st;
    int rc = open_file(path, ask, &r, err);
    if (rc)
        return rc;
    s.file_bytes = stat(path, &st) ? 0 : st.st_size;
    rc = summary_make(r, &s, err);
    if (rc == 0 && ask->json)
        rc = summary_json(&s, path, err);
    else if (rc == 0)
        summary_print(&s, path);
    summary_free(&s);
    routes_close(r);
    return rc;
}

/* print_token: one line a layer: sequence, position, token id, layer, expert:weight ... */
static void print_token(const struct routes_spec *spec, const struct routes_block *b,
                        const struct routes_run *run, int token, int at)
{
    for (int l = 0; l < spec->n_layer; l++) {
        printf("%llu %d %s ", (unsigned long long)run->seq, run->first_pos + at,
               run->domain < 0 ? "-" : spec->domain[run->domain]);
        if (b->token)
            printf("%d ", b->token[token]);
        else
            printf("- ");
        printf("%d", spec->layer[l]);
        size_t slot = ((size_t)l * (size_t)b->n_token + (size_t)token) * (size_t)spec->top_k;
        for (int k = 0; k < spec->top_k; k++) {
            printf(" %d", b->expert[slot + (size_t)k]);
            if (b->weight)
                printf(":%.3g", (double)b->weight[slot + (size_t)k]);
        }
        putchar('\n');
    }
}

static int trace_head(const char *path, const struct trace_ask *ask, struct err *err)
{
    struct routes_reader *r;
    struct routes_block b;
    int64_t left = ask->n_head;
    int rc = open_file(path, ask, &r, err);
    if (rc)
        return rc;
    printf("# sequence position domain token layer expert%s...\n",
           routes_spec_of(r)->has_weight ? ":weight " : " ");
    for (int i = 0; rc == 0 && left > 0 && i < routes_n_block(r); i++) {
        rc = routes_read(r, i, &b, err);
        int token = 0;
        for (int k = 0; rc == 0 && k < b.n_run; k++)
            for (int at = 0; at < b.run[k].n_token; at++, token++)
                if (left-- > 0)
                    print_token(routes_spec_of(r), &b, &b.run[k], token, at);
    }
    routes_close(r);
    return rc;
}

static int trace_convert(const char *from, const char *to, const struct trace_ask *ask,
                         struct err *err)
{
    const struct import_kind *kind = ask->format ? import_find(ask->format) : import_guess(from);
    int packed = import_plain(from, err);
    if (packed)
        return packed;
    struct import import = {.from = from,
                            .to = to,
                            .model = ask->model,
                            .domain = ask->domain,
                            .top_k = (int)ask->top_k,
                            .n_expert = (int)ask->n_expert,
                            .recover = ask->recover};
    if (!to)
        return err_set(err, ERR_USAGE, "where to? sigmoe trace convert FROM TO");
    if (!kind && ask->format)
        return err_set(err, ERR_USAGE,
                       "--format %s: there are routes, csv, sglang, scores, vllm and esft",
                       ask->format);
    if (!kind)
        return err_set(err, ERR_USAGE,
                       "%s: its name does not tell what it is; say --format routes, csv, sglang, "
                       "scores, vllm or esft",
                       from);
    int rc = import_run(kind, &import, err);
    if (rc == 0)
        fprintf(stderr, "%s: %lld tokens\n", to, (long long)import.n_token);
    return rc;
}

static void about_text(char *out, size_t size)
{
    size_t used = (size_t)snprintf(
        out, size,
        "Shows files of expert choices (docs/TRACE.md), and makes them from what other servers\n"
        "record. info sums a file up, head prints its first tokens, convert writes a route file.\n"
        "\n"
        "  sigmoe trace info chat.routes\n"
        "  sigmoe trace head chat.routes -n 2\n"
        "  sigmoe trace convert dump.pt sglang.routes\n"
        "  sigmoe trace convert chat.routes.part whole.routes --recover\n\n"
        "formats of convert:\n");
    const struct import_kind *kind;
    for (int i = 0; (kind = import_at(i)) != NULL && used < size; i++)
        used += (size_t)snprintf(out + used, size - used, "  %-8s %s\n", kind->name, kind->about);
    if (used < size && used > 0 && out[used - 1] == '\n')
        out[used - 1] = '\0';
}

static int trace_run(const char *const *word, int n, const struct trace_ask *ask, struct err *err)
{
    if (n < 2)
        return err_set(err, ERR_USAGE, "usage: sigmoe trace info|head|convert FILE [TO]");
    if (strcmp(word[0], "convert") == 0)
        return trace_convert(word[1], n > 2 ? word[2] : NULL, ask, err);
    if (n > 2)
        return err_set(err, ERR_USAGE, "unexpected argument '%s'", word[2]);
    if (strcmp(word[0], "info") == 0)
        return trace_info(word[1], ask, err);
    if (strcmp(word[0], "head") == 0)
        return trace_head(word[1], ask, err);
    return err_set(err, ERR_USAGE, "unknown word '%s'; sigmoe trace info, head or convert",
                   word[0]);
}

int cmd_trace(int argc, char **argv)
{
    struct err err = {0};
    struct trace_ask ask = {.n_head = 5};
    char about[ABOUT_BYTES];
    const char *word[3];
    int n = 3;
    const struct opt opts[] = {
        {"format", 'f', OPT_STR, &ask.format, "KIND", "convert: what FROM is; default: by its name",
         0, 0},
        {"model", 0, OPT_STR, &ask.model, "NAME", "convert: name of the model to write down", 0, 0},
        {"domain", 0, OPT_STR, &ask.domain, "LABEL", "convert: label of what has none", 0, 0},
        {"top-k", 0, OPT_INT, &ask.top_k, "K",
         "convert csv: lines of a layer that are one token (1)", 1, LIMIT_TOP_K},
        {"experts", 0, OPT_INT, &ask.n_expert, "N",
         "convert: experts of a layer; default: what the source says or uses", 1, LIMIT_EXPERTS},
        {"recover", 0, OPT_FLAG, &ask.recover, NULL,
         "read a route file that was cut off, as far as it is whole", 0, 0},
        {"tokens", 'n', OPT_INT, &ask.n_head, "N", "head: how many (5)", 1, LIMIT_CONTEXT},
        {"json", 0, OPT_FLAG, &ask.json, NULL, "info: print JSON", 0, 0},
        {0}};
    about_text(about, sizeof(about));
    const struct opt_command cmd = {"trace", "sigmoe trace info|head|convert FILE [TO] [options]",
                                    about, opts};
    int rc = opt_parse(&cmd, argc, argv, word, &n, &err);
    if (rc == 1)
        return 0;
    if (rc == 0)
        rc = trace_run(word, n, &ask, &err);
    if (rc)
        fprintf(stderr, "sigmoe trace: %s\n", err.text);
    return err_exit_code(rc);
}
