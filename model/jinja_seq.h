/* jinja_seq: the filters on sequences, as far as others use them. */
#ifndef MODEL_JINJA_SEQ_H
#define MODEL_JINJA_SEQ_H

#include "model/jinja_run.h"

/* jseq_sort: in place, stable, by Python's <; NULL when two items have no order. */
struct jlist *jseq_sort(struct jrun *r, struct jlist *l);
extern const struct jfunc j_seq_filters[], j_map_filters[]; /* end with a NULL name */

#endif
