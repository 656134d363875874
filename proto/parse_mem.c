/* parse_mem: an arena over one block of the header's budget. What protobuf-c frees while it unpacks
 * is not taken back: the block goes as a whole. */
#include "proto/parse_mem.h"

#include "base/arena.h"

#include <stdlib.h>

/* Fixed: the structs and short texts of one message. Growth: a packed list of one-byte ids becomes
 * uint32s, and a little for fields that a later release may add. */
#define FIXED_BYTES ((size_t)8192)
#define GROWTH      6

struct parse_mem {
    ProtobufCAllocator allocator;
    struct arena
        arena; /* poisons what is not handed out, so asan sees protobuf-c overrun a piece */
    unsigned char bytes[];
};

static void *mem_alloc(void *self, size_t bytes)
{
    struct parse_mem *mem = self;
    return arena_alloc(&mem->arena, bytes);
}

static void mem_free(void *self, void *piece)
{
    (void)self;
    (void)piece;
}

struct parse_mem *parse_mem_create(size_t header_bytes)
{
    size_t size = FIXED_BYTES + header_bytes * GROWTH;
    struct parse_mem *mem = malloc(sizeof(*mem) + size);
    if (!mem)
        return NULL;
    mem->allocator = (ProtobufCAllocator){mem_alloc, mem_free, mem};
    arena_init_on(&mem->arena, mem->bytes, size);
    return mem;
}

void parse_mem_destroy(struct parse_mem *mem)
{
    if (!mem)
        return;
    arena_fini(&mem->arena);
    free(mem);
}

ProtobufCAllocator *parse_mem_allocator(struct parse_mem *mem)
{
    return &mem->allocator;
}
