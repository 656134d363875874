/* answer: what a worker says that is not a result, and how it sends. It never waits for a peer:
 * what a peer does not take is the peer's loss, since another coordinator's rows wait behind it. */
#include "worker/worker_state.h"

#include "base/clock.h"
#include "base/log.h"

#define LOG_INTERVAL_NS NS_PER_S

void complain(struct worker *w, const char *who, const char *text)
{
    int64_t now_ns = clock_now(&clock_real);
    if (w->logged_ns && now_ns - w->logged_ns < LOG_INTERVAL_NS) {
        w->n_unlogged++;
        return;
    }
    if (w->n_unlogged)
        log_warn("worker", "%s: %s: %s (and %llu more refusals)", w->name, who, text,
                 (unsigned long long)w->n_unlogged);
    else
        log_warn("worker", "%s: %s: %s", w->name, who, text);
    w->logged_ns = now_ns;
    w->n_unlogged = 0;
}

void answer(struct worker *w, const struct sock_peer *to, struct frames *f)
{
    if (f->n == 0) {
        complain(w, "answer", "no memory to build a message");
        return;
    }
    struct peer *peer = f->n > 1 ? peers_find(w->peers, to) : NULL;
    if (peer && near_send(w->near, peer, f) == 0)
        return;
    if (sock_send(w->sock, to, f) == ERR_AGAIN) {
        frames_close(f);
        complain(w, "answer", "dropped: the peer does not read what it is sent");
    }
}

const char *peer_name(const struct peer *peer)
{
    return !peer ? "a stranger" : peer->name[0] ? peer->name : "a nameless peer";
}

void answer_error(struct worker *w, const struct sock_peer *to, uint64_t call, enum wire_error code,
                  const char *text)
{
    struct frames f;
    frames_init(&f);
    w->stats.errors++;
    complain(w, peer_name(peers_find(w->peers, to)), text);
    msg_build_error(&f, call, code, text);
    answer(w, to, &f);
}
