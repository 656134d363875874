/* run: `sigmoe run`, generation from the command line. */
#ifndef COORDINATOR_RUN_H
#define COORDINATOR_RUN_H

int cmd_run(int argc, char **argv);

#endif
