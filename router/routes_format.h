/* routes_format: the bytes of a route file (docs/TRACE.md), for its reader and its writer: places,
 * sizes, and the coding of a block's payload. */
#ifndef ROUTER_ROUTES_FORMAT_H
#define ROUTER_ROUTES_FORMAT_H

#include "router/routes.h"

#define HEADER_MAGIC "SGMROUTE"
#define INDEX_MAGIC  "SGMINDEX"
#define BLOCK_WORD   0x314B4C42u /* "BLK1" */
#define INDEX_WORD   0x31584449u /* "IDX1" */
#define NO_DOMAIN    0xFFFFu

#define HEADER_FIXED_BYTES 160u
#define BLOCK_HEAD_BYTES   32u
#define BLOCK_SUM_AT       24u
#define RUN_BYTES          32u
#define INDEX_FIXED_BYTES  24u
#define INDEX_BLOCK_BYTES  16u
#define TRAILER_BYTES      16u
#define BLOCK_TOKENS_MAX   4096
#define SLOTS_MAX          (1u << 26) /* of one block, all layers: what a reader allocates for */

enum { FLAG_WEIGHT = 1, FLAG_TOKEN = 2 }; /* header */
enum { FLAG_EMPTY = 1 };                  /* block */
enum { FLAG_BEGINS = 1, FLAG_ENDS = 2 };  /* run */

static inline void put_u16(uint8_t *p, uint32_t v)
{
    p[0] = (uint8_t)v;
    p[1] = (uint8_t)(v >> 8);
}

static inline void put_u32(uint8_t *p, uint32_t v)
{
    put_u16(p, v);
    put_u16(p + 2, v >> 16);
}

static inline void put_u64(uint8_t *p, uint64_t v)
{
    put_u32(p, (uint32_t)v);
    put_u32(p + 4, (uint32_t)(v >> 32));
}

static inline uint32_t get_u16(const uint8_t *p)
{
    return p[0] | (uint32_t)p[1] << 8;
}

static inline uint32_t get_u32(const uint8_t *p)
{
    return get_u16(p) | get_u16(p + 2) << 16;
}

static inline uint64_t get_u64(const uint8_t *p)
{
    return get_u32(p) | (uint64_t)get_u32(p + 4) << 32;
}

uint64_t routes_checksum(const void *bytes, size_t n);
/* routes_bits: of one packed id. */
int routes_bits(int n_expert, int has_empty);
size_t routes_header_bytes(int n_layer);
/* routes_payload_bytes of a block of these numbers. */
size_t routes_payload_bytes(const struct routes_spec *spec, int n_run, int n_token, int has_empty);
/* routes_pack / routes_unpack: n ids of `bits` bits. -1 becomes n_expert and back. unpack returns
 * -1 when an id is above n_expert (at n_expert, without empty slots) or a filling bit is set. */
void routes_pack(const int32_t *id, int64_t n, int bits, int n_expert, uint8_t *out);
int routes_unpack(const uint8_t *in, int64_t n, int bits, int n_expert, int has_empty,
                  int32_t *out);
/* routes_half rounds to nearest even; beyond the largest half it stays there, NaN becomes 0. */
uint16_t routes_half(float x);

#endif
