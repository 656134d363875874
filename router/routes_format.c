/* routes_format: sizes and codings; see routes_format.h. */
#include "router/routes_format.h"
#include "base/hash.h"

#include <string.h>

uint64_t routes_checksum(const void *bytes, size_t n)
{
    return hash_bytes(bytes, n).lo;
}

int routes_bits(int n_expert, int has_empty)
{
    uint32_t most = (uint32_t)n_expert - (has_empty ? 0 : 1);
    return most > 1 ? 32 - __builtin_clz(most) : 1;
}

size_t routes_header_bytes(int n_layer)
{
    return ((size_t)HEADER_FIXED_BYTES + 2 * (size_t)n_layer + 7) / 8 * 8 + 8;
}

static size_t layer_bytes(const struct routes_spec *spec, int n_token, int has_empty)
{
    size_t bits = (size_t)n_token * (size_t)spec->top_k;
    return (bits * (size_t)routes_bits(spec->n_expert, has_empty) + 7) / 8;
}

size_t routes_payload_bytes(const struct routes_spec *spec, int n_run, int n_token, int has_empty)
{
    size_t slots = (size_t)n_token * (size_t)spec->top_k * (size_t)spec->n_layer;
    return (size_t)n_run * RUN_BYTES + (spec->has_token ? (size_t)n_token * 4 : 0) +
           layer_bytes(spec, n_token, has_empty) * (size_t)spec->n_layer +
           (spec->has_weight ? slots * 2 : 0);
}

void routes_pack(const int32_t *id, int64_t n, int bits, int n_expert, uint8_t *out)
{
    uint64_t held = 0;
    int n_held = 0;
    for (int64_t i = 0; i < n; i++) {
        held |= (uint64_t)(uint32_t)(id[i] < 0 ? n_expert : id[i]) << n_held;
        n_held += bits;
        for (; n_held >= 8; n_held -= 8) {
            *out++ = (uint8_t)held;
            held >>= 8;
        }
    }
    if (n_held > 0)
        *out = (uint8_t)held;
}

int routes_unpack(const uint8_t *in, int64_t n, int bits, int n_expert, int has_empty, int32_t *out)
{
    uint64_t held = 0, mask = (1ull << bits) - 1;
    int n_held = 0;
    for (int64_t i = 0; i < n; i++) {
        for (; n_held < bits; n_held += 8)
            held |= (uint64_t)*in++ << n_held;
        int32_t id = (int32_t)(held & mask);
        held >>= bits;
        n_held -= bits;
        if (id > n_expert || (id == n_expert && !has_empty))
            return -1;
        out[i] = id == n_expert ? -1 : id;
    }
    return held == 0 ? 0 : -1;
}

uint16_t routes_half(float x)
{
    uint32_t u, sign;
    memcpy(&u, &x, sizeof(u));
    sign = u >> 16 & 0x8000u;
    u &= 0x7FFFFFFFu;
    if (u > 0x7F800000u)
        return 0;
    if (u >= 0x477FE000u) /* 65504 */
        return (uint16_t)(sign | 0x7BFFu);
    if (u < 0x33000001u) /* at most half of the smallest */
        return (uint16_t)sign;
    if (u < 0x38800000u) { /* a denormal half: shift its value into place, round to even */
        uint32_t man = (u & 0x7FFFFFu) | 0x800000u, shift = 126 - (u >> 23);
        uint32_t half = man >> shift, rest = man & ((1u << shift) - 1), tie = 1u << (shift - 1);
        return (uint16_t)(sign | (half + (rest > tie || (rest == tie && (half & 1)))));
    }
    u -= 112u << 23;
    return (uint16_t)(sign | (u + 0xFFFu + (u >> 13 & 1u)) >> 13);
}
