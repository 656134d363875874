/* prompt: the token ids of each arrival's prompt, the same ones in a simulation and in a live test,
 * so that what a prefix cache finds is the same too. Named blocks (arrivals.h) are the same tokens
 * wherever their name stands; all others are the request's own. */
#ifndef TOOLS_SIM_PROMPT_H
#define TOOLS_SIM_PROMPT_H

#include "tools/sim/arrivals.h"

/* prompt_fill: token [n_prompt of arrival index], each in [0, vocab). */
void prompt_fill(const struct arrivals *a, int index, uint64_t seed, int vocab, int32_t *token);

#endif
