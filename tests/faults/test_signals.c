/* test_signals.c -- a run that is asked to stop publishes a checkpoint and says so; taken up again,
 * it ends in the bits of a run that nobody disturbed.
 */
#define _POSIX_C_SOURCE 200809L
#include <signal.h>
#include <stdlib.h>

#include "base/error.h"
#include "base/mem.h"
#include "files/file.h"

#include "../support/refusal.h"
#include "../support/running.h"
#include "../support/temp.h"
#include "../support/test.h"
#include "../support/tiny.h"

#define STEPS "300"

/* Long enough to be met anywhere, and with all that a resume must find again. Most of its time goes
 * to evaluations, so that most signals meet one. */
static void make_case(void) {
    static const char row[] = "{\"input_ids\": [5, 6, 7, 8], \"labels\": [-100, 6, 7, 8]}\n";
    tiny_make("case");
    FILE *f = fopen(temp_path("case/eval.jsonl"), "w");
    assert_non_null(f);
    for (int i = 0; i < 16; i++) fputs(row, f);
    assert_int_equal(fclose(f), 0);
    alter("run.ini", "train = rows.jsonl\n", "train = rows.jsonl\neval = eval.jsonl\n");
    alter("run.ini", "r = 4\n", "r = 4\nlora_dropout = 0.1\n");
    alter("run.ini", "max_steps = 1\n",
        "max_steps = " STEPS "\nlearning_rate = 1e-2\nlogging_steps = 1\nsave_steps = 100\n"
        "gradient_accumulation_steps = 2\neval_strategy = steps\neval_steps = 1\n"
        "per_device_eval_batch_size = 1\n");
}

static void start(running *p, const char *word, int ignored) {
    const char *const argv[] = {build_path("qfw"), "--ini", temp_path("case/run.ini"), word, NULL};
    running_start(p, argv, ignored);
}

static char *contents(const char *name, size_t *n) {
    char *text = NULL;
    assert_int_equal(file_read(temp_path(name), 64 << 20, &text, n), QFW_OK);
    return text;
}

static void expect_said(const running *p, const char *regex) {
    char *text = NULL;
    size_t n = 0;
    assert_int_equal(file_read(p->err, 64 << 20, &text, &n), QFW_OK);
    if (!has_line(text, regex)) fail_msg("said\n%s\nnot %s", text, regex);
    if (strstr(text, "Sanitizer") || strstr(text, "runtime error:")) fail_msg("%s", text);
    mem_free(text);
}

/* The step and the loss of every evaluation that the log tells of. mem_free. */
static char *evaluations(void) {
    size_t n = 0, used = 0;
    char *log = contents("case/out/trainer_log.jsonl", &n), *told = mem_alloc(n + 1, 1);
    assert_non_null(told);
    for (char *line = strtok(log, "\n"); line; line = strtok(NULL, "\n")) {
        const char *loss = strstr(line, "\"eval_loss\": "), *step = strstr(line, "\"step\": ");
        if (loss)
            used += (size_t)sprintf(told + used, "%.*s %s\n", (int)strcspn(loss, ","), loss, step);
    }
    mem_free(log);
    return told;
}

/* --- an undisturbed run --- */

static const char *const files[] = {"adapter_model.safetensors",
    "checkpoint-" STEPS "/trainer.safetensors", "checkpoint-" STEPS "/trainer_state.json"};
enum { FILES = 3 };
static char *whole[FILES];
static size_t n_whole[FILES];
static char *whole_evaluations;

static const char *out_path(const char *name) {
    static char path[2][160];
    static unsigned next;
    char *p = path[next++ % 2];
    snprintf(p, sizeof path[0], "case/out/%s", name);
    return p;
}

static int run_undisturbed(void **state) {
    if (temp_make(state)) return -1;
    make_case();
    if (case_run(NULL)) return -1;
    for (int i = 0; i < FILES; i++) whole[i] = contents(out_path(files[i]), &n_whole[i]);
    whole_evaluations = evaluations();
    assert_non_null(strstr(whole_evaluations, "\"step\": " STEPS));
    return 0;
}

static int drop_undisturbed(void **state) {
    for (int i = 0; i < FILES; i++) mem_free(whole[i]);
    mem_free(whole_evaluations);
    return temp_drop(state);
}

/* Resume to the end, and compare: no evaluation is lost, none is there twice. */
static void ends_the_same(const char *what) {
    if (case_run("--resume"))
        fail_msg("%s: exit %d, %s", what, case_command.exit_code, case_command.err);
    char *told = evaluations();
    if (strcmp(told, whole_evaluations)) fail_msg("%s: other evaluations:\n%s", what, told);
    mem_free(told);
    for (int i = 0; i < FILES; i++) {
        size_t n = 0;
        char *now = contents(out_path(files[i]), &n);
        if (n != n_whole[i] || memcmp(now, whole[i], n)) fail_msg("%s: another %s", what, files[i]);
        mem_free(now);
    }
}

/* --- one signal --- */

static void one_signal_stops(void **state) {
    static const struct {
        int signal;
        const char *at; /* what is waited for */
    } rows[] = {{SIGINT, "step 1/"}, {SIGTERM, "step 57/"}, {SIGHUP, "checkpoint-100"}};
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        running p;
        make_case();
        start(&p, NULL, 0);
        running_wait_for(&p, rows[i].at);
        running_signal(&p, rows[i].signal);
        assert_int_equal(running_end(&p), EXIT_SIGNAL);
        expect_said(&p, "^checkpoint /.*/out/checkpoint-[0-9]+$");
        expect_said(&p, "^qfw: error\\[E_SIGNAL\\] stopped after step [0-9]+ of " STEPS
                        "(, before its evaluation)?, checkpoint written; hint: --resume");
        assert_false(file_exists(temp_path("case/out/adapter_model.safetensors")));
        ends_the_same(rows[i].at);
    }
}

