/* arrival_file: recorded arrivals, as two publishers lay them out:
 *   Azure LLM inference traces: CSV, header TIMESTAMP,ContextTokens,GeneratedTokens
 *   Mooncake traces: JSON lines {"timestamp": ms, "input_length": n, "output_length": n, ...}, with
 *   "hash_ids": [..] also which blocks of tokens the prompt begins with
 * Which one is told by the first byte. */
#ifndef TOOLS_SIM_ARRIVAL_FILE_H
#define TOOLS_SIM_ARRIVAL_FILE_H

#include "tools/sim/arrivals.h"

/* arrival_file_read: times from the first request on, ascending; domain 0. Memory is the caller's
 * (arrivals_free), also after a failure. A last line without its end is a file cut short. */
int arrival_file_read(const char *path, struct arrivals *out, struct err *err);

#endif
