/* ring: see ring.h. A record is RING_ALIGN bytes that say how many frames there are and how long
 * each is, then the frames, each from a multiple of RING_ALIGN. A record of no frames is a gap: its
 * first length says how many bytes to pass over. A conversation of short questions and answers
 * stays within the ring's first RING_WINDOW bytes, and so in the cache, however large the ring:
 * beyond them, when all is given back, a gap leads to the beginning. */
#include "proto/ring.h"

#include <string.h>

#define COPY_BYTES 2048 /* frames up to here are copied out: cheaper than to keep track of */
#define ROWS_FRAME 1    /* the only one that may stay in place */

struct record {
    _Atomic uint32_t n_frame;
    _Atomic uint32_t bytes[LIMIT_FRAMES];
};
_Static_assert(sizeof(struct record) <= RING_ALIGN, "a record's head is one line");
_Static_assert(LIMIT_PAYLOAD_BYTES <= UINT32_MAX - RING_ALIGN, "a frame's length fits");

static uint64_t aligned(uint64_t bytes)
{
    return (bytes + RING_ALIGN - 1) & ~(uint64_t)(RING_ALIGN - 1);
}

static void *at(unsigned char *data, uint64_t size, uint64_t position)
{
    return data + (position & (size - 1));
}

/* ---- pushing ---- */

static void write_head(struct ring_out *r, uint64_t position, const uint32_t *bytes, int n)
{
    struct record *record = at(r->data, r->size, position);
    for (int i = 0; i < LIMIT_FRAMES; i++)
        atomic_store_explicit(&record->bytes[i], i < n || i == 0 ? bytes[i] : 0,
                              memory_order_relaxed);
    atomic_store_explicit(&record->n_frame, (uint32_t)n, memory_order_relaxed);
}

/* rewind_to_start puts a gap up to the ring's beginning. While the gap is on the way there is room
 * for only as much as lay before it: a window's worth, so the message must be small beside that. */
static void rewind_to_start(struct ring_out *r, uint64_t head, uint64_t need)
{
    uint64_t offset = r->tail & (r->size - 1);
    if (head != r->tail || r->size <= RING_WINDOW || offset + need <= RING_WINDOW ||
        need > RING_WINDOW / 4)
        return;
    uint32_t bytes = (uint32_t)(r->size - offset);
    write_head(r, r->tail, &bytes, 0);
    r->tail += bytes;
}

int ring_push(struct ring_out *r, const struct frames *f)
{
    uint32_t bytes[LIMIT_FRAMES] = {0};
    uint64_t need = RING_ALIGN;
    for (int i = 0; i < f->n; i++) {
        size_t n = frames_size(f, i);
        if (n > r->size)
            return ERR_AGAIN;
        bytes[i] = (uint32_t)n;
        need += aligned(n);
    }
    uint64_t head = atomic_load_explicit(&r->shared->head, memory_order_acquire);
    if (r->tail - head > r->size || head % RING_ALIGN)
        return ERR_PROTO;
    if (need > r->size)
        return ERR_AGAIN;
    rewind_to_start(r, head, need);
    if (need > r->size - (r->tail - head))
        return ERR_AGAIN;
    write_head(r, r->tail, bytes, f->n);
    uint64_t position = r->tail + RING_ALIGN;
    for (int i = 0; i < f->n; i++) {
        if (bytes[i])
            memcpy(at(r->data, r->size, position), frames_data(f, i), bytes[i]);
        position += aligned(bytes[i]);
    }
    r->tail = position;
    atomic_store(&r->shared->tail, r->tail);
    return 0;
}

int ring_parked(struct ring_out *r)
{
    return atomic_load(&r->shared->parked) && atomic_exchange(&r->shared->parked, 0);
}

/* ---- popping ---- */

/* give_back moves head over the records at the front that are done with. */
static void give_back(struct ring_in *r)
{
    uint64_t head = r->head;
    for (; r->first != r->last && r->hold[r->first % RING_HOLD].done; r->first++)
        head = r->hold[r->first % RING_HOLD].end;
    if (head == r->head)
        return;
    r->head = head;
    atomic_store_explicit(&r->shared->head, head, memory_order_release);
}

