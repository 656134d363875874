/* ids: lists of ids as people write them, "0-15,32-47,60". Ranges include both ends here, as in
 * taskset and cpuset files; everywhere inside the program they are half-open. */
#include "base/opt.h"

#include <stdlib.h>

/* read_id reads digits at *at and moves behind them; -1 where there are none or too many. */
static int64_t read_id(const char **at)
{
    int64_t value = 0;
    const char *p = *at;
    if (*p < '0' || *p > '9')
        return -1;
    for (; *p >= '0' && *p <= '9'; p++) {
        value = value * 10 + (*p - '0');
        if (value > INT32_MAX)
            return -1;
    }
    *at = p;
    return value;
}

static int append_id(int32_t id, int32_t *out, int n, int max, const char *text, struct err *err)
{
    for (int i = 0; i < n; i++)
        if (out[i] == id)
            return err_set(err, ERR_USAGE, "id %d is named twice in '%s'", id, text);
    if (n >= max)
        return err_set(err, ERR_USAGE, "more than %d ids in '%s'", max, text);
    out[n] = id;
    return 0;
}

int opt_parse_ids(const char *text, int limit, int32_t *out, int max, struct err *err)
{
    int n = 0;
    const char *at = text;
    for (;;) {
        int64_t first = read_id(&at);
        int64_t last = first;
        if (first >= 0 && *at == '-') {
            at++;
            last = read_id(&at);
        }
        if (first < 0 || last < 0 || (*at && *at != ','))
            return err_set(err, ERR_USAGE,
                           "'%s' is no list of ids at byte %d; write it like 0-15,32-47,60", text,
                           (int)(at - text));
        if (last < first)
            return err_set(err, ERR_USAGE, "range %lld-%lld in '%s' runs backwards",
                           (long long)first, (long long)last, text);
        if (last >= limit)
            return err_set(err, ERR_USAGE, "id %lld in '%s' is too large; ids run from 0 to %d",
                           (long long)last, text, limit - 1);
        for (int64_t id = first; id <= last; id++, n++) {
            int rc = append_id((int32_t)id, out, n, max, text, err);
            if (rc)
                return rc;
        }
        if (!*at)
            return n;
        at++;
    }
}
