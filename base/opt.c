/* opt: one table, from which a command line is parsed. The help that the same table yields is in
 * opt_help.c. A user sees every mistake with the word that was wrong and what would be right. */
#include "base/opt.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NEAREST_MAX      64 /* longest name compared for the nearest match */
#define NEAREST_DISTANCE 3

struct opt_parse_state {
    const struct opt_command *cmd;
    int argc;
    char **argv;
    int next; /* the argument after the one in hand */
    struct err *err;
};

static int smaller(int a, int b)
{
    return a < b ? a : b;
}

/* edit_distance: Levenshtein, with a swap of neighbours counted as one edit. */
static int edit_distance(const char *a, const char *b)
{
    int n = (int)strlen(a), m = (int)strlen(b);
    if (n > NEAREST_MAX || m > NEAREST_MAX)
        return NEAREST_MAX;
    int row[3][NEAREST_MAX + 1];
    for (int j = 0; j <= m; j++)
        row[0][j] = j;
    for (int i = 1; i <= n; i++) {
        int *now = row[i % 3], *above = row[(i + 2) % 3], *swap = row[(i + 1) % 3];
        now[0] = i;
        for (int j = 1; j <= m; j++) {
            int edit = above[j - 1] + (a[i - 1] != b[j - 1]);
            now[j] = smaller(edit, smaller(above[j], now[j - 1]) + 1);
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
                now[j] = smaller(now[j], swap[j - 2] + 1);
        }
    }
    return row[n % 3][m];
}

const char *opt_nearest(const char *word, const char *const *names)
{
    const char *best = NULL;
    /* A third of the word may be wrong: otherwise every short name is near every short word. */
    int limit = smaller(NEAREST_DISTANCE, ((int)strlen(word) + 2) / 3);
    for (int i = 0; names[i]; i++) {
        int distance = edit_distance(word, names[i]);
        if (distance <= limit) {
            limit = distance - 1;
            best = names[i];
        }
    }
    return best;
}

static int unknown_option(struct opt_parse_state *s, const char *name)
{
    const char *names[129];
    int n = 0;
    for (const struct opt *o = s->cmd->opts; o->name && n < 127; o++)
        names[n++] = o->name;
    names[n++] = "help";
    names[n] = NULL;
    const char *near = opt_nearest(name, names);
    if (near)
        return err_set(s->err, ERR_USAGE, "unknown option --%s; did you mean --%s?", name, near);
    return err_set(s->err, ERR_USAGE, "unknown option --%s; see sigmoe %s --help", name,
                   s->cmd->name);
}

static int out_of_bounds(const struct opt *o, double value)
{
    return (o->min != 0 || o->max != 0) && (value < o->min || value > o->max);
}

static int refuse_bounds(struct opt_parse_state *s, const struct opt *o, const char *text)
{
    return err_set(s->err, ERR_USAGE, "--%s %s is out of range; it must be from %.12g to %.12g",
                   o->name, text, o->min, o->max);
}

static int parse_int(struct opt_parse_state *s, const struct opt *o, const char *text)
{
    char *end;
    errno = 0;
    long long value = strtoll(text, &end, 10);
    if (end == text || *end || errno)
        return err_set(s->err, ERR_USAGE, "--%s %s: expected a whole number", o->name, text);
    if (out_of_bounds(o, (double)value))
        return refuse_bounds(s, o, text);
    *(int64_t *)o->value = value;
    return 0;
}

static int parse_float(struct opt_parse_state *s, const struct opt *o, const char *text)
{
    char *end;
    double value = strtod(text, &end);
    if (end == text || *end || !isfinite(value))
        return err_set(s->err, ERR_USAGE, "--%s %s: expected a number", o->name, text);
    if (out_of_bounds(o, value))
        return refuse_bounds(s, o, text);
    *(double *)o->value = value;
    return 0;
}

/* size_shift: bits of the suffix K, M, G or T, with or without i and B behind it; -1: no suffix. */
static int size_shift(const char *suffix)
{
    static const char letters[] = "KMGT";
    if (!*suffix || strcmp(suffix, "B") == 0)
        return 0;
    char upper = (char)(*suffix >= 'a' && *suffix <= 'z' ? *suffix - 'a' + 'A' : *suffix);
    const char *at = strchr(letters, upper);
    const char *rest = suffix + 1;
    if (!at || (*rest && strcmp(rest, "B") != 0 && strcmp(rest, "iB") != 0))
        return -1;
    return (int)(at - letters + 1) * 10;
}

static int parse_size(struct opt_parse_state *s, const struct opt *o, const char *text)
{
    char *end;
    errno = 0;
    double value = strtod(text, &end);
    int shift = end == text ? -1 : size_shift(end);
    if (shift < 0 || !(value >= 0))
        return err_set(s->err, ERR_USAGE, "--%s %s: expected a size such as 512M or 2G", o->name,
                       text);
    value = ldexp(value, shift);
    if (value >= 0x1p62)
        return err_set(s->err, ERR_USAGE, "--%s %s: more than 4 EiB", o->name, text);
    if (out_of_bounds(o, value))
        return refuse_bounds(s, o, text);
    *(int64_t *)o->value = (int64_t)value;
    return 0;
}

