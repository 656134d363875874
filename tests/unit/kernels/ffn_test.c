/* ffn: the grouped feed-forward has the bits of matmul, act_mul, matmul on every instruction set,
 * and is the formula: a scalar version in double agrees. */
#include "matrix.h"

#include "base/team.h"

#define MAX_EXPERT 5
#define N_ACT      (ACT_SWIGLU_CLAMP + 1)
#define ALPHA      1.702f
#define LIMIT      7.0f

struct shape {
    enum act act;
    enum dtype dtype, y_dtype;
    int d_model, d_ff, n_expert, gated, bias, gather;
    int n_row, n_assign; /* rows of x; assignments over all experts */
};

/* Weights, rows and segments of one case; what a kernel may only read. */
struct fixture {
    struct shape s;
    struct weights w[MAX_EXPERT][3]; /* gate, up, down */
    float *bias[3];                  /* shared by the experts; NULL: none */
    struct ffn_weights experts[MAX_EXPERT];
    struct ffn_segment seg[MAX_EXPERT];
    int n_seg;
    struct guard guard_x, guard_row;
    void *x;
    int32_t *row;
    size_t ldx, ldh, ldy;
};

static struct shape shape_at(int i)
{
    static const int widths[] = {1, 7, 16, 17, 31, 33, 48, 64, 100, 172};
    uint64_t at = (uint64_t)i * 16;
    struct shape s = {.act = (enum act)(i % N_ACT),
                      .dtype = i % 3 == 0 ? DTYPE_F32 : DTYPE_BF16,
                      .y_dtype = i % 2 == 0 ? DTYPE_F32 : DTYPE_BF16,
                      .d_model = widths[pick(2, at, 0, 9)],
                      .d_ff = widths[pick(2, at + 1, 0, 9)],
                      .n_expert = pick(2, at + 2, 1, MAX_EXPERT),
                      .gated = i % 4 != 0,
                      .bias = pick(2, at + 3, 0, 7),
                      .gather = pick(2, at + 4, 0, 1),
                      .n_assign = pick(2, at + 5, 1, 120)};
    s.n_row = s.gather ? pick(2, at + 6, 1, 40) : s.n_assign;
    return s;
}

/* Cuts the assignments into segments; an expert may have none. */
static void segments_make(struct fixture *f, int i)
{
    int begin = 0;
    for (int e = 0; e < f->s.n_expert; e++) {
        int left = f->s.n_assign - begin;
        int n = e + 1 < f->s.n_expert ? pick(3, (uint64_t)(i * 16 + e), 0, left) : left;
        if (n == 0)
            continue;
        f->seg[f->n_seg++] =
            (struct ffn_segment){.w = &f->experts[e], .begin = begin, .end = begin + n};
        begin += n;
    }
}

static void fixture_make(struct fixture *f, const struct shape *s, int i)
{
    *f = (struct fixture){.s = *s};
    uint64_t stream = 5000 + (uint64_t)i * 100;
    const int n[3] = {s->d_ff, s->d_ff, s->d_model}, k[3] = {s->d_model, s->d_model, s->d_ff};
    for (int m = 0; m < 3; m++) {
        if (!(s->bias >> m & 1))
            continue;
        f->bias[m] = malloc((size_t)n[m] * sizeof(float));
        rng_normal_fill(SEED, stream + (uint64_t)m, 0, f->bias[m], (uint64_t)n[m]);
    }
    for (int e = 0; e < s->n_expert; e++) {
        for (int m = s->gated ? 0 : 1; m < 3; m++)
            weights_make(&f->w[e][m], stream + (uint64_t)(10 + e * 3 + m), s->dtype, n[m], k[m]);
        f->experts[e] = (struct ffn_weights){.gate = f->w[e][0].packed,
                                             .up = f->w[e][1].packed,
                                             .down = f->w[e][2].packed,
                                             .gate_bias = f->bias[0],
                                             .up_bias = f->bias[1],
                                             .down_bias = f->bias[2]};
    }
    segments_make(f, i);
    f->ldx = (size_t)k_padded(s->d_model) + 32;
    f->ldh = (size_t)k_padded(s->d_ff);
    f->ldy = (size_t)s->d_model + 2;
    f->x = rows_make(&f->guard_x, stream + 50, s->dtype, s->n_row, s->d_model, f->ldx);
    f->row = guard_alloc(&f->guard_row, (size_t)s->n_assign * sizeof *f->row);
    for (int a = 0; a < s->n_assign; a++)
        f->row[a] = s->gather ? pick(stream, (uint64_t)a, 0, s->n_row - 1) : a;
}

static void fixture_free(struct fixture *f)
{
    for (int e = 0; e < f->s.n_expert; e++) {
        for (int m = f->s.gated ? 0 : 1; m < 3; m++)
            weights_free(&f->w[e][m]);
    }
    for (int m = 0; m < 3; m++)
        free(f->bias[m]);
    guard_free(&f->guard_x);
    guard_free(&f->guard_row);
}

