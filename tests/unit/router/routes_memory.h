/* routes_memory: a route file in memory, for tests: a sink that gathers and a source that gives. */
#ifndef TESTS_UNIT_ROUTER_ROUTES_MEMORY_H
#define TESTS_UNIT_ROUTER_ROUTES_MEMORY_H

#include "router/routes.h"

#include <stdlib.h>
#include <string.h>

struct memory {
    uint8_t *bytes;
    size_t n;
    int fail_at; /* the write that fails, counted from 1; 0: none */
    int writes;
};

static inline int memory_write(void *self, const void *bytes, size_t n, struct err *err)
{
    struct memory *m = self;
    if (++m->writes == m->fail_at)
        return err_set(err, ERR_IO, "write %d fails", m->writes);
    uint8_t *grown = realloc(m->bytes, m->n + n);
    if (!grown)
        return err_set(err, ERR_NOMEM, "no memory");
    m->bytes = grown;
    memcpy(m->bytes + m->n, bytes, n);
    m->n += n;
    return 0;
}

static inline int memory_read_at(void *self, uint64_t offset, void *out, size_t n, struct err *err)
{
    const struct memory *m = self;
    if (offset > m->n || n > m->n - offset)
        return err_set(err, ERR_IO, "read outside the file");
    memcpy(out, m->bytes + offset, n);
    return 0;
}

static inline struct routes_sink memory_sink(struct memory *m)
{
    return (struct routes_sink){.self = m, .write = memory_write};
}

static inline struct routes_source memory_source(struct memory *m)
{
    return (struct routes_source){.self = m, .size = m->n, .read_at = memory_read_at};
}

#endif
