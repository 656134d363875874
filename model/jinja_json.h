/* jinja_json: between JSON and a template's values: what a request holds, and the filter tojson. */
#ifndef MODEL_JINJA_JSON_H
#define MODEL_JINJA_JSON_H

#include "model/jinja_value.h"
#include <jansson.h>

/* j_from_json: strings are borrowed from the JSON, which outlives the rendering. NULL: undefined.
 */
struct jval j_from_json(struct jrun *r, const json_t *json);

#endif
