/* fetch: a worker gives away pieces of what it holds, as its checkpoint stores them, to guests too;
 * what is not held, not there or too much is refused, and a guest may do nothing else. */
#include "base/log.h"
#include "tests/unit/worker/client.h"

static void fetch_begin(struct world *w, struct client *c, const uint8_t *held, int guest,
                        const char *name)
{
    world_open(w, name, held, 0, 0);
    client_open(w, c);
    struct msg_hello m = hello_of(w);
    if (guest) {
        m.fingerprint = (struct hash128){0};
        m.dtype = DTYPE_BF16; /* the worker computes in f32: nothing to a guest */
    }
    send_hello(w, c, &m);
    assert_int_equal(client_wait(w, c, 1)->kind, MSG_WELCOME);
    assert_true(hash_equal(c->inbox[0].msg.u.welcome.fingerprint, w->model->fingerprint));
    client_clear(c);
}

static void send_fetch(struct world *w, struct client *c, struct msg_fetch m)
{
    struct frames f;
    frames_init(&f);
    assert_int_equal(msg_build_fetch(&f, &m), 0);
    client_send(w, c, &f);
}

static const struct tensor *tensor_of(const struct world *w, enum role role, int layer, int expert)
{
    const struct tensor *t;
    struct err err = {0};
    if (checkpoint_role(w->model->ck, &w->model->desc, role, layer, expert, &t, &err) != 0)
        fail_msg("%s", err.text);
    return t;
}

static void pieces_put_together_are_the_tensor(void **state)
{
    (void)state;
    static const enum role roles[] = {ROLE_EXPERT_GATE, ROLE_EXPERT_UP, ROLE_EXPERT_DOWN};
    struct world w;
    struct client c;
    fetch_begin(&w, &c, NULL, 1, "inproc://fetch-pieces");
    for (int part = FETCH_GATE; part <= FETCH_DOWN; part++) {
        const struct tensor *t = tensor_of(&w, roles[part - 1], 1, 4);
        int half = (int)(t->bytes / 2) - 3, rest = (int)t->bytes - half;
        struct msg_fetch m = {.call = 9, .layer = 1, .expert = 4, .part = (enum fetch_part)part};
        send_fetch(&w, &c, m);
        const struct msg *what = client_wait(&w, &c, 1);
        assert_int_equal(what->kind, MSG_CHUNK);
        assert_int_equal(what->u.chunk.bytes, 0);
        assert_int_equal(what->u.chunk.dtype, t->dtype);
        assert_int_equal(what->u.chunk.rows, t->dim[0]);
        assert_int_equal(what->u.chunk.cols, t->dim[1]);
        m.bytes = half;
        send_fetch(&w, &c, m);
        m.call = 10;
        m.offset = (uint64_t)half;
        m.bytes = rest;
        send_fetch(&w, &c, m);
        client_wait(&w, &c, 3);
        for (int i = 1; i < 3; i++) {
            const struct msg_chunk *chunk = &c.inbox[i].msg.u.chunk;
            assert_int_equal(chunk->call, i + 8);
            assert_int_equal(chunk->offset, i == 1 ? 0 : half);
            assert_int_equal(chunk->bytes, i == 1 ? half : rest);
            assert_memory_equal(chunk->data, (const char *)t->data + chunk->offset, chunk->bytes);
        }
        client_clear(&c);
    }
    world_end(&w, &c);
}

static void what_cannot_be_given_is_refused_in_words(void **state)
{
    (void)state;
    struct world w;
    struct client c;
    uint8_t held[LIMIT_LAYERS * 8] = {0};
    held[1] = 1; /* layer 0, expert 1 */
    fetch_begin(&w, &c, held, 0, "inproc://fetch-refused");
    uint64_t bytes = tensor_of(&w, ROLE_EXPERT_UP, 0, 1)->bytes;
    struct msg_fetch m = {.call = 3, .layer = 0, .expert = 1, .part = FETCH_UP, .bytes = 1};
    m.offset = bytes;
    send_fetch(&w, &c, m);
    assert_error(client_wait(&w, &c, 1), 3, WIRE_MALFORMED, "not within a tensor");
    m.offset = UINT64_MAX;
    send_fetch(&w, &c, m);
    assert_error(client_wait(&w, &c, 2), 3, WIRE_MALFORMED, "not within a tensor");
    m.offset = 0;
    m.part = FETCH_UP_BIAS;
    send_fetch(&w, &c, m);
    assert_error(client_wait(&w, &c, 3), 3, WIRE_MALFORMED, "no such tensor");
    m.part = FETCH_UP;
    m.expert = 2;
    send_fetch(&w, &c, m);
    const struct msg *answer = client_wait(&w, &c, 4);
    assert_int_equal(answer->kind, MSG_NOT_HELD);
    assert_int_equal(answer->u.not_held.call, 3);
    assert_int_equal(answer->u.not_held.expert[0], 2);
    m.expert = 1;
    send_fetch(&w, &c, m);
    assert_int_equal(client_wait(&w, &c, 5)->kind, MSG_CHUNK);
    world_end(&w, &c);
}