static void on_closed(void *data, void *hint)
{
    (void)data;
    struct ring_hold *hold = hint;
    struct ring_in *r = hold->ring;
    hold->done = 1;
    give_back(r);
    r->n_ref--;
    r->released(r->owner); /* r may be gone now */
}

static struct ring_hold *hold_take(struct ring_in *r, uint64_t end)
{
    struct ring_hold *hold = &r->hold[r->last++ % RING_HOLD];
    *hold = (struct ring_hold){.ring = r, .end = end};
    return hold;
}

/* take_frame: frame i of the record, `bytes` long, at data. */
static int take_frame(struct ring_in *r, struct frames *f, int i, void *data, uint32_t bytes,
                      struct ring_hold *hold)
{
    if (i != ROWS_FRAME || bytes <= COPY_BYTES)
        return frames_push_copy(f, data, bytes);
    if (frames_push_borrowed(f, data, bytes, on_closed, hold) != 0)
        return ERR_NOMEM;
    hold->done = 0;
    r->n_ref++;
    return 0;
}

static int take_record(struct ring_in *r, const uint32_t *bytes, int n, struct frames *f,
                       uint64_t end)
{
    struct ring_hold *hold = hold_take(r, end);
    uint64_t position = r->next + RING_ALIGN;
    int rc = 0;
    hold->done = 1;
    for (int i = 0; i < n && rc == 0; i++) {
        rc = take_frame(r, f, i, at(r->data, r->size, position), bytes[i], hold);
        position += aligned(bytes[i]);
    }
    r->next = end;
    if (rc)
        frames_close(f);
    give_back(r);
    return rc ? rc : 1;
}

/* read_record: the record's lengths, once, into memory of ours; *span is how long it is in all. */
static int read_record(const struct ring_in *r, uint64_t there, uint32_t *bytes, int *n,
                       uint64_t *span, struct err *err)
{
    struct record *record = at(r->data, r->size, r->next);
    uint32_t n_frame = atomic_load_explicit(&record->n_frame, memory_order_relaxed);
    *span = n_frame ? RING_ALIGN : 0;
    if (n_frame > LIMIT_FRAMES)
        return err_set(err, ERR_PROTO, "a record of %u frames; at most %d are possible", n_frame,
                       LIMIT_FRAMES);
    *n = (int)n_frame;
    for (int i = 0; i < (n_frame ? *n : 1); i++) {
        bytes[i] = atomic_load_explicit(&record->bytes[i], memory_order_relaxed);
        *span += aligned(bytes[i]);
    }
    if (*span < RING_ALIGN || *span > there)
        return err_set(err, ERR_PROTO, "a record of %llu bytes where %llu are",
                       (unsigned long long)*span, (unsigned long long)there);
    return 0;
}

int ring_pop(struct ring_in *r, struct frames *f, struct err *err)
{
    for (;;) {
        uint32_t bytes[LIMIT_FRAMES];
        uint64_t tail = atomic_load_explicit(&r->shared->tail, memory_order_acquire), span;
        int n;
        if (tail == r->next || r->last - r->first >= RING_HOLD)
            return 0;
        if (tail - r->head > r->size || tail - r->head < r->next - r->head || tail % RING_ALIGN)
            return err_set(
                err, ERR_PROTO, "its end is said to be at %llu, a ring of %llu bytes began at %llu",
                (unsigned long long)tail, (unsigned long long)r->size, (unsigned long long)r->head);
        int rc = read_record(r, tail - r->next, bytes, &n, &span, err);
        if (rc)
            return rc;
        if (n)
            return take_record(r, bytes, n, f, r->next + span);
        hold_take(r, r->next + span)->done = 1;
        r->next += span;
        give_back(r);
    }
}

int ring_ready(const struct ring_in *r)
{
    return atomic_load_explicit(&r->shared->tail, memory_order_acquire) != r->next &&
           r->last - r->first < RING_HOLD;
}

int ring_park(struct ring_in *r)
{
    atomic_store(&r->shared->parked, 1);
    if (atomic_load(&r->shared->tail) == r->next || r->last - r->first >= RING_HOLD)
        return 0;
    ring_unpark(r);
    return 1;
}

void ring_unpark(struct ring_in *r)
{
    if (atomic_load_explicit(&r->shared->parked, memory_order_relaxed))
        atomic_store_explicit(&r->shared->parked, 0, memory_order_relaxed);
}
