/* shapes: published model shapes by name, so that a checkpoint of any of them can be planned for or
 * made up without a download. Each becomes the text of a config.json. */
#ifndef TOOLS_SHAPES_H
#define TOOLS_SHAPES_H

#include "base/err.h"
#include <stddef.h>

struct shape;

/* shape_find: NULL when there is no such name. shape_at: the i-th, NULL behind the last. */
const struct shape *shape_find(const char *name);
const struct shape *shape_at(size_t i);
const char *shape_name(const struct shape *shape);
/* shape_list writes one line a shape, name and what it is, for help pages; cut at size. */
void shape_list(char *out, size_t size);
/* shape_config: *text is a config.json, NUL-terminated, the caller's to free. */
int shape_config(const struct shape *shape, char **text, struct err *err);
/* shape_or_file: the same from a shape's name or from the path of a config.json. A name that is
 * neither is refused with the nearest shape. */
int shape_or_file(const char *what, char **text, struct err *err);

#endif
