/* attention: against a reference in double, and equal in bits to itself however the same rows are
 * cut: alone or in tiles, whole or chunked prompts, unit by unit, on every instruction set. */
#include "matrix.h"

#include "base/team.h"
#include <stdio.h>

/* One model's attention, and one sequence of it. */
struct setup {
    int n_head, n_kv_head, d_head, n_pos;
    int window;
    float softcap;
    int sinks;
    enum dtype dtype;
};

struct world {
    struct setup s;
    struct kv_layout kv;
    float *q, *k, *v; /* [n_pos, heads * d_head] */
    double *k_stored, *v_stored;
    float *sink; /* [n_head] or NULL */
    struct guard k_guard, v_guard;
    void *k_base, *v_base;
    size_t stride;
    int32_t *page; /* shuffled ids */
    int n_page;
};

static size_t width_q(const struct setup *s)
{
    return (size_t)s->n_head * (size_t)s->d_head;
}

static size_t width_kv(const struct setup *s)
{
    return (size_t)s->n_kv_head * (size_t)s->d_head;
}

static float *normals(uint64_t stream, size_t n)
{
    float *x = calloc(n, sizeof *x);
    assert_non_null(x);
    rng_normal_fill(SEED, stream, 0, x, n);
    return x;
}

/* What a row of a head is within the products: i8 keeps it as integers and a scale. */
static void store_row(enum dtype dtype, int d_head, const float *row, double *out)
{
    float top = 0.0f;
    for (int i = 0; i < d_head; i++) {
        top = fabsf(row[i]) > top ? fabsf(row[i]) : top;
    }
    float scale = top * (1.0f / 127.0f);
    for (int i = 0; i < d_head; i++) {
        float bf16 = bf16_to_f32(f32_to_bf16(row[i]));
        out[i] = dtype == DTYPE_F32    ? (double)row[i]
                 : dtype == DTYPE_BF16 ? (double)bf16
                 : scale > 0.0f        ? (double)scale * (double)rintf(row[i] / scale)
                                       : 0.0;
    }
}

static double *stored(const struct setup *s, const float *x)
{
    size_t n = (size_t)s->n_pos * width_kv(s), d_head = (size_t)s->d_head;
    double *out = calloc(n, sizeof *out);
    assert_non_null(out);
    for (size_t i = 0; i < n; i += d_head) {
        store_row(s->dtype, s->d_head, x + i, out + i);
    }
    return out;
}

/* The pages start as NaN everywhere: whatever is used of them must have been written. */
static void world_open(struct world *w, const struct setup *s, uint64_t stream)
{
    size_t n = (size_t)s->n_pos;
    memset(w, 0, sizeof *w);
    w->s = *s;
    w->kv = (struct kv_layout){s->dtype, s->n_kv_head, s->d_head};
    w->q = normals(stream, n * width_q(s));
    w->k = normals(stream + 1, n * width_kv(s));
    w->v = normals(stream + 2, n * width_kv(s));
    w->k_stored = stored(s, w->k);
    w->v_stored = stored(s, w->v);
    w->sink = s->sinks ? normals(stream + 3, (size_t)s->n_head) : NULL;
    w->n_page = (s->n_pos + KV_PAGE - 1) / KV_PAGE;
    w->page = calloc((size_t)w->n_page, sizeof *w->page);
    assert_non_null(w->page);
    for (int i = 0; i < w->n_page; i++) {
        w->page[i] = (i * 7 + 3) % w->n_page;
    }
    if (w->n_page % 7 == 0) {
        for (int i = 0; i < w->n_page; i++) {
            w->page[i] = w->n_page - 1 - i;
        }
    }
    /* Pages of one layer among others; the last page ends at the guard. */
    w->stride = kv_page_bytes(&w->kv) * 2;
    size_t bytes = w->stride * (size_t)(w->n_page - 1) + kv_page_bytes(&w->kv);
    w->k_base = guard_alloc(&w->k_guard, bytes);
    w->v_base = guard_alloc(&w->v_guard, bytes);
    memset(w->k_base, 0xff, bytes);
    memset(w->v_base, 0xff, bytes);
}

static void world_close(struct world *w)
{
    free(w->q);
    free(w->k);
    free(w->v);
    free(w->k_stored);
    free(w->v_stored);
    free(w->sink);
    free(w->page);
    guard_free(&w->k_guard);
    guard_free(&w->v_guard);
}

