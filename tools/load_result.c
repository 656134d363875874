/* load_result: its memory. */
#include "tools/load_result.h"

#include <stdlib.h>

void load_result_free(struct load_result *r)
{
    free(r->request);
    samples_free(&r->gap_ms);
    free(r->slice);
    free(r->worker_busy);
    free(r->worker_slots);
    free(r->heat);
    *r = (struct load_result){0};
}
