/* json: text from a file to a tree, under the rules that every JSON file of a checkpoint must keep:
 * a size limit, a depth limit, UTF-8, no duplicate keys (two readers would see two models), an
 * object at the top, nothing behind it. Jansson does the parsing; here are the bounds and the
 * words. */
#ifndef MODEL_JSON_H
#define MODEL_JSON_H

#include "base/err.h"
#include <jansson.h>
#include <stddef.h>

/* Deeper than any config.json published; keeps recursion over a tree shallow. */
#define JSON_DEPTH_MAX 32
#define JSON_QUOTE     96

/* json_parse_object returns the tree (the caller's: json_decref). `path` is used in messages only.
 */
int json_parse_object(const char *text, size_t bytes, size_t bytes_max, const char *path,
                      json_t **out, struct err *err);
/* json_quote makes a string of a file safe for one line of a terminal: control bytes become '?',
 * what is longer than the buffer is cut and ends in "...". Returns out. */
const char *json_quote(const char *text, char out[JSON_QUOTE]);
/* file_read reads a whole small file; *text is NUL-terminated and the caller's to free. ERR_IO when
 * it cannot be read, ERR_MODEL when it is above bytes_max. */
int file_read(const char *path, size_t bytes_max, char **text, size_t *bytes, struct err *err);

#endif
