/* grammar: which tokens may come next so that the text stays inside a JSON value, or inside what a
 * JSON schema allows. Compiled over a tokenizer's vocabulary, then walked by each sequence that
 * asked for it. Compilation is bounded (schema bytes, depth, rules); what a schema says beyond the
 * supported subset is refused in words with the JSON pointer of the keyword, never silently
 * ignored.
 *
 * The subset: type (also lists), properties (in the schema's order, optional ones may be left out),
 * required, additionalProperties, items, prefixItems, minItems, maxItems, enum, const, anyOf, allOf
 * of one, $ref inside the document (recursion too), minLength, maxLength, minimum, maximum and the
 * exclusive ones for integers, whole minimum and maximum for numbers. `format` is an annotation for
 * the names JSON Schema defines. An object schema that lists properties and says nothing of
 * additionalProperties takes no others, as strict structured outputs do.
 *
 * The style that texts keep: no blank before the text or behind it; after { [ , and before } ]
 * nothing, one space, or a line break with at most 20 spaces or 8 tabs; after : at most one space.
 * Integers of at most 18 digits and exponents up to 289, so that every reader can hold them; 128
 * levels deep. */
#ifndef COORDINATOR_GRAMMAR_H
#define COORDINATOR_GRAMMAR_H

#include "base/err.h"
#include "model/tokenizer.h"
#include <jansson.h>
#include <stdint.h>

struct grammar_vocab; /* immutable: a tokenizer's tokens as a trie of bytes; shared by grammars */
struct grammar;       /* may be shared by threads */
struct grammar_state; /* one sequence's walk */

/* grammar_vocab_create takes tens of milliseconds for 150,000 tokens, so a server makes it once.
 * The tokenizer is not used after it. ERR_MODEL: the vocabulary cannot spell JSON. */
int grammar_vocab_create(const struct tokenizer *tok, struct grammar_vocab **out, struct err *err);
void grammar_vocab_ref(struct grammar_vocab *v);
void grammar_vocab_unref(struct grammar_vocab *v); /* NULL is fine; thread-safe */

/* grammar_vocab_json_object: any JSON object. grammar_vocab_json_schema: what `schema` allows; the
 * schema is not kept. ERR_USAGE: it is wrong or asks for what is not supported; ERR_LIMIT. */
int grammar_vocab_json_object(struct grammar_vocab *v, struct grammar **out, struct err *err);
int grammar_vocab_json_schema(struct grammar_vocab *v, const json_t *schema, struct grammar **out,
                              struct err *err);
/* The same over a vocabulary made for this one grammar. */
int grammar_json_object(const struct tokenizer *tok, struct grammar **out, struct err *err);
int grammar_json_schema(const struct tokenizer *tok, const json_t *schema, struct grammar **out,
                        struct err *err);
void grammar_ref(struct grammar *g);
void grammar_unref(struct grammar *g); /* NULL is fine; thread-safe */

/* grammar_state_create: NULL when memory is out. A state keeps its grammar alive. */
struct grammar_state *grammar_state_create(struct grammar *g);
void grammar_state_destroy(struct grammar_state *s);
/* grammar_mask sets logits of tokens that cannot follow to -INFINITY. eos ids stay possible only
 * where the text may end. logits [vocab]. Unless the text is complete there is always a token left:
 * a text that the grammar let begin can be finished. */
void grammar_mask(const struct grammar_state *s, float *logits, int vocab);
/* grammar_accept steps over a drawn token; 1 when the text is complete and can only end now (an eos
 * token where the text may end makes it so), 0 else, ERR_PROTO when the token was not allowed (the
 * state stays where it was). */
int grammar_accept(struct grammar_state *s, int32_t token);

#endif
