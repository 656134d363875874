/* chat: a conversation to the text that a model was trained on, by the model's own Jinja template.
 * The template comes from the checkpoint, never from a request; it runs in a sandbox with bounds on
 * steps, depth and output, and sees only the values handed in. */
#ifndef MODEL_CHAT_H
#define MODEL_CHAT_H

#include "base/err.h"
#include <jansson.h>
#include <stddef.h>

struct chat_template;
/* chat_template_compile: Jinja source (NUL-terminated). Syntax outside the supported subset is
 * ERR_MODEL with line and column. */
int chat_template_compile(const char *source, struct chat_template **out, struct err *err);
void chat_template_free(struct chat_template *t);

struct chat_input {
    const json_t *messages; /* array of {"role", "content", ...} */
    const json_t *tools;    /* array or NULL */
    const json_t *extra;    /* object of scalars (chat_template_kwargs), or NULL */
    int add_generation_prompt;
    int continue_final_message;
    const char *bos_token, *eos_token; /* texts, may be "" */
    long long now;                     /* unix seconds for strftime_now */
};
struct chat_limits {
    long steps;   /* 0: 1,000,000 */
    int depth;    /* 0: 64 */
    size_t bytes; /* 0: 4 MiB of output */
};
/* chat_render: *text (malloc, caller frees) and *n. ERR_USAGE: the template raised (its words), or
 * the input breaks what it expects; ERR_LIMIT: a bound was met. */
int chat_render(const struct chat_template *t, const struct chat_input *in,
                const struct chat_limits *limits, char **text, size_t *n, struct err *err);

#endif
