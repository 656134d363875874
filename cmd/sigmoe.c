/* sigmoe: one program with subcommands, in the manner of git. Here is their table and the dispatch;
 * each subcommand lives with its room, parses its own options and returns the exit status. */
#include "base/opt.h"
#include "coordinator/operate.h"
#include "coordinator/run.h"
#include "coordinator/serve.h"
#include "tools/commands.h"
#include "worker/worker.h"

#include <stdio.h>
#include <string.h>

static const struct command {
    const char *name;
    int (*run)(int argc, char **argv);
    const char *about;
} commands[] = {
    {"run", cmd_run, "generate text with a model, its experts in workers"},
    {"serve", cmd_serve, "answer OpenAI's HTTP interface with a model"},
    {"worker", cmd_worker, "hold experts of a model and compute them for coordinators"},
    {"status", cmd_status, "show a running coordinator's workers and what they hold"},
    {"rebalance", cmd_rebalance, "change who holds which expert, while requests run"},
    {"drain", cmd_drain, "take a worker, or a domain off the workers, out of a running cluster"},
    {"undrain", cmd_undrain, "give a drained domain back to the workers"},
    {"join", cmd_join, "add a worker to a running cluster"},
    {"chat", cmd_chat, "talk with a served model in the terminal"},
    {"top", cmd_top, "watch a running server in the terminal"},
    {"inspect", cmd_inspect, "show what a checkpoint is and what a split would hold"},
    {"plan", cmd_plan, "say which worker should hold which expert, from observed loads"},
    {"trace", cmd_trace, "show and convert files of which experts tokens chose"},
    {"tokenize", cmd_tokenize, "turn text into token ids and back"},
    {"upcycle", cmd_upcycle, "make a dense model sparse without changing its function"},
    {"extract", cmd_extract, "cut a domain's submodel out of a model, with a proof"},
    {"quantize", cmd_quantize, "write a checkpoint with its matrices as 8 or 4 bit integers"},
    {"eval", cmd_eval, "measure how well a model predicts texts"},
    {"loadtest", cmd_loadtest, "predict or measure a cluster under load, compare strategies"},
    {"keys", cmd_keys, "make the keys that keep strangers out of a cluster"},
    {"calibrate", cmd_calibrate, "measure this machine for loadtest and plan"},
    {"synth", cmd_synth, "write a checkpoint with random weights in a published shape"},
};

#define N_COMMAND ((int)(sizeof(commands) / sizeof(commands[0])))

static void usage_print(FILE *out)
{
    fprintf(
        out,
        "usage: sigmoe COMMAND [options]\n\n"
        "sigmoe serves mixture-of-experts language models: a coordinator runs the dense layers,\n"
        "workers on this or other machines hold the experts.\n\ncommands:\n");
    for (int i = 0; i < N_COMMAND; i++)
        fprintf(out, "  %-10s%s\n", commands[i].name, commands[i].about);
    fprintf(out, "  %-10s%s\n", "help", "show this page, or the page of one command");
    fprintf(out, "\nsigmoe help COMMAND tells more; sigmoe --version says what this build is.\n");
}

static const struct command *command_find(const char *name)
{
    for (int i = 0; i < N_COMMAND; i++)
        if (strcmp(commands[i].name, name) == 0)
            return &commands[i];
    return NULL;
}

static int unknown_command(const char *name)
{
    const char *names[N_COMMAND + 2] = {"help"};
    for (int i = 0; i < N_COMMAND; i++)
        names[i + 1] = commands[i].name;
    const char *near = opt_nearest(name, names);
    if (near)
        fprintf(stderr, "sigmoe: unknown command '%s'; did you mean '%s'?\n", name, near);
    else
        fprintf(stderr, "sigmoe: unknown command '%s'; sigmoe help lists them\n", name);
    return 2;
}

static int help(const char *name)
{
    if (!name) {
        usage_print(stdout);
        return 0;
    }
    const struct command *command = command_find(name);
    if (!command)
        return unknown_command(name);
    char word[32], option[] = "--help";
    snprintf(word, sizeof(word), "%s", command->name);
    char *argv[] = {word, option, NULL};
    return command->run(2, argv);
}

int main(int argc, char **argv)
{
    if (argc < 2) {
        usage_print(stderr);
        return 2;
    }
    const char *name = argv[1];
    if (strcmp(name, "--version") == 0 || strcmp(name, "-V") == 0) {
        version_print();
        return 0;
    }
    if (strcmp(name, "help") == 0 || strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0)
        return help(argc > 2 ? argv[2] : NULL);
    const struct command *command = command_find(name);
    return command ? command->run(argc - 1, argv + 1) : unknown_command(name);
}
