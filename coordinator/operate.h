/* operate: the subcommands with which an operator watches and changes a running cluster. */
#ifndef COORDINATOR_OPERATE_H
#define COORDINATOR_OPERATE_H

int cmd_status(int argc, char **argv);
int cmd_drain(int argc, char **argv);
int cmd_undrain(int argc, char **argv);
int cmd_join(int argc, char **argv);
int cmd_rebalance(int argc, char **argv);

#endif
