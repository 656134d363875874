/* prompts: see prompts.h. */
#include "coordinator/prompts.h"

#include "base/limits.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int add(struct prompts *p, int32_t *id, int n, struct err *err)
{
    struct prompt *at = realloc(p->at, (size_t)(p->n + 1) * sizeof *at);
    if (at == NULL) {
        free(id);
        return err_set(err, ERR_NOMEM, "no memory for a prompt");
    }
    p->at = at;
    p->at[p->n++] = (struct prompt){.id = id, .n = n, .domain = DOMAIN_AUTO};
    return 0;
}

/* "1,2,3" -> ids. `where` is "--token-ids" or "FILE:LINE". */
static int parse_list(struct prompts *p, const char *list, const char *where, struct err *err)
{
    size_t n = 1;
    for (const char *c = list; *c != 0; c++) {
        n += *c == ',';
    }
    int32_t *id = n <= LIMIT_CONTEXT ? malloc(n * sizeof *id) : NULL;
    if (id == NULL) {
        return err_set(err, ERR_LIMIT, "%s: %zu token ids are too many", where, n);
    }
    for (size_t i = 0; i < n; i++) {
        char *end;
        errno = 0;
        long v = strtol(list, &end, 10);
        if (end == list || errno != 0 || v < 0 || v >= LIMIT_VOCAB || (*end != ',' && *end != 0)) {
            free(id);
            return err_set(err, ERR_USAGE, "%s: token id %zu is not a number at \"%.20s\"", where,
                           i + 1, list);
        }
        id[i] = (int32_t)v;
        list = end + (*end == ',');
    }
    return add(p, id, (int)n, err);
}

int prompts_from_ids(struct prompts *p, const char *list, struct err *err)
{
    return parse_list(p, list, "--token-ids", err);
}

int prompts_from_file(struct prompts *p, const char *path, struct err *err)
{
    FILE *f = fopen(path, "r");
    if (f == NULL) {
        return err_sys(err, ERR_IO, "cannot read %s", path);
    }
    char *line = NULL;
    size_t cap = 0;
    ssize_t n;
    int rc = 0, number = 0;
    while (rc == 0 && (n = getline(&line, &cap, f)) >= 0) {
        line[strcspn(line, "\r\n")] = 0;
        char where[512];
        snprintf(where, sizeof where, "%.400s:%d", path, ++number);
        rc = parse_list(p, line, where, err);
    }
    free(line);
    fclose(f);
    return rc != 0 || p->n > 0 ? rc : err_set(err, ERR_USAGE, "%s holds no prompt", path);
}

int prompts_from_text(struct prompts *p, struct tokenizer *tok, const char *text, struct err *err)
{
    struct tok_ids ids = {0};
    int rc = tokenizer_encode(tok, text, strlen(text), TOK_ADD_SPECIAL, &ids, err);
    if (rc == 0 && ids.n == 0) {
        rc = err_set(err, ERR_USAGE, "the prompt is empty and this model has no start token");
    }
    if (rc != 0) {
        tok_ids_fini(&ids);
        return rc;
    }
    return add(p, ids.id, (int)ids.n, err);
}

int prompts_domains(struct prompts *p, const struct model_desc *desc, const char *list,
                    struct err *err)
{
    int n = 0, domain = DOMAIN_AUTO;
    for (const char *at = list; at != NULL; at = *at == ',' ? at + 1 : NULL) {
        char name[LIMIT_NAME_BYTES];
        size_t length = strcspn(at, ",");
        snprintf(name, sizeof name, "%.*s", (int)(length < sizeof name ? length : sizeof name - 1),
                 at);
        int rc = desc_domain_read(desc, name, &domain, err);
        if (rc != 0) {
            return rc;
        }
        if (n < p->n) {
            p->at[n].domain = domain;
        }
        n++;
        at += length;
    }
    if (n > 1 && n != p->n) {
        return err_set(err, ERR_USAGE,
                       "--domain names %d domains for %d prompts; give one for all "
                       "or one for each",
                       n, p->n);
    }
    for (int i = n > 1 ? p->n : 0; i < p->n; i++) {
        p->at[i].domain = domain;
    }
    return 0;
}

void prompts_fini(struct prompts *p)
{
    for (int i = 0; i < p->n; i++) {
        free(p->at[i].id);
    }
    free(p->at);
    memset(p, 0, sizeof *p);
}
