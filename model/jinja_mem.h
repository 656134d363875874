/* jinja_mem: the memory of one template or of one rendering: pieces are carved off blocks and given
 * back all at once, and the sum has a cap. base/arena aligns each piece to 64 bytes and reserves
 * its whole size at once; a rendering makes a hundred thousand pieces of 24 bytes and mostly needs
 * a few hundred KiB, so it has blocks that grow. Under ASan the rest of a block is poisoned. */
#ifndef MODEL_JINJA_MEM_H
#define MODEL_JINJA_MEM_H

#include <stdbool.h>
#include <stddef.h>

struct jmem_block;
struct jmem {
    struct jmem_block *blocks;
    char *top, *end;
    const char *newest; /* the newest piece of the current block, and its exact size */
    size_t newest_bytes;
    size_t total_bytes, max_bytes;
};

void jmem_init(struct jmem *mem, size_t max_bytes);
void jmem_fini(struct jmem *mem);
/* jmem_alloc: 8-byte aligned, uninitialised; NULL when the cap or the machine's memory is met. */
void *jmem_alloc(struct jmem *mem, size_t bytes);
/* jmem_extend lengthens the newest piece in place, so that appending in a loop is not quadratic.
 * false: it is not the newest, or has another size than old_bytes (then somebody else sees a part
 * of it or has appended to it), or its block is full; the piece is unchanged. */
bool jmem_extend(struct jmem *mem, const void *piece, size_t old_bytes, size_t new_bytes);

#endif
