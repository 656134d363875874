/* sim_promise: what the pool promises (coordinator/pool.h), watched as its messages pass. */
#include "sim_state.h"

/* ---- what the pool promises ---- */

static void note_request(struct sim *s, struct sim_link *l, uint64_t call)
{
    if (call >= CALLS_MAX || s->seen[call]) {
        sim_violate(s, "a call id is used twice", call);
        return;
    }
    s->seen[call] = 1;
    if (l->n_out >= s->worker[l->worker].ways.credits) {
        sim_violate(s, "more calls outstanding than credits", (uint64_t)l->n_out + 1);
        return;
    }
    l->out[l->n_out++] = l->last_call = call;
}

void sim_note_sent(struct sim *s, struct sim_link *l, const struct frames *f)
{
    struct msg m;
    struct err err = {0};
    struct wire_shape shape = s->config.shape;
    shape.fp8 = s->worker[l->worker].ways.fp8;
    if (msg_parse(f, &shape, &m, NULL, &err)) {
        sim_violate(s, err.text, 0);
        return;
    }
    if (m.kind == MSG_REQUEST) {
        note_request(s, l, m.u.request.call);
    } else if (m.kind == MSG_PING) {
        l->ping_nonce = m.u.ping.nonce;
        l->last_call_at_ping = l->last_call;
    }
    msg_free(&m);
}

static void note_answered(struct sim_link *l, uint64_t call, int forgot)
{
    for (int i = 0; i < l->n_out; i++) {
        if (l->out[i] == call) {
            l->out[i] = l->out[--l->n_out];
            l->n_out = forgot ? 0 : l->n_out;
            return;
        }
    }
}

/* The pool may take calls as lost that were sent before a Ping which is answered with nothing
 * queued. */
static void note_pinged(struct sim_link *l, const struct msg_ping *p)
{
    for (int i = 0; p->nonce == l->ping_nonce && !p->queued && i < l->n_out;) {
        if (l->out[i] <= l->last_call_at_ping) {
            l->out[i] = l->out[--l->n_out];
        } else {
            i++;
        }
    }
}

void sim_note_received(struct sim *s, struct sim_link *l, const struct frames *f)
{
    struct msg m;
    struct wire_shape shape = s->config.shape;
    shape.fp8 = s->worker[l->worker].ways.fp8;
    if (msg_parse(f, &shape, &m, NULL, NULL)) {
        return;
    }
    if (m.kind == MSG_REPLY) {
        note_answered(l, m.u.reply.call, 0);
    } else if (m.kind == MSG_NOT_HELD) {
        note_answered(l, m.u.not_held.call, 0);
    } else if (m.kind == MSG_PING) {
        note_pinged(l, &m.u.ping);
    } else if (m.kind == MSG_ERROR && m.u.error.call) {
        note_answered(l, m.u.error.call, m.u.error.code == WIRE_NO_HELLO);
    } else if (m.kind == MSG_ERROR) {
        l->n_out = 0;
    }
    msg_free(&m);
}
