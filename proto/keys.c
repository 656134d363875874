/* keys: key files; see keys.h. Text, so that they are seen, compared and copied with any tool; hex
 * and not Z85, whose letters shells and URLs take for their own. */
#include "proto/keys.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zmq.h>

#define ALLOWED_MAX 65536
#define Z85_BYTES   41

void wire_key_text(const uint8_t *key, char *text)
{
    for (int i = 0; i < WIRE_KEY_BYTES; i++)
        snprintf(text + 2 * i, 3, "%02x", key[i]);
}

static int nibble(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c = (char)(c | 0x20);
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

int wire_key_parse(const char *text, uint8_t *key)
{
    for (int i = 0; i < WIRE_KEY_BYTES; i++) {
        int high = nibble(text[2 * i]), low = high < 0 ? -1 : nibble(text[2 * i + 1]);
        if (low < 0)
            return -1;
        key[i] = (uint8_t)(high << 4 | low);
    }
    return nibble(text[2 * WIRE_KEY_BYTES]) < 0 ? 0 : -1;
}

/* ---- reading ---- */

static int check_private(FILE *f, const char *path, struct err *err)
{
    struct stat st;
    if (fstat(fileno(f), &st) != 0)
        return err_sys(err, ERR_IO, "cannot look at key file %s", path);
    if (!S_ISREG(st.st_mode))
        return err_set(err, ERR_USAGE, "key file %s is no file", path);
    if (st.st_mode & 077)
        return err_set(err, ERR_USAGE,
                       "others can read the secret key in %s (mode %03o); chmod 600 it, or make a "
                       "new one if they may have",
                       path, (unsigned)(st.st_mode & 0777));
    return 0;
}

/* read_pair: the lines "public HEX" and "secret HEX", each once. The public key must be the
 * secret's: a mixed-up file would only show as a cluster that never connects. */
static int read_pair(FILE *f, const char *path, struct wire_keys *k, struct err *err)
{
    char line[256], z85[Z85_BYTES], derived[Z85_BYTES];
    int have = 0, rc = 0;
    while (rc == 0 && fgets(line, sizeof(line), f)) {
        if (strncmp(line, "public ", 7) == 0 && !(have & 1))
            rc = wire_key_parse(line + 7, k->public_key), have |= 1;
        else if (strncmp(line, "secret ", 7) == 0 && !(have & 2))
            rc = wire_key_parse(line + 7, k->secret_key), have |= 2;
        else if (line[0] != '#' && line[0] != '\n')
            rc = -1;
    }
    explicit_bzero(line, sizeof(line));
    if (rc || have != 3)
        return err_set(err, ERR_USAGE, "%s is no key file; sigmoe keys new FILE makes one", path);
    zmq_z85_encode(z85, k->secret_key, WIRE_KEY_BYTES);
    uint8_t public_key[WIRE_KEY_BYTES];
    rc = zmq_curve_public(derived, z85);
    explicit_bzero(z85, sizeof(z85));
    if (rc || !zmq_z85_decode(public_key, derived) ||
        memcmp(public_key, k->public_key, WIRE_KEY_BYTES) != 0)
        return err_set(err, ERR_USAGE,
                       "the two keys of %s do not belong together; make a new one: sigmoe keys new",
                       path);
    return 0;
}

static int allow_one(struct wire_keys *k, const uint8_t *key, struct err *err)
{
    if (k->n_allowed == ALLOWED_MAX)
        return err_set(err, ERR_LIMIT, "more than %d allowed keys", ALLOWED_MAX);
    uint8_t *grown = realloc(k->allowed, (size_t)(k->n_allowed + 1) * WIRE_KEY_BYTES);
    if (!grown)
        return err_set(err, ERR_NOMEM, "no memory for %d allowed keys", k->n_allowed + 1);
    memcpy(grown + (size_t)k->n_allowed * WIRE_KEY_BYTES, key, WIRE_KEY_BYTES);
    k->allowed = grown;
    k->n_allowed++;
    return 0;
}

static int read_allowed(struct wire_keys *k, const char *path, struct err *err)
{
    char line[1024];
    FILE *f = fopen(path, "re");
    if (!f)
        return err_sys(err, ERR_IO, "cannot read the allowed keys in %s", path);
    int rc = 0, at = 0;
    while (rc == 0 && fgets(line, sizeof(line), f)) {
        uint8_t key[WIRE_KEY_BYTES];
        const char *text = line + strspn(line, " \t");
        at++;
        if (*text == '#' || *text == '\n' || *text == '\r' || !*text)
            continue;
        rc =
            wire_key_parse(text, key) == 0
                ? allow_one(k, key, err)
                : err_set(err, ERR_USAGE,
                          "%s, line %d: no public key; a line begins with 64 hex digits", path, at);
    }
    fclose(f);
    if (rc == 0 && k->n_allowed == 0)
        return err_set(err, ERR_USAGE, "%s allows nobody: it has no public key", path);
    return rc;
}

int wire_keys_allow_again(struct wire_keys *k, const char *allow, struct err *err)
{
    struct wire_keys fresh = {.n_allowed = 0};
    int rc = read_allowed(&fresh, allow, err);
    if (rc) {
        free(fresh.allowed);
        return rc;
    }
    free(k->allowed);
    k->allowed = fresh.allowed;
    k->n_allowed = fresh.n_allowed;
    return 0;
}

int wire_keys_open(const char *path, const char *allow, struct wire_keys **out, struct err *err)
{
    struct wire_keys *k = calloc(1, sizeof(*k));
    FILE *f = fopen(path, "re");
    int rc = 0;
    if (!k)
        rc = err_set(err, ERR_NOMEM, "no memory for keys");
    else if (!zmq_has("curve"))
        rc = err_set(err, ERR_USAGE, "--wire-key: this libzmq was built without CURVE");
    else if (!f)
        rc = err_sys(err, ERR_IO, "cannot read key file %s", path);
    rc = rc ? rc : check_private(f, path, err);
    rc = rc ? rc : read_pair(f, path, k, err);
    if (f)
        fclose(f);
    if (rc == 0)
        rc = allow ? read_allowed(k, allow, err) : allow_one(k, k->public_key, err);
    if (rc) {
        wire_keys_close(k);
        return rc;
    }
    *out = k;
    return 0;
}

void wire_keys_close(struct wire_keys *k)
{
    if (!k)
        return;
    explicit_bzero(k->secret_key, sizeof(k->secret_key));
    free(k->allowed);
    free(k);
}

int wire_keys_allow(const struct wire_keys *k, const uint8_t *public_key)
{
    for (int i = 0; i < k->n_allowed; i++)
        if (memcmp(k->allowed + (size_t)i * WIRE_KEY_BYTES, public_key, WIRE_KEY_BYTES) == 0)
            return 1;
    return 0;
}

/* ---- making ---- */

static int write_new(const char *path, mode_t mode, const char *text, size_t n, struct err *err)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode);
    if (fd < 0)
        return errno == EEXIST
                   ? err_set(err, ERR_IO, "%s is there already; keys are not written over", path)
                   : err_sys(err, ERR_IO, "cannot make %s", path);
    int ok = write(fd, text, n) == (ssize_t)n && fsync(fd) == 0;
    ok = close(fd) == 0 && ok;
    if (!ok) {
        int rc = err_sys(err, ERR_IO, "cannot write %s", path);
        unlink(path);
        return rc;
    }
    return 0;
}

