/* pool_table: the placement, made anew from what every welcomed worker says it holds whenever that
 * changes. Derived, never edited in place: a table that is a function of the members cannot drift
 * from them, and the epoch counts the changes.
 *
 * Replicas of an expert stay within one numerics class, this coordinator's own if anyone has it:
 * two classes of holders would make the bits depend on who happened to be free. Holders of another
 * class are listed only where nobody of the class is left.
 *
 * While a target is set (pool_target) only its copies count; an expert that would then have no
 * holder goes to one that holds it all the same: wrong placement is slow, a missing expert is
 * slower. */
#include "coordinator/pool_state.h"

#include <string.h>

static int holds(const struct link *l, size_t bit)
{
    return l->held[bit / 8] >> (bit % 8) & 1;
}

/* May this copy be planned for? */
static int targeted(const struct pool *pool, const struct link *l, size_t bit)
{
    return !pool->targeted || (l->target && l->target[bit / 8] >> (bit % 8) & 1);
}

static int same_class(const struct pool *pool, const struct link *l)
{
    return strcmp(l->numerics, pool->config.numerics) == 0;
}

/* May `l` be listed beside the holders that (layer, expert) has so far? */
static int fits_holders(const struct pool *pool, const struct placement *table, int layer,
                        int expert, const struct link *l)
{
    const int32_t *holder;
    if (placement_holders(table, layer, expert, &holder) == 0) {
        return 1;
    }
    return strcmp(pool->link[holder[0]]->numerics, l->numerics) == 0;
}

/* `rest`: copies beside the target, of experts that no copy of the target is there for. */
static int add_worker(const struct pool *pool, struct placement *table, const struct link *l,
                      int rest, struct err *err)
{
    const int32_t *holder;
    for (int layer = 0; layer < pool->shape.n_layer; layer++) {
        for (int expert = 0; expert < pool->shape.n_expert; expert++) {
            size_t bit = (size_t)layer * (size_t)pool->shape.n_expert + (size_t)expert;
            if (!holds(l, bit) || targeted(pool, l, bit) == rest) {
                continue;
            }
            int n = placement_holders(table, layer, expert, &holder);
            if (rest ? n > 0 : !fits_holders(pool, table, layer, expert, l)) {
                continue;
            }
            int rc = placement_add(table, layer, expert, l->index, err);
            if (rc) {
                return rc;
            }
        }
    }
    return 0;
}

/* Workers of the coordinator's class are added first, so that fits_holders prefers them. */
static int add_workers(const struct pool *pool, struct placement *table, struct err *err)
{
    for (int pass = 0; pass < (pool->targeted ? 4 : 2); pass++) {
        for (int i = 0; i < pool->n_link; i++) {
            const struct link *l = pool->link[i];
            if (!link_member(l) || same_class(pool, l) != (pass % 2 == 0)) {
                continue;
            }
            int rc = add_worker(pool, table, l, pass >= 2, err);
            if (rc) {
                return rc;
            }
        }
    }
    return 0;
}

int table_rebuild(struct pool *pool, struct err *err)
{
    struct placement *table;
    int rc = placement_create(pool->shape.n_layer, pool->shape.n_expert, &table, err);
    if (rc) {
        return rc;
    }
    rc = add_workers(pool, table, err);
    if (rc) {
        placement_destroy(table);
        return rc;
    }
    placement_set_epoch(table, placement_epoch(pool->table) + 1);
    placement_destroy(pool->table);
    pool->table = table;
    return 0;
}

/* Without memory for a new table the old one loses the worker in place: that cannot fail, and a
 * dead worker must not be planned for. */
void table_drop_worker(struct pool *pool, int worker)
{
    if (table_rebuild(pool, NULL)) {
        placement_remove(pool->table, -1, -1, worker);
        placement_set_epoch(pool->table, placement_epoch(pool->table) + 1);
    }
}

int table_drop_experts(struct pool *pool, struct link *l, int layer, const uint32_t *expert, int n)
{
    int dropped = 0;
    for (int i = 0; i < n; i++) {
        size_t bit = (size_t)layer * (size_t)pool->shape.n_expert + expert[i];
        if (holds(l, bit)) {
            l->held[bit / 8] = (uint8_t)(l->held[bit / 8] & ~(1u << bit % 8));
            l->n_held--;
            dropped++;
        }
    }
    if (dropped && table_rebuild(pool, NULL)) {
        for (int i = 0; i < n; i++) {
            placement_remove(pool->table, layer, (int)expert[i], l->index);
        }
        placement_set_epoch(pool->table, placement_epoch(pool->table) + 1);
    }
    return dropped;
}
