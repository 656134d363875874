/* endpoint: addresses as users write them, checked before ZeroMQ sees them, because its own answer
 * to a typing mistake is "Invalid argument". */
#include "proto/sock.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/un.h>

#define PORT_MAX 65535

static int check_port(const char *endpoint, const char *port, struct err *err)
{
    if (strcmp(port, "*") == 0)
        return 0;
    size_t n = strspn(port, "0123456789");
    if (n < 1 || n > 5 || port[n] || atoi(port) > PORT_MAX)
        return err_set(err, ERR_USAGE,
                       "'%s' is no port of %s; give a number from 0 to 65535 (0: any that is free)",
                       port, endpoint);
    return 0;
}

static int check_tcp(const char *endpoint, const char *at, struct err *err)
{
    const char *colon = strrchr(at, ':');
    if (!colon || colon == at)
        return err_set(err, ERR_USAGE, "%s needs a host and a port: tcp://127.0.0.1:5701",
                       endpoint);
    const char *end = *at == '[' ? strchr(at, ']') : colon;
    int bracket = *at == '[';
    if (!end || end + bracket != colon || (!bracket && memchr(at, ':', (size_t)(colon - at))))
        return err_set(err, ERR_USAGE,
                       "the host of %s is not clear; write IPv6 in brackets: "
                       "tcp://[::1]:5701",
                       endpoint);
    return check_port(endpoint, colon + 1, err);
}

static int check_ipc(const char *endpoint, const char *path, struct err *err)
{
    size_t max = sizeof(((struct sockaddr_un *)0)->sun_path) - 1, n = strlen(path);
    if (n < 1 || n > max)
        return err_set(err, ERR_USAGE, "the path of %s has %zu bytes; it must have from 1 to %zu",
                       endpoint, n, max);
    return 0;
}

int endpoint_split(const char *endpoint, char *address, uint8_t *key)
{
    const char *hash = strrchr(endpoint, '#');
    size_t n = hash ? (size_t)(hash - endpoint) : strlen(endpoint);
    memcpy(address, endpoint, n);
    address[n] = 0;
    return hash && wire_key_parse(hash + 1, key) == 0;
}

int endpoint_check(const char *endpoint, struct err *err)
{
    size_t n = strlen(endpoint);
    char address[LIMIT_NAME_BYTES];
    uint8_t key[WIRE_KEY_BYTES];
    if (n >= LIMIT_NAME_BYTES)
        return err_set(err, ERR_USAGE, "an endpoint of %zu bytes; at most %d are allowed", n,
                       LIMIT_NAME_BYTES - 1);
    for (size_t i = 0; i < n; i++)
        if ((unsigned char)endpoint[i] <= 0x20 || endpoint[i] == 0x7f)
            return err_set(err, ERR_USAGE, "endpoint '%s' has a space or control character",
                           endpoint);
    if (!endpoint_split(endpoint, address, key) && strchr(endpoint, '#'))
        return err_set(err, ERR_USAGE,
                       "behind the # of %s stands no key; write the worker's public key, 64 hex "
                       "digits",
                       endpoint);
    if (strncmp(address, "tcp://", 6) == 0)
        return check_tcp(endpoint, address + 6, err);
    if (strncmp(address, "ipc://", 6) == 0)
        return check_ipc(endpoint, address + 6, err);
    if (strncmp(address, "inproc://", 9) == 0 && address[9])
        return 0;
    return err_set(err, ERR_USAGE,
                   "'%s' is no endpoint; write tcp://HOST:PORT, ipc://PATH or inproc://NAME",
                   endpoint);
}

int endpoint_is_local(const char *endpoint)
{
    static const char *const local[] = {"inproc://", "ipc://", "tcp://127.",
                                        "tcp://localhost:", "tcp://[::1]:"};
    for (size_t i = 0; i < sizeof(local) / sizeof(local[0]); i++)
        if (strncmp(endpoint, local[i], strlen(local[i])) == 0)
            return 1;
    return 0;
}

uint64_t incarnation_new(void)
{
    uint64_t value = 0;
    while (value == 0)
        if (getrandom(&value, sizeof(value), 0) != sizeof(value) && errno != EINTR)
            abort(); /* a kernel without random numbers: nothing here may go on */
    return value;
}
