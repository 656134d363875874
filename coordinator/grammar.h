/* grammar: which tokens may come next so that the text stays inside a JSON value, or inside what a
 * JSON schema allows. Compiled once over a tokenizer's vocabulary, then walked by each sequence
 * that asked for it. Compilation is bounded (schema bytes, depth, states); what a schema says
 * beyond the supported subset is refused in words, never silently ignored. */
#ifndef COORDINATOR_GRAMMAR_H
#define COORDINATOR_GRAMMAR_H

#include "base/err.h"
#include "model/tokenizer.h"
#include <jansson.h>
#include <stdint.h>

struct grammar;       /* immutable once made; may be shared by threads */
struct grammar_state; /* one sequence's walk */

/* grammar_json_object: any JSON object. grammar_json_schema: what `schema` allows. The tokenizer
 * outlives the grammar. */
int grammar_json_object(const struct tokenizer *tok, struct grammar **out, struct err *err);
int grammar_json_schema(const struct tokenizer *tok, const json_t *schema, struct grammar **out,
                        struct err *err);
void grammar_ref(struct grammar *g);
void grammar_unref(struct grammar *g); /* thread-safe */

struct grammar_state *grammar_state_create(struct grammar *g);
void grammar_state_destroy(struct grammar_state *s);
/* grammar_mask sets logits of tokens that cannot follow to -INFINITY. eos ids stay possible only
 * where the text may end. logits [vocab]. */
void grammar_mask(const struct grammar_state *s, float *logits, int vocab);
/* grammar_accept steps over a drawn token; 1 when the text is complete and can only end now, 0
 * else, ERR_PROTO when the token was not allowed. */
int grammar_accept(struct grammar_state *s, int32_t token);

#endif