/* y by the grouped kernel; `scattered`: units one by one, from both ends inwards. */
static void grouped(const struct kernels *k, const struct fixture *f, void *h, void *y,
                    int scattered)
{
    struct ffn ffn = {.act = f->s.act,
                      .act_alpha = ALPHA,
                      .act_limit = LIMIT,
                      .d_model = f->s.d_model,
                      .d_ff = f->s.d_ff,
                      .seg = f->seg,
                      .n_seg = f->n_seg,
                      .x = f->x,
                      .ldx = f->ldx,
                      .row = f->s.gather ? f->row : NULL,
                      .h = h,
                      .y = y,
                      .y_dtype = f->s.y_dtype,
                      .ldy = f->ldy};
    for (int stage = 0; stage < 2; stage++) {
        int n = k->ffn_units(&ffn, stage);
        if (!scattered)
            k->ffn(&ffn, stage, 0, n);
        for (int i = 0; scattered && i < n; i++) {
            int unit = i % 2 ? n - 1 - i / 2 : i / 2;
            k->ffn(&ffn, stage, unit, unit + 1);
        }
    }
}

static void one_matmul(const struct kernels *k, const struct packed *w, const void *x, size_t ldx,
                       const float *bias, void *y, enum dtype y_dtype)
{
    struct matmul m = {.x = x,
                       .ldx = ldx,
                       .n_row = 1,
                       .w = w,
                       .bias = bias,
                       .y = y,
                       .y_dtype = y_dtype,
                       .ldy = (size_t)w->n};
    k->matmul(&m, 0, k->matmul_units(&m));
}

/* The same, assignment by assignment, by matmul, act_mul, matmul. */
static void by_parts(const struct kernels *k, const struct fixture *f, void *h, void *y)
{
    size_t x_bytes = f->ldx * dtype_bytes(f->s.dtype), h_bytes = f->ldh * dtype_bytes(f->s.dtype);
    float *g = malloc((size_t)f->s.d_ff * sizeof *g), *u = malloc((size_t)f->s.d_ff * sizeof *u);
    for (int i = 0; i < f->n_seg; i++) {
        const struct ffn_weights *w = f->seg[i].w;
        for (int a = f->seg[i].begin; a < f->seg[i].end; a++) {
            const unsigned char *x = (const unsigned char *)f->x + (size_t)f->row[a] * x_bytes;
            unsigned char *ha = (unsigned char *)h + (size_t)a * h_bytes;
            if (f->s.gated)
                one_matmul(k, &w->gate, x, f->ldx, w->gate_bias, g, DTYPE_F32);
            one_matmul(k, &w->up, x, f->ldx, w->up_bias, u, DTYPE_F32);
            memset(ha, 0, h_bytes);
            k->act_mul(f->s.act, ALPHA, LIMIT, f->s.gated ? g : NULL, u, f->s.d_ff, ha, f->s.dtype);
            one_matmul(k, &w->down, ha, f->ldh, w->down_bias,
                       (unsigned char *)y + (size_t)a * f->ldy * dtype_bytes(f->s.y_dtype),
                       f->s.y_dtype);
        }
    }
    free(g);
    free(u);
}

static void check_case(const struct shape *s, int i)
{
    const struct kernels *table[MAX_TABLE];
    int n_table = tables_get(table);
    struct fixture f;
    fixture_make(&f, s, i);
    size_t y_bytes = (size_t)s->n_assign * f.ldy * dtype_bytes(s->y_dtype);
    size_t h_bytes = (size_t)s->n_assign * f.ldh * dtype_bytes(s->dtype);
    unsigned char *want_y = malloc(y_bytes), *want_h = malloc(h_bytes);
    const struct kernels *reference = kernels_of(ISA_PORTABLE);
    for (int t = 0; t < 2 * n_table; t++) {
        const struct kernels *k = table[t / 2];
        if (t == 0 || strcmp(k->numerics, reference->numerics) != 0) {
            memset(want_y, GUARD_BYTE, y_bytes);
            by_parts(k, &f, want_h, want_y);
        }
        struct guard gh, gy;
        void *h = guard_alloc(&gh, h_bytes), *y = guard_alloc(&gy, y_bytes);
        grouped(k, &f, h, y, t % 2);
        if (memcmp(h, want_h, h_bytes) != 0 || memcmp(y, want_y, y_bytes) != 0)
            fail_msg("%s: %s, act %d, d_model %d, d_ff %d, %d assignments, %d experts, gated %d, "
                     "biases %d, gather %d (case %d)",
                     k->name, dtype_name(s->dtype), (int)s->act, s->d_model, s->d_ff, s->n_assign,
                     s->n_expert, s->gated, s->bias, s->gather, i);
        guard_free(&gh);
        guard_free(&gy);
    }
    free(want_y);
    free(want_h);
    fixture_free(&f);
}

static void ffn_has_the_bits_of_its_parts_on_every_isa(void **state)
{
    (void)state;
    print_message("seed %u\n", SEED);
    for (int i = 0; i < 60 / SHARE; i++) {
        struct shape s = shape_at(i);
        check_case(&s, i);
    }
}

