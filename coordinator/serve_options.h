/* serve_options: the command line of `sigmoe serve`, and its keys. */
#ifndef COORDINATOR_SERVE_OPTIONS_H
#define COORDINATOR_SERVE_OPTIONS_H

#include "base/opt.h"
#include "coordinator/host.h"

#define KEYS_MAX 64

struct serve_options {
    const char *dir, *host, *name, *key, *key_file, *cors, *admin, *rebalance;
    struct opt_strs allow_host;
    int64_t port, body_bytes, conns, queue, choices, prompts;
    double shutdown_s, ping_s;
    double rebalance_s; /* 0: off */
    struct host_options model;
};

/* serve_options_parse: 0, 1 (help was printed), or ERR_USAGE. */
int serve_options_parse(int argc, char **argv, struct serve_options *o, struct err *err);
/* serve_keys_read gathers --api-key, the lines of --api-key-file and SIGMOE_API_KEY (only when
 * neither is given); returns how many, or an error. key[0..n) are the caller's to free. */
int serve_keys_read(const struct serve_options *o, char *key[KEYS_MAX], struct err *err);
/* serve_is_loopback: whether only this machine can reach the address. */
int serve_is_loopback(const char *host);

#endif