static void write_kv(const struct kernels *f, struct world *w, int pos, int n)
{
    struct attn_span span = {5, 5 + n, pos, w->page};
    size_t ld = width_kv(&w->s);
    f->kv_write(&w->kv, w->k_base, w->v_base, w->stride, &span, w->k + (size_t)pos * ld, ld,
                w->v + (size_t)pos * ld, ld);
}

/* Whole, or unit by unit from the last to the first. */
enum order { WHOLE, REVERSED };

static void run(const struct kernels *f, struct attn *a, enum order order)
{
    struct guard g;
    a->scratch = guard_alloc(&g, f->attn_scratch_bytes(a));
    for (int stage = 0; stage < 2; stage++) {
        int n = f->attn_units(a, stage);
        if (order == WHOLE) {
            f->attn(a, stage, 0, n);
        }
        for (int u = n; order == REVERSED && u > 0; u--) {
            f->attn(a, stage, u - 1, u);
        }
    }
    guard_free(&g);
    a->scratch = NULL;
}

static struct attn attn_of(const struct world *w, const struct attn_span *span, int n_span,
                           const float *q, void *out, enum dtype out_dtype, size_t ldo)
{
    return (struct attn){.kv = w->kv,
                         .k_base = w->k_base,
                         .v_base = w->v_base,
                         .kv_page_stride = w->stride,
                         .n_head = w->s.n_head,
                         .scale = 1.0f / sqrtf((float)w->s.d_head),
                         .window = w->s.window,
                         .softcap = w->s.softcap,
                         .sink = w->sink,
                         .q = q,
                         .ldq = width_q(&w->s),
                         .span = span,
                         .n_span = n_span,
                         .out = out,
                         .out_dtype = out_dtype,
                         .ldo = ldo};
}

/* Positions [pos, pos + n) in one call, to out [n, n_head * d_head]. */
static void attend(const struct kernels *f, struct world *w, int pos, int n, float *out,
                   enum order order)
{
    struct attn_span span = {0, n, pos, w->page};
    struct attn a =
        attn_of(w, &span, 1, w->q + (size_t)pos * width_q(&w->s), out, DTYPE_F32, width_q(&w->s));
    run(f, &a, order);
}

static void prefill(const struct kernels *f, struct world *w, float *out)
{
    write_kv(f, w, 0, w->s.n_pos);
    attend(f, w, 0, w->s.n_pos, out, WHOLE);
}

/* ---- the reference ---- */

static double ref_score(const struct world *w, int row, int head, int pos)
{
    const struct setup *s = &w->s;
    int kv_head = head / (s->n_head / s->n_kv_head);
    const float *q = w->q + (size_t)row * width_q(s) + (size_t)(head * s->d_head);
    const double *k = w->k_stored + (size_t)pos * width_kv(s) + (size_t)(kv_head * s->d_head);
    double sum = 0;
    for (int d = 0; d < s->d_head; d++) {
        float x = s->dtype == DTYPE_F32 ? q[d] : bf16_to_f32(f32_to_bf16(q[d]));
        sum += (double)x * k[d];
    }
    sum *= (double)(1.0f / sqrtf((float)s->d_head));
    return s->softcap != 0.0f ? (double)s->softcap * tanh(sum / (double)s->softcap) : sum;
}

/* out, and for each column the sum of |weight times value|, which roundings of weights scale with.
 */
static void ref_head(const struct world *w, int row, int head, double *out, double *size,
                     double *score)
{
    const struct setup *s = &w->s;
    int lo = s->window > 0 && row + 1 > s->window ? row + 1 - s->window : 0;
    int kv_head = head / (s->n_head / s->n_kv_head);
    double max = w->sink ? (double)w->sink[head] : -INFINITY, sum = 0;
    for (int p = lo; p <= row; p++) {
        score[p] = ref_score(w, row, head, p);
        max = score[p] > max ? score[p] : max;
    }
    sum = w->sink ? exp((double)w->sink[head] - max) : 0.0;
    memset(out, 0, (size_t)s->d_head * sizeof *out);
    memset(size, 0, (size_t)s->d_head * sizeof *size);
    for (int p = lo; p <= row; p++) {
        const double *v = w->v_stored + (size_t)p * width_kv(s) + (size_t)(kv_head * s->d_head);
        double e = exp(score[p] - max);
        sum += e;
        for (int d = 0; d < s->d_head; d++) {
            double x = e * v[d];
            out[d] += x;
            size[d] += fabs(x);
        }
    }
    for (int d = 0; d < s->d_head; d++) {
        out[d] /= sum;
        size[d] /= sum;
    }
}