/* Stopped again and again, it still ends. */
static void stopped_again(void **state) {
    running p;
    (void)state;
    make_case();
    start(&p, NULL, 0);
    for (int i = 0; i < 4; i++) {
        running_wait_for(&p, "step ");
        running_signal(&p, SIGTERM);
        assert_int_equal(running_end(&p), EXIT_SIGNAL);
        start(&p, "--resume", 0);
    }
    assert_int_equal(running_end(&p), EXIT_OK);
    expect_said(&p, "^resumed from /.*/out/checkpoint-[0-9]+ at step [0-9]+$");
    ends_the_same("stopped again");
}

/* As under nohup. */
static void an_ignored_hangup_is_ignored(void **state) {
    running p;
    (void)state;
    make_case();
    start(&p, NULL, SIGHUP);
    running_wait_for(&p, "step 1/");
    running_signal(&p, SIGHUP);
    assert_int_equal(running_end(&p), EXIT_OK);
    ends_the_same("nohup");
}

/* --- wishes of a run that goes on --- */

static void a_checkpoint_is_asked_for(void **state) {
    running p;
    (void)state;
    make_case();
    alter("run.ini", "save_steps = 100\n", "save_steps = " STEPS "\n");
    start(&p, NULL, 0);
    running_wait_for(&p, "step 5/");
    running_signal(&p, SIGUSR1);
    running_wait_for(&p, "checkpoint /");
    running_signal(&p, SIGUSR2);
    running_wait_for(&p, "status: ");
    assert_int_equal(running_end(&p), EXIT_OK);
    expect_said(&p, "^status: step [0-9]+/" STEPS " \\| loss [0-9.]+ \\| grad_norm [0-9.]+ "
                    "\\| 0:[0-9]+ spent \\| [0-9:]+ left$");
    ends_the_same("asked for a checkpoint");
}

/* --- two --- */

static void a_second_signal_ends_it_at_once(void **state) {
    running p;
    (void)state;
    make_case();
    start(&p, NULL, 0);
    running_wait_for(&p, "checkpoint-100");
    running_signal(&p, SIGINT);
    running_signal(&p, SIGTERM);
    const int code = running_end(&p);
    if (code != 128 + SIGINT && code != 128 + SIGTERM) fail_msg("exit code %d", code);
    assert_true(dir_exists(temp_path("case/out/checkpoint-100")));
    ends_the_same("two signals");
    expect_said(&p, "step 100/");
}

/* --- before the first step --- */

/* Data that takes seconds to read. */
static void stopped_while_it_reads(void **state) {
    enum { COPIES = 200000 };
    static const char row[] = "{\"input_ids\": [5, 6, 7, 8], \"labels\": [-100, 6, 7, 8]}\n";
    running p;
    (void)state;
    make_case();
    FILE *f = fopen(temp_path("case/rows.jsonl"), "w");
    assert_non_null(f);
    for (int i = 0; i < COPIES; i++) fputs(row, f);
    assert_int_equal(fclose(f), 0);
    start(&p, NULL, 0);
    running_wait_caught(&p, SIGTERM);
    const double asked = clock_seconds();
    running_signal(&p, SIGTERM);
    assert_int_equal(running_end(&p), EXIT_SIGNAL);
    assert_true(clock_seconds() - asked < 1);
    expect_said(&p,
        "^qfw: error\\[E_SIGNAL\\] /.*/rows\\.jsonl: stopped while it was read; nothing was "
        "written$");
    assert_false(dir_exists(temp_path("case/out")));
}

/* Weights that take seconds to draw. The folder is claimed before that. */
static void stopped_while_weights_load(void **state) {
    running p;
    (void)state;
    make_case();
    alter("run.ini", "load_in_4bit = true\n", "load_in_4bit = true\ninit = random\n");
    alter("model/config.json", "\"hidden_size\": 64", "\"hidden_size\": 1024");
    alter("model/config.json", "\"intermediate_size\": 96", "\"intermediate_size\": 4096");
    alter("model/config.json", "\"num_hidden_layers\": 2", "\"num_hidden_layers\": 24");
    start(&p, NULL, 0);
    running_wait_file(&p, temp_path("case/out/.lock"));
    running_signal(&p, SIGINT);
    assert_int_equal(running_end(&p), EXIT_SIGNAL);
    expect_said(&p,
        "^qfw: error\\[E_SIGNAL\\] stopped after [0-9]+ of 147 weights, before the first "
        "step; nothing was written$");
    assert_false(dir_exists(temp_path("case/out")));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_signal_stops),
        cmocka_unit_test(stopped_again),
        cmocka_unit_test(an_ignored_hangup_is_ignored),
        cmocka_unit_test(a_checkpoint_is_asked_for),
        cmocka_unit_test(a_second_signal_ends_it_at_once),
        cmocka_unit_test(stopped_while_it_reads),
        cmocka_unit_test(stopped_while_weights_load),
    };
    return cmocka_run_group_tests_name("faults/signals", tests, run_undisturbed, drop_undisturbed);
}
