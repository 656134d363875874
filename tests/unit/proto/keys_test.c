/* keys: key files, and who gets through a socket that asks for them. */
#include "proto/sock.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#define TURN_S 0.01

static char dir[64], path[4][96];

static void write_file(const char *at, const char *text, mode_t mode)
{
    int fd = open(at, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, mode);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, strlen(text)), strlen(text));
    assert_int_equal(fchmod(fd, mode), 0);
    close(fd);
}

static int folder(void **state)
{
    (void)state;
    snprintf(dir, sizeof(dir), "/tmp/sigmoe-keys-XXXXXX");
    if (!mkdtemp(dir))
        return -1;
    for (int i = 0; i < 4; i++)
        snprintf(path[i], sizeof(path[i]), "%.64s/%d", dir, i);
    return 0;
}

static int folder_gone(void **state)
{
    (void)state;
    char pub[160];
    for (int i = 0; i < 4; i++) {
        snprintf(pub, sizeof(pub), "%.90s.pub", path[i]);
        unlink(path[i]);
        unlink(pub);
    }
    return rmdir(dir);
}

static struct wire_keys *open_keys(const char *at, const char *allow)
{
    struct wire_keys *k = NULL;
    struct err err = {0};
    if (wire_keys_open(at, allow, &k, &err))
        fail_msg("%s", err.text);
    return k;
}

