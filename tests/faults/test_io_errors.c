/* test_io_errors.c -- the disk refuses a call of a training run, once or from then on, or takes
 * half of what it is given: the run goes on, or ends with a sentence that names the file and a code
 * that says what it was; what was published is there, and a resume ends in the same bits.
 */
#define _POSIX_C_SOURCE 200809L
#include <errno.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/error.h"
#include "files/file.h"

#include "../support/crash.h"
#include "../support/refusal.h"
#include "../support/temp.h"
#include "../support/test.h"

static const fault none;

static int64_t published_now(void) { return crash_published(crash_text(), strlen(crash_text())); }

static const struct {
    const char *name;
    fault f;
    int goes_on; /* in any case */
} kinds[] = {
    {"no space, once", {.error = ENOSPC}, 0},
    {"no space from there on", {.error = ENOSPC, .is_sticky = 1}, 0},
    {"an error of the device, once", {.error = EIO}, 0},
    {"errors of the device from there on", {.error = EIO, .is_sticky = 1}, 0},
    {"no quota, once", {.error = EDQUOT}, 0},
    {"no quota from there on", {.error = EDQUOT, .is_sticky = 1}, 0},
    {"half of a write, once", {.is_short = 1}, 1},
    {"half of every write from there on", {.is_short = 1, .is_sticky = 1}, 1},
    {"an interrupted write", {.error = EINTR}, 1},
};
enum { KINDS = sizeof kinds / sizeof *kinds };

/* The end that the call brings is one of the three that there are. */
static void check_end(const char *what, int kind, int code) {
    if (code == EXIT_OK) return;
    if (kinds[kind].goes_on) fail_msg("%s: exit %d, %s", what, code, crash_text());
    if (code != EXIT_IOERR && code != EXIT_OUTPUT)
        fail_msg("%s: exit %d, %s", what, code, crash_text());
    if (!has_line(crash_text(), "^qfw: error\\[E_(IO|OUT)_[A-Z]+\\] /.*/case/out"))
        fail_msg("%s: no file is named: %s", what, crash_text());
}

static void refused_at_every_call(void **state) {
    char what[96];
    int n = 0, n_ended = 0;
    (void)state;
    crash_make(6, 2, NULL);
    const int every = crash_every(71); /* points of all kinds, at all calls in the end */
    const long last = crash_calls() * KINDS;
    for (long at = (long)crash_random((uint64_t)every); at < last; at += every, n++) {
        const int kind = (int)(at % KINDS);
        fault f = kinds[kind].f;
        f.fail = 1 + at / KINDS;
        snprintf(
            what, sizeof what, "%s, at call %ld of %ld", kinds[kind].name, f.fail, crash_calls());
        crash_clear();
        const int code = crash_run(NULL, &f);
        check_end(what, kind, code);
        n_ended += code != EXIT_OK;
        if (code == EXIT_OK && !kinds[kind].goes_on && !crash_may_fail(f.fail))
            fail_msg("%s: nothing was said", what);
        if (code == EXIT_OK) assert_int_equal(published_now(), 6);
        crash_ends_the_same(what, published_now());
    }
    print_message("refused at %d places of %ld, %d of them ended the run\n", n, last, n_ended);
    assert_true(n_ended > 0);
}

/* A call that is refused where the run is taken up again, once or for good. */
static void refused_where_it_goes_on(void **state) {
    char what[96];
    (void)state;
    crash_make(6, 2, NULL);
    const int times = crash_count(500, 8);
    for (int i = 0; i < times; i++) {
        const int kind = (int)crash_random(KINDS);
        const fault first = {.kill = 1 + (long)crash_random((uint64_t)crash_calls())};
        fault second = kinds[kind].f;
        second.fail = 1 + (long)crash_random((uint64_t)first.kill + 20);
        snprintf(what, sizeof what, "killed at call %ld, then %s at %ld", first.kill,
            kinds[kind].name, second.fail);
        crash_clear();
        (void)crash_run(NULL, &first);
        int64_t published = published_now();
        check_end(what, kind, crash_run("--resume", &second));
        if (published_now() > published) published = published_now();
        crash_ends_the_same(what, published);
    }
}

