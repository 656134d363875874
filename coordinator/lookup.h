/* lookup: what may come next, guessed from what came before: where the last tokens of a sequence
 * occurred earlier in it, the tokens that followed there are likely to follow again (prompt lookup,
 * n-gram speculation). Pure functions of the tokens; whether a guess is right is the engine's to
 * find out. */
#ifndef COORDINATOR_LOOKUP_H
#define COORDINATOR_LOOKUP_H

#include <stdint.h>

/* Tokens that must agree: as many as LOOKUP_GRAM_MAX are wanted, LOOKUP_GRAM_MIN will do. */
#define LOOKUP_GRAM_MAX 3
#define LOOKUP_GRAM_MIN 2

/* lookup_propose writes at most k tokens that followed the last earlier occurrence of the last
 * LOOKUP_GRAM_MAX tokens of token [n], else of the last LOOKUP_GRAM_MIN, to out [k]; returns how
 * many. A period that is shorter than k is gone round again, so that a loop gives k tokens too. out
 * may be token + n. */
int lookup_propose(const int32_t *token, int n, int k, int32_t *out);

#endif