static void a_pair_is_made_and_read_again(void **state)
{
    char text[WIRE_KEY_TEXT], again[WIRE_KEY_TEXT], pub[160];
    struct stat st;
    struct err err = {0};
    (void)state;
    assert_int_equal(wire_keys_create(path[0], "here", text, &err), 0);
    assert_int_equal(stat(path[0], &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    struct wire_keys *k = open_keys(path[0], NULL);
    wire_key_text(k->public_key, again);
    assert_string_equal(text, again);
    assert_true(wire_keys_allow(k, k->public_key));
    assert_false(wire_keys_allow(k, k->secret_key));
    wire_keys_close(k);
    snprintf(pub, sizeof(pub), "%.90s.pub", path[0]);
    k = open_keys(path[0], pub); /* the .pub file is an allow file */
    assert_int_equal(k->n_allowed, 1);
    assert_true(wire_keys_allow(k, k->public_key));
    wire_keys_close(k);
    assert_int_equal(wire_keys_create(path[0], "here", text, &err), ERR_IO);
    assert_non_null(strstr(err.text, "is there already"));
}

static void refused(const char *key, const char *allow, int code, const char *says)
{
    struct wire_keys *k = NULL;
    struct err err = {0};
    assert_int_equal(wire_keys_open(key, allow, &k, &err), code);
    if (!strstr(err.text, says))
        fail_msg("'%s' not in '%s'", says, err.text);
    assert_null(k);
}

static void a_bad_key_file_is_refused_in_words(void **state)
{
    char text[2][WIRE_KEY_TEXT], mixed[512], secret[512] = "";
    struct err err = {0};
    (void)state;
    refused(path[0], NULL, ERR_IO, "cannot read key file");
    assert_int_equal(wire_keys_create(path[0], "a", text[0], &err), 0);
    assert_int_equal(wire_keys_create(path[1], "b", text[1], &err), 0);
    assert_int_equal(chmod(path[0], 0640), 0);
    refused(path[0], NULL, ERR_USAGE, "others can read the secret");
    assert_int_equal(chmod(path[0], 0600), 0);
    FILE *f = fopen(path[1], "r");
    assert_non_null(f);
    size_t n = fread(secret, 1, sizeof(secret) - 1, f);
    fclose(f);
    secret[n] = 0;
    snprintf(mixed, sizeof(mixed), "public %s\n%s", text[0], strstr(secret, "secret "));
    write_file(path[2], mixed, 0600);
    refused(path[2], NULL, ERR_USAGE, "do not belong together");
    write_file(path[2], "public 12\nsecret 34\n", 0600);
    refused(path[2], NULL, ERR_USAGE, "is no key file");
    write_file(path[2], "", 0600);
    refused(path[2], NULL, ERR_USAGE, "is no key file");
    refused(dir, NULL, ERR_USAGE, "is no file");
    write_file(path[3], "# nobody\n\n", 0600);
    refused(path[0], path[3], ERR_USAGE, "allows nobody");
    write_file(path[3], "# next line\nabcd\n", 0600);
    refused(path[0], path[3], ERR_USAGE, "line 2");
}

/* ---- sockets ---- */

struct side {
    struct sock *sock;
    int n;
};

static void on_message(void *user, struct sock *sock, const struct sock_peer *from,
                       struct frames *f)
{
    struct side *side = user;
    side->n++;
    if (from)
        sock_send(sock, from, f);
}

static void send_one(struct sock *sock)
{
    struct frames f;
    frames_init(&f);
    zmq_msg_init_size(&f.part[0], 5);
    memcpy(zmq_msg_data(&f.part[0]), "hello", 5);
    f.n = 1;
    if (sock_send(sock, NULL, &f) == ERR_AGAIN)
        frames_close(&f);
}

static void on_turn(struct ev_loop *loop, ev_timer *t, int revents)
{
    (void)t;
    (void)revents;
    ev_break(loop, EVBREAK_ALL);
}

/* Whether a caller with these keys gets an echo of a server with those; what hinders it goes to
 * *trouble, and how many the server has turned away to *n_refused. */
static int gets_through(const struct wire_keys *serve, const struct wire_keys *call,
                        const char *suffix, const char **trouble, uint64_t *n_refused)
{
    void *zmq = zmq_ctx_new();
    struct ev_loop *loop = ev_loop_new(EVFLAG_AUTO);
    struct side s = {0}, c = {0};
    struct err err = {0};
    struct sock_stats stats;
    char at[LIMIT_NAME_BYTES + 80];
    struct sock_config config = {
        .kind = SOCK_SERVE, .endpoint = "tcp://127.0.0.1:0", .keys = serve};
    ev_timer turn;
    ev_timer_init(&turn, on_turn, TURN_S, TURN_S);
    ev_timer_start(loop, &turn);
    assert_int_equal(sock_open(zmq, loop, &config, on_message, &s, &s.sock, &err), 0);
    snprintf(at, sizeof(at), "%s%s", sock_endpoint(s.sock), suffix);
    config = (struct sock_config){.kind = SOCK_CALL, .endpoint = at, .keys = call};
    assert_int_equal(sock_open(zmq, loop, &config, on_message, &c, &c.sock, &err), 0);
    assert_int_equal(sock_is_encrypted(c.sock), call != NULL);
    *trouble = NULL;
    for (int i = 0; i < 1000 && c.n == 0 && !*trouble; i++) {
        send_one(c.sock);
        ev_run(loop, 0);
        *trouble = sock_trouble(c.sock);
    }
    for (int i = 0; i < 30; i++) /* nor does it later */
        ev_run(loop, 0);
    sock_stats_get(s.sock, &stats);
    *n_refused = stats.refused;
    int through = c.n > 0;
    assert_int_equal(through, s.n > 0);
    sock_close(c.sock);
    sock_close(s.sock);
    ev_timer_stop(loop, &turn);
    ev_loop_destroy(loop);
    zmq_ctx_term(zmq);
    return through;
}

static void only_who_is_allowed_gets_through(void **state)
{
    char text[3][WIRE_KEY_TEXT], suffix[3][80], pub[160];
    const char *trouble;
    uint64_t n_refused;
    struct err err = {0};
    (void)state;
    for (int i = 0; i < 3; i++) {
        assert_int_equal(wire_keys_create(path[i], "test", text[i], &err), 0);
        snprintf(suffix[i], sizeof(suffix[i]), "#%.64s", text[i]);
    }
    snprintf(pub, sizeof(pub), "%.90s.pub", path[1]);
    struct wire_keys *one = open_keys(path[0], NULL), *two = open_keys(path[1], NULL),
                     *three = open_keys(path[2], NULL), *allows_two = open_keys(path[0], pub);
    /* the same key on both sides; a key each */
    assert_true(gets_through(one, one, "", &trouble, &n_refused));
    assert_null(trouble);
    assert_true(gets_through(allows_two, two, suffix[0], &trouble, &n_refused));
    assert_int_equal(n_refused, 0);
    /* not on the list, although it knows the server's key */
    assert_false(gets_through(allows_two, three, suffix[0], &trouble, &n_refused));
    assert_non_null(strstr(trouble, "--allow"));
    assert_true(n_refused > 0);
    assert_false(gets_through(allows_two, one, "", &trouble, &n_refused)); /* not even itself */
    /* a server that has not the key expected; none at all on one side */
    assert_false(gets_through(one, one, suffix[1], &trouble, &n_refused));
    assert_false(gets_through(one, NULL, "", &trouble, &n_refused));
    assert_non_null(strstr(trouble, "--wire-key"));
    assert_false(gets_through(NULL, one, "", &trouble, &n_refused));
    wire_keys_close(one);
    wire_keys_close(two);
    wire_keys_close(three);
    wire_keys_close(allows_two);
}

static void other_hosts_need_keys_or_a_word(void **state)
{
    void *zmq = zmq_ctx_new();
    struct ev_loop *loop = ev_loop_new(EVFLAG_AUTO);
    struct side s = {0};
    (void)state;
    static const struct {
        enum sock_kind kind;
        const char *at;
    } tries[] = {{SOCK_SERVE, "tcp://0.0.0.0:0"}, {SOCK_CALL, "tcp://192.0.2.1:5701"}};
    for (int i = 0; i < 2; i++) {
        struct err err = {0};
        struct sock_config config = {.kind = tries[i].kind, .endpoint = tries[i].at};
        assert_int_equal(sock_open(zmq, loop, &config, on_message, &s, &s.sock, &err), ERR_USAGE);
        assert_non_null(strstr(err.text, "--wire-key"));
        config.insecure = 1;
        assert_int_equal(sock_open(zmq, loop, &config, on_message, &s, &s.sock, &err), 0);
        assert_false(sock_is_encrypted(s.sock));
        sock_close(s.sock);
    }
    ev_loop_destroy(loop);
    zmq_ctx_term(zmq);
}

static void a_key_behind_an_endpoint_is_checked(void **state)
{
    struct err err = {0};
    char hex[WIRE_KEY_TEXT], at[LIMIT_NAME_BYTES], address[LIMIT_NAME_BYTES];
    uint8_t key[WIRE_KEY_BYTES], back[WIRE_KEY_BYTES];
    (void)state;
    for (int i = 0; i < WIRE_KEY_BYTES; i++)
        key[i] = (uint8_t)(7 * i);
    wire_key_text(key, hex);
    snprintf(at, sizeof(at), "tcp://host:1#%s", hex);
    assert_int_equal(endpoint_check(at, &err), 0);
    assert_int_equal(endpoint_split(at, address, back), 1);
    assert_string_equal(address, "tcp://host:1");
    assert_memory_equal(key, back, WIRE_KEY_BYTES);
    at[strlen(at) - 1] = 0; /* a digit short */
    assert_int_equal(endpoint_check(at, &err), ERR_USAGE);
    assert_non_null(strstr(err.text, "no key"));
    snprintf(at, sizeof(at), "tcp://host:1#%s0", hex); /* one too many */
    assert_int_equal(endpoint_check(at, NULL), ERR_USAGE);
    assert_int_equal(endpoint_check("tcp://host:1#", NULL), ERR_USAGE);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, folder, folder_gone)
    const struct CMUnitTest tests[] = {
        TEST(a_pair_is_made_and_read_again),       TEST(a_bad_key_file_is_refused_in_words),
        TEST(only_who_is_allowed_gets_through),    TEST(other_hosts_need_keys_or_a_word),
        TEST(a_key_behind_an_endpoint_is_checked),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
