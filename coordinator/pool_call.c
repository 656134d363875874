/* pool_call: one request to one worker. Rows are gathered (pool_rows.c) when the call is sent and
 * not when it is planned: a call may wait for a credit or be planned again, and until its dispatch
 * is done the engine's rows are there to be read. Each sending takes a fresh id, so that an answer
 * to an earlier sending can never be taken for one to this. */
#include "base/log.h"
#include "coordinator/pool_state.h"

#include <stdlib.h>
#include <string.h>

void call_list_init(struct call_list *list)
{
    *list = (struct call_list){.head = NULL, .tail = &list->head};
}

void call_list_push(struct call_list *list, struct call *c)
{
    c->next = NULL;
    *list->tail = c;
    list->tail = &c->next;
    list->n++;
}

struct call *call_list_pop(struct call_list *list)
{
    struct call *c = list->head;
    if (c) {
        list->head = c->next;
        list->n--;
        if (!list->head) {
            list->tail = &list->head;
        }
    }
    return c;
}

void call_list_prepend(struct call_list *list, struct call_list *from)
{
    if (!from->head) {
        return;
    }
    *from->tail = list->head;
    if (!list->head) {
        list->tail = from->tail;
    }
    list->head = from->head;
    list->n += from->n;
    call_list_init(from);
}

int call_list_remove(struct call_list *list, struct call *c)
{
    for (struct call **at = &list->head; *at; at = &(*at)->next) {
        if (*at == c) {
            *at = c->next;
            if (!c->next) {
                list->tail = at;
            }
            list->n--;
            return 1;
        }
    }
    return 0;
}

struct call *call_list_find(const struct call_list *list, uint64_t id)
{
    for (struct call *c = list->head; c; c = c->next) {
        if (c->id == id) {
            return c;
        }
    }
    return NULL;
}

static struct call *call_get(struct pool *pool, size_t n_int)
{
    struct call *c = call_list_pop(&pool->idle_calls);
    if (!c) {
        c = calloc(1, sizeof(*c));
        if (!c) {
            return NULL;
        }
        frames_init(&c->frames);
    }
    if (c->block_n < n_int) {
        int32_t *block = realloc(c->block, n_int * sizeof(*block));
        if (!block) {
            call_put(pool, c);
            return NULL;
        }
        c->block = block;
        c->block_n = n_int;
    }
    c->id = 0;
    c->sent_ns = c->deadline_ns = 0;
    c->bytes_sent = 0;
    return c;
}

void call_put(struct pool *pool, struct call *c)
{
    frames_close(&c->frames);
    c->dispatch = NULL;
    call_list_push(&pool->idle_calls, c);
}

void call_destroy(struct call *c)
{
    frames_close(&c->frames);
    free(c->block);
    free(c);
}

/* The part's assignments whose row lies in [begin, end), segments without any left out. */
static void fill_assignments(struct call *c, const struct plan_part *part, int begin, int end)
{
    int at = 0;
    c->n_seg = c->n_assign = 0;
    for (int s = 0; s < part->n_seg; s++) {
        int before = c->n_assign;
        for (int stop = at + part->seg_count[s]; at < stop; at++) {
            if (part->assign_row[at] < begin || part->assign_row[at] >= end) {
                continue;
            }
            c->row_index[c->n_assign] = part->assign_row[at] - begin;
            c->slot[c->n_assign++] = part->assign_slot[at];
        }
        if (c->n_assign > before) {
            c->seg_expert[c->n_seg] = (uint32_t)part->seg_expert[s];
            c->seg_count[c->n_seg++] = (uint32_t)(c->n_assign - before);
        }
    }
}

