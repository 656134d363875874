/* tok_json: a pull reader for JSON in memory. A published tokenizer.json is 10 to 30 MB, nearly all
 * of it the vocabulary and the merges; a tree of a million nodes for that costs more than the whole
 * time we allow for loading, so those two parts are read as they pass. The small rest goes to
 * jansson (tok_json_skip gives its bytes).
 *
 * Strict as RFC 8259 where it reads; nesting at most 64. Errors name the byte offset. */
#ifndef MODEL_TOK_JSON_H
#define MODEL_TOK_JSON_H

#include "model/tok_buf.h"

struct tok_json {
    const char *start, *p, *end;
    const char *file;     /* for messages */
    struct tok_text text; /* unescaped strings live here until the next string */
};

void tok_json_init(struct tok_json *json, const char *file, const char *bytes, size_t n);
void tok_json_fini(struct tok_json *json);
/* tok_json_peek: the first byte of the next value ('{', '[', '"', digit …), 0 at the end. */
char tok_json_peek(struct tok_json *json);
/* Iteration: `first` is set by the caller before the first call. 1: a member or element follows
 * (the key is in *key and must be used before the next string is read); 0: the end; < 0: error. */
int tok_json_member(struct tok_json *json, bool *first, struct tok_str *key, struct err *err);
int tok_json_element(struct tok_json *json, bool *first, struct err *err);
/* tok_json_string: valid UTF-8, escapes resolved; lives until the next string is read. */
int tok_json_string(struct tok_json *json, struct tok_str *out, struct err *err);
int tok_json_int(struct tok_json *json, int64_t *out, struct err *err);
int tok_json_double(struct tok_json *json, double *out, struct err *err);
/* tok_json_skip steps over one value and returns its bytes. Checks nesting and strings' ends only:
 * whoever wants the content parses it. */
int tok_json_skip(struct tok_json *json, struct tok_str *out, struct err *err);
/* tok_json_end: nothing but white space is left. */
int tok_json_end(struct tok_json *json, struct err *err);

#endif
