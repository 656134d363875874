/* admin: where operators reach a running coordinator: a Unix socket that only its owner and root
 * may open. One connection, one line of JSON (coordinator/control.h), one line back. Who may
 * connect is the kernel's to say, so there is no key, and nothing of it is on the network. */
#ifndef COORDINATOR_ADMIN_H
#define COORDINATOR_ADMIN_H

#include "coordinator/control.h"

struct admin;
/* admin_path_default writes the path for a server on `port`: below /run/user/UID where that is,
 * else in a folder of ours below /tmp. */
void admin_path_default(int port, char *out, size_t size);
/* admin_open listens at `path` (mode 0600). A socket that nobody answers on any more is replaced;
 * one in use is ERR_IO. */
int admin_open(const char *path, struct ev_loop *loop, struct control *control, struct admin **out,
               struct err *err);
/* admin_close removes the socket. NULL is fine. */
void admin_close(struct admin *a);
const char *admin_path(const struct admin *a);

/* admin_ask: the client's side. Sends `command` (borrowed) and waits at most timeout_ms for the
 * answer, which is the caller's. ERR_IO, ERR_TIMEOUT or, when the answer is a refusal, ERR_USAGE
 * with its words. */
int admin_ask(const char *path, const json_t *command, int timeout_ms, json_t **out,
              struct err *err);

#endif