/* --- the folder --- */

static void the_folder_vanishes(void **state) {
    running p;
    (void)state;
    crash_make(60, 5, NULL);
    crash_clear();
    crash_start(&p, NULL, &none);
    running_wait_for(&p, "checkpoint-5");
    assert_int_equal(
        rename(temp_path("case/out"), temp_path("case/elsewhere")), 0); /* at once, and whole */
    const int code = crash_end(&p);
    if (code != EXIT_IOERR && code != EXIT_OUTPUT) fail_msg("exit %d, %s", code, crash_text());
    if (!has_line(crash_text(), "^qfw: error\\[E_(IO|OUT)_[A-Z]+\\] /.*/case/out/checkpoint-"))
        fail_msg("%s", crash_text());
    assert_int_equal(dir_remove(temp_path("case/out")), QFW_OK);
    assert_int_equal(rename(temp_path("case/elsewhere"), temp_path("case/out")), 0);
    crash_ends_the_same("the folder vanished", 5);
}

static void expect_mode(const char *name, unsigned mode) {
    struct stat s;
    assert_int_equal(stat(temp_path(name), &s), 0);
    if ((s.st_mode & 0777) != mode) fail_msg("%s: mode %o, wanted %o", name, s.st_mode, mode);
}

/* What the umask leaves, and never more than that others may read. */
static void modes_of_files(void **state) {
    static const struct {
        mode_t mask;
        unsigned file, dir;
    } rows[] = {{0, 0644, 0755}, {022, 0644, 0755}, {077, 0600, 0700}};
    static const char *const files[] = {"case/out/adapter_model.safetensors",
        "case/out/trainer_log.jsonl", "case/out/README.md", "case/out/manifest.json",
        "case/out/checkpoint-6/trainer.safetensors", "case/out/checkpoint-6/MANIFEST.json"};
    (void)state;
    crash_make(6, 2, NULL);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        crash_clear();
        const mode_t before = umask(rows[i].mask);
        const int code = crash_run(NULL, &none);
        umask(before);
        assert_int_equal(code, EXIT_OK);
        for (size_t k = 0; k < sizeof files / sizeof *files; k++)
            expect_mode(files[k], rows[i].file);
        expect_mode("case/out", rows[i].dir);
        expect_mode("case/out/checkpoint-6", rows[i].dir);
    }
}

/* --- two runs --- */

/* The second is refused at once, and says who the first is; a kill frees the folder. */
static void one_run_at_a_time(void **state) {
    running p;
    char regex[160];
    (void)state;
    crash_make(60, 5, NULL);
    crash_clear();
    crash_start(&p, NULL, &none);
    running_wait_for(&p, "checkpoint-5");
    running_signal(&p, SIGSTOP);
    assert_int_equal(case_run("--resume"), EXIT_OUTPUT);
    snprintf(regex, sizeof regex,
        "^qfw: error\\[E_OUT_LOCKED\\] /.*/case/out: another run writes there \\(process %d on ",
        (int)p.pid);
    if (!has_line(case_command.err, regex)) fail_msg("said %s", case_command.err);
    running_signal(&p, SIGKILL);
    (void)crash_end(&p);
    assert_int_equal(case_run(NULL), EXIT_OUTPUT); /* without --resume, a run is no place */
    if (!has_line(case_command.err, "E_OUT_EXISTS\\] .*/out: it holds a run already; hint: --res"))
        fail_msg("said %s", case_command.err);
    crash_ends_the_same("locked", 5);
}

static int drop_all(void **state) {
    crash_drop();
    return temp_drop(state);
}

/* With a name, that test alone. */
int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(refused_at_every_call),
        cmocka_unit_test(refused_where_it_goes_on),
        cmocka_unit_test(the_folder_vanishes),
        cmocka_unit_test(modes_of_files),
        cmocka_unit_test(one_run_at_a_time),
    };
    if (argc > 1) cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests_name("faults/io_errors", tests, temp_make, drop_all);
}
