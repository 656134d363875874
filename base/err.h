/* err: how a failure travels. A function that can fail returns 0 or one of these negative codes and
 * writes one line of text, where it happens, with the values and the remedy; callers pass both on
 * unchanged. Outputs are untouched on failure. `err` may be NULL where nobody reads the text. */
#ifndef BASE_ERR_H
#define BASE_ERR_H

enum err_code {
    ERR_OK = 0,
    ERR_USAGE = -1,   /* the command line or an argument of the user is wrong */
    ERR_MODEL = -2,   /* a file of the checkpoint is wrong, or does not fit */
    ERR_IO = -3,      /* the operating system refused a file */
    ERR_NET = -4,     /* an address, a port or a peer */
    ERR_PROTO = -5,   /* a message breaks the wire's rules */
    ERR_LIMIT = -6,   /* more than base/limits.h or the configuration allows */
    ERR_NOMEM = -7,   /* memory */
    ERR_AGAIN = -8,   /* not now: a queue is full, nothing has arrived */
    ERR_GONE = -9,    /* the peer is not there any more */
    ERR_TIMEOUT = -10 /* a deadline passed */
};

struct err {
    int code;
    char text[1024];
};

/* err_set writes the text and the code (an earlier text is kept: the first failure is the cause)
 * and returns the code, so that `return err_set(err, ERR_MODEL, ...)` is one line. */
int err_set(struct err *err, int code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* err_sys is err_set with ": <strerror(errno)>" appended. */
int err_sys(struct err *err, int code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* The macros return the very code that was passed, so that the compiler sees that `return
 * err_set(err, ERR_MODEL, ...)` is never 0 and that what a failed call leaves unset is not read. */
#define err_set(err, code, ...)                                                                    \
    __extension__({                                                                                \
        const int err_code_ = (code);                                                              \
        (void)(err_set)((err), err_code_, __VA_ARGS__);                                            \
        err_code_;                                                                                 \
    })
#define err_sys(err, code, ...)                                                                    \
    __extension__({                                                                                \
        const int err_code_ = (code);                                                              \
        (void)(err_sys)((err), err_code_, __VA_ARGS__);                                            \
        err_code_;                                                                                 \
    })
void err_clear(struct err *err);
/* err_exit_code maps a code to the exit status of a program: 0 ok, 1 runtime failure, 2 usage,
 * 3 bad model or file, 4 network. */
int err_exit_code(int code);

#endif