static int add_string(struct opt_parse_state *s, const struct opt *o, const char *text)
{
    struct opt_strs *list = o->value;
    if (list->n == OPT_STRS_MAX)
        return err_set(s->err, ERR_USAGE, "--%s is given more than %d times", o->name,
                       OPT_STRS_MAX);
    list->at[list->n++] = text;
    return 0;
}

static int set_value(struct opt_parse_state *s, const struct opt *o, const char *text)
{
    switch (o->kind) {
    case OPT_INT:
        return parse_int(s, o, text);
    case OPT_FLOAT:
        return parse_float(s, o, text);
    case OPT_SIZE:
        return parse_size(s, o, text);
    case OPT_STR:
        *(const char **)o->value = text;
        return 0;
    case OPT_STRS:
        return add_string(s, o, text);
    case OPT_FLAG:
        *(int *)o->value = 1;
        return 0;
    }
    return err_set(s->err, ERR_USAGE, "--%s: unknown kind of option", o->name);
}

/* take_value: text is the value written with the option ("--n=4", "-n4") or NULL. */
static int take_value(struct opt_parse_state *s, const struct opt *o, const char *text)
{
    if (!text && s->next >= s->argc)
        return err_set(s->err, ERR_USAGE, "--%s needs a value: --%s %s", o->name, o->name,
                       o->arg ? o->arg : "VALUE");
    return set_value(s, o, text ? text : s->argv[s->next++]);
}

static int parse_long(struct opt_parse_state *s, const char *arg)
{
    const char *equal = strchr(arg, '=');
    size_t n = equal ? (size_t)(equal - arg) : strlen(arg);
    for (const struct opt *o = s->cmd->opts; o->name; o++) {
        if (strlen(o->name) != n || memcmp(o->name, arg, n) != 0)
            continue;
        if (o->kind != OPT_FLAG)
            return take_value(s, o, equal ? equal + 1 : NULL);
        if (equal)
            return err_set(s->err, ERR_USAGE, "--%s takes no value, got '%s'", o->name, equal + 1);
        return set_value(s, o, NULL);
    }
    char name[NEAREST_MAX + 1];
    snprintf(name, sizeof(name), "%.*s", (int)smaller((int)n, NEAREST_MAX), arg);
    return unknown_option(s, name);
}

/* parse_short reads a group of letters: flags, and at its end one option with a value. */
static int parse_short(struct opt_parse_state *s, const char *letters)
{
    for (const char *at = letters; *at; at++) {
        const struct opt *o = s->cmd->opts;
        while (o->name && o->letter != *at)
            o++;
        if (!o->name)
            return err_set(s->err, ERR_USAGE, "unknown option -%c; see sigmoe %s --help", *at,
                           s->cmd->name);
        if (o->kind != OPT_FLAG)
            return take_value(s, o, at[1] ? at + 1 : NULL);
        int rc = set_value(s, o, NULL);
        if (rc)
            return rc;
    }
    return 0;
}

int opt_parse(const struct opt_command *cmd, int argc, char **argv, const char **positional,
              int *n_positional, struct err *err)
{
    struct opt_parse_state s = {cmd, argc, argv, 1, err};
    int room = n_positional ? *n_positional : 0, n = 0, rc = 0, ended = 0;
    while (s.next < argc && rc == 0) {
        const char *arg = argv[s.next++];
        if (!ended && strcmp(arg, "--") == 0) {
            ended = 1;
        } else if (!ended && (strcmp(arg, "--help") == 0 || strcmp(arg, "-h") == 0)) {
            opt_help(cmd);
            return 1;
        } else if (!ended && strncmp(arg, "--", 2) == 0) {
            rc = parse_long(&s, arg + 2);
        } else if (!ended && arg[0] == '-' && arg[1]) {
            rc = parse_short(&s, arg + 1);
        } else if (n >= room) {
            rc = err_set(err, ERR_USAGE, "unexpected argument '%s'; usage: %s", arg, cmd->usage);
        } else {
            positional[n++] = arg;
        }
    }
    if (rc == 0 && n_positional)
        *n_positional = n;
    return rc;
}

void opt_ids_text(const int32_t *id, int n, char *out, size_t size)
{
    size_t used = 0;
    if (size > 0)
        out[0] = '\0';
    for (int begin = 0, end = 0; begin < n && used < size; begin = end) {
        for (end = begin + 1; end < n && id[end] == id[end - 1] + 1;)
            end++;
        const char *comma = begin > 0 ? "," : "";
        used += (size_t)(end - begin == 1
                             ? snprintf(out + used, size - used, "%s%d", comma, (int)id[begin])
                             : snprintf(out + used, size - used, "%s%d-%d", comma, (int)id[begin],
                                        (int)id[end - 1]));
    }
}
