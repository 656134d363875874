/* sock: what ZeroMQ needs around it to be one more watcher of a libev loop.
 *
 * Each turn of the loop (proto/zmq_watch.h) receives until nothing is left, at most DRAIN_MESSAGES
 * so that the loop's other work goes on.
 *
 * Routing ids are left to the ROUTER, which makes a fresh one for each connection. Ids chosen by
 * the peer look attractive but are a trap: while a half-dead connection holds an id, the same peer
 * coming back with it is accepted by TCP and then ignored for good, even after the old connection
 * is gone (libzmq 4.3.4, ROUTER_HANDOVER off; seen in a test of ours). Who a peer is, Hello says.
 */
#include "proto/sock.h"
#include "proto/here.h"
#include "proto/zap.h"
#include "proto/zmq_watch.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define HWM_DEFAULT    64
#define DRAIN_MESSAGES 64
#define ALIGN_BYTES    8
/* Milliseconds. Heartbeats find dead TCP connections; a hung process is found by Ping, above. */
#define LINGER_MS        500
#define HANDSHAKE_MS     3000
#define RECONNECT_MS     20
#define RECONNECT_MAX_MS 500
#define HEARTBEAT_MS     1000
#define HEARTBEAT_DEAD   3000
#define BACKLOG          100

/* Ids of peers that are here: a ROUTER's own begin with a zero. */
#define HERE_MARK  1
#define HERE_BYTES (1 + sizeof(uint32_t))

struct sock {
    void *zmq; /* NULL: a SOCK_CALL whose peer is here */
    struct here *here;
    struct ev_loop *loop;
    enum sock_kind kind;
    sock_fn *on_message;
    void *user;
    struct zmq_watch watch;
    struct sock_stats stats;
    int hwm, encrypted;
    struct zap *zap; /* of a SOCK_SERVE with keys */
    void *monitor;   /* of a SOCK_CALL: how its handshakes go */
    const char *trouble;
    char endpoint[LIMIT_NAME_BYTES];
};

/* ---- receiving ---- */

/* part_recv: 1 and a part, 0 when there is none. */
static int part_recv(struct sock *s, zmq_msg_t *part)
{
    zmq_msg_init(part);
    int rc;
    do {
        rc = zmq_msg_recv(part, s->zmq, ZMQ_DONTWAIT);
    } while (rc < 0 && errno == EINTR);
    if (rc >= 0)
        return 1;
    zmq_msg_close(part);
    return 0;
}

/* part_align: small parts arrive as slices of ZeroMQ's receive buffer, at any address; they are
 * copied to one that may be read as integers and floats. Large parts have memory of their own. */
static int part_align(zmq_msg_t *part)
{
    if ((uintptr_t)zmq_msg_data(part) % ALIGN_BYTES == 0)
        return 0;
    zmq_msg_t copy;
    if (zmq_msg_init_size(&copy, zmq_msg_size(part)) != 0)
        return -1;
    memcpy(zmq_msg_data(&copy), zmq_msg_data(part), zmq_msg_size(part));
    zmq_msg_close(part);
    zmq_msg_init(part);
    zmq_msg_move(part, &copy);
    zmq_msg_close(&copy);
    return 0;
}

/* take_peer receives the routing id that a ROUTER puts before a message. 1, or 0: nothing there. */
static int take_peer(struct sock *s, struct sock_peer *from)
{
    zmq_msg_t id;
    if (!part_recv(s, &id))
        return 0;
    from->bytes = (uint8_t)zmq_msg_size(&id); /* ZeroMQ allows 255 */
    memcpy(from->id, zmq_msg_data(&id), from->bytes);
    zmq_msg_close(&id);
    return 1;
}

/* take_parts receives the parts of one message; ZeroMQ hands messages over whole. Parts beyond
 * LIMIT_FRAMES are dropped: no message has so many, so msg_parse refuses what is left. 1, 0:
 * nothing there, or ERR_NOMEM with the message gone from the socket. */
static int take_parts(struct sock *s, struct frames *f)
{
    int rc = 0, more = 1;
    while (more) {
        zmq_msg_t part;
        if (!part_recv(s, &part))
            return rc;
        rc = rc < 0 ? rc : 1;
        more = zmq_msg_more(&part);
        s->stats.bytes_received += zmq_msg_size(&part);
        if (rc > 0 && part_align(&part) != 0)
            rc = ERR_NOMEM;
        if (rc > 0 && f->n < LIMIT_FRAMES) {
            zmq_msg_init(&f->part[f->n]);
            zmq_msg_move(&f->part[f->n++], &part);
        }
        zmq_msg_close(&part);
    }
    return rc;
}

