/* pack_quant: integer weights into panels, and floats into integers. Scales are rounded to bf16
 * before the integers are chosen, so the integers fit the scales that will multiply them. */
#include "kernels/pack_quant.h"

#include "base/arena.h"
#include <limits.h>
#include <math.h>
#include <string.h>

size_t packed_quant_bytes(enum dtype dtype, int n, int k, int group)
{
    if ((dtype != DTYPE_I8 && dtype != DTYPE_I4) || n < 1 || k < 1 || k > INT_MAX - K_BLOCK ||
        n > INT_MAX - PANEL || group < K_BLOCK || group % K_BLOCK != 0 || group > QUANT_GROUP_MAX)
        return 0;
    size_t bytes = (size_t)(n + PANEL - 1) / PANEL;
    if (mul_size(bytes, quant_panel_bytes(dtype, k, group), &bytes) || bytes > PTRDIFF_MAX)
        return 0;
    return bytes;
}

/* One pair of k of one row. */
static void put_pair(unsigned char *block, enum dtype dtype, int pair, int lane, int even, int odd)
{
    if (dtype == DTYPE_I8) {
        unsigned char *at = block + (size_t)pair * 2 * PANEL + (size_t)lane;
        at[0] = (unsigned char)even;
        at[PANEL] = (unsigned char)odd;
    } else {
        block[(size_t)pair * PANEL + (size_t)lane] = (unsigned char)((even & 15) | (odd & 15) << 4);
    }
}

static void put_block(unsigned char *panel, enum dtype dtype, int group, int k0, int n_k, int lane,
                      const int8_t *q)
{
    unsigned char *block = panel + quant_block_at(dtype, group, k0);
    for (int i = 0; i < n_k; i += 2)
        put_pair(block, dtype, i / 2, lane, q[k0 + i], i + 1 < n_k ? q[k0 + i + 1] : 0);
}

void pack_quant_rows(void *data, enum dtype dtype, int n, int k, int group, int row, int n_row,
                     const struct quant_rows *src)
{
    size_t panel_size = quant_panel_bytes(dtype, k, group);
    for (int r = row; r < row + n_row && r < n; r++) {
        unsigned char *panel = (unsigned char *)data + (size_t)(r / PANEL) * panel_size;
        const int8_t *q = src->q + (size_t)(r - row) * src->ld_q;
        const uint16_t *scale = src->scale + (size_t)(r - row) * src->ld_scale;
        int lane = r % PANEL;
        for (int k0 = 0; k0 < k; k0 += K_BLOCK) {
            if (k0 % group == 0)
                memcpy(panel + quant_scale_at(dtype, group, k0) + (size_t)lane * 2,
                       &scale[k0 / group], 2);
            put_block(panel, dtype, group, k0, k - k0 < K_BLOCK ? k - k0 : K_BLOCK, lane, q);
        }
    }
}

static int integer_at(const unsigned char *block, enum dtype dtype, int i, int lane)
{
    if (dtype == DTYPE_I8)
        return (int8_t)block[(size_t)(i / 2) * 2 * PANEL + (size_t)(i % 2) * PANEL + (size_t)lane];
    int half = block[(size_t)(i / 2) * PANEL + (size_t)lane] >> (i % 2 * 4) & 15;
    return half < 8 ? half : half - 16;
}

void unpack_quant_row(const struct packed *w, int row, float *out)
{
    const unsigned char *panel =
        (const unsigned char *)w->data + (size_t)(row / PANEL) * panel_bytes(w);
    for (int i = 0; i < w->k; i++) {
        int k0 = i / K_BLOCK * K_BLOCK, lane = row % PANEL;
        uint16_t scale;
        memcpy(&scale,
               panel + quant_scale_at(w->dtype, w->group, i / w->group * w->group) +
                   (size_t)lane * 2,
               2);
        out[i] =
            bf16_to_f32(scale) * (float)integer_at(panel + quant_block_at(w->dtype, w->group, k0),
                                                   w->dtype, i - k0, lane);
    }
}

double quantise_row(const float *x, int k, enum dtype dtype, int group, int8_t *q, uint16_t *scale)
{
    const float most = dtype == DTYPE_I8 ? 127.0f : 7.0f, least = dtype == DTYPE_I8 ? -127 : -8;
    double error = 0;
    for (int k0 = 0; k0 < k; k0 += group) {
        int end = k - k0 < group ? k : k0 + group;
        float top = 0;
        for (int i = k0; i < end; i++)
            top = fabsf(x[i]) > top ? fabsf(x[i]) : top;
        scale[k0 / group] = f32_to_bf16(top / most);
        float s = bf16_to_f32(scale[k0 / group]);
        for (int i = k0; i < end; i++) {
            float v = s > 0 ? nearbyintf(x[i] / s) : 0;
            v = v > most ? most : v < least ? least : v;
            q[i] = (int8_t)v;
            double d = (double)x[i] - (double)(s * v);
            error += d * d;
        }
    }
    return error;
}
