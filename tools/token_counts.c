/* token_counts: see token_counts.h. */
#include "tools/token_counts.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define COUNT_MAX ((uint64_t)1 << 53) /* sums of a whole vocabulary stay far from 2^64 */

/* number_read: a decimal number below `limit`; the rest of the line, or NULL. */
static const char *number_read(const char *text, uint64_t limit, uint64_t *out)
{
    char *end;
    text += strspn(text, " \t");
    if (*text < '0' || *text > '9')
        return NULL;
    errno = 0;
    unsigned long long n = strtoull(text, &end, 10);
    if (errno != 0 || n >= limit)
        return NULL;
    *out = n;
    return end;
}

static int line_read(const char *line, const char *path, int number, int vocab, uint64_t *count,
                     struct err *err)
{
    uint64_t id, n;
    const char *rest = number_read(line, (uint64_t)vocab, &id);
    if (rest)
        rest = *rest == ' ' || *rest == '\t' ? number_read(rest, COUNT_MAX, &n) : NULL;
    if (!rest || rest[strspn(rest, " \t\r\n")] != '\0')
        return err_set(err, ERR_USAGE,
                       "%s:%d: \"%.40s\" is not \"TOKEN_ID COUNT\" with an id below %d", path,
                       number, line, vocab);
    count[id] = count[id] > COUNT_MAX ? count[id] : count[id] + n;
    return 0;
}

int token_counts_read(const char *path, int vocab, uint64_t **out, struct err *err)
{
    FILE *file = fopen(path, "r");
    if (!file)
        return err_sys(err, ERR_IO, "cannot read %s", path);
    uint64_t *count = calloc((size_t)vocab, sizeof(*count));
    int rc = count ? 0 : err_set(err, ERR_NOMEM, "no memory for the counts of %d tokens", vocab);
    char *line = NULL;
    size_t room = 0;
    for (int number = 1; rc == 0 && getline(&line, &room, file) >= 0; number++) {
        line[strcspn(line, "\r\n")] = '\0';
        if (line[0] != '#' && line[strspn(line, " \t")] != '\0')
            rc = line_read(line, path, number, vocab, count, err);
    }
    if (rc == 0 && ferror(file))
        rc = err_sys(err, ERR_IO, "cannot read %s", path);
    free(line);
    fclose(file);
    if (rc)
        free(count);
    else
        *out = count;
    return rc;
}
