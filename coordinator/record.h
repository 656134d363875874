/* record: what the gates choose, into a route file (docs/TRACE.md), while the model serves. A tap
 * of the engine: it copies a micro-batch's slots layer by layer and hands them to the writer when
 * the last sparse layer is through. Never in the way: a disk that fails ends the recording with a
 * line in the log and nothing else. Belongs to the engine's thread. */
#ifndef COORDINATOR_RECORD_H
#define COORDINATOR_RECORD_H

#include "base/clock.h"
#include "coordinator/forward.h"

struct record;

/* record_start begins the file; rows_max: of a micro-batch. ERR_USAGE for a dense model. */
int record_start(const char *path, const struct model_desc *desc, int rows_max,
                 const struct clock *clock, struct record **out, struct err *err);
/* record_layer: the gate of m's layer, the sparse-th of the sparse ones, has chosen. micro: which
 * of the engine's micro-batches m is. r may be NULL. */
void record_layer(struct record *r, int micro, const struct micro *m, int sparse);
/* record_stop makes the file whole and logs what it cost. ERR_IO when it could not be written. r
 * may be NULL. */
int record_stop(struct record *r, struct err *err);

#endif
