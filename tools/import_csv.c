/* import_csv: lines `layer,expert` in the order in which they were chosen, as llama.cpp's and other
 * tracing patches print them, or `layer,expert,count`, as statistics are printed. Without counts, a
 * layer's lines are taken top_k at a time as its tokens; layers with fewer tokens get empty slots.
 * With counts there are no tokens to know: as many are made up, one slot each, and each layer's
 * experts are drawn evenly through them in proportion (a point every golden part of the whole,
 * which is even at every length). Counts are for loads; what happens together in a token is lost.
 */
#include "base/limits.h"
#include "model/json.h"
#include "tools/import.h"
#include "tools/made_up.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CSV_BYTES_MAX ((size_t)1 << 30)

struct line {
    int32_t layer, expert;
    double count;
};

struct csv {
    struct import *import;
    struct line *line;
    size_t n, room;
    int counted; /* lines have a third column */
    int n_expert, n_layer;
    int index[LIMIT_LAYERS]; /* of a layer among those that occur, or -1 */
    struct routes_spec spec;
};

static int refuse(const struct csv *c, size_t line, const char *what, struct err *err)
{
    return err_set(err, ERR_MODEL, "%s:%zu: %s; a line is layer,expert or layer,expert,count",
                   c->import->from, line, what);
}

/* number reads one field and moves behind its comma; *last says whether it ended the line. */
static int number(char **at, double *out, int *last)
{
    char *end;
    errno = 0;
    *out = strtod(*at, &end);
    if (end == *at || errno || !(*out >= 0) || *out > 1e15)
        return -1;
    while (*end == ' ' || *end == '\t' || *end == '\r')
        end++;
    *last = *end == '\0';
    if (!*last && *end != ',')
        return -1;
    *at = end + !*last;
    return 0;
}

static int add_line(struct csv *c, const struct line *l, struct err *err)
{
    if (c->n == c->room) {
        size_t room = c->room ? c->room * 2 : 4096;
        struct line *grown = realloc(c->line, room * sizeof(*grown));
        if (!grown)
            return err_set(err, ERR_NOMEM, "no memory for %zu lines of %s", room, c->import->from);
        c->line = grown;
        c->room = room;
    }
    c->line[c->n++] = *l;
    c->n_expert = l->expert >= c->n_expert ? l->expert + 1 : c->n_expert;
    c->index[l->layer] = 0;
    return 0;
}

static int read_line(struct csv *c, char *text, size_t number_of_line, struct err *err)
{
    double layer, expert, count = 1;
    int last = 0;
    char *at = text;
    if (number(&at, &layer, &last) || last || number(&at, &expert, &last) ||
        (!last && (number(&at, &count, &last) || !last)))
        return refuse(c, number_of_line, "this is no line of two or three numbers", err);
    int counted = at != text && strchr(strchr(text, ',') + 1, ',') != NULL;
    if (c->n == 0)
        c->counted = counted;
    if (counted != c->counted)
        return refuse(c, number_of_line, "some lines have a count and some have none", err);
    if (layer != (int)layer || layer >= LIMIT_LAYERS || expert != (int)expert ||
        expert >= LIMIT_EXPERTS)
        return refuse(c, number_of_line, "a layer or an expert is out of range", err);
    if (c->import->n_expert > 0 && expert >= c->import->n_expert)
        return err_set(err, ERR_MODEL, "%s:%zu: expert %d of %d", c->import->from, number_of_line,
                       (int)expert, c->import->n_expert);
    return add_line(c, &(struct line){(int32_t)layer, (int32_t)expert, count}, err);
}

static int read_lines(struct csv *c, char *text, struct err *err)
{
    int rc = 0;
    size_t n = 1;
    for (char *at = text, *next; rc == 0 && *at; at = next, n++) {
        next = strchr(at, '\n');
        if (next)
            *next++ = '\0';
        else
            next = at + strlen(at);
        int heading = n == 1 && !(*at >= '0' && *at <= '9');
        if (*at && *at != '\r' && *at != '#' && !heading)
            rc = read_line(c, at, n, err);
    }
    return rc;
}

static void number_layers(struct csv *c)
{
    for (int l = 0; l < LIMIT_LAYERS; l++) {
        if (c->index[l] < 0)
            continue;
        c->index[l] = c->n_layer;
        c->spec.layer[c->n_layer++] = l;
    }
    c->spec.n_layer = c->n_layer;
    c->spec.n_expert = c->import->n_expert > 0 ? c->import->n_expert : c->n_expert;
}

/* put_selections: every line is one slot. */
static int put_selections(struct csv *c, struct err *err)
{
    int k = c->import->top_k > 0 ? c->import->top_k : 1;
    size_t most = 0, slots;
    size_t *n = calloc((size_t)c->n_layer, sizeof(*n));
    if (!n)
        return err_set(err, ERR_NOMEM, "no memory for %d layers", c->n_layer);
    for (size_t i = 0; i < c->n; i++)
        n[c->index[c->line[i].layer]]++;
    for (int l = 0; l < c->n_layer; l++) {
        most = n[l] > most ? n[l] : most;
        n[l] = 0;
    }
    size_t n_token = (most + (size_t)k - 1) / (size_t)k;
    slots = n_token * (size_t)k;
    int32_t *expert = malloc(slots * (size_t)c->n_layer * sizeof(*expert));
    int rc = expert && n_token < LIMIT_CONTEXT
                 ? 0
                 : err_set(err, ERR_NOMEM, "%zu tokens of %d layers are too many for one sequence",
                           n_token, c->n_layer);
    if (rc == 0) {
        memset(expert, -1, slots * (size_t)c->n_layer * sizeof(*expert));
        for (size_t i = 0; i < c->n; i++) {
            size_t l = (size_t)c->index[c->line[i].layer];
            expert[l * slots + n[l]++] = c->line[i].expert;
        }
        c->spec.top_k = k;
        rc = import_begin(c->import, &c->spec, err);
    }
    struct routes_run run = {.n_token = (int)n_token, .begins = 1, .ends = 1};
    if (rc == 0)
        rc = import_label(c->import, c->import->domain, &run.domain, err);
    if (rc == 0)
        rc = import_put(c->import, &run, NULL, expert, NULL, slots, err);
    free(expert);
    free(n);
    return rc;
}

static int put_counts(struct csv *c, struct err *err)
{
    size_t cells = (size_t)c->n_layer * (size_t)c->spec.n_expert;
    double *count = calloc(cells, sizeof(*count));
    if (!count)
        return err_set(err, ERR_NOMEM, "no memory for %zu counts", cells);
    for (size_t i = 0; i < c->n; i++)
        count[(size_t)c->index[c->line[i].layer] * (size_t)c->spec.n_expert +
              (size_t)c->line[i].expert] += c->line[i].count;
    int rc = made_up_tokens(c->import, &c->spec, count, err);
    free(count);
    return rc;
}

int import_csv(struct import *import, struct err *err)
{
    struct csv c = {.import = import};
    char *text = NULL;
    size_t bytes;
    memset(c.index, -1, sizeof(c.index));
    int rc = file_read(import->from, CSV_BYTES_MAX, &text, &bytes, err);
    if (rc == 0)
        rc = read_lines(&c, text, err);
    free(text);
    if (rc == 0 && c.n == 0)
        rc = err_set(err, ERR_MODEL, "%s: holds no lines layer,expert", import->from);
    if (rc == 0) {
        number_layers(&c);
        rc = c.counted ? put_counts(&c, err) : put_selections(&c, err);
    }
    free(c.line);
    return rc;
}
