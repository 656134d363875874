/* pool_state: what the files of the pool share and nobody else includes.
 *
 *   pool.c           life, messages in, time, questions
 *   pool_link.c      one worker's connection: Hello, Welcome, Ping, leaving and coming back
 *   pool_table.c     the placement made from what the welcomed workers hold
 *   pool_assign.c    what workers are told to hold, and which copies are planned for
 *   pool_call.c      one request: built, sent, answered
 *   pool_rows.c      its rows and its results, as they travel
 *   pool_await.c     whose answers end a wait
 *   pool_dispatch.c  one micro-batch's layer: planned, planned again, computed here, finished
 *
 * Nothing recurses: whoever takes a call away from a worker puts it on pool->replan, and
 * pool_settle works that list and the links' queues off until nothing moves. */
#ifndef COORDINATOR_POOL_STATE_H
#define COORDINATOR_POOL_STATE_H

#include "base/arena.h"
#include "coordinator/pool.h"

/* A link's states, and the function that takes each arrow:
 *   DOWN -> HELLO        link_open (at connect, or when its retry time has come)
 *   HELLO -> UP          link_on_welcome: it is in the placement from here on
 *   UP -> FORGOTTEN      link_forgotten: the worker does not know us (it was restarted); it stays
 * in the placement, its calls wait in the queue for the new Welcome FORGOTTEN -> UP link_on_welcome
 *   any -> DOWN          link_leave: out of the placement, its calls are planned again */
enum link_state { LINK_DOWN, LINK_HELLO, LINK_UP, LINK_FORGOTTEN };

struct dispatch_state;

/* A request and, later, its reply. The arrays lie in one block that stays with the call when it is
 * recycled. */
struct call {
    struct call *next;
    struct dispatch_state *dispatch; /* NULL: abandoned, an answer only gives the credit back */
    uint64_t id;                     /* fresh at each sending */
    uint64_t epoch;                  /* of the table it was planned over */
    int worker, layer, n_row, n_seg, n_assign;
    int32_t *row;                     /* [n_row] rows of the micro-batch */
    int32_t *slot, *row_index;        /* [n_assign] */
    uint32_t *seg_expert, *seg_count; /* [n_seg] */
    int32_t *block;
    size_t block_n;
    int64_t sent_ns, deadline_ns; /* deadline: from the first sending, kept over later ones */
    uint64_t bytes_sent;
    enum dtype reply_dtype; /* what it was asked to answer with */
    struct frames frames;   /* the message the transport would not take yet; later the reply */
};

struct call_list {
    struct call *head, **tail;
    int n;
};

struct link {
    int index;
    enum link_state state;
    char endpoint[LIMIT_NAME_BYTES], name[LIMIT_NAME_BYTES], numerics[32];
    uint64_t incarnation, ping_nonce;
    uint64_t peer_epoch, asked_epoch; /* of `held`; the one that the last Hello was to bring */
    int credits, row_limit, threads, n_held;
    int fp8;       /* it knows rows of that */
    uint8_t *held; /* bitmap [n_layer * n_expert], LSB first, as Welcome has it */
    struct call_list sent, queue;
    int64_t heard_ns;     /* last message */
    int64_t pinged_ns;    /* last Ping */
    int64_t ping_open_ns; /* first Ping since the last message; 0: none */
    int64_t refused_ns;   /* first of the sendings the transport refuses; 0: it takes them */
    int64_t hello_ns;     /* next Hello */
    int64_t greet_ns;     /* first Hello of this greeting */
    int64_t retry_ns;     /* next opening when down */
    int n_retry;
    struct err refusal; /* what the worker, or we, object to; code 0: nothing */
    int retired;        /* stays down */
    uint8_t *target;    /* bitmap of the copies that may be planned for; see pool.targeted */
    /* What it was told to hold; plan 0: nothing. */
    uint64_t plan;
    uint8_t *plan_held;
    int plan_drop;
    int64_t plan_ns; /* when it is said again; 0: it is answered */
    struct msg_assigned assigned;
    uint64_t calls, failures, assignments;
    uint64_t answered, bytes_sent, bytes_received;
    uint64_t *by_layer; /* [n_layer] of `answered` */
    int64_t rtt_ns, compute_ns;
    uint64_t resident, available; /* bytes, as it said last */
};

