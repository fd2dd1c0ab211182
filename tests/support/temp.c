/* temp.c -- see temp.h. */
#define _XOPEN_SOURCE 700
#include "temp.h"

#include <regex.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "base/error.h"
#include "files/file.h"

#include <cmocka.h>

static char folder[] = "/tmp/qfw-test-XXXXXX";

int temp_make(void **state) {
    (void)state;
    return mkdtemp(folder) ? 0 : -1;
}

int temp_drop(void **state) {
    (void)state;
    return dir_remove(folder) == QFW_OK ? 0 : -1;
}

const char *temp_folder(void) { return folder; }

const char *temp_path(const char *name) {
    static char path[8][600];
    static unsigned next;
    char *p = path[next++ % 8];
    snprintf(p, sizeof path[0], "%s/%s", folder, name);
    return p;
}

void temp_write(const char *name, const void *data, size_t n) {
    assert_int_equal(file_write(temp_path(name), data, n), QFW_OK);
}

void temp_text(const char *name, const char *text) {
    size_t n = 0;
    while (text[n]) n++;
    temp_write(name, text, n);
}

void assert_error(qfw_status status, const char *name, int exit_code, const char *regex) {
    regex_t compiled;
    if (status == QFW_OK) fail_msg("accepted; wanted %s %s", name, regex);
    assert_int_equal(status, err_status());
    assert_int_equal(regcomp(&compiled, regex, REG_EXTENDED | REG_NOSUB), 0);
    const int unlike = regexec(&compiled, err_text(0), 0, NULL, 0);
    regfree(&compiled);
    if (unlike) fail_msg("%s\nis not like: %s", err_text(0), regex);
    assert_string_equal(err_name(), name);
    assert_int_equal(err_exit_code(), exit_code);
    err_clear();
}

static double read_clock(clockid_t clock) {
    struct timespec t;
    clock_gettime(clock, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

double clock_seconds(void) { return read_clock(CLOCK_MONOTONIC); }

double work_seconds(void) { return read_clock(CLOCK_PROCESS_CPUTIME_ID); }