static void one_expert_with_many_rows_has_the_bits_of_its_parts(void **state)
{
    (void)state;
    struct shape s = {.act = ACT_SILU,
                      .dtype = DTYPE_BF16,
                      .y_dtype = DTYPE_F32,
                      .d_model = 80,
                      .d_ff = 90,
                      .n_expert = 1,
                      .gated = 1,
                      .gather = 1,
                      .n_row = 77,
                      .n_assign = 300};
    check_case(&s, 900);
}

static double act_double(enum act act, double g)
{
    switch (act) {
    case ACT_SILU:
        return g / (1.0 + exp(-g));
    case ACT_GELU:
        return 0.5 * g * (1.0 + erf(g * sqrt(0.5)));
    case ACT_GELU_TANH:
        return 0.5 * g * (1.0 + tanh(sqrt(2.0 / acos(-1.0)) * (g + 0.044715 * g * g * g)));
    case ACT_RELU2:
        return g > 0.0 ? g * g : 0.0;
    case ACT_SWIGLU_CLAMP:
        g = g < (double)LIMIT ? g : (double)LIMIT;
        return g / (1.0 + exp(-(double)ALPHA * g));
    }
    return NAN;
}

static double up_double(enum act act, double u)
{
    if (act != ACT_SWIGLU_CLAMP)
        return u;
    double limit = (double)LIMIT;
    return (u > limit ? limit : u < -limit ? -limit : u) + 1.0;
}

static double dot_double(const float *x, const float *w, const float *bias, int i, int k)
{
    double mag;
    return sum_double(x, DTYPE_F32, w + (size_t)i * (size_t)k, k, &mag) +
           (bias ? (double)bias[i] : 0.0);
}

/* The matrix without its extremes, whose roundings would drown the formula. */
static void weights_tame(struct weights *w)
{
    const struct packed *p = &w->packed;
    for (int i = 0; i < p->n * p->k; i++)
        w->plain[i] = fmodf(w->plain[i], 3.0f);
    pack_rows(w->guard.map + w->guard.data_at, p->dtype, p->n, p->k, 0, p->n, w->plain, DTYPE_F32,
              (size_t)p->k);
}

/* One expert, one row, f32: each y against the formula in double. */
static void check_formula(enum act act, int gated, int bias)
{
    enum { D = 45, F = 70 };
    struct shape s = {.act = act,
                      .dtype = DTYPE_F32,
                      .y_dtype = DTYPE_F32,
                      .d_model = D,
                      .d_ff = F,
                      .n_expert = 1,
                      .gated = gated,
                      .bias = bias,
                      .n_row = 1,
                      .n_assign = 1};
    struct fixture f;
    fixture_make(&f, &s, 950 + (int)act);
    /* Rows of a normalised size, so that the activations are met where they bend. */
    for (int i = 0; i < D; i++)
        ((float *)f.x)[i] = (float)sin(i) / 8.0f;
    for (int m = gated ? 0 : 1; m < 3; m++)
        weights_tame(&f.w[0][m]);
    const struct kernels *table[MAX_TABLE];
    int n_table = tables_get(table);
    double h[F];
    float hf[F];
    for (int i = 0; i < F; i++) {
        double u = dot_double(f.x, f.w[0][1].plain, f.bias[1], i, D);
        double g = gated ? dot_double(f.x, f.w[0][0].plain, f.bias[0], i, D) : u;
        h[i] = gated ? act_double(act, g) * up_double(act, u) : act_double(act, u);
        hf[i] = (float)h[i];
    }
    for (int t = 0; t < n_table; t++) {
        static float got_h[96], y[D + 2];
        grouped(table[t], &f, got_h, y, 0);
        for (int i = 0; i < D; i++) {
            double mag;
            sum_double(hf, DTYPE_F32, f.w[0][2].plain + (size_t)i * F, F, &mag);
            double want = dot_double(hf, f.w[0][2].plain, f.bias[2], i, F);
            if (!(fabs((double)y[i] - want) <= 1e-5 * (mag + 1.0)))
                fail_msg("%s: act %d, gated %d, y[%d] = %.9g, double %.9g", table[t]->name,
                         (int)act, gated, i, (double)y[i], want);
        }
        for (int i = 0; i < F; i++) {
            if (!(fabs((double)got_h[i] - h[i]) <= 2e-5 * (1.0 + fabs(h[i]))))
                fail_msg("%s: act %d, gated %d, h[%d] = %.9g, double %.9g", table[t]->name,
                         (int)act, gated, i, (double)got_h[i], h[i]);
        }
    }
    fixture_free(&f);
}

static void every_activation_is_its_formula_with_and_without_gate_and_bias(void **state)
{
    (void)state;
    for (int act = 0; act < N_ACT; act++) {
        for (int i = 0; i < 4; i++)
            check_formula((enum act)act, i & 1, i & 2 ? 7 : 0);
    }
}

static int setup(void **state)
{
    (void)state;
    team_flush_denormals();
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ffn_has_the_bits_of_its_parts_on_every_isa),
        cmocka_unit_test(one_expert_with_many_rows_has_the_bits_of_its_parts),
        cmocka_unit_test(every_activation_is_its_formula_with_and_without_gate_and_bias),
    };
    return cmocka_run_group_tests(tests, setup, NULL);
}
