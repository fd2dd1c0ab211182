/* test_log.c -- what reaches stderr, seen through a pipe and through a terminal. */
#define _XOPEN_SOURCE 700
#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"

#include <cmocka.h>

static int saved;

/* Let stderr go to fd until stderr_back. */
static void stderr_to(int fd) {
    saved = dup(STDERR_FILENO);
    dup2(fd, STDERR_FILENO);
    close(fd);
}

static void stderr_back(void) {
    dup2(saved, STDERR_FILENO);
    close(saved);
}

/* All that comes from fd until its end, or until nothing has come for a while. */
static const char *drain(int fd) {
    static char text[16384];
    struct pollfd ready = {fd, POLLIN, 0};
    size_t n = 0;
    while (n + 1 < sizeof text && poll(&ready, 1, 500) > 0) {
        const ssize_t got = read(fd, text + n, sizeof text - 1 - n);
        if (got <= 0) break;
        n += (size_t)got;
    }
    text[n] = 0;
    return text;
}

static void lines_go_to_stderr(void **state) {
    (void)state;
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    stderr_to(ends[1]);
    const int is_terminal = log_is_terminal();
    log_line(QFW_LOG_DEBUG, "unseen");
    log_line(QFW_LOG_INFO, "step %d", 5);
    log_line(QFW_LOG_WARN, "odd");
    log_line(QFW_LOG_ERROR, "error[E_X] bad\n\x1b[2J");
    log_status("never on a pipe");
    log_set_level(QFW_LOG_ERROR);
    log_line(QFW_LOG_WARN, "unseen");
    log_set_level(QFW_LOG_DEBUG);
    log_line(QFW_LOG_DEBUG, "seen");
    log_set_level(QFW_LOG_INFO);
    stderr_back();
    assert_false(is_terminal);
    assert_string_equal(
        drain(ends[0]), "step 5\nqfw: warning: odd\nqfw: error[E_X] bad\\x0a\\x1b[2J\nseen\n");
    close(ends[0]);
}

static void long_lines_are_cut(void **state) {
    (void)state;
    int ends[2];
    char wide[9000];
    memset(wide, 'w', sizeof wide);
    wide[sizeof wide - 1] = 0;
    assert_int_equal(pipe(ends), 0);
    stderr_to(ends[1]);
    log_line(QFW_LOG_INFO, "%s", wide);
    stderr_back();
    const char *got = drain(ends[0]);
    assert_in_range(strlen(got), 2000, 2050);
    assert_int_equal(got[strlen(got) - 1], '\n');
    close(ends[0]);
}

static void the_status_is_cleared_and_drawn_again(void **state) {
    (void)state;
    const int terminal = posix_openpt(O_RDWR | O_NOCTTY);
    if (terminal < 0 || grantpt(terminal) || unlockpt(terminal)) skip();
    const int line = open(ptsname(terminal), O_RDWR | O_NOCTTY);
    if (line < 0) skip();
    const int keep = dup(line); /* else the terminal hangs up before it is read */
    stderr_to(line);
    const int is_terminal = log_is_terminal();
    log_status("[##  ] 50%");
    log_line(QFW_LOG_INFO, "loss 1");
    log_status(NULL);
    log_line(QFW_LOG_INFO, "done");
    stderr_back();
    assert_true(is_terminal);
    assert_string_equal(drain(terminal), "\r\x1b[K[##  ] 50%\r\x1b[Kloss 1\r\n[##  ] 50%\r\x1b[K"
                                         "done\r\n");
    close(keep);
    close(terminal);
}

static void a_full_disk_stops_nothing(void **state) {
    (void)state;
    const int full = open("/dev/full", O_WRONLY);
    if (full < 0) skip();
    stderr_to(full);
    for (int i = 0; i < 10; i++) log_line(QFW_LOG_INFO, "lost");
    stderr_back();
    clearerr(stderr);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lines_go_to_stderr),
        cmocka_unit_test(long_lines_are_cut),
        cmocka_unit_test(the_status_is_cleared_and_drawn_again),
        cmocka_unit_test(a_full_disk_stops_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
