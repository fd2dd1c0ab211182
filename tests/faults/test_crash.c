/* test_crash.c -- a training run that is killed, or asked to stop, at any place: taken up again, it
 * ends in the same bits as one that nobody disturbed, and begins after no step that is before the
 * last one it called published.
 */
#define _POSIX_C_SOURCE 200809L
#include <signal.h>
#include <stdlib.h>
#include <time.h>

#include "base/error.h"
#include "base/mem.h"
#include "files/file.h"

#include "../support/crash.h"
#include "../support/refusal.h"
#include "../support/temp.h"
#include "../support/test.h"

enum { KILLED = 128 + SIGKILL };

static const fault none;

static int64_t published_now(void) { return crash_published(crash_text(), strlen(crash_text())); }

static void killed_at_every_call(void **state) {
    char what[64];
    (void)state;
    crash_make(6, 2, NULL);
    const long every = crash_every(12);
    for (long n = 1; n <= crash_calls(); n += every) {
        const fault f = {.kill = n};
        snprintf(what, sizeof what, "killed at call %ld of %ld", n, crash_calls());
        crash_clear();
        if (crash_run(NULL, &f) != KILLED) fail_msg("%s: not killed: %s", what, crash_text());
        crash_ends_the_same(what, published_now());
    }
    print_message(
        "killed at %ld of %ld calls\n", (crash_calls() + every - 1) / every, crash_calls());
}

/* And again where it goes on. */
static void killed_again(void **state) {
    char what[96];
    (void)state;
    crash_make(6, 2, NULL);
    const int times = crash_count(300, 5);
    for (int i = 0; i < times; i++) {
        const fault first = {.kill = 1 + (long)crash_random((uint64_t)crash_calls())};
        const fault second = {.kill = 1 + (long)crash_random((uint64_t)first.kill + 20)};
        snprintf(what, sizeof what, "killed at call %ld, then at %ld", first.kill, second.kill);
        crash_clear();
        assert_int_equal(crash_run(NULL, &first), KILLED);
        int64_t published = published_now();
        (void)crash_run("--resume", &second);
        if (published_now() > published) published = published_now();
        crash_ends_the_same(what, published);
    }
}

/* The run is no longer whole. */
static void drop_end(void) {
    static const char *const ends[] = {"manifest.json", "adapter_model.safetensors"};
    for (size_t i = 0; i < sizeof ends / sizeof *ends; i++) {
        char name[64];
        snprintf(name, sizeof name, "case/out/%s", ends[i]);
        (void)remove(temp_path(name));
    }
}

/* A save of a step that no later run comes to. */
static void a_save_that_nobody_repeats(void **state) {
    (void)state;
    crash_make(6, 2, NULL);
    assert_int_equal(dir_make(temp_path("case/out/checkpoint-3.tmp")), QFW_OK);
    temp_text("case/out/checkpoint-3.tmp/trainer.safetensors", "half");
    drop_end();
    crash_ends_the_same("half a save", 6);
}

/* Which of the calls that a log tells of is the rename of a path that ends so. */
static long find_rename(const char *log, const char *end) {
    size_t n_log = 0, bytes = 0;
    char *text = NULL, kind = 0, path[512];
    long n = 1;
    assert_int_equal(file_read(temp_path(log), 64 << 20, &text, &n_log), QFW_OK);
    for (size_t at = 0; at < n_log; n++, at += strcspn(text + at, "\n") + 1 + bytes) {
        assert_int_equal(sscanf(text + at, "%c %*d %*d %zu %511s", &kind, &bytes, path), 3);
        const size_t length = strlen(path), n_end = strlen(end);
        if (kind == 'R' && length > n_end && !strcmp(path + length - n_end, end)) break;
    }
    mem_free(text);
    assert_true(n > 1);
    return n;
}

/* The checkpoint of step 4 stands, and its evaluation is still due. */
static void stop_before_its_evaluation(void) {
    running p;
    crash_clear();
    crash_start(&p, NULL, &none);
    running_wait_for(&p, "checkpoint-2");
    running_wait_for(&p, "step 4/6 |");
    running_signal(&p, SIGTERM);
    assert_int_equal(crash_end(&p), EXIT_SIGNAL);
    if (!has_line(crash_text(), "stopped after step 4 of 6, before its evaluation"))
        fail_msg("%s", crash_text());
}

/* Evaluated, it is saved again under the same name. */
static void killed_while_it_replaces(void **state) {
    char what[64];
    (void)state;
    crash_make(6, 2, "eval_strategy = steps\neval_steps = 4\nper_device_eval_batch_size = 1\n");
    stop_before_its_evaluation();
    setenv("QFW_SHIM_LOG", temp_path("again"), 1);
    assert_int_equal(crash_run("--resume", &none), EXIT_OK);
    unsetenv("QFW_SHIM_LOG");
    const long at = find_rename("again", "/checkpoint-4.tmp"), far = crash_count(40, 1);
    for (long n = at - far; n < at + far + 2; n++) {
        const fault f = {.kill = n};
        stop_before_its_evaluation();
        assert_int_equal(crash_run("--resume", &f), KILLED);
        snprintf(what, sizeof what, "killed at call %ld, of step 4 again", n);
        crash_ends_the_same(what, 4);
    }
}

static void wait_up_to(double seconds) {
    const uint64_t ns = crash_random((uint64_t)(seconds * 1e9));
    const struct timespec t = {(time_t)(ns / 1000000000u), (long)(ns % 1000000000u)};
    nanosleep(&t, NULL);
}