/* Every row at `step` from the last down, so that the newest and longest are among them. */
static void check_reference(const struct world *w, const float *out, int step)
{
    const struct setup *s = &w->s;
    double *score = calloc((size_t)s->n_pos, sizeof *score);
    double *want = calloc((size_t)s->d_head, sizeof *want);
    double *size = calloc((size_t)s->d_head, sizeof *size);
    double round = s->dtype == DTYPE_F32 ? 0.0 : 0x1p-8; /* a weight's rounding to bf16 */
    assert_true(score && want && size);
    for (int row = s->n_pos - 1; row >= 0; row -= step) {
        for (int head = 0; head < s->n_head; head++) {
            const float *got = out + (size_t)row * width_q(s) + (size_t)(head * s->d_head);
            ref_head(w, row, head, want, size, score);
            for (int d = 0; d < s->d_head; d++) {
                double miss = fabs((double)got[d] - want[d]);
                if (!(miss <= 1e-5 * (1.0 + fabs(want[d])) + round * size[d])) {
                    fail_msg("row %d head %d d %d: %.9g, reference %.9g", row, head, d,
                             (double)got[d], want[d]);
                }
            }
        }
    }
    free(score);
    free(want);
    free(size);
}

static const struct setup cases[] = {
    /* heads, kv heads, d_head, positions, window, softcap, sinks */
    {4, 4, 64, 130, 0, 0.0f, 0, DTYPE_F32},     {8, 2, 32, 65, 0, 0.0f, 1, DTYPE_F32},
    {6, 1, 12, 64, 0, 0.0f, 0, DTYPE_F32},      {4, 2, 18, 193, 50, 0.0f, 1, DTYPE_F32},
    {3, 3, 24, 63, 7, 30.0f, 0, DTYPE_F32},     {14, 2, 40, 97, 0, 5.0f, 0, DTYPE_BF16},
    {71, 1, 16, 70, 0, 0.0f, 0, DTYPE_BF16},    {2, 1, 1, 130, 64, 0.0f, 0, DTYPE_F32},
    {2, 1, 1024, 70, 0, 0.0f, 1, DTYPE_BF16},   {5, 5, 80, 66, 1, 0.0f, 0, DTYPE_F32},
    {8, 8, 128, 1, 0, 0.0f, 1, DTYPE_F32},      {40, 1, 300, 67, 65, 0.0f, 0, DTYPE_F32},
    {2, 1, 19, 1150, 0, 0.0f, 0, DTYPE_BF16},   {4, 2, 17, 1100, 513, 0.0f, 1, DTYPE_F32},
    {3, 1, 33, 1025, 130, 8.0f, 1, DTYPE_F32},  {4, 1, 128, 140, 0, 0.0f, 0, DTYPE_I8},
    {6, 2, 18, 600, 70, 20.0f, 1, DTYPE_I8},    {40, 1, 64, 129, 0, 0.0f, 0, DTYPE_BF16},
    {12, 2, 96, 590, 100, 0.0f, 1, DTYPE_BF16}, {1, 1, 5, 530, 0, 0.0f, 0, DTYPE_BF16},
    {1, 1, 7, 520, 9, 0.0f, 1, DTYPE_I8},       {1, 1, 3, 520, 0, 0.0f, 0, DTYPE_F32}};
#define N_CASE (sizeof cases / sizeof *cases)

/* Portable lanes and simulated tiles call libm for each product, and a sanitizer looks at each
 * call: they take the cases of few products, some of two splits among them. */
static int too_long_for(const struct kernels *f, const struct setup *s, double most)
{
    int slow = f == kernels_of(ISA_PORTABLE);
#if defined(__x86_64__)
    slow = slow || f == &kernels_tile_sim;
#endif
    double seen = s->window > 0 && s->window < s->n_pos ? s->window + KV_PAGE : 0.5 * s->n_pos;
    return slow && (double)s->n_head * s->n_pos * seen * k_padded(s->d_head) > most;
}

