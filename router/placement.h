/* placement: which workers hold which expert of which layer, as of an epoch. A value: built, then
 * read by planners; a change makes a new table with a higher epoch. Workers are small integers that
 * the pool maps to connections. */
#ifndef ROUTER_PLACEMENT_H
#define ROUTER_PLACEMENT_H

#include "base/err.h"
#include <stddef.h>
#include <stdint.h>

struct placement; /* n_layer x n_expert -> ordered list of workers */

/* placement_create: nobody holds anything; epoch 1. */
int placement_create(int n_layer, int n_expert, struct placement **out, struct err *err);
void placement_destroy(struct placement *p);
/* placement_copy: a table to change, epoch + 1. */
int placement_copy(const struct placement *p, struct placement **out, struct err *err);
uint64_t placement_epoch(const struct placement *p);
void placement_set_epoch(struct placement *p, uint64_t epoch);
int placement_n_layer(const struct placement *p);
int placement_n_expert(const struct placement *p);

/* placement_add: `worker` holds (layer, expert); kept in ascending order of worker, once. */
int placement_add(struct placement *p, int layer, int expert, int worker, struct err *err);
/* placement_add_all: in every layer, a list of experts. */
int placement_add_all(struct placement *p, const int32_t *expert, int n, int worker,
                      struct err *err);
/* placement_remove: one copy, or (layer < 0) all that a worker holds. */
void placement_remove(struct placement *p, int layer, int expert, int worker);
/* placement_holders returns how many workers hold it and points *out at them (valid until the table
 * changes). */
int placement_holders(const struct placement *p, int layer, int expert, const int32_t **out);
/* placement_has: does the table give (layer, expert) to `worker`? */
int placement_has(const struct placement *p, int layer, int expert, int worker);

/* placement_contiguous / round_robin: the experts of part `part` of n_part, ascending, into out
 * [<= n_expert]; returns how many. Parts differ by at most one expert. n_part may exceed n_expert.
 */
int placement_contiguous(int n_expert, int part, int n_part, int32_t *out);
int placement_round_robin(int n_expert, int part, int n_part, int32_t *out);

/* A placement file: JSON {"epoch": 1, "workers": {"NAME": "0-15,32" or [0, 1] or
 * {"LAYER": "0-3", "*": "4-7"}}}, where LAYER is a list of layers and "*" every layer that no other
 * key names. placement_file_worker reads what one worker should hold:
 * held [n_layer, n_expert] bytes 0/1 written by the callee. */
/* placement_text_worker: the same from text; `path` is used in messages only. */
int placement_text_worker(const char *text, size_t bytes, const char *path, const char *worker,
                          int n_layer, int n_expert, uint8_t *held, struct err *err);
int placement_file_worker(const char *path, const char *worker, int n_layer, int n_expert,
                          uint8_t *held, struct err *err);

#endif
