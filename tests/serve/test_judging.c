/* test_judging.c -- a set scored while the model is trained: the command itself, on the demo's tiny
 * model, and afterwards the task evaluate, which must say the same.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "../support/command.h"
#include "../support/temp.h"
#include "base/error.h"
#include "base/mem.h"
#include "files/file.h"
#include "serve/evaluation.h"

#include "../support/test.h"

static command c;

static const char rubric_keys[] = "[rubric]\nskills = Java, SQL\nscale = 0-5\n"
                                  "prompt = {document}\\nScore for {skill}:\n"
                                  "answer = \\s{score}. {reason}\n"
                                  "[score]\nmax_reason_tokens = 8\n[evaluate]\nset = set.jsonl\n";

static const char train_keys[] =
    "[run]\noutput_dir = out\nthreads = 1\n[model]\npath = model\ninit = random\n"
    "[adapter]\nuse = none\n[data]\ntrain = rows.jsonl\nmax_length = 128\n"
    "[trainer]\nmax_steps = 6\nper_device_train_batch_size = 4\nlearning_rate = 2e-3\n"
    "logging_steps = 1\neval_strategy = steps\neval_steps = 2\nsave_strategy = no\n"
    "load_best_model_at_end = true\nmetric_for_best_model = mae\n";

static void make_files(void) {
    static const char *const names[] = {"config.json", "tokenizer.json", "tokenizer_config.json"};
    char rows[4096] = "", set[4096] = "";
    assert_int_equal(dir_make(temp_path("model")), QFW_OK);
    for (int i = 0; i < 3; i++) {
        char *from = mem_printf("%s/docs/examples/demo/model/%s", getenv("QFW_SOURCE"), names[i]);
        char *to = mem_printf("model/%s", names[i]);
        assert_int_equal(file_copy(from, temp_path(to)), QFW_OK);
        mem_free(from);
        mem_free(to);
    }
    for (int i = 0; i < 12; i++) {
        const size_t at = strlen(rows), to = strlen(set);
        snprintf(rows + at, sizeof rows - at,
            "{\"prompt\": \"Ada built %d services.\\nScore for %s:\", \"completion\": \" %d. "
            "built services\"}\n",
            i, i % 2 ? "Java" : "SQL", i % 2 ? 3 : 1);
        snprintf(set + to, sizeof set - to,
            "{\"id\": \"%d\", \"text\": \"Bob built %d services.\", \"expected\": {\"Java\": [2, "
            "4], \"SQL\": %d}}\n",
            i, i, i % 3);
    }
    temp_text("rows.jsonl", rows);
    temp_text("set.jsonl", set);
}

static void write_ini(const char *name, const char *text) {
    char *whole = mem_printf("%s%s", text, rubric_keys);
    temp_text(name, whole);
    mem_free(whole);
}

static void run_ini(const char *name, const char *word) {
    char *path = mem_strdup(temp_path(name));
    const char *argv[] = {build_path("qfw"), "--ini", path, word, NULL};
    assert_int_equal(command_run(argv, &c), 0);
    mem_free(path);
}

/* The number of `key` in the line of the log for an evaluation of `step`. */
static double logged(const char *log, int step, const char *key) {
    char wanted[64], name[96];
    snprintf(wanted, sizeof wanted, "\"step\": %d}", step);
    snprintf(name, sizeof name, "\"eval_%s\": ", key);
    for (const char *line = log; line && *line; line = strchr(line, '\n') + 1) {
        const char *end = strchr(line, '\n'), *at = strstr(line, name);
        const char *its_step = strstr(line, wanted);
        if (at && at < end && its_step && its_step < end) {
            const char *value = at + strlen(name);
            return strncmp(value, "null", 4) ? strtod(value, NULL) : (double)NAN;
        }
    }
    fail_msg("no %s of step %d in\n%s", key, step, log);
    return 0;
}

static void expect_equal(double a, double b, const char *what) {
    if (!(a == b || (isnan(a) && isnan(b)))) fail_msg("%s: %.17g, then %.17g", what, a, b);
}

static void says_what_evaluate_says(void **state) {
    char *log = NULL;
    size_t n = 0;
    evaluation *e = NULL;
    (void)state;
    make_files();
    write_ini("train.ini", train_keys);
    run_ini("train.ini", NULL);
    if (c.exit_code) fail_msg("%s", c.err);
    assert_int_equal(file_read(temp_path("out/trainer_log.jsonl"), 1 << 20, &log, &n), QFW_OK);
    int best = 2;
    for (int step = 4; step <= 6; step += 2)
        if (logged(log, step, "mae") < logged(log, best, "mae")) best = step;
    char *said =
        mem_printf("best       eval_mae %.4f after step %d:", logged(log, best, "mae"), best);
    if (!strstr(c.out, said)) fail_msg("%s\nnot %s", c.out, said);
    mem_free(said);

    write_ini("evaluate.ini",
        "[run]\ntask = evaluate\noutput_dir = ev\nthreads = 1\n[model]\npath = out\n"
        "[adapter]\nuse = none\n[data]\nmax_length = 128\n");
    run_ini("evaluate.ini", NULL);
    if (c.exit_code) fail_msg("%s", c.err);
    assert_int_equal(evaluation_read(temp_path("ev/evaluation-base.json"), &e), QFW_OK);
    const skill_metrics all = evaluation_metrics(e, 2), java = evaluation_metrics(e, 0);
    const skill_metrics sql = evaluation_metrics(e, 1);
    expect_equal(logged(log, best, "in_range"), all.in_range.value, "in_range");
    expect_equal(logged(log, best, "mae"), all.mae, "mae");
    expect_equal(logged(log, best, "kappa"), all.kappa, "kappa");
    expect_equal(logged(log, best, "brier"), all.brier, "brier");
    expect_equal(logged(log, best, "in_range/Java"), java.in_range.value, "in_range/Java");
    expect_equal(logged(log, best, "in_range/SQL"), sql.in_range.value, "in_range/SQL");
    evaluation_destroy(e);
    mem_free(log);
}

static void is_part_of_the_plan(void **state) {
    (void)state;
    make_files();
    write_ini("train.ini", train_keys);
    run_ini("train.ini", "--plan");
    assert_int_equal(c.exit_code, 0);
    assert_non_null(strstr(c.out, "\n  scoring "));
}

static void its_rubric_is_checked(void **state) {
    (void)state;
    make_files();
    char *text = mem_printf("%s[evaluate]\nset = set.jsonl\n", train_keys);
    temp_text("train.ini", text);
    mem_free(text);
    run_ini("train.ini", "--dry-run");
    assert_int_equal(c.exit_code, EXIT_CONFIG);
    assert_non_null(strstr(c.err, "rubric.skills"));
}

static int teardown(void **state) { return temp_drop(state); }

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(says_what_evaluate_says, teardown),
        cmocka_unit_test_teardown(is_part_of_the_plan, teardown),
        cmocka_unit_test_teardown(its_rubric_is_checked, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
