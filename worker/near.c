/* near: see near.h. The loop's part: before it sleeps it looks at every ring, for a while if that
 * has paid lately, then says in each that it sleeps, so that who pushes rings the bell; after it
 * has slept it takes what is there. */
#include "worker/near.h"

#include "base/log.h"
#include "base/spin.h"
#include "proto/shm.h"
#include "worker/worker_state.h"

#include <stdlib.h>
#include <string.h>

#define N_LINK_MAX     64
#define DRAIN_MESSAGES 64
#define DRAIN_ALL      4096 /* more than credits let an honest peer have out */
#define LOOKS          32   /* between two looks at the clock */

struct near_link {
    struct near *near;
    struct peer *peer;
    struct shm_link *link; /* NULL: not there (any more) */
    ev_io bell;
    uint8_t token[SHM_TOKEN_BYTES];
    int spoiled; /* it wrote what cannot be: ZeroMQ from now on */
};

struct near {
    struct worker *w;
    struct shm_door *door;
    ev_prepare prepare;
    ev_check check;
    ev_idle idle;
    struct spin spin;
    struct near_stats stats; /* of links that are gone */
    int n;
    struct near_link *link[N_LINK_MAX];
};

/* ---- links ---- */

static void add_stats(const struct near_link *l, struct near_stats *out)
{
    struct shm_stats s;
    shm_stats_get(l->link, &s);
    out->bytes_in += s.bytes_received;
    out->bytes_out += s.bytes_sent;
}

static void detach(struct near_link *l, int bye)
{
    struct near *near = l->near;
    if (!l->link)
        return;
    for (int i = 0; i < near->n; i++)
        if (near->link[i] == l)
            near->link[i--] = near->link[--near->n];
    ev_io_stop(near->w->loop, &l->bell);
    add_stats(l, &near->stats);
    shm_close(l->link, bye);
    l->link = NULL;
}

static void spoiled(struct near_link *l, const char *text)
{
    complain(l->near->w, peer_name(l->peer), text);
    l->spoiled = 1;
    detach(l, 1);
}

static void on_bell(struct ev_loop *loop, ev_io *w, int revents)
{
    (void)loop;
    (void)revents;
    struct near_link *l = w->data;
    enum shm_event event = shm_wake(l->link);
    if (event == SHM_BYE || event == SHM_GONE) {
        near_drain(l->near, l->peer);
        detach(l, 0);
    }
}

static int on_link(void *user, const uint8_t token[SHM_TOKEN_BYTES], struct shm_link *link)
{
    struct near *near = user;
    struct peer *peer = peers_find_token(near->w->peers, token);
    if (!peer || near->n == N_LINK_MAX) {
        complain(near->w, "a caller on this host",
                 peer ? "as many links as there may be" : "its token is nobody's");
        return -1;
    }
    struct near_link *l = peer->near;
    detach(l, 0);
    l->link = link;
    ev_io_init(&l->bell, on_bell, shm_fd(link), EV_READ);
    l->bell.data = l;
    ev_io_start(near->w->loop, &l->bell);
    near->link[near->n++] = l;
    log_info("worker", "%s: coordinator %s shares memory with it", near->w->name,
             peer_name(l->peer));
    return 0;
}

void near_offer(struct near *near, struct peer *peer, struct shm_offer *out)
{
    if (!near || (peer->near && peer->near->spoiled))
        return;
    if (!peer->near) {
        peer->near = calloc(1, sizeof(*peer->near));
        if (!peer->near)
            return;
        peer->near->near = near;
        peer->near->peer = peer;
        shm_token_new(peer->near->token);
    }
    memcpy(out->name, shm_door_name(near->door), strlen(shm_door_name(near->door)) + 1);
    memcpy(out->token, peer->near->token, sizeof(out->token));
}

int near_token_is(const struct near_link *l, const uint8_t token[SHM_TOKEN_BYTES])
{
    return l && memcmp(l->token, token, SHM_TOKEN_BYTES) == 0;
}

void near_forget(struct near_link *l)
{
    if (l)
        detach(l, 1);
    free(l);
}

/* ---- messages ---- */

