/* tile: the eight tile registers of AMX, each sixteen rows of 64 bytes, and the five things done
 * with them. Assembly of our own rather than the intrinsics: gcc 12's _tile_loadd has no memory
 * clobber and its _tile_loadconfig declares 8 of the 64 bytes it reads, so stores that fill an
 * operand could be moved or dropped. The configuration is constant, one a thread, loaded by
 * tile_open.
 *
 * With TILES_SIMULATED the registers are a struct and the products are the loops of the Intel SDM
 * (vol. 2, "TDPBF16PS", "TDPBSSD"), so that everything around the tiles is tested on any machine.
 */
#ifndef KERNELS_TILE_H
#define KERNELS_TILE_H

#include "kernels/vec.h"
#include <stddef.h>
#include <stdint.h>

#define TILE_DIM   16 /* rows of a tile */
#define TILE_BYTES 64 /* bytes a row: 32 bf16 or 16 f32 */

/* What is worth to be compiled anew wherever it is used; simulated, once is enough. */
#if defined(TILES_SIMULATED)
#define TILE_CODE __attribute__((noinline, unused)) static
#else
#define TILE_CODE INLINE
#endif

#if !defined(TILES_SIMULATED)

/* LDTILECFG's operand (SDM vol. 1, 18.3): palette 1, all eight tiles full. */
struct tile_config {
    uint8_t palette, start_row, reserved[14];
    uint16_t row_bytes[8], reserved_bytes[8];
    uint8_t rows[8], reserved_rows[8];
};
_Static_assert(sizeof(struct tile_config) == 64, "LDTILECFG reads 64 bytes");

static const struct tile_config tile_config_full = {
    .palette = 1,
    .row_bytes = {TILE_BYTES, TILE_BYTES, TILE_BYTES, TILE_BYTES, TILE_BYTES, TILE_BYTES,
                  TILE_BYTES, TILE_BYTES},
    .rows = {TILE_DIM, TILE_DIM, TILE_DIM, TILE_DIM, TILE_DIM, TILE_DIM, TILE_DIM, TILE_DIM},
};

INLINE void tile_open(void)
{
    __asm__ volatile("ldtilecfg %0" : : "m"(tile_config_full) : "memory");
}
INLINE void tile_close(void)
{
    __asm__ volatile("tilerelease" : : : "memory");
}
#define TILE_REGISTERS
#define tile_zero(t) __asm__ volatile("tilezero %%tmm" #t : : : "memory")
#define tile_load(t, from, stride)                                                                 \
    __asm__ volatile("tileloadd (%0,%1,1), %%tmm" #t                                               \
                     :                                                                             \
                     : "r"(from), "r"((size_t)(stride))                                            \
                     : "memory")
#define tile_store(t, to, stride)                                                                  \
    __asm__ volatile("tilestored %%tmm" #t ", (%0,%1,1)"                                           \
                     :                                                                             \
                     : "r"(to), "r"((size_t)(stride))                                              \
                     : "memory")
/* c += a b; AT&T order: the last operand is the destination. */
#define tile_dp(c, a, b)                                                                           \
    __asm__ volatile("tdpbf16ps %%tmm" #b ", %%tmm" #a ", %%tmm" #c : : : "memory")
/* The same for signed bytes, summed up in int32. */
#define tile_dp_i8(c, a, b)                                                                        \
    __asm__ volatile("tdpbssd %%tmm" #b ", %%tmm" #a ", %%tmm" #c : : : "memory")

#else

#include "base/dtype.h"

struct tile {
    unsigned char row[TILE_DIM][TILE_BYTES];
};

INLINE void tile_open(void) {}
INLINE void tile_close(void) {}
TILE_CODE void tile_sim_load(struct tile *t, const void *from, size_t stride)
{
    for (size_t r = 0; r < TILE_DIM; r++)
        memcpy(t->row[r], (const unsigned char *)from + r * stride, TILE_BYTES);
}
TILE_CODE void tile_sim_store(const struct tile *t, void *to, size_t stride)
{
    for (size_t r = 0; r < TILE_DIM; r++)
        memcpy((unsigned char *)to + r * stride, t->row[r], TILE_BYTES);
}
TILE_CODE void tile_sim_dp(struct tile *c, const struct tile *a, const struct tile *b)
{
    for (int m = 0; m < TILE_DIM; m++) {
        uint16_t x[32];
        memcpy(x, a->row[m], sizeof x);
        vec even = v_zero(), odd = v_zero(), we, wo;
        for (int k = 0; k < TILE_DIM; k++) {
            uint16_t w[32];
            memcpy(w, b->row[k], sizeof w);
            v_load_pairs(w, &we, &wo);
            even = v_fma(v_set1(bf16_to_f32(x[2 * k])), we, even);
            odd = v_fma(v_set1(bf16_to_f32(x[2 * k + 1])), wo, odd);
        }
        float sum[TILE_DIM];
        memcpy(sum, c->row[m], sizeof sum);
        v_store(sum, v_add(v_load(sum), v_add(even, odd)));
        memcpy(c->row[m], sum, sizeof sum);
    }
}
TILE_CODE void tile_sim_dp_i8(struct tile *c, const struct tile *a, const struct tile *b)
{
    for (int m = 0; m < TILE_DIM; m++) {
        int32_t sum[TILE_DIM];
        memcpy(sum, c->row[m], sizeof sum);
        for (int k = 0; k < TILE_BYTES; k++)
            for (int n = 0; n < TILE_DIM; n++)
                sum[n] += (int8_t)a->row[m][k] * (int8_t)b->row[k / 4][4 * n + k % 4];
        memcpy(c->row[m], sum, sizeof sum);
    }
}
#define TILE_REGISTERS             struct tile tile_registers[8]
#define tile_zero(t)               memset(&tile_registers[t], 0, sizeof tile_registers[t])
#define tile_load(t, from, stride) tile_sim_load(&tile_registers[t], from, stride)
#define tile_store(t, to, stride)  tile_sim_store(&tile_registers[t], to, stride)
#define tile_dp(c, a, b)           tile_sim_dp(&tile_registers[c], &tile_registers[a], &tile_registers[b])
#define tile_dp_i8(c, a, b)                                                                        \
    tile_sim_dp_i8(&tile_registers[c], &tile_registers[a], &tile_registers[b])

#endif
#endif
