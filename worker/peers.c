/* peers: a hash table with chains, by routing id. Peers are few; what matters is that a stranger's
 * message costs one look-up and that the table cannot grow without bound. */
#include "worker/peers.h"

#include "base/hash.h"

#include <stdlib.h>
#include <string.h>

#define N_BUCKET 256

struct peers {
    int n, n_max;
    struct peer *bucket[N_BUCKET];
};

struct peers *peers_create(int n_max)
{
    struct peers *peers = calloc(1, sizeof(*peers));
    if (peers)
        peers->n_max = n_max;
    return peers;
}

void peers_destroy(struct peers *peers)
{
    if (!peers)
        return;
    for (int b = 0; b < N_BUCKET; b++)
        while (peers->bucket[b]) {
            struct peer *next = peers->bucket[b]->next;
            near_forget(peers->bucket[b]->near);
            free(peers->bucket[b]);
            peers->bucket[b] = next;
        }
    free(peers);
}

static int bucket_of(const struct sock_peer *id)
{
    return (int)(hash_bytes(id->id, id->bytes).lo % N_BUCKET);
}

static int same_id(const struct sock_peer *a, const struct sock_peer *b)
{
    return a->bytes == b->bytes && memcmp(a->id, b->id, a->bytes) == 0;
}

struct peer *peers_find(const struct peers *peers, const struct sock_peer *id)
{
    struct peer *p = peers->bucket[bucket_of(id)];
    while (p && !same_id(&p->id, id))
        p = p->next;
    return p;
}

struct peer *peers_find_token(const struct peers *peers, const uint8_t token[SHM_TOKEN_BYTES])
{
    for (int b = 0; b < N_BUCKET; b++)
        for (struct peer *p = peers->bucket[b]; p; p = p->next)
            if (near_token_is(p->near, token))
                return p;
    return NULL;
}

static void peer_drop(struct peers *peers, struct peer **at)
{
    struct peer *gone = *at;
    *at = gone->next;
    near_forget(gone->near);
    free(gone);
    peers->n--;
}

/* drop_oldest makes room; 0 when everybody is owed an answer. */
static int drop_oldest(struct peers *peers)
{
    struct peer **oldest = NULL;
    for (int b = 0; b < N_BUCKET; b++)
        for (struct peer **at = &peers->bucket[b]; *at; at = &(*at)->next)
            if ((*at)->outstanding == 0 && (!oldest || (*at)->seen_ns < (*oldest)->seen_ns))
                oldest = at;
    if (!oldest)
        return 0;
    peer_drop(peers, oldest);
    return 1;
}

struct peer *peers_add(struct peers *peers, const struct sock_peer *id)
{
    struct peer *p = peers_find(peers, id);
    if (p)
        return p;
    if (peers->n >= peers->n_max && !drop_oldest(peers))
        return NULL;
    p = calloc(1, sizeof(*p));
    if (!p)
        return NULL;
    int b = bucket_of(id);
    p->id = *id;
    p->next = peers->bucket[b];
    peers->bucket[b] = p;
    peers->n++;
    return p;
}

void peers_reap(struct peers *peers, int64_t before_ns)
{
    for (int b = 0; b < N_BUCKET; b++)
        for (struct peer **at = &peers->bucket[b]; *at;) {
            if ((*at)->outstanding == 0 && (*at)->seen_ns < before_ns)
                peer_drop(peers, at);
            else
                at = &(*at)->next;
        }
}

int peers_count(const struct peers *peers)
{
    return peers->n;
}
