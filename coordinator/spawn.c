/* spawn: see spawn.h. fork is followed by exec at once: between them only async-signal-safe calls.
 */
#include "coordinator/spawn.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static void child(int write_fd, pid_t parent, char *const argv[])
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    /* Ctrl-C in a terminal goes to a whole group; the coordinator ends its workers itself, last. */
    setpgid(0, 0);
    if (getppid() != parent) {
        _exit(1);
    }
    /* The ready line is the worker's stdout; ours stays free for text. */
    dup2(write_fd, STDOUT_FILENO);
    execv("/proc/self/exe", argv);
    _exit(127);
}

int spawn_worker(struct spawned *s, char *const argv[], struct err *err)
{
    int fd[2];
    if (pipe2(fd, O_CLOEXEC) != 0) {
        return err_sys(err, ERR_IO, "cannot make a pipe for a worker");
    }
    pid_t parent = getpid(), pid = fork();
    if (pid < 0) {
        close(fd[0]);
        close(fd[1]);
        return err_sys(err, ERR_IO, "cannot start a worker process");
    }
    if (pid == 0) {
        child(fd[1], parent, argv);
    }
    close(fd[1]);
    s->pid = pid;
    s->ready_fd = fd[0];
    s->endpoint[0] = 0;
    return 0;
}

int spawn_wait_ready(struct spawned *s, struct err *err)
{
    char line[1024];
    size_t n = 0;
    while (n < sizeof line - 1) {
        ssize_t got = read(s->ready_fd, line + n, 1);
        if (got < 0 && errno == EINTR) {
            continue;
        }
        if (got <= 0) {
            return err_set(err, ERR_NET, "worker process %d ended before it was ready",
                           (int)s->pid);
        }
        if (line[n] == '\n') {
            break;
        }
        n++;
    }
    line[n] = 0;
    if (sscanf(line, "ready %255s", s->endpoint) != 1) {
        return err_set(err, ERR_NET, "worker process %d said \"%.80s\" instead of ready",
                       (int)s->pid, line);
    }
    return 0;
}

void spawn_stop(struct spawned *s)
{
    if (s->pid <= 0) {
        return;
    }
    kill(s->pid, SIGTERM);
    for (int i = 0; i < 500 && waitpid(s->pid, NULL, WNOHANG) == 0; i++) {
        nanosleep(&(struct timespec){0, 10 * 1000 * 1000}, NULL);
        if (i == 499) {
            kill(s->pid, SIGKILL);
            waitpid(s->pid, NULL, 0);
        }
    }
    close(s->ready_fd);
    s->pid = 0;
}
