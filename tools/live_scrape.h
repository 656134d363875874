/* live_scrape: the cluster's own view of a load-test, from /sigmoe/status and /metrics of a sigmoe
 * coordinator, sampled on a thread of its own while the load runs. Other servers have neither: then
 * there is nothing, and nothing is said. */
#ifndef TOOLS_LIVE_SCRAPE_H
#define TOOLS_LIVE_SCRAPE_H

#include "base/err.h"
#include "tools/load_result.h"

struct live_scrape;
/* live_scrape_start asks once; *out is NULL when the server has no such view. every_ns: between two
 * samples. */
int live_scrape_start(const char *url, const char *key, int64_t every_ns, struct live_scrape **out,
                      struct err *err);
/* live_scrape_stop ends the thread and writes what it saw into r (slices exist already): waiting,
 * bytes, stalls, workers' slots and balancedness over time, and each expert's load. Frees s. */
void live_scrape_stop(struct live_scrape *s, struct load_result *r);

#endif
