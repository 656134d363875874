/* slabs: memory for many pieces of one size that come and go, side by side in one reservation, so
 * that huge pages span them: an expert of 1.6 MB alone has none. Pieces given back return their
 * pages to the system at once. */
#ifndef MODEL_SLABS_H
#define MODEL_SLABS_H

#include <stddef.h>

struct slabs;

/* slabs_create reserves address space for n pieces of `bytes`. NULL: no memory at all. Where the
 * system refuses so much address space every piece is a mapping of its own. */
struct slabs *slabs_create(size_t n, size_t bytes);
/* slabs_destroy: every piece has been given back. NULL is fine. */
void slabs_destroy(struct slabs *s);
/* slabs_take: a piece of zeros, aligned to a page, NULL when there is no memory or all are taken.
 * The lowest free one, so that few pieces lie close. Safe beside slabs_give of other threads. */
void *slabs_take(struct slabs *s);
/* slabs_take_beside: the same for who loads beside others that compute: on huge pages only as long
 * as many lie ready (base/pages.h says why). */
void *slabs_take_beside(struct slabs *s);
void slabs_give(struct slabs *s, void *piece);

#endif
