/* operate_ask: what the operators' subcommands share: the options that say which coordinator,
 * asking it, watching a change until it is over, and showing the status. */
#ifndef COORDINATOR_OPERATE_ASK_H
#define COORDINATOR_OPERATE_ASK_H

#include "base/err.h"
#include "base/opt.h"

#include <jansson.h>

struct operate {
    const char *socket;
    int64_t port;
    int json, no_wait, silent; /* silent: nothing of a change is shown */
    const char *what;          /* the positional */
    int has_what;
    char path[512];
};

/* operate_parse reads a command line: --port, --admin, --json, with `waits` --no-wait, and the
 * table `more` (ended by an entry without a name; may be NULL). n_what: positionals, at most 1;
 * -1: none or one. 0, 1 (help was printed) or ERR_USAGE. */
int operate_parse(int argc, char **argv, struct operate *o, const struct opt_command *command,
                  const struct opt *more, int waits, int n_what, struct err *err);
/* operate_ask sends the command (taken over) and gives the answer, the caller's; out may be NULL.
 */
int operate_ask(const struct operate *o, json_t *command, json_t **out, struct err *err);
/* operate_change asks for a change and, unless told not to wait, watches it to its end: 0 when it
 * was done, ERR_NET with its words when not. Prints the status then. */
int operate_change(const struct operate *o, json_t *command, struct err *err);
/* operate_watch is the second half; `failed_before`: changes undone before it began. */
int operate_watch(const struct operate *o, long long failed_before, struct err *err);
int operate_status(const struct operate *o, json_t **out, struct err *err);
void operate_print(const struct operate *o, const json_t *status);
/* operate_finish prints an error, and maps it to the program's exit status. */
int operate_finish(const char *name, int rc, const struct err *err);

#endif
