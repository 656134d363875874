/* jinja_mem: blocks double from 16 KiB to 1 MiB; a piece larger than half a block gets its own, so
 * that what is left of the current block is not lost. */
#include "model/jinja_mem.h"
#include "base/arena.h"
#include "base/sanitizer.h"

#include <stdint.h>
#include <stdlib.h>

#define ZONE (SANITIZER_ADDRESS ? (size_t)16 : (size_t)0)

#define BLOCK_BYTES_MIN ((size_t)16 << 10)
#define BLOCK_BYTES_MAX ((size_t)1 << 20)

struct jmem_block {
    struct jmem_block *next;
    size_t bytes;
};

void jmem_init(struct jmem *mem, size_t max_bytes)
{
    *mem = (struct jmem){.max_bytes = max_bytes};
}

void jmem_fini(struct jmem *mem)
{
    struct jmem_block *next;
    for (struct jmem_block *b = mem->blocks; b; b = next) {
        next = b->next;
        UNPOISON(b, b->bytes);
        free(b);
    }
    *mem = (struct jmem){0};
}

/* block_add returns the new block's first usable byte; NULL: over the cap or refused. */
static char *block_add(struct jmem *mem, size_t bytes)
{
    size_t total;
    if (add_size(mem->total_bytes, bytes, &total) != 0 || total > mem->max_bytes)
        return NULL;
    struct jmem_block *b = malloc(bytes);
    if (!b)
        return NULL;
    *b = (struct jmem_block){mem->blocks, bytes};
    mem->blocks = b;
    mem->total_bytes = total;
    POISON(b + 1, bytes - sizeof *b);
    return (char *)(b + 1);
}

static size_t rounded(size_t bytes)
{
    return (bytes + ZONE + 7) & ~(size_t)7;
}

void *jmem_alloc(struct jmem *mem, size_t bytes)
{
    if (bytes > mem->max_bytes || bytes > SIZE_MAX / 2)
        return NULL;
    size_t need = rounded(bytes ? bytes : 1);
    if (need > (size_t)(mem->end - mem->top)) {
        size_t block = mem->total_bytes > BLOCK_BYTES_MAX   ? BLOCK_BYTES_MAX
                       : mem->total_bytes > BLOCK_BYTES_MIN ? mem->total_bytes
                                                            : BLOCK_BYTES_MIN;
        if (need > block / 2) {
            char *own = block_add(mem, need + sizeof(struct jmem_block));
            if (own)
                UNPOISON(own, bytes);
            return own;
        }
        char *p = block_add(mem, block);
        if (!p)
            return NULL;
        mem->top = p;
        mem->end = p + block - sizeof(struct jmem_block);
    }
    char *piece = mem->top;
    mem->top += need;
    mem->newest = piece;
    mem->newest_bytes = bytes;
    UNPOISON(piece, bytes);
    return piece;
}

bool jmem_extend(struct jmem *mem, const void *piece, size_t old_bytes, size_t new_bytes)
{
    if (!piece || piece != mem->newest || old_bytes != mem->newest_bytes || new_bytes < old_bytes)
        return false;
    size_t room = (size_t)(mem->end - mem->newest);
    if (new_bytes > room || rounded(new_bytes) > room)
        return false;
    mem->top = mem->top - rounded(old_bytes ? old_bytes : 1) + rounded(new_bytes ? new_bytes : 1);
    mem->newest_bytes = new_bytes;
    UNPOISON(piece, new_bytes);
    return true;
}