static void more_than_eight_pieces_at_once_are_too_many(void **state)
{
    (void)state;
    struct world w;
    struct client c;
    fetch_begin(&w, &c, NULL, 1, "inproc://fetch-busy");
    struct msg_fetch m = {.call = 1, .layer = 0, .expert = 1, .part = FETCH_UP, .bytes = 16};
    for (; m.call <= 12; m.call++)
        send_fetch(&w, &c, m);
    client_wait(&w, &c, 12);
    int n_chunk = 0, n_busy = 0;
    for (int i = 0; i < 12; i++) {
        const struct msg *a = &c.inbox[i].msg;
        n_chunk += a->kind == MSG_CHUNK;
        n_busy += a->kind == MSG_ERROR && a->u.error.code == WIRE_BUSY;
    }
    assert_int_equal(n_chunk + n_busy, 12);
    assert_true(n_chunk >= 8);
    client_clear(&c);
    send_fetch(&w, &c, m);
    assert_int_equal(client_wait(&w, &c, 1)->kind, MSG_CHUNK);
    world_end(&w, &c);
}

static void requests_are_served_while_pieces_are_given(void **state)
{
    (void)state;
    struct world w;
    struct client c, guest;
    struct world_request r;
    fetch_begin(&w, &c, NULL, 0, "inproc://fetch-serve");
    client_open(&w, &guest);
    struct msg_hello hello = hello_of(&w);
    hello.fingerprint = (struct hash128){0};
    send_hello(&w, &guest, &hello);
    client_wait(&w, &guest, 1);
    request_make(&w, &r, 20, 5, NULL);
    struct msg_fetch m = {.call = 1, .layer = 0, .expert = 1, .part = FETCH_DOWN, .bytes = 64};
    for (uint64_t i = 0; i < 6; i++) {
        m.call = i + 1;
        send_fetch(&w, &guest, m);
        send_request(&w, &c, &r, 100 + i, 0);
    }
    client_wait(&w, &c, 6);
    for (int i = 0; i < 6; i++)
        assert_reply(&w, &c.inbox[i].msg, &r, 100 + (uint64_t)i, 0);
    client_wait(&w, &guest, 7);
    for (int i = 1; i < 7; i++)
        assert_int_equal(guest.inbox[i].msg.kind, MSG_CHUNK);
    free(r.memory);
    client_close(&guest);
    world_end(&w, &c);
}

static void a_guest_may_only_fetch(void **state)
{
    (void)state;
    struct world w;
    struct client c;
    struct world_request r;
    uint8_t none[16] = {0};
    fetch_begin(&w, &c, NULL, 1, "inproc://fetch-guest");
    request_make(&w, &r, 3, 5, NULL);
    send_request(&w, &c, &r, 21, 0);
    assert_error(client_wait(&w, &c, 1), 21, WIRE_FINGERPRINT, "a guest may only fetch");
    struct msg_assign assign = {.plan = 1,
                                .drop = 1,
                                .held = none,
                                .held_bytes = ((size_t)w.model->desc.n_layer * 6 + 7) / 8};
    struct frames f;
    frames_init(&f);
    assert_int_equal(msg_build_assign(&f, &assign), 0);
    client_send(&w, &c, &f);
    assert_error(client_wait(&w, &c, 2), 0, WIRE_FINGERPRINT, "a guest may only fetch");
    client_clear(&c);
    greet(&w, &c); /* with the fingerprint it is a guest no more */
    client_clear(&c);
    send_request(&w, &c, &r, 22, 0);
    assert_reply(&w, client_wait(&w, &c, 1), &r, 22, 0);
    free(r.memory);
    world_end(&w, &c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pieces_put_together_are_the_tensor),
        cmocka_unit_test(what_cannot_be_given_is_refused_in_words),
        cmocka_unit_test(more_than_eight_pieces_at_once_are_too_many),
        cmocka_unit_test(requests_are_served_while_pieces_are_given),
        cmocka_unit_test(a_guest_may_only_fetch),
    };
    log_set_level(LOG_ERROR);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
