/* peers: who has said Hello. A peer is a connection's routing id; it is known from its Hello until
 * it has been silent for long and nothing is owed to it. Who is not known must say Hello (again).
 */
#ifndef WORKER_PEERS_H
#define WORKER_PEERS_H

#include "proto/sock.h"
#include "worker/near.h"

#include <stdint.h>

struct peer {
    struct sock_peer id;
    uint64_t incarnation;
    char name[LIMIT_NAME_BYTES];
    int outstanding; /* requests taken and not answered yet */
    int guest;       /* has no experts of its own: may only fetch */
    int64_t seen_ns;
    struct near_link *near; /* near.c's; NULL: never offered */
    struct peer *next;      /* private */
};

struct peers;
/* peers_create: at most n_max known at a time. NULL when memory is out. */
struct peers *peers_create(int n_max);
void peers_destroy(struct peers *peers);
/* peers_find: NULL for a stranger. A peer stays where it is until peers_reap or peers_add. */
struct peer *peers_find(const struct peers *peers, const struct sock_peer *id);
/* peers_find_token: whose it is (near.h); NULL: nobody's. */
struct peer *peers_find_token(const struct peers *peers, const uint8_t token[SHM_TOKEN_BYTES]);
/* peers_add: the peer of this id, made if need be; when all places are taken, in place of the one
 * that has been silent for longest, never of one that is owed an answer. NULL when there is none
 * such. */
struct peer *peers_add(struct peers *peers, const struct sock_peer *id);
/* peers_reap forgets who was last seen before `before_ns` and is owed nothing. */
void peers_reap(struct peers *peers, int64_t before_ns);
int peers_count(const struct peers *peers);

#endif
