/* config: see config.h. All messages are made by the two functions at the top, so that every wrong
 * key reads alike: file, key, what it must be, what it is. */
#include "model/config.h"
#include "base/limits.h"
#include "model/json.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *file_name(const struct config *config)
{
    const char *slash = strrchr(config->path, '/');
    return slash ? slash + 1 : config->path;
}

static int missing(const struct config *config, const char *key, struct err *err)
{
    return err_set(err, ERR_MODEL, "%s: \"%s%s\" is missing (%s); is this a %s checkpoint?",
                   file_name(config), config->within, key, config->path,
                   config->family ? config->family : "model");
}

static int wrong(const struct config *config, const char *key, const char *must, struct err *err)
{
    char *value = json_dumps(json_object_get(config->root, key), JSON_ENCODE_ANY | JSON_COMPACT);
    char quoted[JSON_QUOTE];
    int rc =
        err_set(err, ERR_MODEL, "%s: \"%s%s\" must be %s, it is %s (%s)", file_name(config),
                config->within, key, must, json_quote(value ? value : "?", quoted), config->path);
    free(value);
    return rc;
}

int config_parse(const char *text, size_t bytes, const char *path, struct config *out,
                 struct err *err)
{
    json_t *root;
    int rc = json_parse_object(text, bytes, LIMIT_JSON_BYTES, path, &root, err);
    if (rc)
        return rc;
    *out = (struct config){.root = root, .path = path, .within = ""};
    return 0;
}

void config_free(struct config *config)
{
    json_decref(config->root);
    config->root = NULL;
}

int config_has(const struct config *config, const char *key)
{
    const json_t *value = json_object_get(config->root, key);
    return value && !json_is_null(value);
}

/* integer_get: 1 when the value is an integer, or a real without a fraction, in [low, high]. */
static int integer_get(const json_t *value, int low, int high, int *out)
{
    if (!json_is_number(value))
        return 0;
    double d = json_number_value(value);
    if (!(d >= low && d <= high) || floor(d) != d)
        return 0;
    *out = (int)d;
    return 1;
}

int config_int(const struct config *config, const char *key, int low, int high, int *out,
               struct err *err)
{
    if (!config_has(config, key))
        return missing(config, key, err);
    if (integer_get(json_object_get(config->root, key), low, high, out))
        return 0;
    char must[64];
    snprintf(must, sizeof(must), "an integer in %d..%d", low, high);
    return wrong(config, key, must, err);
}

int config_int_or(const struct config *config, const char *key, int absent, int low, int high,
                  int *out, struct err *err)
{
    if (config_has(config, key))
        return config_int(config, key, low, high, out, err);
    *out = absent;
    return 0;
}

int config_real(const struct config *config, const char *key, double low, double high, double *out,
                struct err *err)
{
    if (!config_has(config, key))
        return missing(config, key, err);
    const json_t *value = json_object_get(config->root, key);
    double d = json_number_value(value);
    if (json_is_number(value) && d >= low && d <= high) {
        *out = d;
        return 0;
    }
    char must[64];
    snprintf(must, sizeof(must), "a number in %g..%g", low, high);
    return wrong(config, key, must, err);
}

int config_real_or(const struct config *config, const char *key, double absent, double low,
                   double high, double *out, struct err *err)
{
    if (config_has(config, key))
        return config_real(config, key, low, high, out, err);
    *out = absent;
    return 0;
}

int config_bool_or(const struct config *config, const char *key, int absent, int *out,
                   struct err *err)
{
    if (!config_has(config, key)) {
        *out = absent;
        return 0;
    }
    const json_t *value = json_object_get(config->root, key);
    if (!json_is_boolean(value))
        return wrong(config, key, "true or false", err);
    *out = json_is_true(value);
    return 0;
}

int config_string_or(const struct config *config, const char *key, const char *absent,
                     const char **out, struct err *err)
{
    if (!config_has(config, key)) {
        *out = absent;
        return 0;
    }
    const json_t *value = json_object_get(config->root, key);
    if (!json_is_string(value))
        return wrong(config, key, "a string", err);
    *out = json_string_value(value);
    return 0;
}

int config_object(const struct config *config, const char *key, const char *within,
                  struct config *out, struct err *err)
{
    if (!config_has(config, key))
        return 0;
    json_t *value = json_object_get(config->root, key);
    if (!json_is_object(value))
        return wrong(config, key, "an object", err);
    *out = (struct config){
        .root = value, .path = config->path, .within = within, .family = config->family};
    return 1;
}

int config_ints(const struct config *config, const char *key, int low, int high, int32_t *out,
                int *n, struct err *err)
{
    const json_t *value = json_object_get(config->root, key);
    char must[96];
    snprintf(must, sizeof(must), "an integer or a list of at most %d, each in %d..%d", *n, low,
             high);
    if (!config_has(config, key)) {
        *n = 0;
        return 0;
    }
    if (!json_is_array(value)) {
        if (*n < 1 || !integer_get(value, low, high, out))
            return wrong(config, key, must, err);
        *n = 1;
        return 0;
    }
    size_t size = json_array_size(value);
    if (size > (size_t)*n)
        return wrong(config, key, must, err);
    for (size_t i = 0; i < size; i++)
        if (!integer_get(json_array_get(value, i), low, high, &out[i]))
            return wrong(config, key, must, err);
    *n = (int)size;
    return 0;
}

int config_strings(const struct config *config, const char *key, const json_t **out,
                   struct err *err)
{
    *out = NULL;
    if (!config_has(config, key))
        return 0;
    const json_t *value = json_object_get(config->root, key);
    if (!json_is_array(value))
        return wrong(config, key, "a list of strings", err);
    for (size_t i = 0; i < json_array_size(value); i++)
        if (!json_is_string(json_array_get(value, i)))
            return wrong(config, key, "a list of strings", err);
    *out = value;
    return 0;
}