static int drain_some(struct near_link *l, int n)
{
    struct sock_peer from = l->peer->id;
    struct frames f;
    struct err err = {0};
    int rc = 1;
    while (n-- > 0 && l->link && rc > 0) {
        frames_init(&f);
        rc = shm_recv(l->link, &f, &err);
        if (rc > 0)
            worker_take(l->near->w, &from, &f);
        frames_close(&f);
    }
    if (rc == ERR_PROTO)
        spoiled(l, err.text);
    return rc > 0;
}

void near_drain(struct near *near, struct peer *peer)
{
    (void)near;
    if (peer->near && peer->near->link)
        drain_some(peer->near, DRAIN_ALL);
}

int near_send(struct near *near, struct peer *peer, struct frames *f)
{
    (void)near;
    struct near_link *l = peer->near;
    if (!l || !l->link)
        return ERR_GONE;
    int rc = shm_send(l->link, f);
    if (rc == ERR_PROTO)
        spoiled(l, "its ring's words make no sense");
    return rc;
}

/* ---- the loop ---- */

static void on_idle(struct ev_loop *loop, ev_idle *w, int revents)
{
    (void)loop;
    (void)w;
    (void)revents;
}

static int any_ready(const struct near *near)
{
    for (int i = 0; i < near->n; i++)
        if (shm_ready(near->link[i]->link))
            return 1;
    return 0;
}

static int look_for(struct near *near, int64_t ns)
{
    int64_t end_ns = clock_now(&clock_real) + ns;
    do {
        for (int i = 0; i < LOOKS; i++) {
            if (any_ready(near))
                return 1;
            spin_relax();
        }
    } while (clock_now(&clock_real) < end_ns);
    return 0;
}

static int wait_is_over(struct near *near)
{
    if (any_ready(near))
        return 1;
    int64_t ns = spin_begin(&near->spin);
    if (ns > 0) {
        int paid = look_for(near, ns);
        spin_end(&near->spin, paid);
        if (paid)
            return 1;
    }
    int over = 0;
    for (int i = 0; i < near->n; i++)
        over |= shm_park(near->link[i]->link);
    return over;
}

/* The last of the prepare watchers: nothing comes between it and the sleep. */
static void on_prepare(struct ev_loop *loop, ev_prepare *w, int revents)
{
    (void)revents;
    struct near *near = w->data;
    if (near->n && !ev_is_active(&near->w->idle) && wait_is_over(near))
        ev_idle_start(loop, &near->idle);
}

static void on_check(struct ev_loop *loop, ev_check *w, int revents)
{
    (void)revents;
    struct near *near = w->data;
    ev_idle_stop(loop, &near->idle);
    for (int i = near->n - 1; i >= 0; i--) {
        if (i >= near->n)
            continue;
        shm_unpark(near->link[i]->link);
        drain_some(near->link[i], DRAIN_MESSAGES);
    }
}

/* ---- life ---- */

struct near *near_create(struct worker *w, int spin_us)
{
    struct err err = {0};
    struct near *near = calloc(1, sizeof(*near));
    if (near && shm_door_open(w->loop, on_link, near, &near->door, &err)) {
        log_warn("worker", "%s: %s: coordinators on this host go the way of all others", w->name,
                 err.text);
        free(near);
        return NULL;
    }
    if (!near)
        return NULL;
    near->w = w;
    near->spin.ns = spin_us * NS_PER_US;
    ev_prepare_init(&near->prepare, on_prepare);
    ev_check_init(&near->check, on_check);
    ev_idle_init(&near->idle, on_idle);
    ev_set_priority(&near->prepare, EV_MINPRI);
    ev_set_priority(&near->check, EV_MAXPRI);
    near->prepare.data = near->check.data = near;
    ev_prepare_start(w->loop, &near->prepare);
    ev_check_start(w->loop, &near->check);
    return near;
}

void near_destroy(struct near *near)
{
    if (!near)
        return;
    ev_prepare_stop(near->w->loop, &near->prepare);
    ev_check_stop(near->w->loop, &near->check);
    ev_idle_stop(near->w->loop, &near->idle);
    shm_door_close(near->door);
    free(near);
}

void near_stats_get(const struct near *near, struct near_stats *out)
{
    *out = (struct near_stats){0};
    if (!near)
        return;
    *out = near->stats;
    out->n_link = near->n;
    for (int i = 0; i < near->n; i++)
        add_stats(near->link[i], out);
}