static void every_form_agrees_with_the_reference_and_every_isa_with_each_other(void **state)
{
    (void)state;
    for (size_t i = 0; i < N_CASE; i++) {
        struct world w;
        world_open(&w, &cases[i], 100 * i);
        size_t n = (size_t)cases[i].n_pos * width_q(&cases[i]);
        float *first = calloc(n, sizeof *first), *out = calloc(n, sizeof *out);
        assert_true(first && out);
        const struct kernels *best = NULL, *table[MAX_TABLE];
        assert_int_equal(kernels_open(&best, NULL), 0);
        prefill(best, &w, first);
        check_reference(&w, first, cases[i].n_pos > 500 ? 61 : 1);
        int n_table = tables_get(table);
        for (int t = 0; t < n_table; t++) {
            if (too_long_for(table[t], &cases[i], 2.5e6)) {
                continue;
            }
            prefill(table[t], &w, out);
            assert_memory_equal(out, first, n * sizeof *out);
        }
        free(first);
        free(out);
        world_close(&w);
    }
}

/* ---- the same bits ---- */

/* Chunks of 1, 2, 5, 17, 64, 200, ...: written and attended one after the other. */
static void by_chunks(const struct kernels *f, struct world *w, const int *chunk, int n_chunk,
                      enum order order, float *out)
{
    int pos = 0;
    for (int i = 0; pos < w->s.n_pos; i++) {
        int n = chunk[i % n_chunk] < w->s.n_pos - pos ? chunk[i % n_chunk] : w->s.n_pos - pos;
        write_kv(f, w, pos, n);
        attend(f, w, pos, n, out + (size_t)pos * width_q(&w->s), order);
        pos += n;
    }
}

static void check_chunks(const struct kernels *f, const struct setup *s)
{
    static const int ones[] = {1}, mixed[] = {5, 1, 64, 17, 200, 2};
    struct world w;
    size_t n = (size_t)s->n_pos * width_q(s);
    float *whole = calloc(n, sizeof *whole), *out = calloc(n, sizeof *out);
    assert_true(whole && out);
    world_open(&w, s, 7);
    prefill(f, &w, whole);
    world_close(&w);
    for (int round = 0; round < 3; round++) {
        memset(out, 0, n * sizeof *out);
        world_open(&w, s, 7);
        by_chunks(f, &w, round == 0 ? ones : mixed, round == 0 ? 1 : 6,
                  round == 2 ? REVERSED : WHOLE, out);
        assert_memory_equal(out, whole, n * sizeof *out);
        world_close(&w);
    }
    free(whole);
    free(out);
}

static void a_row_has_the_same_bits_alone_in_chunks_and_in_the_whole_prompt(void **state)
{
    (void)state;
    const struct kernels *table[MAX_TABLE];
    int n_table = tables_get(table);
    for (int t = 0; t < n_table; t++) {
        for (size_t i = 0; i < N_CASE; i++) {
            if (!too_long_for(table[t], &cases[i], 3e5)) {
                check_chunks(table[t], &cases[i]);
            }
        }
    }
}

/* A prompt of more than two splits cut so that its rows spread over units (few rows) and so that
 * they do not (many): both ways of holding the splits are the same operations. */
static void spread_splits_and_splits_within_a_unit_give_the_same_bits(void **state)
{
    (void)state;
    const struct setup s = {8, 2, 64, 1300, 0, 0.0f, 1, DTYPE_BF16};
    const struct kernels *f;
    struct world w;
    assert_int_equal(kernels_open(&f, NULL), 0);
    world_open(&w, &s, 9);
    size_t width = width_q(&s), n = (size_t)s.n_pos * width;
    float *whole = calloc(n, sizeof *whole), out[8 * 64];
    assert_non_null(whole);
    prefill(f, &w, whole);
    struct attn_span span = {0, s.n_pos, 0, w.page};
    struct attn a = attn_of(&w, &span, 1, w.q, whole, DTYPE_F32, width);
    assert_int_equal(f->attn_units(&a, 1), 0);
    span = (struct attn_span){0, 1, s.n_pos - 1, w.page};
    assert_int_equal(f->attn_units(&a, 0), 3 * s.n_kv_head);
    assert_int_equal(f->attn_units(&a, 1), s.n_kv_head);
    for (int pos = 510; pos < s.n_pos; pos += 79) {
        attend(f, &w, pos, 1, out, WHOLE);
        assert_memory_equal(out, whole + (size_t)pos * width, width * sizeof *out);
    }
    free(whole);
    world_close(&w);
}

