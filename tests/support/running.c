/* running.c -- see running.h. */
#define _POSIX_C_SOURCE 200809L
#include "running.h"

#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/mem.h"
#include "files/file.h"
#include "temp.h"

#include "test.h"

static void become(const running *p, const char *const argv[], int ignored) {
    static const int usual[] = {SIGHUP, SIGINT, SIGTERM, SIGPIPE};
    const int out = open("/dev/null", O_WRONLY);
    const int err = open(p->err, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    for (int i = 0; i < 4; i++) signal(usual[i], usual[i] == ignored ? SIG_IGN : SIG_DFL);
    if (out >= 0 && err >= 0 && dup2(out, STDOUT_FILENO) >= 0 && dup2(err, STDERR_FILENO) >= 0)
        execv(argv[0], (char *const *)argv);
    _exit(127);
}

void running_start(running *p, const char *const argv[], int ignored) {
    snprintf(p->err, sizeof p->err, "%s", temp_path("stderr"));
    temp_text("stderr", "");
    p->pid = (int32_t)fork();
    assert_true(p->pid >= 0);
    if (!p->pid) become(p, argv, ignored);
}

static void nap(void) {
    const struct timespec moment = {0, 1000000};
    nanosleep(&moment, NULL);
}

/* What it came to, before the test fails. */
static void give_up(const running *p, const char *what) {
    char *text = NULL;
    size_t n = 0;
    (void)file_read(p->err, 1 << 20, &text, &n);
    kill(p->pid, SIGKILL);
    fail_msg("waited for %s; it said\n%s", what, text ? text : "");
}

void running_wait_for(const running *p, const char *text) {
    const double until = clock_seconds() + RUNNING_SECONDS;
    for (int found = 0; !found; nap()) {
        char *said = NULL;
        size_t n = 0;
        assert_int_equal(file_read(p->err, 64 << 20, &said, &n), QFW_OK);
        found = strstr(said, text) != NULL;
        mem_free(said);
        if (clock_seconds() > until) give_up(p, text);
    }
}

void running_wait_file(const running *p, const char *path) {
    const double until = clock_seconds() + RUNNING_SECONDS;
    while (!file_exists(path)) {
        if (clock_seconds() > until) give_up(p, path);
        nap();
    }
}

/* The line "SigCgt:" of /proc/<pid>/status: a bit for each signal, from 1. */
static uint64_t caught(const running *p) {
    char path[64], line[256];
    uint64_t bits = 0;
    snprintf(path, sizeof path, "/proc/%d/status", (int)p->pid);
    FILE *f = fopen(path, "r");
    while (f && fgets(line, sizeof line, f))
        if (!strncmp(line, "SigCgt:", 7)) bits = strtoull(line + 7, NULL, 16);
    if (f) fclose(f);
    return bits;
}

void running_wait_caught(const running *p, int signal) {
    const double until = clock_seconds() + RUNNING_SECONDS;
    while (!(caught(p) >> (signal - 1) & 1)) {
        if (clock_seconds() > until) give_up(p, "a signal's handler");
        nap();
    }
}

void running_signal(const running *p, int signal) { assert_int_equal(kill(p->pid, signal), 0); }

int running_end(running *p) {
    const double until = clock_seconds() + RUNNING_SECONDS;
    int status = 0;
    while (waitpid(p->pid, &status, WNOHANG) == 0) {
        if (clock_seconds() > until) give_up(p, "its end");
        nap();
    }
    return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}
