/* api_tools: calls of functions in a model's text, found while it streams. Two ways of writing them
 * are known: <tool_call>{"name": .., "arguments": {..}}</tool_call> among other text (Hermes,
 * Qwen), and a whole answer that is one object {"name": .., "parameters": {..}} (Llama 3.1). What
 * only looks like a call is text. */
#ifndef COORDINATOR_API_TOOLS_H
#define COORDINATOR_API_TOOLS_H

#include "coordinator/api.h"

struct tool_reader {
    enum api_tool_style style;
    char id[48];  /* calls are named after it: "call_ID_0" */
    json_t *call; /* array of all calls so far, as a response holds them */
    char *held;   /* what may belong to a call */
    size_t n_held, cap;
    int inside;
};

/* tool_reader_init: TOOLS_NONE passes everything on. */
void tool_reader_init(struct tool_reader *r, enum api_tool_style style, const char *id);
void tool_reader_fini(struct tool_reader *r);
/* tool_reader_push takes text and appends to `out` what is none of a call's; tool_reader_end gives
 * up what was held. New calls are at the end of r->call. -1: no memory. */
int tool_reader_push(struct tool_reader *r, const char *text, size_t n, struct tok_text *out);
int tool_reader_end(struct tool_reader *r, struct tok_text *out);
/* text_add appends bytes; -1: no memory. */
int text_add(struct tok_text *t, const char *p, size_t n);

#endif