/* receive_one: 1 when a message was taken (and handed on), 0 when none is there. */
static int receive_one(struct sock *s)
{
    struct sock_peer from;
    struct frames f;
    frames_init(&f);
    if (s->kind == SOCK_SERVE && !take_peer(s, &from))
        return 0;
    int rc = take_parts(s, &f);
    if (rc == 0)
        return 0;
    s->stats.messages_received++;
    if (rc > 0)
        s->on_message(s->user, s, s->kind == SOCK_SERVE ? &from : NULL, &f);
    frames_close(&f);
    return 1;
}

/* ---- peers that are here ---- */

static void here_peer(uint32_t id, struct sock_peer *out)
{
    out->bytes = HERE_BYTES;
    out->id[0] = HERE_MARK;
    memcpy(out->id + 1, &id, sizeof(id));
}

/* 1: the peer is here, and its id. */
static int peer_is_here(const struct sock_peer *peer, uint32_t *id)
{
    if (peer->bytes != HERE_BYTES || peer->id[0] != HERE_MARK)
        return 0;
    memcpy(id, peer->id + 1, sizeof(*id));
    return 1;
}

static uint64_t frames_bytes(const struct frames *f)
{
    uint64_t bytes = 0;
    for (int i = 0; i < f->n; i++)
        bytes += frames_size(f, i);
    return bytes;
}

static int frames_align(struct frames *f)
{
    for (int i = 0; i < f->n; i++)
        if (part_align(&f->part[i]) != 0)
            return -1;
    return 0;
}

static int receive_here(struct sock *s)
{
    struct sock_peer from;
    struct frames f;
    uint32_t id;
    frames_init(&f);
    if (!here_recv(s->here, &id, &f))
        return 0;
    here_peer(id, &from);
    s->stats.messages_received++;
    s->stats.bytes_received += frames_bytes(&f);
    if (frames_align(&f) == 0)
        s->on_message(s->user, s, s->kind == SOCK_SERVE ? &from : NULL, &f);
    frames_close(&f);
    return 1;
}

static void on_turn_here(void *user)
{
    struct sock *s = user;
    for (int i = 0; i < DRAIN_MESSAGES && receive_here(s); i++)
        ;
}

static int send_here(struct sock *s, uint32_t id, struct frames *f)
{
    uint64_t bytes = frames_bytes(f);
    int rc = here_send(s->here, id, f);
    if (rc == 0) {
        s->stats.bytes_sent += bytes;
        s->stats.messages_sent++;
    }
    return rc;
}

/* join: s, new and without ZeroMQ, is the other end of `serve`. */
static int join(struct sock *s, struct sock *serve, struct err *err)
{
    if (!serve->here)
        serve->here = here_create(serve->loop, serve->hwm, on_turn_here, serve);
    s->here = serve->here ? here_create(s->loop, s->hwm, on_turn_here, s) : NULL;
    if (!s->here || here_connect(s->here, serve->here) != 0)
        return err_set(err, ERR_NOMEM, "no memory for a connection to %s", serve->endpoint);
    memcpy(s->endpoint, serve->endpoint, sizeof(s->endpoint));
    return 0;
}

/* ---- the loop ---- */

static void on_turn(void *user)
{
    struct sock *s = user;
    for (int i = 0; i < DRAIN_MESSAGES && receive_one(s); i++)
        ;
}

/* ---- opening ---- */

static int set_int(void *zmq, int option, int value)
{
    return zmq_setsockopt(zmq, option, &value, sizeof(value));
}