static void killed_at_any_time(void **state) {
    char what[64];
    int n_killed = 0;
    (void)state;
    crash_make(60, 5, NULL);
    const int times = crash_count(100, 6);
    for (int i = 0; i < times; i++) {
        running p;
        crash_clear();
        crash_start(&p, NULL, &none);
        wait_up_to(crash_seconds());
        running_signal(&p, SIGKILL);
        n_killed += crash_end(&p) == KILLED;
        snprintf(what, sizeof what, "killed after step %lld", (long long)published_now());
        crash_ends_the_same(what, published_now());
    }
    assert_true(n_killed > times / 2);
}

static void stopped_at_any_time(void **state) {
    char what[64];
    int n_stopped = 0;
    (void)state;
    crash_make(60, 5, NULL);
    const int times = crash_count(50, 6);
    for (int i = 0; i < times; i++) {
        running p;
        crash_clear();
        crash_start(&p, NULL, &none);
        running_wait_caught(&p, SIGTERM);
        wait_up_to(crash_seconds() * 0.8);
        running_signal(&p, SIGTERM);
        const int code = crash_end(&p);
        snprintf(what, sizeof what, "stopped after step %lld", (long long)published_now());
        if (code != EXIT_OK && code != EXIT_SIGNAL)
            fail_msg("%s: exit %d, %s", what, code, crash_text());
        n_stopped += code == EXIT_SIGNAL;
        crash_ends_the_same(what, published_now());
    }
    assert_true(n_stopped > times / 2);
}

/* --- a checkpoint that decays --- */

static const char *const parts[] = {"trainer.safetensors", "trainer_state.json", "resolved.ini",
    "adapter_model.safetensors", "adapter_config.json", "MANIFEST.json"};
enum { PARTS = 6 };

static const char *part(const char *name) {
    static char path[2][96];
    static unsigned next;
    char *p = path[next++ % 2];
    snprintf(p, sizeof path[0], "out/checkpoint-6/%s", name);
    return p;
}

/* The newest is passed over, by name, and the one before it serves; asked for by name, it is
 * refused. */
static void expect_passed_over(const char *what) {
    char *by_name = mem_printf("run.resume_from_checkpoint=%s", temp_path("case/out/checkpoint-6"));
    const char *const argv[] = {
        build_path("qfw"), "--ini", temp_path("case/run.ini"), "--dry-run", "--set", by_name, NULL};
    assert_int_equal(command_run(argv, &case_command), 0);
    if (case_command.exit_code != EXIT_DATA && case_command.exit_code != EXIT_NOINPUT)
        fail_msg("%s: exit %d, %s", what, case_command.exit_code, case_command.err);
    mem_free(by_name);
    drop_end();
    crash_ends_the_same(what, 4);
    if (!has_line(
            crash_text(), "^qfw: warning: /.*/checkpoint-6 is passed over: .*/checkpoint-6/") ||
        !has_line(crash_text(), "^resumed from /.*/checkpoint-4 at step 4$"))
        fail_msg("%s: %s", what, crash_text());
}

static void a_flipped_bit(void **state) {
    char what[96];
    (void)state;
    crash_make(6, 2, NULL);
    const int times = crash_count(1000, 11);
    for (int i = 0; i < times; i++) {
        size_t n = 0;
        char *bytes = NULL;
        const char *name = parts[i % PARTS];
        assert_int_equal(file_read(temp_path(in_case(part(name))), 64 << 20, &bytes, &n), QFW_OK);
        const size_t at = (size_t)crash_random(n);
        bytes[at] = (char)(bytes[at] ^ 1 << crash_random(8));
        patch(part(name), (long)at, bytes + at, 1);
        mem_free(bytes);
        snprintf(what, sizeof what, "a bit of %s's byte %zu", name, at);
        expect_passed_over(what);
    }
}

/* Cut off, missing, or another's. */
static void a_changed_file(void **state) {
    (void)state;
    crash_make(6, 2, NULL);
    for (int i = 0; i < PARTS; i++) {
        size_t n = 0;
        char *bytes = NULL;
        assert_int_equal(
            file_read(temp_path(in_case(part(parts[i]))), 64 << 20, &bytes, &n), QFW_OK);
        temp_write(in_case(part(parts[i])), bytes, n / 2);
        expect_passed_over(parts[i]);
        temp_write(in_case(part(parts[i])), bytes, 0);
        expect_passed_over(parts[i]);
        mem_free(bytes);
        assert_int_equal(remove(temp_path(in_case(part(parts[i])))), 0);
        expect_passed_over(parts[i]);
    }
    assert_int_equal(file_copy(temp_path("case/out/checkpoint-4/trainer_state.json"),
                         temp_path(in_case(part("trainer_state.json")))),
        QFW_OK);
    expect_passed_over("another's place");
}

static int drop_all(void **state) {
    crash_drop();
    return temp_drop(state);
}

/* With a name, that test alone. */
int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(killed_at_every_call),
        cmocka_unit_test(killed_again),
        cmocka_unit_test(killed_while_it_replaces),
        cmocka_unit_test(a_save_that_nobody_repeats),
        cmocka_unit_test(killed_at_any_time),
        cmocka_unit_test(stopped_at_any_time),
        cmocka_unit_test(a_flipped_bit),
        cmocka_unit_test(a_changed_file),
    };
    if (argc > 1) cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests_name("faults/crash", tests, temp_make, drop_all);
}
