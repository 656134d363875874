/* opt: command lines. A subcommand states its options in one table; parsing, --help and the nearest
 * match for a misspelt option all come from that table. */
#ifndef BASE_OPT_H
#define BASE_OPT_H

#include "base/err.h"
#include <stddef.h>
#include <stdint.h>

enum opt_kind {
    OPT_FLAG,
    OPT_INT,
    OPT_FLOAT,
    OPT_STR,
    OPT_SIZE, /* 64M, 2G; int64_t */
    OPT_STRS  /* may be given many times; struct opt_strs */
};

#define OPT_STRS_MAX 64
struct opt_strs {
    const char *at[OPT_STRS_MAX];
    int n;
};

struct opt {
    const char *name; /* long name without the dashes; NULL ends the table */
    char letter;      /* short form, or 0 */
    enum opt_kind kind;
    void
        *value; /* int for FLAG, int64_t for INT and SIZE, double for FLOAT, const char * for STR */
    const char *arg;  /* placeholder in the help: "DIR", "N" */
    const char *help; /* may hold newlines; says the default and the unit */
    double min, max;  /* INT, SIZE, FLOAT: bounds, both 0: unbounded */
};

struct opt_command {
    const char *name;  /* "worker" */
    const char *usage; /* "sigmoe worker --model DIR --listen ENDPOINT [options]" */
    const char *about; /* a paragraph that teaches; examples after it */
    const struct opt *opts;
};

/* opt_parse fills the values of `cmd->opts` from argv[1..] and gathers the other arguments in
 * positional[0..*n_positional) (at most *n_positional on entry). Returns 0; 1 when --help was
 * printed to stdout; ERR_USAGE with a text (unknown option: with the nearest name). "--" ends
 * options; "--name=value" and "--name value" both work. */
int opt_parse(const struct opt_command *cmd, int argc, char **argv, const char **positional,
              int *n_positional, struct err *err);
void opt_help(const struct opt_command *cmd);
/* opt_nearest: the candidate within a small edit distance of `word`, or NULL. names ends in NULL.
 */
const char *opt_nearest(const char *word, const char *const *names);

/* A list of ids as users write it: "0-15,32-47,60". Appends to out, at most max, ascending or not,
 * duplicates refused. Returns how many, or ERR_USAGE. limit: ids must be < limit. */
int opt_parse_ids(const char *text, int limit, int32_t *out, int max, struct err *err);
/* opt_ids_text writes such a list of ascending ids; cut at size. 12 bytes an id are enough. */
void opt_ids_text(const int32_t *id, int n, char *out, size_t size);

#endif
