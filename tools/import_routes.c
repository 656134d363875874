/* import_routes: a route file into another one: blocks are read and their runs written again, with
 * their labels or, where a run has none, with the one the user gave. */
#include "tools/import.h"

static int copy_block(struct import *import, const struct routes_spec *spec,
                      const struct routes_block *b, struct err *err)
{
    size_t ld = (size_t)b->n_token * (size_t)spec->top_k, at = 0;
    int rc = 0;
    for (int i = 0; rc == 0 && i < b->n_run; i++) {
        struct routes_run run = b->run[i];
        size_t from = at * (size_t)spec->top_k;
        const char *label = run.domain < 0 ? import->domain : spec->domain[run.domain];
        rc = import_label(import, label, &run.domain, err);
        if (rc == 0)
            rc = import_put(import, &run, b->token ? b->token + at : NULL, b->expert + from,
                            b->weight ? b->weight + from : NULL, ld, err);
        at += (size_t)run.n_token;
    }
    return rc;
}

int import_routes(struct import *import, struct err *err)
{
    struct routes_reader *r;
    struct routes_block block;
    int rc = import->recover ? routes_open_cut_off(import->from, &r, err)
                             : routes_open(import->from, &r, err);
    if (rc)
        return rc;
    struct routes_spec spec = *routes_spec_of(r);
    struct routes_spec bare = spec;
    bare.n_domain = 0; /* labels come as they are used */
    rc = import_begin(import, &bare, err);
    for (int i = 0; rc == 0 && i < routes_n_block(r); i++) {
        rc = routes_read(r, i, &block, err);
        if (rc == 0)
            rc = copy_block(import, &spec, &block, err);
    }
    routes_close(r);
    return rc;
}
