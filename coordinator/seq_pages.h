/* seq_pages: the KV pages of one sequence. Its first n_shared pages are in the prefix tree, where
 * others may use them too and nobody writes; the others are its own. A page changes sides when its
 * last position has been computed. */
#ifndef COORDINATOR_SEQ_PAGES_H
#define COORDINATOR_SEQ_PAGES_H

#include "coordinator/kv.h"
#include "coordinator/seq.h"

/* seq_pages_may_skip: whether somebody may have computed the prompt's first positions before. A
 * request that is told of every position (logits, routes) has them computed. */
int seq_pages_may_skip(const struct kv *kv, const struct seq *seq);
/* seq_pages_grow: n_page pages in all. 0, or ERR_AGAIN and none more. */
int seq_pages_grow(struct kv *kv, struct seq *seq, int n_page);
/* seq_pages_share puts own pages that are full into the tree; where the same page is there already,
 * that one is used instead: its bits are the same. */
void seq_pages_share(struct kv *kv, struct seq *seq);
/* seq_pages_adopt takes over the pages of the tree that go on where seq is, as far as all but its
 * last known token; call seq_pages_share first. Returns by how much n_done grew. */
int seq_pages_adopt(struct kv *kv, struct seq *seq);
/* seq_pages_in_use: how many pages of the tree it could adopt that others use now: they cost no
 * page that is available. */
int seq_pages_in_use(const struct kv *kv, const struct seq *seq);
/* seq_pages_alike: both are within the same page, behind the same pages of the tree, and it will
 * hold the same. */
int seq_pages_alike(const struct seq *a, const struct seq *b);
/* seq_pages_release lets go of all; full ones stay in the tree. */
void seq_pages_release(struct kv *kv, struct seq *seq);

#endif