static void sequences_in_one_call_have_the_bits_they_have_alone(void **state)
{
    (void)state;
    const struct setup s = {6, 3, 20, 700, 0, 0.0f, 1, DTYPE_F32};
    /* Ragged: a prompt's chunk, single tokens near and far, an empty span, a long prompt. */
    static const int pos[] = {60, 0, 699, 511, 100, 0}, rows[] = {70, 1, 1, 2, 0, 600};
    struct world w;
    world_open(&w, &s, 11);
    size_t width = width_q(&s);
    float *q = calloc(700 * width, sizeof *q), *out = calloc(700 * width, sizeof *out);
    float *alone = calloc(700 * width, sizeof *alone);
    assert_true(q && out && alone);
    const struct kernels *table[MAX_TABLE];
    int n_table = tables_get(table);
    for (int t = 0; t < n_table; t++) {
        const struct kernels *f = table[t];
        if (too_long_for(f, &s, 2.5e6)) {
            continue;
        }
        struct attn_span span[6];
        int begin = 0;
        write_kv(f, &w, 0, s.n_pos);
        for (int i = 0; i < 6; i++) {
            span[i] = (struct attn_span){begin, begin + rows[i], pos[i], w.page};
            memcpy(q + (size_t)begin * width, w.q + (size_t)pos[i] * width,
                   (size_t)rows[i] * width * sizeof *q);
            begin += rows[i];
        }
        struct attn a = attn_of(&w, span, 6, q, out, DTYPE_F32, width);
        run(f, &a, REVERSED);
        for (int i = 0; i < 6; i++) {
            attend(f, &w, pos[i], rows[i], alone, WHOLE);
            assert_memory_equal(alone, out + (size_t)span[i].begin * width,
                                (size_t)rows[i] * width * sizeof *out);
        }
    }
    free(q);
    free(out);
    free(alone);
    world_close(&w);
}

/* ---- int8 ---- */

/* The error of int8 KV, relative to the size of the output, beside that of bf16. */
static double error_of(enum dtype dtype, const float *exact)
{
    const struct setup s = {4, 2, 64, 300, 0, 0.0f, 0, dtype};
    const struct kernels *f;
    struct world w;
    assert_int_equal(kernels_open(&f, NULL), 0);
    world_open(&w, &s, 23);
    size_t n = (size_t)s.n_pos * width_q(&s);
    float *out = calloc(n, sizeof *out);
    assert_non_null(out);
    prefill(f, &w, out);
    double miss = 0, size = 0;
    for (size_t i = 0; i < n; i++) {
        miss += ((double)out[i] - (double)exact[i]) * ((double)out[i] - (double)exact[i]);
        size += (double)exact[i] * (double)exact[i];
    }
    free(out);
    world_close(&w);
    return sqrt(miss / size);
}

static void int8_kv_is_off_by_a_hundredth(void **state)
{
    (void)state;
    const struct setup s = {4, 2, 64, 300, 0, 0.0f, 0, DTYPE_F32};
    const struct kernels *f;
    struct world w;
    assert_int_equal(kernels_open(&f, NULL), 0);
    world_open(&w, &s, 23);
    float *exact = calloc((size_t)s.n_pos * width_q(&s), sizeof *exact);
    assert_non_null(exact);
    prefill(f, &w, exact);
    double bf16 = error_of(DTYPE_BF16, exact), i8 = error_of(DTYPE_I8, exact);
    print_message("relative error: bf16 %.5f, int8 %.5f\n", bf16, i8);
    assert_true(bf16 > 0.0 && bf16 < 0.005);
    assert_true(i8 > bf16 && i8 < 0.015);
    free(exact);
    world_close(&w);
}

