/* live_client: open-loop load on an OpenAI-compatible server. Requests are sent when they are due,
 * however many are still running, over libcurl's multi interface on one thread; the times of their
 * tokens come back in a load_result. */
#ifndef TOOLS_LIVE_CLIENT_H
#define TOOLS_LIVE_CLIENT_H

#include "base/err.h"
#include "tools/load_result.h"
#include "tools/sim/arrivals.h"

#include <signal.h>

struct live_config {
    const char *url, *key, *model; /* base address without /v1; key may be NULL */
    int vocab;                     /* prompts of token ids below it; 0: prompts of text */
    const char *text;              /* [n_text] prompts of text are windows of it; NULL: made up */
    size_t n_text;
    double chars_per_token;    /* of the text */
    const char *const *domain; /* [n_domain] names for requests of a domain; 0: none are named */
    int n_domain;
    const struct arrivals *arrivals;
    int64_t warmup_ns, duration_ns, drain_ns;
    int n_slice;
    uint64_t seed;
    const volatile sig_atomic_t *stop; /* not 0: no more requests, running ones are dropped */
    int progress;
    /* tick is called about every 50 ms with the time since the start. May be NULL. */
    void (*tick)(void *user, int64_t now_ns);
    void *user;
};

/* live_run: fills request, gap_ms, slices' tokens and running, tokens; the rest of *out is left to
 * the caller. A request that fails is counted, its words kept; only memory ends the run. */
int live_run(const struct live_config *config, struct load_result *out, struct err *err);

#endif
