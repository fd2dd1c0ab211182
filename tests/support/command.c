/* command.c -- see command.h. */
#define _DEFAULT_SOURCE /* wait4 */
#include "command.h"

#include <fcntl.h>
#include <poll.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "temp.h"

extern char **environ;

/* Put what arrives into text until both pipes end. */
static void drain(const int fds[2], char *const text[2]) {
    struct pollfd polls[2] = {{fds[0], POLLIN, 0}, {fds[1], POLLIN, 0}};
    size_t n[2] = {0, 0};
    while (polls[0].fd >= 0 || polls[1].fd >= 0) {
        if (poll(polls, 2, -1) < 0) continue;
        for (int i = 0; i < 2; i++) {
            char bytes[4096];
            if (polls[i].fd < 0 || !polls[i].revents) continue;
            const ssize_t got = read(polls[i].fd, bytes, sizeof bytes);
            if (got <= 0) polls[i].fd = -1;
            for (ssize_t b = 0; b < got && n[i] + 1 < COMMAND_TEXT; b++) text[i][n[i]++] = bytes[b];
        }
    }
    text[0][n[0]] = text[1][n[1]] = 0;
}

int command_run(const char *const argv[], command *c) {
    int out[2], err[2], status = 0;
    pid_t pid;
    struct rusage used;
    const double start = clock_seconds();
    posix_spawn_file_actions_t actions;
    if (pipe(out)) return -1;
    if (pipe(err)) {
        close(out[0]);
        close(out[1]);
        return -1;
    }
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, out[1], STDOUT_FILENO);
    posix_spawn_file_actions_adddup2(&actions, err[1], STDERR_FILENO);
    const int ours[] = {out[0], out[1], err[0], err[1]};
    for (int i = 0; i < 4; i++) posix_spawn_file_actions_addclose(&actions, ours[i]);
    const int failed = posix_spawnp(&pid, argv[0], &actions, NULL, (char *const *)argv, environ);
    posix_spawn_file_actions_destroy(&actions);
    close(out[1]);
    close(err[1]);
    if (!failed) drain((const int[2]){out[0], err[0]}, (char *const[2]){c->out, c->err});
    close(out[0]);
    close(err[0]);
    if (failed || wait4(pid, &status, 0, &used) != pid) return -1;
    c->seconds = clock_seconds() - start;
    c->busy = (double)(used.ru_utime.tv_sec + used.ru_stime.tv_sec) +
              (double)(used.ru_utime.tv_usec + used.ru_stime.tv_usec) * 1e-6;
    c->peak = (int64_t)used.ru_maxrss * 1024;
    c->exit_code = WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
    return 0;
}

const char *build_path(const char *name) {
    static char path[4][600];
    static unsigned next;
    const char *build = getenv("QFW_BUILD");
    char *p = path[next++ % 4];
    snprintf(p, sizeof path[0], "%s/%s", build ? build : "build", name);
    return p;
}