struct call *call_from_part(struct pool *pool, struct dispatch_state *ds,
                            const struct plan_part *part, int begin, int end)
{
    size_t n_row = (size_t)(end - begin), n_assign = (size_t)part->n_assign,
           n_seg = (size_t)part->n_seg;
    struct call *c = call_get(pool, n_row + 2 * n_assign + 2 * n_seg);
    if (!c) {
        return NULL;
    }
    c->dispatch = ds;
    c->worker = part->worker;
    c->layer = ds->d->layer;
    c->n_row = end - begin;
    c->row = c->block;
    c->slot = c->row + n_row;
    c->row_index = c->slot + n_assign;
    c->seg_expert = (uint32_t *)(c->row_index + n_assign);
    c->seg_count = c->seg_expert + n_seg;
    memcpy(c->row, part->row + begin, n_row * sizeof(*c->row));
    fill_assignments(c, part, begin, end);
    return c;
}

void call_request(const struct pool *pool, const struct call *c, struct msg_request *out)
{
    *out = (struct msg_request){.call = c->id,
                                .epoch = c->epoch,
                                .layer = c->layer,
                                .batch = c->dispatch->d->batch,
                                .n_row = c->n_row,
                                .d_wire = pool->shape.d_wire,
                                .n_seg = c->n_seg,
                                .n_assign = c->n_assign,
                                .dtype = pool->shape.dtype,
                                .reply_dtype = pool->shape.dtype,
                                .seg_expert = c->seg_expert,
                                .seg_count = c->seg_count,
                                .row_index = c->row_index};
}

static int call_build(struct pool *pool, const struct link *l, struct call *c, int64_t now,
                      struct err *err)
{
    enum dtype dtype = rows_dtype(pool, l);
    size_t rows_bytes = (size_t)c->n_row * wire_row_bytes(dtype, (size_t)pool->shape.d_wire),
           index_bytes = (size_t)c->n_assign * sizeof(*c->row_index);
    struct wirebuf *rows = rows_gather(pool, c, dtype),
                   *index = wirebuf_get(pool->wirebufs, index_bytes);
    if (!rows || !index) {
        wirebuf_unref(rows);
        wirebuf_unref(index);
        return err_set(err, ERR_NOMEM, "no memory for a request of %d rows, %zu bytes", c->n_row,
                       rows_bytes + index_bytes);
    }
    memcpy(wirebuf_data(index), c->row_index, index_bytes);
    struct msg_request m;
    c->id = pool->next_call++;
    call_request(pool, c, &m);
    m.dtype = dtype;
    m.reply_dtype = c->reply_dtype = rows_reply_dtype(pool, l);
    m.budget_us =
        c->deadline_ns - now > NS_PER_US ? (uint64_t)((c->deadline_ns - now) / NS_PER_US) : 1;
    m.rows = wirebuf_data(rows);
    int rc = msg_build_request(&c->frames, &m, rows, rows_bytes, index, index_bytes);
    if (rc) {
        frames_close(&c->frames);
        return err_set(err, rc, "cannot build a request of %d rows, %d experts for layer %d",
                       c->n_row, c->n_seg, c->layer);
    }
    c->bytes_sent = 0;
    for (int i = 0; i < c->frames.n; i++) {
        c->bytes_sent += frames_size(&c->frames, i);
    }
    return 0;
}

int call_send(struct pool *pool, struct link *l, struct call *c, struct err *err)
{
    struct dispatch *d = c->dispatch->d;
    int64_t begin = pool_now(pool);
    if (!c->deadline_ns) {
        c->deadline_ns = begin + pool->config.call_timeout_ns;
    }
    if (c->frames.n == 0) {
        int rc = call_build(pool, l, c, begin, err);
        if (rc) {
            return rc;
        }
    }
    c->sent_ns = pool_now(pool);
    d->time.serialise_ns += c->sent_ns - begin;
    struct transport *t = pool->config.transport;
    int rc = t->send(t->self, l->index, &c->frames);
    if (rc) {
        return rc;
    }
    frames_init(&c->frames);
    d->time.bytes_sent += c->bytes_sent;
    d->time.calls++;
    pool->stats.calls++;
    l->calls++;
    l->bytes_sent += c->bytes_sent;
    return 0;
}

