/* balance_table: what the placement strategies share: tables, and a row of one. */
#ifndef ROUTER_BALANCE_TABLE_H
#define ROUTER_BALANCE_TABLE_H

#include "router/balance.h"

/* balance_table_carve checks the input, gives each worker its slots and makes a table with every
 * slot empty. */
int balance_table_carve(const struct balance_input *in, struct balance_table *out,
                        struct arena *mem, struct err *err);
/* balance_row: a layer's slots, [n_slot]. */
int32_t *balance_row(const struct balance_table *table, int layer);
/* balance_n_copy: copies a layer in all, from n_expert to the slots there are. */
int balance_n_copy(const struct balance_input *in, const struct balance_table *table);

#endif
