/* spawn: a worker process of this very program. It dies with its parent, and says on a pipe when it
 * has loaded and where it listens. */
#ifndef COORDINATOR_SPAWN_H
#define COORDINATOR_SPAWN_H

#include "base/err.h"
#include <sys/types.h>

struct spawned {
    pid_t pid;
    int ready_fd;
    char endpoint[256];
};

/* spawn_worker starts `sigmoe worker` with argv (NULL-terminated, argv[0] is ignored). */
int spawn_worker(struct spawned *s, char *const argv[], struct err *err);
/* spawn_wait_ready reads the ready line and takes the endpoint from it. A worker that ended instead
 * (it has said why on stderr) is ERR_NET. */
int spawn_wait_ready(struct spawned *s, struct err *err);
/* spawn_stop asks the process to end, waits, and insists after five seconds. */
void spawn_stop(struct spawned *s);

#endif