/* Nobody without a key reads what passes, or computes here, unless the user says so. */
static int set_keys(struct sock *s, const struct sock_config *c, const char *address,
                    const uint8_t *peer, struct err *err)
{
    const struct wire_keys *k = c->keys;
    int serve = c->kind == SOCK_SERVE;
    if (strncmp(address, "inproc://", 9) == 0)
        return 0;
    if (!k && peer)
        return err_set(err, ERR_USAGE,
                       "%s names a key, and this side has none: give --wire-key FILE", c->endpoint);
    if (!k && !c->insecure && !endpoint_is_local(address))
        return err_set(err, ERR_USAGE,
                       "%s can be reached by other hosts and nothing is encrypted without keys: "
                       "make one (sigmoe keys new FILE) and give --wire-key FILE on both sides, or "
                       "--insecure if the network is trusted",
                       address);
    if (!k)
        return 0;
    int rc = set_int(s->zmq, ZMQ_CURVE_SERVER, serve) |
             zmq_setsockopt(s->zmq, ZMQ_CURVE_SECRETKEY, k->secret_key, WIRE_KEY_BYTES);
    if (serve)
        rc |= zmq_setsockopt(s->zmq, ZMQ_ZAP_DOMAIN, ZAP_DOMAIN, strlen(ZAP_DOMAIN));
    else
        rc |= zmq_setsockopt(s->zmq, ZMQ_CURVE_PUBLICKEY, k->public_key, WIRE_KEY_BYTES) |
              zmq_setsockopt(s->zmq, ZMQ_CURVE_SERVERKEY, peer ? peer : k->public_key,
                             WIRE_KEY_BYTES);
    if (rc)
        return err_set(err, ERR_NET, "ZeroMQ refuses the keys for %s: %s", address,
                       zmq_strerror(zmq_errno()));
    s->encrypted = 1;
    return 0;
}

static int set_options(void *zmq, const struct sock_config *c, int hwm, struct err *err)
{
    int64_t bytes_max = c->message_bytes_max > 0 ? c->message_bytes_max : LIMIT_PAYLOAD_BYTES;
    int rc = set_int(zmq, ZMQ_LINGER, LINGER_MS) | set_int(zmq, ZMQ_SNDHWM, hwm) |
             set_int(zmq, ZMQ_RCVHWM, hwm) | set_int(zmq, ZMQ_HANDSHAKE_IVL, HANDSHAKE_MS) |
             zmq_setsockopt(zmq, ZMQ_MAXMSGSIZE, &bytes_max, sizeof(bytes_max));
    if (strncmp(c->endpoint, "tcp://", 6) == 0)
        rc |= set_int(zmq, ZMQ_HEARTBEAT_IVL, HEARTBEAT_MS) |
              set_int(zmq, ZMQ_HEARTBEAT_TIMEOUT, HEARTBEAT_DEAD) |
              set_int(zmq, ZMQ_HEARTBEAT_TTL, HEARTBEAT_DEAD) |
              set_int(zmq, ZMQ_IPV6, c->endpoint[6] == '[');
    if (c->kind == SOCK_SERVE)
        rc |= set_int(zmq, ZMQ_ROUTER_MANDATORY, 1) | set_int(zmq, ZMQ_BACKLOG, BACKLOG);
    else /* IMMEDIATE: a message is for a live connection or for nobody; it never waits for one. */
        rc |= set_int(zmq, ZMQ_IMMEDIATE, 1) | set_int(zmq, ZMQ_RECONNECT_IVL, RECONNECT_MS) |
              set_int(zmq, ZMQ_RECONNECT_IVL_MAX, RECONNECT_MAX_MS);
    if (rc)
        return err_set(err, ERR_NET, "ZeroMQ refuses an option of %s: %s", c->endpoint,
                       zmq_strerror(zmq_errno()));
    return 0;
}

/* check_ipc_free: ZeroMQ unlinks whatever lies at the path before it binds there, be it a file of
 * the user or the socket of a living worker. */
static int check_ipc_free(const char *endpoint, struct err *err)
{
    const char *path = endpoint + strlen("ipc://");
    struct stat st;
    if (strncmp(endpoint, "ipc://", 6) != 0 || path[0] == '@' || path[0] == '*' ||
        lstat(path, &st) != 0)
        return 0;
    if (!S_ISSOCK(st.st_mode))
        return err_set(err, ERR_NET, "cannot listen on %s: a file that is no socket lies there",
                       endpoint);
    struct sockaddr_un at = {.sun_family = AF_UNIX};
    memcpy(at.sun_path, path, strlen(path)); /* endpoint_check has seen the length */
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int live = fd >= 0 && connect(fd, (const struct sockaddr *)&at, sizeof(at)) == 0;
    if (fd >= 0)
        close(fd);
    if (live)
        return err_set(err, ERR_NET,
                       "cannot listen on %s: another program listens there; choose "
                       "another path or stop it",
                       endpoint);
    return 0;
}

static int bind_failed(const char *endpoint, struct err *err)
{
    if (zmq_errno() == EADDRINUSE)
        return err_set(err, ERR_NET,
                       "cannot listen on %s: the address is in use; choose another "
                       "port (0: any that is free) or stop who uses it",
                       endpoint);
    if (zmq_errno() == ENODEV || zmq_errno() == EADDRNOTAVAIL)
        return err_set(err, ERR_NET,
                       "cannot listen on %s: this host has no such address; write one of "
                       "its numeric addresses",
                       endpoint);
    return err_set(err, ERR_NET, "cannot listen on %s: %s", endpoint, zmq_strerror(zmq_errno()));
}

