/* ffn: the experts' feed-forward, rows sorted by expert.
 *   stage 0: h = act(x Wgate^T + bg, x Wup^T + bu)   stage 1: y = h Wdown^T + bd
 * by THE SUM of kernels.h, with the very bits of matmul, act_mul, matmul. A gate panel and its up
 * panel are one micro-tile, so the rows are read once for both and the product never leaves the
 * cache before the activation. What meets integers on tiles is made integers once: x by the caller,
 * h here, row group by row group. A unit is (segment, block of rows, group of panels), so that 64
 * experts with a row each and one expert with 500 rows both cut into pieces of like size.
 * Roof: 2 bytes a weight of each expert that has rows, up to about 16 rows an expert; FMA beyond.
 */
#include "kernels/cpu/lanes/columns.h"
#include "kernels/cpu/lanes/gemm.h"
#include "kernels/cpu/lanes/int_rows.h"
#include "kernels/cpu/lanes/lanes.h"
#include "kernels/cpu/lanes/vmath.h"

/* Panels of each matrix that a unit of few rows takes: two of gate and two of up, or four of one.
 */
#define FEW_ROWS_PANELS GEMM_PANELS
/* Units that are enough for any team: where there are more, fewer and wider ones arrange each row
 * less often. Of the last quarter of the experts they may be twice as many, so that a team ends
 * together. */
#define ENOUGH_UNITS 64

/* How one expert's rows are cut in one stage. `width`: output columns, in n_panel panels, of which
 * a unit takes `group` and a call of gemm `panels`. */
struct stage {
    struct gemm_cut gemm;
    int width, n_panel;
    int panels, group, n_group, n_block;
};

static struct stage stage_of(const struct ffn *f, int stage, const struct ffn_segment *seg)
{
    const struct packed *w = stage == 0 ? &seg->w->up : &seg->w->down;
    int paired = stage == 0 && seg->w->gate.data != NULL, n_row = seg->end - seg->begin;
    struct stage s = {.gemm = gemm_cut_of(w, FEW_ROWS_PANELS, n_row)};
    s.width = stage == 0 ? f->d_ff : f->d_model;
    s.n_panel = (s.width + PANEL - 1) / PANEL;
    s.panels = s.gemm.panels >> paired;
    s.group = s.gemm.unit_panels >> paired;
    s.n_group = (s.n_panel + s.group - 1) / s.group;
    s.n_block = (n_row + s.gemm.unit_rows - 1) / s.gemm.unit_rows;
    int last = seg - f->seg >= f->n_seg - f->n_seg / 4, enough = ENOUGH_UNITS << last;
    while (n_row > FEW_ROWS && s.n_group > 1 && f->n_seg * s.n_group > enough) {
        s.group *= 2;
        s.n_group = (s.n_panel + s.group - 1) / s.group;
    }
    return s;
}

int LANES_NAME(ffn_units)(const struct ffn *f, int stage)
{
    int n_unit = 0;
    for (int i = 0; i < f->n_seg; i++) {
        struct stage s = stage_of(f, stage, &f->seg[i]);
        n_unit += s.n_block * s.n_group;
    }
    return n_unit;
}

/* One unit: assignments [begin, end) of one expert, panels [p0, p0 + n_panel). */
struct piece {
    const struct ffn_weights *w;
    int begin, end;
    int p0, n_panel;
    int h_made; /* rows of h are integers */
    /* [end - begin] columns of h that are no whole ROW_GROUP yet, where h_made. */
    uint16_t (*wait)[ROW_GROUP];
};

/* Whether rows of h are made integers where they arise, once, and not by each unit that reads them:
 * where units end with a row group. */
static int hidden_made(const struct ffn *f, const struct ffn_segment *seg)
{
    struct stage s = stage_of(f, 0, seg);
    return gemm_made(&seg->w->down, seg->end - seg->begin) && s.group * PANEL % ROW_GROUP == 0;
}

static unsigned char *hidden_at(const struct ffn *f, const struct ffn_weights *w, int row)
{
    size_t bytes = (size_t)k_padded(f->d_ff) * dtype_bytes(row_dtype(&w->up));
    return (unsigned char *)f->h + (size_t)row * bytes;
}

/* Columns up to `end` are there: the row group that ends with them becomes integers. */
static void hidden_ints(const struct ffn *f, const struct piece *piece, int end)
{
    int k_pad = k_padded(f->d_ff), k = (end - 1) / ROW_GROUP * ROW_GROUP;
    if (end % ROW_GROUP != 0 && end != f->d_ff)
        return;
    for (int r = 0; r < piece->end - piece->begin; r++) {
        unsigned char *h = hidden_at(f, piece->w, piece->begin + r);
        int_row_scales(h, k_pad)[k / ROW_GROUP] =
            int_row_group(piece->wait[r], min_int(ROW_GROUP, k_pad - k), (int8_t *)h + k);
    }
}

