/* opt_help: the page that --help prints, from the table that parses. The help column begins at one
 * place for every option; a long option name puts its help on the next line instead of moving it.
 */
#include "base/opt.h"

#include <stdio.h>
#include <string.h>

#define HELP_COLUMN 30

/* put_indented prints text and begins each further line of it at the help column. */
static void put_indented(const char *text)
{
    for (const char *end; (end = strchr(text, '\n')); text = end + 1)
        printf("%.*s\n%*s", (int)(end - text), text, HELP_COLUMN, "");
    printf("%s\n", text);
}

static void put_option(char letter, const char *name, const char *arg, const char *help)
{
    char left[128], mark[5] = "    ";
    if (letter)
        snprintf(mark, sizeof(mark), "-%c, ", letter);
    int n =
        snprintf(left, sizeof(left), "  %s--%s%s%s", mark, name, arg ? " " : "", arg ? arg : "");
    if (n <= HELP_COLUMN - 2)
        printf("%-*s", HELP_COLUMN, left);
    else
        printf("%s\n%*s", left, HELP_COLUMN, "");
    put_indented(help ? help : "");
}

void opt_help(const struct opt_command *cmd)
{
    printf("usage: %s\n", cmd->usage);
    if (cmd->about)
        printf("\n%s\n", cmd->about);
    printf("\noptions:\n");
    for (const struct opt *o = cmd->opts; o->name; o++)
        put_option(o->letter, o->name, o->kind == OPT_FLAG ? NULL : (o->arg ? o->arg : "VALUE"),
                   o->help);
    put_option('h', "help", NULL, "print this page");
}