struct dispatch_state {
    struct dispatch_state *next;
    struct dispatch *d;
    struct call_list answered; /* hold the frames that slot_row points into */
    int n_open;                /* calls not yet answered */
    int64_t slowest_ns;
    uint8_t *excluded; /* [n_excluded] workers that failed this dispatch */
    int n_excluded, any_excluded;
};

struct pool {
    struct pool_config config;
    struct wire_shape shape;
    size_t row_bytes; /* of the run's dtype */
    uint8_t *fp8_row; /* a row on its way through fp8; NULL: rows travel as they are */
    struct link **link;
    int n_link;
    int32_t *load;     /* [n_link] assignments outstanding */
    float *speed;      /* [n_link] of pool_choice */
    int32_t *distance; /* [n_link] of pool_choice */
    int connecting;
    int targeted;     /* links' targets hold */
    uint8_t *excused; /* [n_expert] 1: nobody needs to hold it; NULL: none */
    struct placement *table;
    struct placement
        *everything;    /* all experts at worker 0: plans what is computed here; or NULL */
    struct arena arena; /* of the plan at hand */
    struct wirebuf_pool *wirebufs;
    uint64_t next_call, next_nonce, next_incarnation;
    struct call_list replan; /* taken from a worker, to be planned again */
    struct call_list local;  /* to be computed here */
    struct call_list idle_calls;
    struct dispatch_state *idle_states, *states; /* recycled; and all in use */
    int n_cpu;                                   /* of this host that we may use */
    int n_done, n_heard; /* dispatches done and messages handled since last told */
    struct pool_stats stats;
};

static inline int64_t pool_now(const struct pool *pool)
{
    return clock_now(pool->config.clock);
}

/* pool_choice tells a plan how to choose among holders, and of the workers what that needs. */
void pool_choice(struct pool *pool, struct plan_input *in);
/* pool_settle plans taken calls again, sends what credits allow and computes here what must be,
 * until nothing is left to move. */
void pool_settle(struct pool *pool);

/* pool_await tells the transport which links' messages a wait is for. */
void pool_await(struct pool *pool);

/* Links. */
int link_create(struct pool *pool, const char *endpoint, struct link **out, struct err *err);
void link_destroy(struct pool *pool, struct link *l);
int link_open(struct pool *pool, struct link *l, struct err *err);
/* link_trouble: why it does not connect, as far as the transport knows, or NULL. */
const char *link_trouble(const struct pool *pool, const struct link *l);
/* link_leave takes a worker out: `why` is said in one log line with what became of its calls. */
void link_leave(struct pool *pool, struct link *l, const char *why);
/* link_forgotten: the worker wants Hello again; its calls go back to the head of its queue. */
void link_forgotten(struct pool *pool, struct link *l);
void link_on_welcome(struct pool *pool, struct link *l, const struct msg_welcome *w);
void link_on_ping(struct pool *pool, struct link *l, const struct msg_ping *p);
/* link_on_epoch: the worker's table has this epoch; when that is news, it loaded or dropped experts
 * and a new Welcome will say which, asked for again where none comes. */
void link_on_epoch(struct pool *pool, struct link *l, uint64_t epoch);
/* link_on_refusal: an Error that answers Hello. */
void link_on_refusal(struct pool *pool, struct link *l, const struct msg_error *e);
void link_log_joined(const struct pool *pool, const struct link *l);
/* link_flush sends queued calls while credits last. */
void link_flush(struct pool *pool, struct link *l);
/* link_tick does what is due; link_timer says when something will be. */
void link_tick(struct pool *pool, struct link *l, int64_t now);
int64_t link_timer(const struct pool *pool, const struct link *l, int64_t now);
static inline int link_member(const struct link *l)
{
    return l->state == LINK_UP || l->state == LINK_FORGOTTEN;
}