/* Where column `col` of one row of h goes, and what is there between d_ff and its padding. */
struct hidden {
    unsigned char *at;
    size_t ld; /* bytes */
    enum dtype dtype;
    int n, pad;
};

static struct hidden hidden_of(const struct ffn *f, const struct piece *piece, int col, int n)
{
    enum dtype dtype = row_dtype(&piece->w->up);
    struct hidden h = {.dtype = dtype, .n = n};
    h.pad = col + n == f->d_ff ? k_padded(f->d_ff) - f->d_ff : 0;
    h.at = hidden_at(f, piece->w, piece->begin) + (size_t)col * dtype_bytes(dtype);
    h.ld = (size_t)k_padded(f->d_ff) * dtype_bytes(dtype);
    if (piece->h_made) {
        h.at = (unsigned char *)(piece->wait[0] + col % ROW_GROUP);
        h.ld = sizeof piece->wait[0];
    }
    return h;
}

/* One panel of columns from `col` on; c: gate and up, or up alone. */
INLINE void activate_panel(const struct ffn *f, const struct piece *piece, const float *c,
                           size_t ldc, int col, const int gated, const enum act act)
{
    const struct ffn_weights *w = piece->w;
    const vec alpha = v_set1(f->act_alpha), limit = v_set1(f->act_limit);
    const int n = min_int(PANEL, f->d_ff - col);
    const int gate_bias = w->gate_bias != NULL, up_bias = w->up_bias != NULL;
    const vec bg = bias_at(w->gate_bias, col, n), bu = bias_at(w->up_bias, col, n);
    struct hidden h = hidden_of(f, piece, col, n);
    for (int r = piece->begin; r < piece->end; r++, c += ldc, h.at += h.ld) {
        vec u = v_load(gated ? c + PANEL : c), out;
        if (up_bias)
            u = v_add(u, bu);
        if (gated) {
            vec g = v_load(c);
            if (gate_bias)
                g = v_add(g, bg);
            out = v_act_mul(act, alpha, limit, g, u);
        } else {
            out = v_act(act, alpha, limit, u);
        }
        store_columns(h.at, h.dtype, 0, out, n);
        if (h.pad > 0)
            memset(h.at + (size_t)n * dtype_bytes(h.dtype), 0,
                   (size_t)h.pad * dtype_bytes(h.dtype));
    }
    if (piece->h_made)
        hidden_ints(f, piece, col + n);
}

/* c: [n_row][panel][gate, up] columns, or [n_row][panel] where there is no gate. */
static void activate(const struct ffn *f, const struct piece *piece, const float *c, size_t ldc)
{
    int gated = piece->w->gate.data != NULL;
    for (int j = 0; j < piece->n_panel; j++, c += PANEL << gated) {
        int col = (piece->p0 + j) * PANEL;
        if (gated && f->act == ACT_SILU)
            activate_panel(f, piece, c, ldc, col, 1, ACT_SILU);
        else
            activate_panel(f, piece, c, ldc, col, gated, f->act);
    }
}

/* The rows that a piece of stage 0 meets. */
static struct gemm_rows rows_up(const struct ffn *f, const struct ffn_segment *seg,
                                const struct piece *piece)
{
    int made = f->x_ints && gemm_made(&seg->w->up, seg->end - seg->begin);
    const unsigned char *x = made ? f->x_ints : f->x;
    struct gemm_rows rows = {.x = x,
                             .ld = f->ldx,
                             .n = piece->end - piece->begin,
                             .dtype = row_dtype(&piece->w->up),
                             .made = made};
    if (f->row)
        rows.row = f->row + piece->begin;
    else
        rows.x = x + (size_t)piece->begin * f->ldx * dtype_bytes(rows.dtype);
    return rows;
}

static void piece_up(const struct ffn *f, const struct piece *piece, const struct gemm_rows *rows,
                     float *c)
{
    const struct ffn_weights *w = piece->w;
    int n_panel = 0;
    const unsigned char *panel[GEMM_PANELS];
    for (int j = piece->p0; j < piece->p0 + piece->n_panel; j++) {
        if (w->gate.data)
            panel[n_panel++] = panel_at(&w->gate, j);
        panel[n_panel++] = panel_at(&w->up, j);
    }
    size_t ldc = (size_t)n_panel * PANEL;
    gemm(rows, &w->up, panel, n_panel, c, ldc);
    activate(f, piece, c, ldc);
}

