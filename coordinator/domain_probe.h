/* domain_probe: which domain a prompt is of. Its first tokens, from request.domain_from on and as
 * if nothing stood before them, go once through the dense layers (once for each embedding slot in
 * use), then through the sparse layers under every group, many groups in one batch; the group under
 * which the tokens are likeliest wins, ties to the lower index.
 *
 * The engine calls it in chunks of at most a step's rows, one a step, so that other sequences go on
 * meanwhile. Keys and values go into pages the sequence holds already and overwrite later; where
 * more pages are free, they are borrowed for one chunk, so that more groups share it, and come back
 * with its end. So a probe never waits for pages and never keeps any. A row's bits do not depend on
 * its batch, so neither do the scores. */
#ifndef COORDINATOR_DOMAIN_PROBE_H
#define COORDINATOR_DOMAIN_PROBE_H

#include "coordinator/forward.h"

/* Tokens of a prompt that are looked at. */
#define DOMAIN_PROBE_TOKENS 256

struct domain_probe;

/* domain_probe_create reserves all a probe needs, for a model with domains. */
int domain_probe_create(const struct model_desc *desc, struct domain_probe **out, struct err *err);
void domain_probe_destroy(struct domain_probe *p);

/* domain_probe_begin starts with a sequence of at least two prompt tokens to look at that holds its
 * pages. A
 * probe that has not ended is forgotten. */
void domain_probe_begin(struct domain_probe *p, const struct seq *seq);
/* domain_probe_of: the sequence it is at, or NULL. domain_probe_drop forgets it. */
const struct seq *domain_probe_of(const struct domain_probe *p);
void domain_probe_drop(struct domain_probe *p);

/* One chunk: domain_probe_fill lays it into m and says at m->layer where it starts; run layers
 * [m->layer, *end); domain_probe_read takes what came out (logits: room for n_logits rows of
 * vocab) and is 1 when the probe has ended, else 0; domain_probe_release gives borrowed pages back,
 * whether the layers succeeded or not. */
void domain_probe_fill(struct domain_probe *p, const struct forward *f, struct micro *m, int *end);
int domain_probe_read(struct domain_probe *p, const struct forward *f, struct micro *m,
                      float *logits, int n_logits);
void domain_probe_release(struct domain_probe *p, struct kv *kv);

/* domain_probe_result: after the end, the winner; *score [n_domain] the mean log-likelihood of a
 * token, valid until the next probe begins. */
int domain_probe_result(const struct domain_probe *p, const double **score);
/* domain_probe_same: would this prompt give the result that is there? */
int domain_probe_same(const struct domain_probe *p, const struct seq *seq);

#endif
