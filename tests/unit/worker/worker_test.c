/* worker: what a coordinator sees of it, one body over inproc, ipc and tcp: Welcome, rows equal to
 * the bit to those of compute_run, and refusals in words. The worker has a thread of its own. */
#include "base/log.h"
#include "tests/unit/worker/client.h"

/* ---- claims for each transport ---- */

static const char *name_of(const char *transport, char *out, size_t size)
{
    static int n;
    if (strcmp(transport, "tcp") == 0)
        snprintf(out, size, "tcp://127.0.0.1:0");
    else if (strcmp(transport, "ipc") == 0)
        snprintf(out, size, "ipc:///tmp/sigmoe-worker-%d-%d.sock", (int)getpid(), n++);
    else
        snprintf(out, size, "inproc://worker-%d", n++);
    return out;
}

static void hello_is_welcomed_with_what_is_held(const char *transport)
{
    char name[128];
    struct world w;
    struct client c;
    uint8_t held[LIMIT_LAYERS] = {0};
    held[1] = held[6 + 1] = held[6 + 5] = 1; /* layers of 6 experts: 1 in the first, 1 and 5 next */
    world_open(&w, name_of(transport, name, sizeof(name)), held, 1, 3);
    assert_int_equal(w.model->desc.n_expert, 6);
    client_open(&w, &c);
    const struct msg_welcome *m = greet(&w, &c);
    assert_true(hash_equal(m->fingerprint, w.model->fingerprint));
    assert_true(m->incarnation != 0);
    assert_int_equal(m->dtype, DTYPE_F32);
    assert_int_equal(m->credits, 3);
    assert_int_equal(m->row_limit, 4096);
    assert_int_equal(m->threads, 2);
    assert_string_equal(m->numerics, w.config.kernels->numerics);
    assert_string_equal(m->name, w.endpoint);
    assert_int_equal(m->epoch, 1);
    for (size_t bit = 0; bit < m->held_bytes * 8; bit++)
        assert_int_equal(m->held[bit / 8] >> bit % 8 & 1, bit == 1 || bit == 7 || bit == 11);
    world_end(&w, &c);
}

static void rows_come_back_to_the_bit(const char *transport)
{
    char name[128];
    struct world w;
    struct client c;
    struct world_request r;
    world_open(&w, name_of(transport, name, sizeof(name)), NULL, 1, 0);
    client_open(&w, &c);
    greet(&w, &c);
    for (int i = 0; i < 20; i++) {
        int layer = i % w.model->desc.n_layer;
        client_clear(&c);
        request_make(&w, &r, 1 + i * 2, (uint64_t)i, NULL);
        send_request(&w, &c, &r, (uint64_t)(1000 + i), layer);
        assert_reply(&w, client_wait(&w, &c, 1), &r, (uint64_t)(1000 + i), layer);
        free(r.memory);
    }
    world_end(&w, &c);
}

static void missing_experts_are_listed(const char *transport)
{
    char name[128];
    struct world w;
    struct client c;
    struct world_request r;
    uint8_t held[LIMIT_LAYERS] = {0}, row[6] = {1, 0, 1, 0, 0, 1};
    memset(held + 6, 1, 6); /* all of layer 1; 0, 2 and 5 of layer 0 */
    memcpy(held, row, 6);
    world_begin(&w, &c, name_of(transport, name, sizeof(name)), held, 1, 0);
    request_make(&w, &r, 40, 9, NULL);
    assert_int_equal(r.n_seg, 6);
    send_request(&w, &c, &r, 5, 0);
    const struct msg *m = client_wait(&w, &c, 1);
    assert_int_equal(m->kind, MSG_NOT_HELD);
    assert_int_equal(m->u.not_held.call, 5);
    assert_int_equal(m->u.not_held.layer, 0);
    assert_int_equal(m->u.not_held.epoch, 1);
    assert_int_equal(m->u.not_held.n_expert, 3);
    assert_int_equal(m->u.not_held.expert[0], 1);
    assert_int_equal(m->u.not_held.expert[1], 3);
    assert_int_equal(m->u.not_held.expert[2], 4);
    send_request(&w, &c, &r, 6, 1);
    assert_reply(&w, client_wait(&w, &c, 2), &r, 6, 1);
    free(r.memory);
    world_end(&w, &c);
}

static void two_coordinators_get_their_own_rows(const char *transport)
{
    char name[128];
    struct world w;
    struct client c[2];
    static struct world_request r[2][30];
    world_open(&w, name_of(transport, name, sizeof(name)), NULL, 1, 30);
    for (int i = 0; i < 2; i++) {
        client_open(&w, &c[i]);
        greet(&w, &c[i]);
        client_clear(&c[i]);
    }
    for (int j = 0; j < 30; j++) /* the same call ids on both sides: they are per coordinator */
        for (int i = 0; i < 2; i++) {
            request_make(&w, &r[i][j], 1 + (j * 7 + i) % 13, (uint64_t)(j * 2 + i), NULL);
            send_request(&w, &c[i], &r[i][j], (uint64_t)(j + 1), j % 2);
        }
    for (int i = 0; i < 2; i++) {
        client_wait(&w, &c[i], 30);
        for (int k = 0; k < 30; k++) {
            const struct msg *m = &c[i].inbox[k].msg;
            assert_int_equal(m->kind, MSG_REPLY);
            int j = (int)m->u.reply.call - 1;
            assert_reply(&w, m, &r[i][j], (uint64_t)(j + 1), j % 2);
            free(r[i][j].memory);
        }
        client_close(&c[i]);
    }
    world_close(&w);
}

