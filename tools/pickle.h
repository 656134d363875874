/* pickle: a small part of Python's pickle, as values and nothing else: what torch.save writes for
 * dictionaries of numbers and tensors. Nothing is looked up and nothing is called: a global is its
 * name, a call is a node that holds the callable and the arguments. */
#ifndef TOOLS_PICKLE_H
#define TOOLS_PICKLE_H

#include "base/err.h"
#include <stddef.h>
#include <stdint.h>

enum pickle_kind {
    PICKLE_NONE,
    PICKLE_INT, /* bool too */
    PICKLE_FLOAT,
    PICKLE_TEXT,
    PICKLE_GLOBAL, /* text: "module name" */
    PICKLE_LIST,   /* tuples too */
    PICKLE_DICT,   /* items: key, value, key, value */
    PICKLE_CALL,   /* items: callable, arguments */
    PICKLE_PERSID  /* items: the persistent id */
};

struct pickle_node {
    enum pickle_kind kind;
    int64_t number;
    double real;
    char *text;
    int n_item, item_room;
    struct pickle_node **item;
    struct pickle_node *next; /* the document's, to free */
};
struct pickle; /* owns all nodes */
int pickle_parse(const uint8_t *bytes, size_t n, const char *path, struct pickle **out,
                 struct err *err);
void pickle_destroy(struct pickle *p);
const struct pickle_node *pickle_root(const struct pickle *p);
/* pickle_get: the value under a text key of a dictionary, or NULL. */
const struct pickle_node *pickle_get(const struct pickle_node *dict, const char *key);

#endif