static struct gemm_rows rows_down(const struct ffn *f, const struct piece *piece)
{
    return (struct gemm_rows){.x = hidden_at(f, piece->w, piece->begin),
                              .ld = (size_t)k_padded(f->d_ff),
                              .n = piece->end - piece->begin,
                              .dtype = row_dtype(&piece->w->down),
                              .made = piece->h_made};
}

static void piece_down(const struct ffn *f, const struct piece *piece, const struct gemm_rows *rows,
                       float *c)
{
    const struct packed *down = &piece->w->down;
    const unsigned char *panel[GEMM_PANELS];
    for (int j = 0; j < piece->n_panel; j++)
        panel[j] = panel_at(down, piece->p0 + j);
    size_t ldc = (size_t)piece->n_panel * PANEL;
    int col = piece->p0 * PANEL;
    struct columns to = {.y = f->y,
                         .dtype = f->y_dtype,
                         .ld = f->ldy,
                         .bias = piece->w->down_bias,
                         .row = piece->begin,
                         .n_row = piece->end - piece->begin,
                         .col = col,
                         .n = min_int(piece->n_panel * PANEL, f->d_model - col)};
    columns_fetch(&to);
    gemm(rows, down, panel, piece->n_panel, c, ldc);
    store_rows(&to, c, ldc);
}

/* What a unit's panels begin with comes from memory while its rows are arranged. */
static void unit_ahead(int stage, const struct ffn_segment *seg, int first, int last)
{
    const struct packed *w = stage == 0 ? &seg->w->up : &seg->w->down, *gate = &seg->w->gate;
    int n_row = seg->end - seg->begin;
    if (stage == 0 && gate->data) {
        last = min_int(last, first + GEMM_PANELS / 2);
        gemm_ahead(gate, n_row, first, last);
    }
    gemm_ahead(w, n_row, first, last);
}

/* Rows are arranged once, and meet all panels of the unit. */
static void unit_run(const struct ffn *f, int stage, const struct stage *s,
                     const struct ffn_segment *seg, int unit)
{
    _Alignas(GEMM_ALIGN) unsigned char scratch[GEMM_SCRATCH];
    _Alignas(GEMM_ALIGN) float c[GEMM_C];
    _Alignas(GEMM_ALIGN) uint16_t wait[GEMM_MADE][ROW_GROUP];
    int first = unit / s->n_block * s->group, last = min_int(first + s->group, s->n_panel);
    int begin = seg->begin + unit % s->n_block * s->gemm.unit_rows;
    int end = min_int(begin + s->gemm.unit_rows, seg->end);
    int h_made = hidden_made(f, seg);
    for (; begin < end; begin += s->gemm.rows) {
        struct piece piece = {.w = seg->w,
                              .begin = begin,
                              .end = min_int(begin + s->gemm.rows, end),
                              .h_made = h_made,
                              .wait = wait};
        struct gemm_rows rows = stage == 0 ? rows_up(f, seg, &piece) : rows_down(f, &piece);
        rows.scratch = scratch;
        unit_ahead(stage, seg, first, last);
        const struct packed *arranged = stage == 0 ? &seg->w->up : &seg->w->down;
        const struct packed *w = stage == 0 && seg->w->gate.data ? &seg->w->gate : arranged;
        gemm_arrange(&rows, arranged);
        for (piece.p0 = first; piece.p0 < last; piece.p0 += s->panels) {
            piece.n_panel = min_int(s->panels, last - piece.p0);
            rows.after = piece.p0 + s->panels < last ? panel_at(w, piece.p0 + s->panels) : NULL;
            if (stage == 0)
                piece_up(f, &piece, &rows, c);
            else
                piece_down(f, &piece, &rows, c);
        }
    }
}

void LANES_NAME(ffn)(const struct ffn *f, int stage, int unit_begin, int unit_end)
{
    gemm_begin();
    for (int i = 0, first = 0; i < f->n_seg && first < unit_end; i++) {
        const struct ffn_segment *seg = &f->seg[i];
        struct stage s = stage_of(f, stage, seg);
        int n_unit = s.n_block * s.n_group;
        int from = unit_begin > first ? unit_begin - first : 0;
        int to = min_int(n_unit, unit_end - first);
        for (int unit = from; unit < to; unit++)
            unit_run(f, stage, &s, seg, unit);
        first += n_unit;
    }
    gemm_end();
}
