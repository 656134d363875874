/* pool_rows: a call's rows and its results, as they travel. With fp8 on the wire a row is rounded
 * to it wherever it goes: a worker that knows fp8 is sent the codes, which are exact in bf16; one
 * that does not, or this process, is given the bf16 that the codes stand for. So nothing depends on
 * who computes. The same holds on the way back. */
#include "coordinator/pool_state.h"

#include "kernels/kernels.h"

#include <stdlib.h>
#include <string.h>

int rows_create(struct pool *pool, struct err *err)
{
    const struct pool_config *config = &pool->config;
    if (config->rows == WIRE_ROWS_OWN) {
        return 0;
    }
    if (pool->shape.dtype != DTYPE_BF16 || !config->k) {
        return err_set(err, ERR_USAGE, "rows of %s do not travel as fp8",
                       dtype_name(pool->shape.dtype));
    }
    pool->fp8_row = malloc(fp8_row_bytes((size_t)pool->shape.d_wire));
    return pool->fp8_row ? 0 : err_set(err, ERR_NOMEM, "no memory for a row");
}

enum dtype rows_dtype(const struct pool *pool, const struct link *l)
{
    return pool->fp8_row && l->fp8 ? DTYPE_FP8 : pool->shape.dtype;
}

enum dtype rows_reply_dtype(const struct pool *pool, const struct link *l)
{
    return rows_change(pool) && l->fp8 ? DTYPE_FP8 : pool->shape.dtype;
}

int rows_change(const struct pool *pool)
{
    return pool->config.rows == WIRE_ROWS_FP8_BOTH;
}

/* To fp8 and back. */
static void row_round(struct pool *pool, const uint16_t *row, uint16_t *out)
{
    size_t d = (size_t)pool->shape.d_wire;
    pool->config.k->fp8_encode(row, d, pool->fp8_row);
    pool->config.k->fp8_decode(pool->fp8_row, d, out);
}

static void row_leaves(struct pool *pool, const void *row, enum dtype dtype, void *out)
{
    if (!pool->fp8_row) {
        memcpy(out, row, pool->row_bytes);
    } else if (dtype == DTYPE_FP8) {
        pool->config.k->fp8_encode(row, (size_t)pool->shape.d_wire, out);
    } else {
        row_round(pool, row, out);
    }
}

struct wirebuf *rows_gather(struct pool *pool, const struct call *c, enum dtype dtype)
{
    const struct dispatch *d = c->dispatch->d;
    size_t bytes = wire_row_bytes(dtype, (size_t)pool->shape.d_wire),
           stride = d->ld_row * dtype_bytes(pool->shape.dtype);
    struct wirebuf *b = wirebuf_get(pool->wirebufs, (size_t)c->n_row * bytes);
    if (!b) {
        return NULL;
    }
    unsigned char *to = wirebuf_data(b);
    for (int i = 0; i < c->n_row; i++) {
        row_leaves(pool, (const unsigned char *)d->rows + (size_t)c->row[i] * stride, dtype,
                   to + (size_t)i * bytes);
    }
    return b;
}

void rows_arrived(struct pool *pool, const void *rows, int n, enum dtype dtype, void *out)
{
    size_t d = (size_t)pool->shape.d_wire, bytes = wire_row_bytes(dtype, d);
    for (int i = 0; i < n; i++) {
        const unsigned char *row = (const unsigned char *)rows + (size_t)i * bytes;
        uint16_t *to = (uint16_t *)out + (size_t)i * d;
        if (dtype == DTYPE_FP8) {
            pool->config.k->fp8_decode(row, d, to);
        } else {
            row_round(pool, (const uint16_t *)(const void *)row, to);
        }
    }
}
