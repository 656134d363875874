/* keys: who may take part in a cluster. Each side has a CURVE key pair (Curve25519, as ZeroMQ's
 * CURVE takes it: rfc.zeromq.org/spec/26) in a file that only its owner can read. A worker answers
 * those whose public key it was told to allow; a coordinator speaks only with a worker that proves
 * to have the key it expects. What passes between them is encrypted, and nobody between them can
 * change it.
 *
 * The smallest set-up is one key file on every host: each side then allows exactly its own key.
 * With a key a host, --allow names the others', and a worker's key stands behind its endpoint:
 * tcp://gpu7:5701#<64 hex digits>. */
#ifndef PROTO_KEYS_H
#define PROTO_KEYS_H

#include "base/err.h"
#include <stdint.h>

#define WIRE_KEY_BYTES 32
#define WIRE_KEY_TEXT  (2 * WIRE_KEY_BYTES + 1)

struct wire_keys {
    uint8_t public_key[WIRE_KEY_BYTES], secret_key[WIRE_KEY_BYTES];
    uint8_t *allowed; /* [n_allowed][WIRE_KEY_BYTES] */
    int n_allowed;
};

/* wire_keys_open reads a key file and, unless allow is NULL, a file of allowed public keys (a line
 * each: 64 hex digits, then anything; # begins a comment); without one the own key is allowed. A
 * secret that others can read is refused: ERR_USAGE, in words. */
int wire_keys_open(const char *path, const char *allow, struct wire_keys **out, struct err *err);
/* wire_keys_allow_again reads the allow file once more. On failure who was allowed stays allowed.
 * For the thread that the keys are used on; who is connected already is not asked again. */
int wire_keys_allow_again(struct wire_keys *k, const char *allow, struct err *err);
/* wire_keys_close forgets the secret; NULL is fine. */
void wire_keys_close(struct wire_keys *k);
int wire_keys_allow(const struct wire_keys *k, const uint8_t *public_key);
/* wire_keys_create makes a pair in a new file, and its public half in PATH.pub, a line that an
 * allow file can take; ERR_IO when a file is there. text [WIRE_KEY_TEXT]: the public key. */
int wire_keys_create(const char *path, const char *comment, char *text, struct err *err);
void wire_key_text(const uint8_t *key, char *text);
/* wire_key_parse: 64 hex digits; 0, or -1. */
int wire_key_parse(const char *text, uint8_t *key);

#endif
