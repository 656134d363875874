/* commands: the subcommands that live in tools, as the program's table calls them. Each takes its
 * own argv (argv[0] is its name), prints its errors itself and returns the exit status of the
 * program (base/err.h, err_exit_code). */
#ifndef TOOLS_COMMANDS_H
#define TOOLS_COMMANDS_H

/* cmd_chat talks with an OpenAI-compatible server in the terminal. */
int cmd_chat(int argc, char **argv);
/* cmd_top watches a running server in the terminal. */
int cmd_top(int argc, char **argv);
/* cmd_inspect prints what a checkpoint is. */
int cmd_inspect(int argc, char **argv);
/* cmd_synth writes a checkpoint with random weights in a published shape. */
int cmd_synth(int argc, char **argv);
/* cmd_tokenize turns text into token ids and back. */
int cmd_tokenize(int argc, char **argv);
/* cmd_plan says which worker should hold which expert. */
int cmd_plan(int argc, char **argv);
/* cmd_trace shows and converts files of which experts tokens chose. */
int cmd_trace(int argc, char **argv);
/* cmd_upcycle makes a dense model sparse. */
int cmd_upcycle(int argc, char **argv);
/* cmd_extract cuts a domain's submodel out of a model with domains. */
int cmd_extract(int argc, char **argv);
/* cmd_quantize writes a checkpoint whose matrices are integers. */
int cmd_quantize(int argc, char **argv);
/* cmd_eval measures how well a model predicts texts. */
int cmd_eval(int argc, char **argv);
/* cmd_keys makes and shows the keys of a cluster (proto/keys.h). */
int cmd_keys(int argc, char **argv);
/* cmd_calibrate measures this machine for the simulator and the advice. */
int cmd_calibrate(int argc, char **argv);
/* cmd_loadtest simulates a cluster under load, loads a live one, compares reports. */
int cmd_loadtest(int argc, char **argv);
/* version_print: version, compiler, instruction sets found, libraries; what a bug report needs. */
void version_print(void);

#endif