/* monitor: the handshakes' fate is told on a socket of its own, which sock_trouble reads. */
static void monitor(struct sock *s, void *zmq_context)
{
    char name[64];
    snprintf(name, sizeof(name), "inproc://sigmoe-monitor-%p", (void *)s);
    if (zmq_socket_monitor(
            s->zmq, name,
            ZMQ_EVENT_HANDSHAKE_FAILED_NO_DETAIL | ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL |
                ZMQ_EVENT_HANDSHAKE_FAILED_AUTH | ZMQ_EVENT_HANDSHAKE_SUCCEEDED) != 0)
        return;
    s->monitor = zmq_socket(zmq_context, ZMQ_PAIR);
    if (s->monitor && zmq_connect(s->monitor, name) != 0) {
        zmq_close(s->monitor);
        s->monitor = NULL;
    }
}

static int attach(struct sock *s, const char *endpoint, struct err *err)
{
    if (s->kind == SOCK_CALL) {
        if (zmq_connect(s->zmq, endpoint) != 0)
            return err_set(err, ERR_NET, "cannot connect to %s: %s", endpoint,
                           zmq_strerror(zmq_errno()));
        memcpy(s->endpoint, endpoint, strlen(endpoint) + 1);
        return 0;
    }
    int rc = check_ipc_free(endpoint, err);
    if (rc)
        return rc;
    if (zmq_bind(s->zmq, endpoint) != 0)
        return bind_failed(endpoint, err);
    size_t size = sizeof(s->endpoint);
    if (zmq_getsockopt(s->zmq, ZMQ_LAST_ENDPOINT, s->endpoint, &size) != 0)
        return err_set(err, ERR_NET, "the address bound for %s has no name: %s", endpoint,
                       zmq_strerror(zmq_errno()));
    return 0;
}

static void close_sockets(struct sock *s)
{
    here_close(s->here);
    if (s->monitor) {
        zmq_socket_monitor(s->zmq, NULL, 0);
        zmq_close(s->monitor);
    }
    if (s->zmq)
        zmq_close(s->zmq);
    zap_close(s->zap);
}

static int open_zmq(struct sock *s, void *zmq_context, const struct sock_config *config,
                    struct err *err)
{
    char address[LIMIT_NAME_BYTES];
    uint8_t peer[WIRE_KEY_BYTES];
    int named = endpoint_split(config->endpoint, address, peer);
    s->zmq = zmq_socket(zmq_context, config->kind == SOCK_SERVE ? ZMQ_ROUTER : ZMQ_DEALER);
    if (!s->zmq)
        return err_set(err, ERR_NET, "no socket for %s: %s", config->endpoint,
                       zmq_strerror(zmq_errno()));
    int rc = set_options(s->zmq, config, s->hwm, err);
    rc = rc ? rc : set_keys(s, config, address, named ? peer : NULL, err);
    if (!rc && s->encrypted && s->kind == SOCK_SERVE)
        rc = zap_open(zmq_context, s->loop, config->keys, &s->zap, err);
    if (!rc && s->kind == SOCK_CALL && strncmp(address, "inproc://", 9) != 0)
        monitor(s, zmq_context);
    rc = rc ? rc : attach(s, address, err);
    if (!rc)
        zmq_watch_start(&s->watch, s->loop, s->zmq, on_turn, s);
    return rc;
}

int sock_open(void *zmq_context, struct ev_loop *loop, const struct sock_config *config,
              sock_fn *on_message, void *user, struct sock **out, struct err *err)
{
    int rc = endpoint_check(config->endpoint, err);
    if (rc)
        return rc;
    struct sock *s = calloc(1, sizeof(*s));
    if (!s)
        return err_set(err, ERR_NOMEM, "no memory for a socket on %s", config->endpoint);
    *s = (struct sock){.loop = loop,
                       .kind = config->kind,
                       .on_message = on_message,
                       .user = user,
                       .hwm = config->hwm > 0 ? config->hwm : HWM_DEFAULT};
    rc = config->beside ? join(s, config->beside, err) : open_zmq(s, zmq_context, config, err);
    if (rc) {
        close_sockets(s);
        free(s);
        return rc;
    }
    *out = s;
    return 0;
}

void sock_close(struct sock *s)
{
    if (!s)
        return;
    if (s->zmq)
        zmq_watch_stop(&s->watch);
    close_sockets(s);
    free(s);
}

