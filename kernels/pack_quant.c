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

/* Four bytes of q from k0 on as they lie in memory; those behind n_k are zero. */
static uint32_t quad_at(const int8_t *q, int k0, int n_k)
{
    uint32_t word = 0;
    if (k0 < n_k)
        memcpy(&word, q + k0, n_k - k0 < QUAD ? (size_t)(n_k - k0) : QUAD);
    return word;
}

static uint32_t line_word(enum dtype dtype, uint32_t low, uint32_t high)
{
    return dtype == DTYPE_I8 ? low : (low & 0x0f0f0f0fu) | (high & 0x0f0f0f0fu) << 4;
}

/* 32 k of n_row rows into their lanes of a block. q: the first row at the block's first k. */
static void put_block(unsigned char *block, enum dtype dtype, int n_k, int lane, int n_row,
                      const int8_t *q, size_t ld)
{
    int step = quant_line_k(dtype);
    for (int r = 0; r < n_row; r++, q += ld) {
        unsigned char *out = block + (size_t)(lane + r) * QUAD;
        for (int k = 0; k < K_BLOCK; k += step, out += LINE_BYTES) {
            uint32_t word = line_word(dtype, quad_at(q, k, n_k), quad_at(q, k + QUAD, n_k));
            memcpy(out, &word, sizeof word);
        }
    }
}

/* put_block of a whole panel and 32 k, a line after the other: a store fills what the one before
 * began. */
static void put_whole_block(unsigned char *block, enum dtype dtype, const int8_t *q, size_t ld)
{
    int step = quant_line_k(dtype);
    for (int k = 0; k < K_BLOCK; k += step, block += LINE_BYTES) {
        uint32_t line[PANEL];
        for (int r = 0; r < PANEL; r++) {
            uint32_t low, high;
            memcpy(&low, q + (size_t)r * ld + k, sizeof low);
            memcpy(&high, q + (size_t)r * ld + k + step - QUAD, sizeof high);
            line[r] = line_word(dtype, low, high);
        }
        memcpy(block, line, sizeof line);
    }
}

static void put_scales(unsigned char *panel, int n_group, int lane, const uint16_t *scale)
{
    for (int g = 0; g < n_group; g++)
        memcpy(panel + (size_t)g * SCALE_BYTES + (size_t)lane * 2, scale + g, 2);
}

/* n_row rows of one panel, from `lane` on. */
static void put_rows(unsigned char *panel, const struct packed *w, int lane, int n_row,
                     const struct quant_rows *src)
{
    for (int r = 0; r < n_row; r++)
        put_scales(panel, quant_groups(w->k, w->group), lane + r,
                   src->scale + (size_t)r * src->ld_scale);
    for (int k0 = 0; k0 < w->k; k0 += K_BLOCK) {
        unsigned char *block = panel + quant_block_at(w, k0);
        if (n_row == PANEL && w->k - k0 >= K_BLOCK)
            put_whole_block(block, w->dtype, src->q + k0, src->ld_q);
        else
            put_block(block, w->dtype, w->k - k0, lane, n_row, src->q + k0, src->ld_q);
    }
}

void pack_quant_rows(void *data, enum dtype dtype, int n, int k, int group, int row, int n_row,
                     const struct quant_rows *src)
{
    const struct packed w = {.dtype = dtype, .n = n, .k = k, .group = group};
    int end = row + n_row < n ? row + n_row : n;
    for (int first = row; first < end;) {
        int lane = first % PANEL, count = PANEL - lane < end - first ? PANEL - lane : end - first;
        struct quant_rows rows = *src;
        rows.q += (size_t)(first - row) * src->ld_q;
        rows.scale += (size_t)(first - row) * src->ld_scale;
        put_rows((unsigned char *)data + (size_t)(first / PANEL) * panel_bytes(&w), &w, lane, count,
                 &rows);
        first += count;
    }
}

/* Element i of a block of 32 k. */
static int integer_at(const unsigned char *block, enum dtype dtype, int i, int lane)
{
    int step = quant_line_k(dtype), in_line = i % step;
    size_t at = (size_t)(i / step) * LINE_BYTES + (size_t)(lane * QUAD + in_line % QUAD);
    if (dtype == DTYPE_I8)
        return (int8_t)block[at];
    int half = block[at] >> (in_line / QUAD * 4) & 15;
    return half < 8 ? half : half - 16;
}

void unpack_quant_row(const struct packed *w, int row, float *out)
{
    const unsigned char *panel =
        (const unsigned char *)w->data + (size_t)(row / PANEL) * panel_bytes(w);
    int lane = row % PANEL;
    for (int i = 0; i < w->k; i++) {
        int k0 = i / K_BLOCK * K_BLOCK;
        uint16_t scale;
        memcpy(&scale, panel + quant_scale_at(w, i) + (size_t)lane * 2, 2);
        out[i] = bf16_to_f32(scale) *
                 (float)integer_at(panel + quant_block_at(w, k0), w->dtype, i - k0, lane);
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
