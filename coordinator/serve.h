/* serve: `sigmoe serve`, the OpenAI-compatible server. */
#ifndef COORDINATOR_SERVE_H
#define COORDINATOR_SERVE_H

int cmd_serve(int argc, char **argv);

#endif