/* Assignments. */
void link_on_assigned(struct pool *pool, struct link *l, const struct msg_assigned *m);
/* link_assign_tick says the plan (again) when that is due; link_assign_due says when. */
void link_assign_tick(struct pool *pool, struct link *l, int64_t now);
int64_t link_assign_due(const struct link *l);
/* link_send_control sends what is small and may be said again: frames are released whatever
 * happens. A transport that is gone takes the link down. */
int link_send_control(struct pool *pool, struct link *l, struct frames *f);
size_t pool_held_bytes(const struct pool *pool);
/* pool_via: how rows travel to the link, a word. */
const char *pool_via(const struct pool *pool, const struct link *l);

/* The table. */
int table_rebuild(struct pool *pool, struct err *err);
void table_drop_worker(struct pool *pool, int worker);
/* table_drop_experts: the worker does not hold them after all. Returns how many it was thought to.
 */
int table_drop_experts(struct pool *pool, struct link *l, int layer, const uint32_t *expert, int n);

/* Calls. */
void call_list_init(struct call_list *list);
void call_list_push(struct call_list *list, struct call *c);
struct call *call_list_pop(struct call_list *list);
/* call_list_prepend: the calls of `from`, in order, before those of `list`; `from` is empty after.
 */
void call_list_prepend(struct call_list *list, struct call_list *from);
int call_list_remove(struct call_list *list, struct call *c);
struct call *call_list_find(const struct call_list *list, uint64_t id);
/* call_from_part: rows [begin, end) of a plan's part as one call, not yet in any list. NULL:
 * memory. */
struct call *call_from_part(struct pool *pool, struct dispatch_state *ds,
                            const struct plan_part *part, int begin, int end);
void call_put(struct pool *pool, struct call *c);
void call_destroy(struct call *c);
void call_request(const struct pool *pool, const struct call *c, struct msg_request *out);
/* call_send: 0 (sent), ERR_AGAIN, ERR_GONE as the transport, or what building it failed with. */
int call_send(struct pool *pool, struct link *l, struct call *c, struct err *err);
/* call_answer takes the reply's frames and fills the slots. */
int call_answer(struct pool *pool, struct call *c, const struct msg_reply *m, struct frames *f,
                struct err *err);
/* call_fill points the call's slots at rows [n_assign, d_model], which `worker` computed. */
void call_fill(const struct pool *pool, const struct call *c, const void *rows, int worker);
/* call_fail: this worker failed this call; it is planned again without it. Takes the call out of
 * the link's sent list. */
void call_fail(struct pool *pool, struct link *l, struct call *c, const char *why);

/* Rows. rows_create readies the pool for its config's choice. rows_dtype, rows_reply_dtype: what
 * rows to this worker and back travel as. */
int rows_create(struct pool *pool, struct err *err);
enum dtype rows_dtype(const struct pool *pool, const struct link *l);
enum dtype rows_reply_dtype(const struct pool *pool, const struct link *l);
/* rows_gather copies the call's rows, tight, as `dtype` into a fresh buffer. NULL: memory. */
struct wirebuf *rows_gather(struct pool *pool, const struct call *c, enum dtype dtype);
/* rows_arrived: results [n, d_model] of `dtype` become those of the run in `out`, which may be
 * where they are when they are no fp8. rows_change: whether there is anything to do. */
void rows_arrived(struct pool *pool, const void *rows, int n, enum dtype dtype, void *out);
int rows_change(const struct pool *pool);

/* Dispatches. */
void dispatch_replan(struct pool *pool, struct call *c);
void dispatch_local(struct pool *pool, struct call *c);
void dispatch_answered(struct pool *pool, struct call *c);
void dispatch_fail(struct pool *pool, struct dispatch_state *ds, int code, const struct err *err);
void dispatch_exclude(struct pool *pool, struct dispatch_state *ds, int worker);
void dispatch_state_destroy(struct dispatch_state *ds);

#endif
