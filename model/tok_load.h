/* tok_load: reading the small parts of tokenizer.json from a jansson tree, with one wording for
 * what is missing or of the wrong type. */
#ifndef MODEL_TOK_LOAD_H
#define MODEL_TOK_LOAD_H

#include "model/tok_json.h"
#include "model/tok_split.h"
#include <jansson.h>

/* load_type: the "type" of an object; NULL with a text when it is not one. `what` names the stage.
 */
const char *load_type(json_t *json, const char *what, struct err *err);
/* load_string, load_bool, load_list: a member. `fallback` < 0: it must be there. depth: of nesting,
 * at most 8. Strings live as long as the tree. */
int load_string(json_t *json, const char *key, struct tok_str *out, struct err *err);
int load_bool(json_t *json, const char *key, int fallback, bool *out, struct err *err);
int load_list(json_t *json, const char *key, int depth, json_t **out, struct err *err);
/* load_pattern: the "pattern" member, {"String": …} or {"Regex": …}. */
int load_pattern(json_t *json, struct tok_split *split, struct err *err);
/* load_char: a member that is one character, as UTF-8. */
int load_char(json_t *json, const char *key, struct tok_str *out, struct err *err);
int load_base64(struct tok_str coded, struct tok_text *out, struct err *err);

#endif
