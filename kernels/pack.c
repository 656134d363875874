/* pack: weights laid out for the kernels, as kernels.h says. A panel is sixteen rows of W; along k
 * it is walked in blocks of 32, so that the kilobyte a block fills stays in the first-level cache
 * while its rows are scattered into it: loading a model runs at the speed of memory, not of the
 * scatter. */
#include "kernels/pack_quant.h"

#include "base/arena.h"
#include <limits.h>
#include <string.h>

size_t packed_bytes(enum dtype dtype, int n, int k)
{
    if ((dtype != DTYPE_F32 && dtype != DTYPE_BF16) || n < 1 || k < 1 || k > INT_MAX - K_BLOCK ||
        n > INT_MAX - PANEL)
        return 0;
    size_t bytes = (size_t)(n + PANEL - 1) / PANEL * PANEL;
    if (mul_size(bytes, (size_t)k_padded(k), &bytes) ||
        mul_size(bytes, dtype_bytes(dtype), &bytes) || bytes > PTRDIFF_MAX)
        return 0;
    return bytes;
}

size_t panel_bytes(const struct packed *w)
{
    return w->group > 0 ? quant_panel_bytes(w->dtype, w->k, w->group)
                        : (size_t)k_padded(w->k) * PANEL * dtype_bytes(w->dtype);
}

/* Elements [at, at + n) of a row, as f32 or as bf16. */
static void load_f32(const void *src, enum dtype dtype, size_t at, int n, float *out)
{
    const uint16_t *half = (const uint16_t *)src + at;
    switch (dtype) {
    case DTYPE_BF16:
        for (int i = 0; i < n; i++)
            out[i] = bf16_to_f32(half[i]);
        break;
    case DTYPE_F16:
        for (int i = 0; i < n; i++)
            out[i] = f16_to_f32(half[i]);
        break;
    default:
        memcpy(out, (const float *)src + at, (size_t)n * sizeof *out);
    }
}

static void load_bf16(const void *src, enum dtype dtype, size_t at, int n, uint16_t *out)
{
    if (dtype == DTYPE_BF16) {
        memcpy(out, (const uint16_t *)src + at, (size_t)n * sizeof *out);
        return;
    }
    float f[K_BLOCK];
    load_f32(src, dtype, at, n, f);
    for (int i = 0; i < n; i++)
        out[i] = f32_to_bf16(f[i]);
}

/* The panel that holds row `row`, at that row's lane, k = 0. */
static uint16_t *bf16_lane(void *data, int k_pad, int row)
{
    size_t panel = (size_t)(row / PANEL), lane = (size_t)(row % PANEL);
    return (uint16_t *)data + panel * (size_t)k_pad * PANEL + lane * 2;
}

static float *f32_lane(void *data, int k_pad, int row)
{
    size_t panel = (size_t)(row / PANEL), lane = (size_t)(row % PANEL);
    return (float *)data + panel * (size_t)k_pad * PANEL + lane;
}

/* Elements [k0, k0 + n) of one row into its lane. An odd n leaves the padding beside it alone. */
static void put_bf16(uint16_t *lane, int k0, int n, const void *src, enum dtype dtype, size_t at)
{
    uint16_t h[K_BLOCK] = {0};
    load_bf16(src, dtype, at, n, h);
    uint16_t *out = lane + (size_t)k0 * PANEL;
    for (int i = 0; i < n; i += 2)
        memcpy(out + (size_t)i * PANEL, h + i, 4);
}

static void put_f32(float *lane, int k0, int n, const void *src, enum dtype dtype, size_t at)
{
    float f[K_BLOCK];
    load_f32(src, dtype, at, n, f);
    float *out = lane + (size_t)k0 * PANEL;
    for (int i = 0; i < n; i++)
        out[(size_t)i * PANEL] = f[i];
}

void pack_rows(void *data, enum dtype dtype, int n, int k, int row, int n_row, const void *src,
               enum dtype src_dtype, size_t ld)
{
    int k_pad = k_padded(k), end = row + n_row < n ? row + n_row : n;
    for (int first = row; first < end;) {
        int last = first / PANEL * PANEL + PANEL;
        last = last < end ? last : end;
        for (int k0 = 0; k0 < k; k0 += K_BLOCK) {
            int n_k = k - k0 < K_BLOCK ? k - k0 : K_BLOCK;
            for (int r = first; r < last; r++) {
                size_t at = (size_t)(r - row) * ld + (size_t)k0;
                if (dtype == DTYPE_BF16)
                    put_bf16(bf16_lane(data, k_pad, r), k0, n_k, src, src_dtype, at);
                else
                    put_f32(f32_lane(data, k_pad, r), k0, n_k, src, src_dtype, at);
            }
        }
        first = last;
    }
}

void unpack_row(const struct packed *w, int row, float *out)
{
    if (w->group > 0) {
        unpack_quant_row(w, row, out);
        return;
    }
    int k_pad = k_padded(w->k);
    size_t panel = (size_t)(row / PANEL) * (size_t)k_pad * PANEL, lane = (size_t)(row % PANEL);
    for (int i = 0; i < w->k; i++) {
        size_t k = (size_t)i;
        if (w->dtype == DTYPE_BF16)
            out[i] = bf16_to_f32(
                ((const uint16_t *)w->data)[panel + k / 2 * 2 * PANEL + lane * 2 + k % 2]);
        else
            out[i] = ((const float *)w->data)[panel + k * PANEL + lane];
    }
}
