/* config: typed, checked access to config.json. Each reader names the key, says what it must be and
 * what it was, and leaves its output alone on failure. An `_or` reader takes a default for a key
 * that is absent or null, as transformers does; the others need the key. */
#ifndef MODEL_CONFIG_H
#define MODEL_CONFIG_H

#include "base/err.h"
#include <jansson.h>
#include <stdint.h>

/* config: an object of the file. `within` is the path of an inner object ("rope_scaling."), for
 * messages. Inner objects borrow the tree of the outer one. */
struct config {
    json_t *root;
    const char *path;
    const char *within;
    const char *family; /* model_type, or NULL before it is known */
};

int config_parse(const char *text, size_t bytes, const char *path, struct config *out,
                 struct err *err);
void config_free(struct config *config);

/* config_has: the key is there and not null. */
int config_has(const struct config *config, const char *key);
/* config_int: an integer in [low, high]; a real with an integral value will do. */
int config_int(const struct config *config, const char *key, int low, int high, int *out,
               struct err *err);
int config_int_or(const struct config *config, const char *key, int absent, int low, int high,
                  int *out, struct err *err);
int config_real(const struct config *config, const char *key, double low, double high, double *out,
                struct err *err);
int config_real_or(const struct config *config, const char *key, double absent, double low,
                   double high, double *out, struct err *err);
int config_bool_or(const struct config *config, const char *key, int absent, int *out,
                   struct err *err);
/* config_string_or: *out lives as long as the config. */
int config_string_or(const struct config *config, const char *key, const char *absent,
                     const char **out, struct err *err);
/* config_object: 1 when the inner object is there, 0 when it is absent or null, negative when the
 * key holds something else. `within` must be "key." and is kept. */
int config_object(const struct config *config, const char *key, const char *within,
                  struct config *out, struct err *err);
/* config_ints: an integer or a list of them, each in [low, high]; *n on entry the room in out, on
 * return how many. Absent or null: none. */
int config_ints(const struct config *config, const char *key, int low, int high, int32_t *out,
                int *n, struct err *err);
/* config_strings: the list at `key` or NULL; every element is a string. */
int config_strings(const struct config *config, const char *key, const json_t **out,
                   struct err *err);

#endif
