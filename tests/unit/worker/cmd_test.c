/* cmd: `sigmoe worker` as its parent sees it: the ready line, an orderly end by signal, and for
 * each mistake one line and the exit status. The subcommand runs in a forked child. */
#include "base/err.h"
#include "worker/worker.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#define MODEL TESTS_DIR "/fixtures/tiny/mixtral"
#define DENSE TESTS_DIR "/fixtures/tiny/llama"

struct child {
    pid_t pid;
    int out, err; /* read ends */
};

static void child_start(struct child *c, const char *const *arg)
{
    char *argv[32];
    int out[2], err[2], argc = 0;
    for (; arg[argc]; argc++)
        argv[argc] = (char *)(uintptr_t)arg[argc];
    argv[argc] = NULL;
    assert_int_equal(pipe(out), 0);
    assert_int_equal(pipe(err), 0);
    fflush(NULL);
    c->pid = fork();
    assert_true(c->pid >= 0);
    if (c->pid == 0) {
        dup2(out[1], STDOUT_FILENO);
        dup2(err[1], STDERR_FILENO);
        int status = cmd_worker(argc, argv);
        fflush(NULL);
        _exit(status);
    }
    close(out[1]);
    close(err[1]);
    c->out = out[0];
    c->err = err[0];
}

/* read_all until the end of the pipe, or of a line. */
static void read_text(int fd, char *out, size_t size, int line)
{
    size_t used = 0;
    ssize_t n;
    while (used + 1 < size && (n = read(fd, out + used, line ? 1 : size - 1 - used)) > 0) {
        used += (size_t)n;
        if (line && out[used - 1] == '\n')
            break;
    }
    out[used] = '\0';
}

static int child_end(struct child *c, char *err, size_t size)
{
    int status = 0;
    read_text(c->err, err, size, 0);
    assert_int_equal(waitpid(c->pid, &status, 0), c->pid);
    close(c->out);
    close(c->err);
    assert_true(WIFEXITED(status));
    return WEXITSTATUS(status);
}

static void ready_line_then_end_by_signal(const char *const *arg, int signum, int n_experts)
{
    struct child c;
    char line[512], err[8192];
    char endpoint[300] = "";
    int experts = 0;
    unsigned long long bytes = 0;
    child_start(&c, arg);
    read_text(c.out, line, sizeof(line), 1);
    if (sscanf(line, "ready %299s experts=%d bytes=%llu", endpoint, &experts, &bytes) != 3) {
        child_end(&c, err, sizeof(err));
        fail_msg("said '%s': %s", line, err);
    }
    assert_int_equal(experts, n_experts);
    assert_true(bytes > 0);
    assert_int_equal(strncmp(endpoint, "tcp://127.0.0.1:", 16), 0);
    assert_true(atoi(endpoint + 16) > 0);
    kill(c.pid, signum);
    assert_int_equal(child_end(&c, err, sizeof(err)), 0);
    assert_non_null(strstr(err, "end: requests=0"));
}

static void worker_says_ready_and_ends_with_0(void **state)
{
    (void)state;
    const char *all[] = {"worker", "--model", MODEL, "--listen", "tcp://127.0.0.1:*", NULL};
    ready_line_then_end_by_signal(all, SIGTERM, 18); /* 3 layers of 6 */
    const char *some[] = {"worker",    "-m",    MODEL,         "--listen", "tcp://127.0.0.1:0",
                          "--experts", "1,3-4", "--precision", "f32",      "--threads",
                          "1",         NULL};
    ready_line_then_end_by_signal(some, SIGINT, 9);
    const char *part[] = {"worker", "-m",  MODEL,    "--listen", "tcp://127.0.0.1:0",
                          "--part", "1/3", "--name", "w1",       NULL};
    ready_line_then_end_by_signal(part, SIGTERM, 6);
}

static void placement_file_says_what_to_hold(void **state)
{
    (void)state;
    char path[] = "/tmp/sigmoe-placement-XXXXXX";
    int fd = mkstemp(path);
    const char text[] = "{\"epoch\": 1, \"workers\": {\"a\": \"0-1\", \"b\": {\"0\": \"2\", \"*\": "
                        "\"3-5\"}}}";
    assert_int_equal(write(fd, text, sizeof(text) - 1), sizeof(text) - 1);
    close(fd);
    const char *b[] = {"worker",      "-m", MODEL,    "--listen", "tcp://127.0.0.1:0",
                       "--placement", path, "--name", "b",        NULL};
    ready_line_then_end_by_signal(b, SIGTERM, 7);
    unlink(path);
}

static void each_mistake_is_one_line_and_a_status(void **state)
{
    (void)state;
    static const struct {
        int status;
        const char *words;
        const char *arg[8];
    } cases[] = {
        {2, "--model is missing", {NULL}},
        {2, "unknown option --modle; did you mean --model?", {"--modle", MODEL}},
        {2, "neither bf16 nor f32", {"-m", MODEL, "--precision", "fp4"}},
        {2, "id 6 in '4-6' is too large", {"-m", MODEL, "--experts", "4-6"}},
        {2, "is no list of ids", {"-m", MODEL, "--experts", "a-b"}},
        {2, "not I/N", {"-m", MODEL, "--part", "2/2"}},
        {2, "not I/N", {"-m", MODEL, "--part", "0/0"}},
        {2, "not I/N", {"-m", MODEL, "--part", "0/2x"}},
        {2, "give one of", {"-m", MODEL, "--part", "0/2", "--experts", "1"}},
        {2, "--placement needs --name", {"-m", MODEL, "--placement", "/x"}},
        {2, "there is no domain 'law': mixtral models have none", {"-m", MODEL, "--domain", "law"}},
        {2,
         "or --insecure if the network is trusted",
         {"-m", MODEL, "--listen", "tcp://0.0.0.0:0"}},
        {2, "or --insecure if the network is trusted", {"-m", MODEL, "--listen", "tcp://*:0"}},
        {2, "nobody outside", {"-m", MODEL, "--listen", "inproc://x"}},
        {2, "is no endpoint", {"-m", MODEL, "--listen", "carrier://pigeon"}},
        {4, "cannot listen on", {"-m", MODEL, "--listen", "ipc:///no/such/folder/socket"}},
        {3, "dense model", {"-m", DENSE, "--listen", "tcp://127.0.0.1:0", "--experts", "0"}},
        {3, "/no/such/model", {"-m", "/no/such/model"}},
        {3,
         "cannot tell descriptor 1000",
         {"-m", MODEL, "--listen", "tcp://127.0.0.1:0", "--ready-fd", "1000"}},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct child c;
        char err[8192];
        const char *arg[12] = {"worker"};
        for (int j = 0; j < 8 && cases[i].arg[j]; j++)
            arg[j + 1] = cases[i].arg[j];
        child_start(&c, arg);
        int status = child_end(&c, err, sizeof(err));
        if (status != cases[i].status || !strstr(err, cases[i].words) ||
            strncmp(err, "sigmoe worker: ", 15) != 0 || strchr(err, '\n') != err + strlen(err) - 1)
            fail_msg("case %zu (%s): exit %d, '%s'", i, cases[i].words, status, err);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(worker_says_ready_and_ends_with_0),
        cmocka_unit_test(placement_file_says_what_to_hold),
        cmocka_unit_test(each_mistake_is_one_line_and_a_status),
    };
    return cmocka_run_group_tests_name("cmd", tests, NULL, NULL);
}
