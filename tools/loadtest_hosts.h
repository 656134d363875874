/* loadtest_hosts: which coordinators, workers and client share hosts, as users write it. */
#ifndef TOOLS_LOADTEST_HOSTS_H
#define TOOLS_LOADTEST_HOSTS_H

#include "base/err.h"

#define HOSTS_MAX 4096

struct loadtest_hosts {
    int n_host;
    int *cpus;                 /* [n_host] */
    int *worker, *coordinator; /* [n_worker], [n_coordinator]: its host, or -1 */
    int client;                /* host + 1; 0: on none */
};

/* loadtest_hosts_parse reads "2:all" or "16:coordinators+client,8:w0-3,8:w4-7": of each host its
 * CPUs and who is on it: all, workers, wN, wN-M, coordinators, cN, cN-M, client. Who is named
 * nowhere has a machine of its own; who is named twice is an error. text NULL: no host. Memory is
 * the caller's (loadtest_hosts_free), also after a failure. */
int loadtest_hosts_parse(const char *text, int n_worker, int n_coordinator,
                         struct loadtest_hosts *out, struct err *err);
void loadtest_hosts_free(struct loadtest_hosts *h);

#endif
