/* jinja: the part of the Jinja template language that chat templates use, with the meaning that
 * Jinja2 3.1 gives it in the environment of Hugging Face transformers
 * (ImmutableSandboxedEnvironment, trim_blocks, lstrip_blocks, loopcontrols, `generation`, its
 * tojson, raise_exception, strftime_now). A template sees the variables handed in and nothing else;
 * it cannot change them, and every rendering is bounded in steps, depth, output and memory.
 * Integers are 64 bits; wider is ERR_LIMIT. Left out, and refused in words: import, include,
 * extends, block, recursive loops, * and ** in calls, and the filters that make HTML pages or
 * random choices. */
#ifndef MODEL_JINJA_H
#define MODEL_JINJA_H

#include "base/err.h"
#include <jansson.h>
#include <stddef.h>
#include <stdint.h>

struct jinja;

/* jinja_compile: source is copied. ERR_MODEL names the line and column of what is not supported. */
int jinja_compile(const char *source, size_t n_bytes, struct jinja **out, struct err *err);
void jinja_free(struct jinja *t);

struct jinja_var {
    const char *name;
    const json_t *value; /* borrowed, unchanged */
};
struct jinja_limits {
    long steps; /* expressions and statements evaluated, and one for each 64 bytes of bulk work */
    int depth;  /* macro calls within each other */
    size_t
        bytes; /* of one string, and of the output; memory is bounded by 32 MiB + 16 times this */
};
/* jinja_render: *text (malloc, NUL-terminated, the caller frees) and *n. Of variables with the same
 * name the last one counts. ERR_USAGE: the template raised, or does something that Jinja2 refuses,
 * in the same words; ERR_LIMIT: a bound was met. Pure but for the time zone of strftime_now; a
 * template may be rendered by several threads at once. */
int jinja_render(const struct jinja *t, const struct jinja_var *vars, size_t n_var,
                 const struct jinja_limits *limits, int64_t now, char **text, size_t *n,
                 struct err *err);

#endif