int wire_keys_create(const char *path, const char *comment, char *text, struct err *err)
{
    char z85[2][Z85_BYTES], hex[WIRE_KEY_TEXT], line[1024], pub[4096];
    uint8_t key[WIRE_KEY_BYTES];
    if ((size_t)snprintf(pub, sizeof(pub), "%s.pub", path) >= sizeof(pub))
        return err_set(err, ERR_USAGE, "the path of the key file is too long");
    if (zmq_curve_keypair(z85[0], z85[1]) != 0)
        return err_set(err, ERR_USAGE, "this libzmq was built without CURVE");
    zmq_z85_decode(key, z85[0]);
    wire_key_text(key, text);
    zmq_z85_decode(key, z85[1]);
    wire_key_text(key, hex);
    int n = snprintf(line, sizeof(line),
                     "# sigmoe: whoever has this file may take part in the cluster\n"
                     "public %s\nsecret %s\n",
                     text, hex);
    int rc = write_new(path, 0600, line, (size_t)n, err);
    explicit_bzero(z85, sizeof(z85));
    explicit_bzero(key, sizeof(key));
    explicit_bzero(hex, sizeof(hex));
    explicit_bzero(line, sizeof(line));
    if (rc)
        return rc;
    n = snprintf(line, sizeof(line), "%s %.200s\n", text, comment);
    rc = write_new(pub, 0644, line, (size_t)n, err);
    if (rc)
        unlink(path);
    return rc;
}
