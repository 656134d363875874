/* err: the one writer of error texts. The first text is kept because the first failure is the cause
 * and what follows are its consequences. */
#include "base/err.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

int(err_set)(struct err *err, int code, const char *format, ...)
{
    if (!err || err->code != ERR_OK)
        return code;
    va_list args;
    va_start(args, format);
    vsnprintf(err->text, sizeof(err->text), format, args);
    va_end(args);
    err->code = code;
    return code;
}

int(err_sys)(struct err *err, int code, const char *format, ...)
{
    int saved = errno;
    if (!err || err->code != ERR_OK)
        return code;
    char reason[128];
    const char *why = strerror_r(saved, reason, sizeof(reason));
    va_list args;
    va_start(args, format);
    vsnprintf(err->text, sizeof(err->text), format, args);
    va_end(args);
    size_t used = strlen(err->text);
    snprintf(err->text + used, sizeof(err->text) - used, ": %s", why);
    err->code = code;
    errno = saved;
    return code;
}

void err_clear(struct err *err)
{
    if (!err)
        return;
    err->code = ERR_OK;
    err->text[0] = '\0';
}

int err_exit_code(int code)
{
    switch (code) {
    case ERR_OK:
        return 0;
    case ERR_USAGE:
        return 2;
    case ERR_MODEL:
    case ERR_IO:
        return 3;
    case ERR_NET:
    case ERR_PROTO:
    case ERR_GONE:
    case ERR_TIMEOUT:
        return 4;
    default:
        return 1;
    }
}