/* send_garbage: n messages of random bytes, some with a header that begins like one of ours. */
static void send_garbage(struct world *w, int n)
{
    void *raw = zmq_socket(w->zmq, ZMQ_DEALER);
    int linger = 0, timeout_ms = 10000;
    unsigned char bytes[300];
    zmq_setsockopt(raw, ZMQ_LINGER, &linger, sizeof(linger));
    zmq_setsockopt(raw, ZMQ_SNDTIMEO, &timeout_ms, sizeof(timeout_ms));
    assert_int_equal(zmq_connect(raw, w->endpoint), 0);
    for (int i = 0; i < n; i++) {
        int n_part = 1 + (int)(rng_uniform(1, 3, (uint64_t)i) * 8);
        for (int p = 0; p < n_part; p++) {
            size_t size = (size_t)(rng_uniform(1, 4, (uint64_t)(i * 8 + p)) * sizeof(bytes));
            for (size_t j = 0; j < size; j += 16) {
                uint32_t word[4];
                rng_block(5, (uint64_t)(i * 8 + p), j, word);
                memcpy(bytes + j, word, size - j < 16 ? size - j : 16);
            }
            if (p == 0 && i % 2 && size)
                bytes[0] = (unsigned char)(((i / 2) % 7 + 1) << 3 | 2);
            int flags = p + 1 < n_part ? ZMQ_SNDMORE : 0;
            assert_int_equal(zmq_send(raw, bytes, size, flags), size);
        }
        while (zmq_recv(raw, bytes, sizeof(bytes), ZMQ_DONTWAIT) >= 0)
            ; /* the Errors */
    }
    zmq_close(raw);
}

static void garbage_is_refused_and_service_goes_on(const char *transport)
{
    char name[128];
    struct world w;
    struct client c;
    struct world_request r;
    world_begin(&w, &c, name_of(transport, name, sizeof(name)), NULL, 1, 0);
    request_make(&w, &r, 7, 1, NULL);
    for (int round = 0; round < 3; round++) {
        send_garbage(&w, 500);
        send_request(&w, &c, &r, 42, 1);
        assert_reply(&w, client_wait(&w, &c, 1), &r, 42, 1);
        client_clear(&c);
    }
    free(r.memory);
    world_end(&w, &c);
}

static void strangers_and_other_models_are_refused_in_words(const char *transport)
{
    char name[128], ours[33], theirs[33];
    struct world w;
    struct client c;
    struct world_request r;
    world_open(&w, name_of(transport, name, sizeof(name)), NULL, 1, 0);
    client_open(&w, &c);
    request_make(&w, &r, 3, 1, NULL);
    send_request(&w, &c, &r, 9, 0);
    assert_error(client_wait(&w, &c, 1), 9, WIRE_NO_HELLO, "say Hello first");
    struct msg_hello m = hello_of(&w);
    m.fingerprint.hi ^= 1;
    hash_hex(w.model->fingerprint, ours);
    hash_hex(m.fingerprint, theirs);
    send_hello(&w, &c, &m);
    assert_error(client_wait(&w, &c, 2), 0, WIRE_FINGERPRINT, ours);
    assert_error(client_wait(&w, &c, 2), 0, WIRE_FINGERPRINT, theirs);
    m = hello_of(&w);
    m.dtype = DTYPE_BF16;
    send_hello(&w, &c, &m);
    assert_error(client_wait(&w, &c, 3), 0, WIRE_DTYPE, "computes in f32, you run in bf16");
    m = hello_of(&w);
    m.d_wire++;
    send_hello(&w, &c, &m);
    assert_error(client_wait(&w, &c, 4), 0, WIRE_MALFORMED, "rows of");
    send_request(&w, &c, &r, 10, 0); /* none of these was a Hello */
    assert_error(client_wait(&w, &c, 5), 10, WIRE_NO_HELLO, "say Hello first");
    m = hello_of(&w);
    send_hello(&w, &c, &m);
    assert_int_equal(client_wait(&w, &c, 6)->kind, MSG_WELCOME);
    send_request(&w, &c, &r, 11, 0);
    assert_reply(&w, client_wait(&w, &c, 7), &r, 11, 0);
    free(r.memory);
    world_end(&w, &c);
}

/* ---- the table ---- */

typedef void claim_fn(const char *transport);
struct claim {
    const char *transport;
    claim_fn *fn;
};

static void run_claim(void **state)
{
    const struct claim *claim = *state;
    claim->fn(claim->transport);
}

#define CLAIM(transport, fn)                                                                       \
    {                                                                                              \
#fn " over " transport, run_claim, NULL, NULL, &(struct claim)                             \
        {                                                                                          \
            transport, fn                                                                          \
        }                                                                                          \
    }
#define EACH(fn) CLAIM("inproc", fn), CLAIM("ipc", fn), CLAIM("tcp", fn)

int main(void)
{
    log_set_level(LOG_ERROR); /* refusals are what is tested here */
    const struct CMUnitTest tests[] = {
        EACH(hello_is_welcomed_with_what_is_held),
        EACH(rows_come_back_to_the_bit),
        EACH(missing_experts_are_listed),
        EACH(two_coordinators_get_their_own_rows),
        EACH(garbage_is_refused_and_service_goes_on),
        EACH(strangers_and_other_models_are_refused_in_words),
    };
    return cmocka_run_group_tests_name("worker", tests, NULL, NULL);
}
