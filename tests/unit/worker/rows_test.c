/* rows: what a worker makes of rows in fp8: the results are those of the rows that the codes stand
 * for, and leave as fp8 where that was asked for. */
#include "tests/unit/worker/client.h"

#define N_ROW 12

struct case_ {
    struct world w;
    struct client c;
    struct world_request r; /* rows of bf16, which fp8 keeps */
    size_t d, fp8_bytes;
    uint8_t *fp8; /* [N_ROW, fp8_bytes]: the same rows */
};

static void open_case(struct case_ *k, const char *listen)
{
    world_open_in(&k->w, listen, NULL, 0, 0, PRECISION_BF16);
    client_open(&k->w, &k->c);
    k->d = (size_t)k->w.model->desc.d_model;
    k->fp8_bytes = fp8_row_bytes(k->d);
    k->fp8 = malloc(N_ROW * k->fp8_bytes);
    world_request_make(&k->r, &k->w.model->desc, DTYPE_BF16, N_ROW, 4, NULL, 0);
    for (size_t i = 0; i < N_ROW; i++) {
        uint16_t *row = (uint16_t *)(void *)k->r.rows + i * k->d;
        k->w.config.kernels->fp8_encode(row, k->d, k->fp8 + i * k->fp8_bytes);
        k->w.config.kernels->fp8_decode(k->fp8 + i * k->fp8_bytes, k->d, row);
    }
    assert_int_equal(greet(&k->w, &k->c)->fp8, 1);
    client_clear(&k->c);
}

static void close_case(struct case_ *k)
{
    free(k->fp8);
    free(k->r.memory);
    client_close(&k->c);
    world_close(&k->w);
}

static const struct msg_reply *ask(struct case_ *k, enum dtype dtype, enum dtype reply_dtype)
{
    const void *rows = dtype == DTYPE_FP8 ? k->fp8 : k->r.rows;
    size_t rows_bytes = N_ROW * wire_row_bytes(dtype, k->d),
           index_bytes = (size_t)k->r.n_assign * sizeof(int32_t);
    struct msg_request m = {.call = 5,
                            .epoch = 1,
                            .n_row = N_ROW,
                            .d_wire = (int)k->d,
                            .n_seg = k->r.n_seg,
                            .n_assign = k->r.n_assign,
                            .dtype = dtype,
                            .reply_dtype = reply_dtype,
                            .seg_expert = k->r.seg_expert,
                            .seg_count = k->r.seg_count};
    struct wirebuf *b = wirebuf_get(k->w.bufs, rows_bytes),
                   *index = wirebuf_get(k->w.bufs, index_bytes);
    struct frames f;
    memcpy(wirebuf_data(b), rows, rows_bytes);
    memcpy(wirebuf_data(index), k->r.row_index, index_bytes);
    frames_init(&f);
    assert_int_equal(msg_build_request(&f, &m, b, rows_bytes, index, index_bytes), 0);
    client_send(&k->w, &k->c, &f);
    const struct msg *answer = client_wait(&k->w, &k->c, k->c.n_inbox + 1);
    if (answer->kind != MSG_REPLY)
        fail_msg("no reply but %s", answer->u.error.text);
    assert_int_equal(answer->u.reply.dtype, reply_dtype);
    return &answer->u.reply;
}

static void fp8_rows_and_results_are_those_of_bf16_rounded(void **state)
{
    (void)state;
    struct case_ k;
    open_case(&k, "inproc://fp8");
    size_t n = (size_t)k.r.n_assign;
    const struct msg_reply *plain = ask(&k, DTYPE_BF16, DTYPE_BF16);
    const struct msg_reply *out = ask(&k, DTYPE_FP8, DTYPE_BF16);
    const struct msg_reply *both = ask(&k, DTYPE_FP8, DTYPE_FP8);
    const struct msg_reply *back = ask(&k, DTYPE_BF16, DTYPE_FP8);
    assert_memory_equal(out->rows, plain->rows, n * k.d * 2);
    uint8_t *want = malloc(n * k.fp8_bytes);
    for (size_t i = 0; i < n; i++)
        k.w.config.kernels->fp8_encode((const uint16_t *)plain->rows + i * k.d, k.d,
                                       want + i * k.fp8_bytes);
    assert_memory_equal(both->rows, want, n * k.fp8_bytes);
    assert_memory_equal(back->rows, want, n * k.fp8_bytes);
    free(want);
    close_case(&k);
}

/* In f32 nothing is rounded: Welcome does not speak of fp8, and who sends it is refused. */
static void a_worker_in_f32_takes_no_fp8(void **state)
{
    (void)state;
    struct world w;
    struct client c;
    struct world_request r;
    struct frames f;
    world_open(&w, "inproc://no-fp8", NULL, 0, 0);
    client_open(&w, &c);
    assert_int_equal(greet(&w, &c)->fp8, 0);
    request_make(&w, &r, 3, 1, NULL);
    struct msg_request m = {.call = 9,
                            .n_row = r.n_row,
                            .d_wire = w.model->desc.d_model,
                            .n_seg = r.n_seg,
                            .n_assign = r.n_assign,
                            .dtype = DTYPE_FP8,
                            .seg_expert = r.seg_expert,
                            .seg_count = r.seg_count};
    frames_init(&f);
    assert_int_equal(
        msg_build_request(&f, &m, wirebuf_get(w.bufs, 8), 8, wirebuf_get(w.bufs, 8), 8), 0);
    client_send(&w, &c, &f);
    assert_error(client_wait(&w, &c, 2), 9, WIRE_DTYPE, "dtype is 9 (fp8); Hello agreed on f32");
    free(r.memory);
    world_end(&w, &c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fp8_rows_and_results_are_those_of_bf16_rounded),
        cmocka_unit_test(a_worker_in_f32_takes_no_fp8),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
