/* rope_config: the rotary keys of config.json, in their three forms: "rope_scaling" with
 * "rope_type" or the older "type" beside a top-level "rope_theta", and "rope_parameters" of
 * transformers 5 that holds the base as well. */
#ifndef MODEL_ROPE_CONFIG_H
#define MODEL_ROPE_CONFIG_H

#include "model/config.h"
#include "model/desc.h"

/* rope_from_config fills desc->rope; d_head and max_context have been read. Scalings we do not
 * compute are refused by name. */
int rope_from_config(struct model_desc *desc, const struct config *config, double theta_absent,
                     struct err *err);

#endif
