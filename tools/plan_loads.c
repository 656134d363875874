/* plan_loads: see plan_loads.h. A file that is not a route file is converted into a temporary one
 * first, which is gone when it is closed: one way to read loads, whoever recorded them. */
#include "tools/plan_loads.h"
#include "tools/import.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct window {
    int domain; /* -1: all */
    int64_t first, end;
};

static int number(const char **at, int64_t *out)
{
    char *end;
    if (**at < '0' || **at > '9')
        return -1;
    *out = strtoll(*at, &end, 10);
    *at = end;
    return 0;
}

static int window_parse(const struct routes_spec *spec, const char *text, struct window *w,
                        struct err *err)
{
    const char *at = strchr(text, '@');
    size_t n = at ? (size_t)(at - text) : strlen(text);
    *w = (struct window){-1, 0, INT64_MAX};
    for (int d = 0; n > 0 && d < spec->n_domain; d++)
        if (strlen(spec->domain[d]) == n && strncmp(spec->domain[d], text, n) == 0)
            w->domain = d;
    if (n > 0 && w->domain < 0)
        return err_set(err, ERR_USAGE,
                       "window \"%s\": no domain is called that; sigmoe trace info "
                       "lists them",
                       text);
    if (!at)
        return 0;
    at++;
    if (number(&at, &w->first) || *at++ != '-' || (*at && number(&at, &w->end)) || *at ||
        w->first >= w->end)
        return err_set(err, ERR_USAGE,
                       "window \"%s\": write LABEL, @FIRST-END or LABEL@FIRST-END, tokens counted "
                       "from 0",
                       text);
    return 0;
}

static void add_tokens(const struct plan_loads *loads, const struct routes_block *b, int first,
                       int n, double *load)
{
    size_t k = (size_t)loads->top_k;
    for (int l = 0; l < loads->n_layer; l++) {
        const int32_t *e = b->expert + ((size_t)l * (size_t)b->n_token + (size_t)first) * k;
        for (size_t i = 0; i < (size_t)n * k; i++)
            if (e[i] >= 0)
                load[(size_t)l * (size_t)loads->n_expert + (size_t)e[i]]++;
    }
}

int plan_loads_sum(struct plan_loads *loads, const char *window, int domain, double *load,
                   int64_t *n_token, struct err *err)
{
    struct window w;
    struct routes_block b;
    int64_t seen = 0, taken = 0;
    int rc = window_parse(routes_spec_of(loads->reader), window ? window : "", &w, err);
    memset(load, 0, (size_t)loads->n_layer * (size_t)loads->n_expert * sizeof(*load));
    for (int i = 0; rc == 0 && i < routes_n_block(loads->reader); i++) {
        rc = routes_read(loads->reader, i, &b, err);
        for (int k = 0, at = 0; rc == 0 && k < b.n_run; at += b.run[k++].n_token) {
            if (w.domain >= 0 && b.run[k].domain != w.domain)
                continue;
            int64_t first = w.first > seen ? w.first - seen : 0;
            int64_t end = w.end - seen < b.run[k].n_token ? w.end - seen : b.run[k].n_token;
            seen += b.run[k].n_token;
            if (first >= end || (domain >= 0 && b.run[k].domain != domain))
                continue;
            add_tokens(loads, &b, at + (int)first, (int)(end - first), load);
            taken += end - first;
        }
    }
    if (rc == 0 && taken == 0 && domain < 0)
        rc = err_set(err, ERR_USAGE, "window \"%s\" holds no tokens; the recording has %lld",
                     window ? window : "", (long long)routes_n_token(loads->reader));
    *n_token = taken;
    return rc;
}

/* convert: into a file that only the reader knows. */
static int convert(struct plan_loads *loads, const struct import_kind *kind, const char *path,
                   struct err *err)
{
    const char *tmp = "/tmp";
    char to[PATH_MAX];
    snprintf(to, sizeof(to), "%s/sigmoe-plan-XXXXXX", tmp);
    int fd = mkstemp(to);
    if (fd < 0)
        return err_sys(err, ERR_IO, "cannot make a file in %s", tmp);
    close(fd);
    struct import import = {.from = path, .to = to};
    int rc = import_run(kind, &import, err);
    if (rc == 0)
        rc = routes_open(to, &loads->reader, err);
    unlink(to);
    return rc;
}

int plan_loads_open(struct plan_loads *loads, const char *path, struct err *err)
{
    const struct import_kind *kind = import_guess(path);
    int rc = import_plain(path, err);
    if (rc)
        return rc;
    rc = kind && strcmp(kind->name, "routes") != 0 ? convert(loads, kind, path, err)
                                                   : routes_open(path, &loads->reader, err);
    if (rc)
        return rc;
    const struct routes_spec *spec = routes_spec_of(loads->reader);
    loads->n_layer = spec->n_layer;
    loads->n_expert = spec->n_expert;
    loads->top_k = spec->top_k;
    loads->n_domain = spec->n_domain;
    memcpy(loads->layer, spec->layer, sizeof(loads->layer));
    return 0;
}

void plan_loads_close(struct plan_loads *loads)
{
    routes_close(loads->reader);
    free(loads->load);
    free(loads->domain_load);
}
