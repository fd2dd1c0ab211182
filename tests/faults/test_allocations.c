/* test_allocations.c -- memory is refused once, at each place in turn, and from each place on: the
 * run ends with one sentence and exit code 71, or goes on and ends in the same bits.
 *
 * A run is its start, three steps and two checkpoints. The places are counted by shim_memory.c,
 * which stands before the C library, and by base/mem.c alone where the leaks are counted, too.
 * QFW_TEST_LONG tries all of them, else a sample, dense at the beginning.
 */
#define _POSIX_C_SOURCE 200809L
#include <stdlib.h>

#include "base/error.h"
#include "base/log.h"
#include "base/mem.h"
#include "files/file.h"
#include "plugin/host.h"
#include "plugin/loader.h"
#include "serve/tasks.h"

#include "../support/refusal.h"
#include "../support/temp.h"
#include "../support/test.h"
#include "../support/tiny.h"

static command c;

static const char *const files[] = {"adapter_model.safetensors", "checkpoint-3/trainer.safetensors",
    "checkpoint-3/trainer_state.json", "checkpoint-2/trainer.safetensors"};
enum { FILES = 4 };
static char *whole[FILES];
static size_t n_whole[FILES];

static char *contents(const char *name, size_t *n) {
    char *text = NULL, path[160];
    snprintf(path, sizeof path, "case/out/%s", name);
    if (file_read(temp_path(path), 64 << 20, &text, n) != QFW_OK) fail_msg("%s", err_text(0));
    return text;
}

static void begin(void) { assert_int_equal(dir_remove(temp_path("case/out")), QFW_OK); }

static int setup(void **state) {
    if (temp_make(state)) return -1;
    tiny_make("case");
    alter("run.ini", "max_steps = 1\n", "max_steps = 3\nsave_steps = 2\nlogging_steps = 1\n");
    trains("nothing wrong");
    for (int i = 0; i < FILES; i++) whole[i] = contents(files[i], &n_whole[i]);
    return 0;
}

static int teardown(void **state) {
    for (int i = 0; i < FILES; i++) mem_free(whole[i]);
    return temp_drop(state);
}

static void expect_whole(const char *what) {
    for (int i = 0; i < FILES; i++) {
        size_t n = 0;
        char *now = contents(files[i], &n);
        if (n != n_whole[i] || memcmp(now, whole[i], n)) fail_msg("%s: another %s", what, files[i]);
        mem_free(now);
    }
}

/* The next place to try: each one, or fewer the later they come. */
static unsigned long next_place(unsigned long n, unsigned long per) {
    return n + 1 + (getenv("QFW_TEST_LONG") ? 0 : n / per);
}

/* --- the command, in front of a C library that refuses --- */

/* How many allocations the run asked for, and how many blocks it left; 0: it told neither. */
static unsigned long told(long *living) {
    char *text = NULL, *end;
    size_t n = 0;
    *living = 0;
    if (file_read(temp_path("report"), 4096, &text, &n) != QFW_OK) return 0;
    const unsigned long asked = strtoul(text, &end, 10);
    *living = strtol(end, NULL, 10);
    mem_free(text);
    return asked;
}

static int refused_at(unsigned long place, int sticky) {
    static const char once[] = "export SHIM_REPORT=$3 SHIM_FAIL_AT=$4; "
                               "LD_PRELOAD=$2 exec \"$0\" --ini \"$1\"";
    static const char on[] = "export SHIM_REPORT=$3 SHIM_FAIL_AT=$4 SHIM_STICKY=1; "
                             "LD_PRELOAD=$2 exec \"$0\" --ini \"$1\"";
    char at[32];
    snprintf(at, sizeof at, "%lu", place);
    const char *const argv[] = {"sh", "-c", sticky ? on : once, build_path("qfw"),
        temp_path("case/run.ini"), build_path("tests/faults/libshim_memory.so"),
        temp_path("report"), at, NULL};
    begin();
    assert_int_equal(command_run(argv, &c), 0);
    return c.exit_code;
}

static void each_refused_place(int sticky, unsigned long per) {
    long usual, living;
    char what[64];
    assert_int_equal(refused_at(0, 0), EXIT_OK);
    const unsigned long n = told(&usual);
    assert_true(n > 1000);
    expect_whole("counted");
    int n_refused = 0;
    for (unsigned long place = 1; place <= n; place = next_place(place, per)) {
        snprintf(what, sizeof what, "allocation %lu of %lu%s", place, n, sticky ? " and on" : "");
        const int code = refused_at(place, sticky);
        if (code != EXIT_OK && code != EXIT_MEMORY)
            fail_msg("%s: exit code %d; %s", what, code, c.err);
        if (code == EXIT_OK)
            expect_whole(what);
        else if (!has_line(c.err, "^qfw: error\\[E_[A-Z_]+\\] .") || strstr(c.err, "and 1 more"))
            fail_msg("%s: said %s", what, c.err);
        if (!told(&living) || living > usual)
            fail_msg("%s: %ld blocks never freed, without it %ld", what, living, usual);
        n_refused += code == EXIT_MEMORY;
    }
    assert_true(n_refused > 40);
}

static void refused_once(void **state) {
    (void)state;
    if (SANITIZED) skip(); /* the sanitizer's own malloc comes first */
    each_refused_place(0, 64);
}

static void refused_from_there_on(void **state) {
    (void)state;
    if (SANITIZED) skip();
    each_refused_place(1, 10);
}

/* --- the core alone, in this process: what leaks is told at its end --- */

static int run_here(FILE *out) {
    const run_flags flags = {.ini_path = temp_path("case/run.ini")};
    err_clear();
    return task_main(&flags, out) == QFW_OK ? EXIT_OK : err_exit_code();
}

static void refused_to_the_core(void **state) {
    char what[64];
    FILE *out = fopen("/dev/null", "w");
    (void)state;
    assert_non_null(out);
    plugin_set_host(host_table());
    log_set_level(QFW_LOG_ERROR);
    begin();
    assert_int_equal(run_here(out), EXIT_OK); /* opens the plugins, which stay */
    begin();
    const uint64_t before = mem_count();
    assert_int_equal(run_here(out), EXIT_OK);
    const uint64_t n = mem_count() - before;
    expect_whole("in this process");
    for (unsigned long place = 1; place <= n; place = next_place(place, 32)) {
        snprintf(what, sizeof what, "allocation %lu of the core's %lu", place, (unsigned long)n);
        begin();
        mem_fail_at(place);
        const int code = run_here(out);
        mem_fail_at(0);
        if (code == EXIT_OK)
            expect_whole(what);
        else if (code != EXIT_MEMORY || !err_text(0) || err_count() != 1)
            fail_msg("%s: exit code %d, %u sentences: %s", what, code, err_count(), err_text(0));
    }
    plugin_close_all();
    fclose(out);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(refused_once),
        cmocka_unit_test(refused_from_there_on),
        cmocka_unit_test(refused_to_the_core),
    };
    return cmocka_run_group_tests_name("faults/allocations", tests, setup, teardown);
}
