/* jinja_map: attributes of the items of a sequence, and what the sequence filters share. */
#ifndef MODEL_JINJA_MAP_H
#define MODEL_JINJA_MAP_H

#include "model/jinja_run.h"

/* jmap_attr: Jinja2's make_attrgetter: "a.b.0" is v['a']['b'][0]; NONE is v itself. fallback stands
 * in for what is undefined, unless it is NONE. */
struct jval jmap_attr(struct jrun *r, struct jval v, struct jval attribute, struct jval fallback);
/* jseq_iter: l as a generator; NULL gives undefined. */
struct jval jseq_iter(struct jrun *r, struct jlist *l);

#endif
