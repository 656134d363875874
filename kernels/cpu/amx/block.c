/* block: one product of tiles, as the start-up check asks for it. */
#include "kernels/cpu/amx.h"
#include "kernels/cpu/amx/tile.h"

void tile_block(const uint16_t *a, const uint16_t *b, float *c)
{
    tile_open();
    tile_load(0, c, TILE_BYTES);
    tile_load(1, a, TILE_BYTES);
    tile_load(2, b, TILE_BYTES);
    tile_dp(0, 1, 2);
    tile_store(0, c, TILE_BYTES);
    tile_close();
}