static void an_int8_row_that_is_not_finite_is_not_a_number_and_zeros_are_zeros(void **state)
{
    (void)state;
    const struct setup s = {1, 1, 32, 70, 0, 0.0f, 0, DTYPE_I8};
    const struct kernels *table[MAX_TABLE];
    int n_table = tables_get(table);
    for (int t = 0; t < n_table; t++) {
        struct world w;
        float out[70 * 32];
        world_open(&w, &s, 29);
        memset(w.v, 0, 40 * 32 * sizeof *w.v);
        w.v[40 * 32 + 5] = t % 2 ? NAN : INFINITY;
        prefill(table[t], &w, out);
        for (size_t i = 0; i < 40 * 32; i++) {
            assert_true(out[i] == 0.0f);
        }
        for (size_t i = 40 * 32; i < 70 * 32; i++) {
            assert_true(isnan(out[i]));
        }
        world_close(&w);
    }
}

/* ---- edges ---- */

static void a_row_never_touches_what_lies_in_its_future_or_behind_its_window(void **state)
{
    (void)state;
    const struct setup s = {4, 1, 20, 200, 40, 0.0f, 0, DTYPE_F32};
    const struct kernels *table[MAX_TABLE];
    int n_table = tables_get(table);
    for (int t = 0; t < n_table; t++) {
        const struct kernels *f = table[t];
        struct world w;
        world_open(&w, &s, 13);
        size_t width = width_q(&s), n = (size_t)s.n_pos * width;
        float *clean = calloc(n, sizeof *clean), *out = calloc(n, sizeof *out);
        assert_true(clean && out);
        prefill(f, &w, clean);
        for (size_t d = 0; d < width_kv(&s); d++) {
            w.k[100 * width_kv(&s) + d] = NAN;
            w.v[100 * width_kv(&s) + d] = INFINITY;
        }
        prefill(f, &w, out);
        assert_memory_equal(out, clean, 100 * width * sizeof *out);
        for (int row = 100; row < 140; row++) {
            assert_true(isnan(out[(size_t)row * width]));
        }
        assert_memory_equal(out + 140 * width, clean + 140 * width, 60 * width * sizeof *out);
        free(clean);
        free(out);
        world_close(&w);
    }
}

static void bf16_output_is_the_rounded_f32_output_and_ends_in_zeros(void **state)
{
    (void)state;
    const struct setup s = {3, 1, 13, 30, 0, 0.0f, 0, DTYPE_BF16};
    size_t width = 39, ldo = 70;
    const struct kernels *table[MAX_TABLE];
    int n_table = tables_get(table);
    for (int t = 0; t < n_table; t++) {
        const struct kernels *f = table[t];
        struct world w;
        struct guard g;
        world_open(&w, &s, 17);
        float wide[30 * 39];
        uint16_t *out = guard_alloc(&g, 30 * ldo * sizeof *out);
        prefill(f, &w, wide);
        struct attn_span span = {0, 30, 0, w.page};
        struct attn a = attn_of(&w, &span, 1, w.q, out, DTYPE_BF16, ldo);
        run(f, &a, WHOLE);
        for (size_t row = 0; row < 30; row++) {
            for (size_t i = 0; i < ldo; i++) {
                int want = i < width ? f32_to_bf16(wide[row * width + i])
                           : i < 64  ? 0
                                     : GUARD_BYTE << 8 | GUARD_BYTE;
                assert_int_equal(out[row * ldo + i], want);
            }
        }
        guard_free(&g);
        world_close(&w);
    }
}

/* Where row `row` and k `k` of a matrix of panels `depth` deep lies, in elements: kernels.h. */
static size_t page_element(enum dtype dtype, int depth, int row, int k)
{
    size_t panel = (size_t)(row / PANEL * depth * PANEL);
    return dtype == DTYPE_BF16 ? panel + (size_t)(k / 2 * 2 * PANEL + row % PANEL * 2 + k % 2)
                               : panel + (size_t)(k * PANEL + row % PANEL);
}

