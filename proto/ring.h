/* ring: one direction of messages through memory that two processes share. One side pushes, the
 * other pops; a pushed message is copied in once, a popped one's large tensor is used where it
 * lies, until its frame is closed. Nothing here waits, and nothing in the memory is believed: the
 * other side may write anything there at any time, so every number is read once, into memory of
 * our own, and checked before it is used. Headers and indices are copied out for the same reason;
 * what stays in place is rows, whose every bit pattern is a number.
 *
 * 1. size is a power of two; `data` is mapped twice, end to end, so that a record is contiguous.
 * 2. tail counts bytes pushed, head bytes given back; head <= tail <= head + size, all multiples
 * of RING_ALIGN.
 * 3. Records are given back in their order; the space of one that is in use holds back those
 * behind it. */
#ifndef PROTO_RING_H
#define PROTO_RING_H

#include "base/err.h"
#include "proto/frames.h"

#include <stdatomic.h>

#define RING_ALIGN  64
#define RING_WINDOW ((uint64_t)1 << 20) /* what small messages go round in */
#define RING_HOLD   1024                /* messages popped and not given back, at most */

/* What both sides see. Each word has one writer, but for `parked`, which the popping side sets
 * before it sleeps and the pushing side takes when it rings. */
struct ring_shared {
    _Alignas(RING_ALIGN) _Atomic uint64_t tail;
    _Alignas(RING_ALIGN) _Atomic uint64_t head;
    _Alignas(RING_ALIGN) _Atomic uint32_t parked;
};

struct ring_out {
    struct ring_shared *shared;
    unsigned char *data; /* [2 * size], the second half the first once more */
    uint64_t size, tail;
};

struct ring_in;
struct ring_hold {
    struct ring_in *ring;
    uint64_t end; /* where its record ends */
    int done;
};

struct ring_in {
    struct ring_shared *shared;
    unsigned char *data;
    uint64_t size, next, head;     /* next: the record to pop; head: all before it is given back */
    unsigned first, last;          /* hold[first, last) of RING_HOLD, counted on */
    int n_ref;                     /* frames that lie in the memory */
    void (*released)(void *owner); /* after each that is closed; may free the ring */
    void *owner;
    struct ring_hold hold[RING_HOLD];
};

/* ring_push copies the frames in and makes them visible. ERR_AGAIN: no room for them now (or ever:
 * they are larger than the ring). ERR_PROTO: the other side's words make no sense. The frames stay
 * the caller's. Sequentially consistent with ring_park: either this side sees `parked`, or the
 * other one sees the message. */
int ring_push(struct ring_out *r, const struct frames *f);
/* ring_parked: the other side sleeps and wants to be rung; asks once. */
int ring_parked(struct ring_out *r);

/* ring_pop: 1 and a message; 0: none; ERR_NOMEM: one was lost for want of memory; ERR_PROTO: what
 * lies there is no message, and nothing behind it can be read any more. A frame that stays in place
 * counts in n_ref until it is closed, on the thread that pops. */
int ring_pop(struct ring_in *r, struct frames *f, struct err *err);
/* ring_ready: something to pop (or to stumble over) is there. */
int ring_ready(const struct ring_in *r);
/* ring_park announces that this side sleeps; 1 when something is there already: do not. */
int ring_park(struct ring_in *r);
void ring_unpark(struct ring_in *r);

#endif
