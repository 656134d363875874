/* matmul: y [n_row, n] = x [n_row, k] W^T + bias, by THE SUM of kernels.h.
 * A unit is a group of panels and a block of rows. Few rows read each weight once, so a group is
 * two panels: two streams from memory, and units enough for many threads. Many rows are cut into
 * blocks that reuse a group from the second-level cache; neighbouring units share the group, so
 * that the threads working on them read it from memory once. Neither cut enters the arithmetic.
 * Roof: memory, 2 bytes a weight, up to about 16 rows; FMA beyond. */
#include "kernels/cpu/lanes/columns.h"
#include "kernels/cpu/lanes/gemm.h"
#include "kernels/cpu/lanes/lanes.h"

#define FEW_ROWS_PANELS 2

struct cut {
    struct gemm_cut gemm;
    int n_panel; /* of the matrix */
    int n_group; /* of panels */
    int n_block; /* of rows */
};

static struct cut cut_of(const struct matmul *m)
{
    struct cut cut = {.gemm = gemm_cut_of(m->w, FEW_ROWS_PANELS, m->n_row)};
    cut.n_panel = (m->w->n + PANEL - 1) / PANEL;
    cut.n_group = (cut.n_panel + cut.gemm.unit_panels - 1) / cut.gemm.unit_panels;
    cut.n_block = (m->n_row + cut.gemm.unit_rows - 1) / cut.gemm.unit_rows;
    return cut;
}

int LANES_NAME(matmul_units)(const struct matmul *m)
{
    struct cut cut = cut_of(m);
    return cut.n_group * cut.n_block;
}

static void unit_run(const struct matmul *m, const struct cut *cut, int unit)
{
    const struct gemm_cut *g = &cut->gemm;
    int first = unit / cut->n_block * g->unit_panels;
    int last = min_int(first + g->unit_panels, cut->n_panel);
    int row = unit % cut->n_block * g->unit_rows, end = min_int(row + g->unit_rows, m->n_row);
    _Alignas(GEMM_ALIGN) unsigned char scratch[GEMM_SCRATCH];
    _Alignas(GEMM_ALIGN) float c[GEMM_C];
    for (; row < end; row += g->rows) {
        int made = m->x_ints && gemm_made(m->w, m->n_row);
        const unsigned char *x = made ? m->x_ints : m->x;
        struct gemm_rows rows = {.x = x + (size_t)row * m->ldx * dtype_bytes(row_dtype(m->w)),
                                 .ld = m->ldx,
                                 .n = min_int(g->rows, end - row),
                                 .dtype = row_dtype(m->w),
                                 .made = made,
                                 .scratch = scratch};
        gemm_ahead(m->w, m->n_row, first, last);
        gemm_arrange(&rows, m->w);
        for (int p0 = first; p0 < last; p0 += g->panels) {
            int n_panel = min_int(g->panels, last - p0);
            const unsigned char *panel[GEMM_PANELS];
            for (int j = 0; j < n_panel; j++)
                panel[j] = panel_at(m->w, p0 + j);
            size_t ldc = (size_t)n_panel * PANEL;
            struct columns to = {.y = m->y,
                                 .dtype = m->y_dtype,
                                 .ld = m->ldy,
                                 .bias = m->bias,
                                 .row = row,
                                 .n_row = rows.n,
                                 .col = p0 * PANEL,
                                 .n = min_int(n_panel * PANEL, m->w->n - p0 * PANEL)};
            columns_fetch(&to);
            rows.after = p0 + g->panels < last ? panel_at(m->w, p0 + g->panels) : NULL;
            gemm(&rows, m->w, panel, n_panel, c, ldc);
            store_rows(&to, c, ldc);
        }
    }
}

void LANES_NAME(matmul)(const struct matmul *m, int unit_begin, int unit_end)
{
    struct cut cut = cut_of(m);
    gemm_begin();
    for (int unit = unit_begin; unit < unit_end; unit++)
        unit_run(m, &cut, unit);
    gemm_end();
}