static void check_layout(const struct kernels *f, enum dtype dtype)
{
    const struct setup s = {2, 2, 19, 150, 0, 0.0f, 0, dtype};
    struct world w;
    world_open(&w, &s, 19);
    write_kv(f, &w, 60, 70); /* pages 0, 1 and 2 */
    size_t size = dtype_bytes(dtype), none_bytes = sizeof(float);
    const unsigned char none[] = {0xff, 0xff, 0xff, 0xff};
    for (int p = 0; p < 150; p++) {
        for (int i = 0; i < 38; i++) {
            int in = p >= 60 && p < 130;
            size_t base =
                (size_t)w.page[p / 64] * w.stride + (size_t)(i / 19) * kv_head_bytes(&w.kv);
            const unsigned char *k = (unsigned char *)w.k_base + base,
                                *v = (unsigned char *)w.v_base;
            k += page_element(dtype, 32, p % 64, i % 19) * size;
            v += base + page_element(dtype, 64, i % 19, p % 64) * size;
            const float *row = w.k + p * 38 + i / 19 * 19, *col = w.v + p * 38 + i / 19 * 19;
            if (!in) {
                assert_memory_equal(k, none, size < none_bytes ? size : none_bytes);
                assert_memory_equal(v, none, size < none_bytes ? size : none_bytes);
            } else if (dtype == DTYPE_I8) {
                const unsigned char *at = (unsigned char *)w.k_base + base + 32 * 64;
                float scale[2];
                memcpy(&scale[0], at + (size_t)(p % 64) * sizeof(float), sizeof(float));
                at = (unsigned char *)w.v_base + base + 32 * 64;
                memcpy(&scale[1], at + (size_t)(p % 64) * sizeof(float), sizeof(float));
                assert_true((double)scale[0] * (int8_t)*k == w.k_stored[p * 38 + i]);
                assert_true((double)scale[1] * (int8_t)*v == w.v_stored[p * 38 + i]);
            } else if (dtype == DTYPE_BF16) {
                uint16_t want[] = {f32_to_bf16(row[i % 19]), f32_to_bf16(col[i % 19])};
                assert_memory_equal(k, &want[0], size);
                assert_memory_equal(v, &want[1], size);
            } else {
                assert_memory_equal(k, &row[i % 19], size);
                assert_memory_equal(v, &col[i % 19], size);
            }
        }
    }
    world_close(&w);
}

static void kv_write_packs_rows_and_touches_no_other_position(void **state)
{
    (void)state;
    static const enum dtype dtype[] = {DTYPE_F32, DTYPE_BF16, DTYPE_I8};
    const struct kernels *table[MAX_TABLE];
    int n_table = tables_get(table);
    for (int t = 0; t < n_table; t++) {
        for (int i = 0; i < 3; i++) {
            check_layout(table[t], dtype[i]);
        }
    }
}

static void scratch_stays_bounded_however_long_the_sequences_are(void **state)
{
    (void)state;
    const struct kernels *f;
    assert_int_equal(kernels_open(&f, NULL), 0);
    struct attn_span span[256];
    for (int i = 0; i < 256; i++) {
        span[i] = (struct attn_span){i, i + 1, 4000000 + i, NULL};
    }
    struct attn a = {.kv = {DTYPE_BF16, 8, 128}, .n_head = 32, .span = span, .n_span = 256};
    assert_true(f->attn_scratch_bytes(&a) <= ((size_t)1 << 17) * (128 + 16) * sizeof(float));
    assert_true(f->attn_units(&a, 0) >= 256 * 8);
    assert_int_equal(f->attn_units(&a, 1), 0);
    a.n_span = 1;
    span[0].pos = 131071;
    assert_int_equal(f->attn_units(&a, 0), 256 * 8);
}

int main(void)
{
    team_flush_denormals();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_form_agrees_with_the_reference_and_every_isa_with_each_other),
        cmocka_unit_test(a_row_has_the_same_bits_alone_in_chunks_and_in_the_whole_prompt),
        cmocka_unit_test(spread_splits_and_splits_within_a_unit_give_the_same_bits),
        cmocka_unit_test(sequences_in_one_call_have_the_bits_they_have_alone),
        cmocka_unit_test(int8_kv_is_off_by_a_hundredth),
        cmocka_unit_test(an_int8_row_that_is_not_finite_is_not_a_number_and_zeros_are_zeros),
        cmocka_unit_test(a_row_never_touches_what_lies_in_its_future_or_behind_its_window),
        cmocka_unit_test(bf16_output_is_the_rounded_f32_output_and_ends_in_zeros),
        cmocka_unit_test(kv_write_packs_rows_and_touches_no_other_position),
        cmocka_unit_test(scratch_stays_bounded_however_long_the_sequences_are),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