int sock_is_encrypted(const struct sock *s)
{
    return s->encrypted;
}

/* trouble_of: an event is a frame {uint16 event, uint32 value}, then one with the endpoint. A peer
 * whose key is not allowed and one that takes no keys both look to ZeroMQ as they do here. */
static const char *trouble_of(const struct sock *s, int event)
{
    if (event == ZMQ_EVENT_HANDSHAKE_SUCCEEDED)
        return NULL;
    if (event == ZMQ_EVENT_HANDSHAKE_FAILED_AUTH)
        return "it does not allow this side's key: add its .pub line to the worker's --allow file";
    return s->encrypted
               ? "it proves no key that this side expects: does it run with --wire-key, and is "
                 "its public key the one given here?"
               : "it asks for keys: give --wire-key FILE";
}

const char *sock_trouble(struct sock *s)
{
    zmq_msg_t part;
    while (s->monitor) {
        int first = 1, more = 1;
        while (more) {
            zmq_msg_init(&part);
            if (zmq_msg_recv(&part, s->monitor, ZMQ_DONTWAIT) < 0) {
                zmq_msg_close(&part);
                return s->trouble;
            }
            uint16_t event;
            if (first && zmq_msg_size(&part) >= sizeof(event)) {
                memcpy(&event, zmq_msg_data(&part), sizeof(event));
                s->trouble = trouble_of(s, event);
            }
            first = 0;
            more = zmq_msg_more(&part);
            zmq_msg_close(&part);
        }
    }
    return s->trouble;
}

const char *sock_endpoint(const struct sock *s)
{
    return s->endpoint;
}

void sock_stats_get(const struct sock *s, struct sock_stats *out)
{
    *out = s->stats;
    out->refused = zap_refused(s->zap);
}

/* ---- sending ---- */

/* part_send sends a second handle of the part (a reference, not a copy of the bytes), so that the
 * caller still has the whole message when ZeroMQ takes none or only some of it. */
static int part_send(struct sock *s, zmq_msg_t *part, int more)
{
    zmq_msg_t handle;
    zmq_msg_init(&handle);
    if (zmq_msg_copy(&handle, part) != 0)
        return -1;
    int rc;
    do {
        rc = zmq_msg_send(&handle, s->zmq, ZMQ_DONTWAIT | (more ? ZMQ_SNDMORE : 0));
    } while (rc < 0 && errno == EINTR);
    if (rc < 0) {
        int saved = errno;
        zmq_msg_close(&handle);
        errno = saved;
    }
    return rc;
}

static int peer_send(struct sock *s, const struct sock_peer *to)
{
    int rc;
    do {
        rc = zmq_send(s->zmq, to->id, to->bytes, ZMQ_DONTWAIT | ZMQ_SNDMORE);
    } while (rc < 0 && errno == EINTR);
    return rc;
}

/* begin sends what a message is judged by: the peer at a SOCK_SERVE, the first part at a SOCK_CALL.
 */
static int begin(struct sock *s, const struct sock_peer *to, struct frames *f)
{
    return s->kind == SOCK_SERVE ? peer_send(s, to) : part_send(s, &f->part[0], f->n > 1);
}

/* A ROUTER judges a message by its first part; once begun it takes the rest in any case (and drops
 * it silently if the peer goes meanwhile). A DEALER whose peer goes in the middle forgets what it
 * had.
 *
 * What a peer has read, ZeroMQ learns from mail that a send looks at only now and then, so a queue
 * that looks full may have been empty for a while. Asking for ZMQ_EVENTS makes it read its mail: a
 * refusal counts only after that. */
int sock_send(struct sock *s, const struct sock_peer *to, struct frames *f)
{
    uint32_t id = 0;
    if (!s->zmq || (s->here && peer_is_here(to, &id)))
        return send_here(s, id, f);
    zmq_watch_called(&s->watch);
    int rc = begin(s, to, f);
    if (rc < 0 && errno == EAGAIN) {
        zmq_has_input(s->zmq);
        rc = begin(s, to, f);
    }
    for (int i = s->kind == SOCK_CALL; i < f->n && rc >= 0; i++)
        rc = part_send(s, &f->part[i], i + 1 < f->n);
    if (rc < 0 && errno == EAGAIN)
        return ERR_AGAIN;
    uint64_t bytes = frames_bytes(f);
    frames_close(f);
    if (rc < 0)
        return ERR_GONE;
    s->stats.bytes_sent += bytes;
    s->stats.messages_sent++;
    return 0;
}