void call_fill(const struct pool *pool, const struct call *c, const void *rows, int worker)
{
    const struct dispatch *d = c->dispatch->d;
    for (int i = 0; i < c->n_assign; i++) {
        d->slot_row[c->slot[i]] = (const unsigned char *)rows + (size_t)i * pool->row_bytes;
    }
    for (int i = 0; d->slot_worker != NULL && i < c->n_assign; i++) {
        d->slot_worker[c->slot[i]] = (int16_t)worker;
    }
}

static void account(struct pool *pool, struct call *c, const struct msg_reply *m)
{
    struct dispatch_state *ds = c->dispatch;
    struct dispatch_time *t = &ds->d->time;
    struct link *l = pool->link[c->worker];
    int64_t trip = pool_now(pool) - c->sent_ns, handle = (int64_t)m->handle_ns;
    uint64_t bytes = 0;
    if (handle >= 0 && handle < trip) {
        t->wire_ns += trip - handle;
        l->rtt_ns += l->rtt_ns ? (trip - handle - l->rtt_ns) / 16 : trip - handle;
    }
    if (trip >= ds->slowest_ns) {
        ds->slowest_ns = trip;
        t->queue_ns = (int64_t)m->queue_ns;
        t->compute_ns = (int64_t)m->compute_ns;
    }
    for (int i = 0; i < c->frames.n; i++) {
        bytes += frames_size(&c->frames, i);
    }
    t->bytes_received += bytes;
    l->bytes_received += bytes;
    l->compute_ns += (int64_t)m->compute_ns;
    l->answered += (uint64_t)c->n_assign;
    l->by_layer[c->layer] += (uint64_t)c->n_assign;
}

int call_answer(struct pool *pool, struct call *c, const struct msg_reply *m, struct frames *f,
                struct err *err)
{
    if (m->layer != c->layer || m->n_assign != c->n_assign || m->d_wire != pool->shape.d_wire ||
        m->dtype != c->reply_dtype) {
        return err_set(err, ERR_PROTO,
                       "the reply has %d rows of layer %d, width %d, %s; asked for were %d of "
                       "layer %d, width %d, %s",
                       m->n_assign, m->layer, m->d_wire, dtype_name(m->dtype), c->n_assign,
                       c->layer, pool->shape.d_wire, dtype_name(c->reply_dtype));
    }
    struct wirebuf *rows = NULL;
    size_t bytes = (size_t)c->n_assign * pool->row_bytes;
    if (rows_change(pool) && !(rows = wirebuf_get(pool->wirebufs, bytes))) {
        return err_set(err, ERR_NOMEM, "no memory for %d rows of its reply", c->n_assign);
    }
    frames_close(&c->frames);
    frames_move(&c->frames, f);
    account(pool, c, m);
    if (!rows) {
        call_fill(pool, c, frames_data(&c->frames, 1), c->worker);
        return 0;
    }
    int64_t begin = pool_now(pool);
    rows_arrived(pool, frames_data(&c->frames, 1), c->n_assign, m->dtype, wirebuf_data(rows));
    call_fill(pool, c, wirebuf_data(rows), c->worker);
    c->dispatch->d->time.serialise_ns += pool_now(pool) - begin;
    frames_close(&c->frames);
    return frames_push_buf(&c->frames, rows, bytes);
}

void call_fail(struct pool *pool, struct link *l, struct call *c, const char *why)
{
    call_list_remove(&l->sent, c);
    frames_close(&c->frames);
    pool->load[l->index] -= c->n_assign;
    l->failures++;
    log_warn("pool",
             "worker %s (%s) failed call %llu (layer %d, %d rows, deadline %lld ms): %s; %s",
             l->name, l->endpoint, (unsigned long long)c->id, c->layer, c->n_row,
             (long long)(pool->config.call_timeout_ns / NS_PER_MS), why,
             c->dispatch ? "planned again without it" : "nobody waits for it any more");
    if (!c->dispatch) {
        call_put(pool, c);
        return;
    }
    struct dispatch_state *ds = c->dispatch;
    call_list_push(&pool->replan, c);
    dispatch_exclude(pool, ds, l->index);
}
