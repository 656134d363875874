/* domains: the list of domains in config.json, read and checked; see docs/PANGU_SIGMA.md. Looking
 * them up is part of the description's contract (model/desc.h). */
#ifndef MODEL_DOMAINS_H
#define MODEL_DOMAINS_H

#include "model/config.h"
#include "model/desc.h"

/* domains_read fills domain, n_domain, n_slot, default_domain and n_expert from "domains",
 * "num_embedding_slots" and "default_domain"; top_k has been read. */
int domains_read(struct model_desc *desc, const struct config *config, struct err *err);

#endif
