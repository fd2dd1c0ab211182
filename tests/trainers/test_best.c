/* test_best.c -- which evaluation was the best, that its weights are what a run leaves, early
 * stopping, and that a resumed run agrees with all of it.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "../support/lab.h"
#include "base/error.h"
#include "base/mem.h"
#include "files/file.h"

#include <cmocka.h>

enum { STEPS = 10, MAX_SETS = 8 };

/* Too high a rate: the unseen rows' loss falls, and rises again. */
static const char keys[] =
    "[adapter]\nuse = lora\nr = 8\nlora_alpha = 32\ntarget_modules = q_proj, v_proj, down_proj\n"
    "[data]\ntrain = rows.jsonl\neval = unseen.jsonl\nmax_length = 128\n"
    "[trainer]\nmax_steps = 10\nlearning_rate = 1e-1\nlr_scheduler_type = constant\n"
    "per_device_train_batch_size = 4\nlogging_steps = 1\neval_strategy = steps\neval_steps = 1\n"
    "save_strategy = no\nload_best_model_at_end = true\n";

static lab *open_lab(void) {
    char path[512];
    size_t n;
    lab *l = lab_open("sft_curve/sft_curve.json");
    lab_model(l, lab_golden("sft_curve/config.json", path));
    lab_copy(l, lab_golden("sft_curve/rows.jsonl", path), "all.jsonl");
    char *rows = lab_contents(l, "all.jsonl", &n), *end = rows;
    for (int line = 0; line < 12; line++) end = strchr(end, '\n') + 1;
    lab_write(l, "rows.jsonl", end);
    *end = 0;
    lab_write(l, "unseen.jsonl", rows);
    mem_free(rows);
    lab_run(l, keys);
    run_close(l->r);
    l->r = NULL;
    return l;
}

static qfw_status train(const lab *l, const char *const *set, uint32_t n_set, int resume) {
    const char *all[MAX_SETS] = {"run.overwrite_output_dir=true"};
    for (uint32_t i = 0; i < n_set; i++) all[i + 1] = set[i];
    const run_flags flags = {
        .set = all + (resume ? 1 : 0), .n_set = n_set + (resume ? 0 : 1), .resume = resume};
    return lab_main(l, &flags, NULL);
}

/* The value under `key` ("\"eval_loss\": ") of each evaluation, and how many there are. */
static int read_values(const lab *l, const char *key, double value[STEPS + 1]) {
    size_t size;
    int n = 0;
    char *log = lab_contents(l, "out/trainer_log.jsonl", &size);
    for (const char *at = log; (at = strstr(at, key)) != NULL && n < STEPS; at++)
        value[++n] = strtod(at + strlen(key), NULL);
    mem_free(log);
    return n;
}

static int read_losses(const lab *l, double loss[STEPS + 1]) {
    return read_values(l, "\"eval_loss\": ", loss);
}

static int lowest(const double *loss, int n) {
    int best = 1;
    for (int i = 2; i <= n; i++)
        if (loss[i] < loss[best]) best = i;
    return best;
}

static void expect_same_file(const lab *l, const char *a, const char *b) {
    size_t n_a, n_b;
    char *first = lab_contents(l, a, &n_a), *second = lab_contents(l, b, &n_b);
    assert_int_equal(n_a, n_b);
    assert_memory_equal(first, second, n_a);
    mem_free(first);
    mem_free(second);
}

static int there(const lab *l, const char *name) {
    char *path = mem_printf("%s/%s", l->folder, name);
    const int is = file_exists(path);
    mem_free(path);
    return is;
}

static double manifest_number(const lab *l, const char *ptr) {
    qfw_doc *d = NULL;
    double value = 0;
    char *path = mem_printf("%s/out/manifest.json", l->folder);
    lab_ok(json_read(path, 1 << 20, NULL, &d));
    lab_ok(json_doc_api.f64(d, ptr, &value));
    json_destroy(d);
    mem_free(path);
    return value;
}

static void best_weights_are_left(void **state) {
    double loss[STEPS + 1];
    char name[64];
    (void)state;
    lab *l = open_lab();
    lab_ok(train(l, NULL, 0, 0));
    assert_int_equal(read_losses(l, loss), STEPS);
    const int best = lowest(loss, STEPS);
    assert_in_range(best, 2, STEPS - 1);
    assert_int_equal((int)manifest_number(l, "/best_global_step"), best);
    assert_true(manifest_number(l, "/best_metric") == loss[best]);
    snprintf(name, sizeof name, "out/checkpoint-%d/adapter_model.safetensors", best);
    expect_same_file(l, "out/adapter_model.safetensors", name);
    for (int step = 1; step <= STEPS; step++) { /* what was the best for a while is gone */
        snprintf(name, sizeof name, "out/checkpoint-%d/MANIFEST.json", step);
        assert_int_equal(there(l, name), step == best);
    }
    lab_close(l);
}

/* The other way round: the worst of all. */
static void greater_may_be_better(void **state) {
    static const char *const set[] = {
        "trainer.greater_is_better=true", "trainer.metric_for_best_model=eval_loss"};
    double loss[STEPS + 1];
    (void)state;
    lab *l = open_lab();
    lab_ok(train(l, set, 2, 0));
    const int n = read_losses(l, loss), best = (int)manifest_number(l, "/best_global_step");
    for (int i = 1; i <= n; i++) assert_true(loss[i] <= loss[best]);
    lab_close(l);
}

static void patience_ends_the_run(void **state) {
    static const char *const set[] = {"trainer.early_stopping_patience=2"};
    double loss[STEPS + 1];
    (void)state;
    lab *l = open_lab();
    lab_ok(train(l, set, 1, 0));
    const int n = read_losses(l, loss), best = lowest(loss, n);
    assert_int_equal(n, best + 2);
    assert_true(n < STEPS);
    assert_int_equal((int)manifest_number(l, "/steps"), n);
    assert_int_equal((int)manifest_number(l, "/best_global_step"), best);
    lab_close(l);
}

/* A metric of the trainer, of which more is better unless it is a loss; the first of equals. */
static void metric_of_the_trainer_decides(void **state) {
    static const char *const set[] = {"trainer.metric_for_best_model=eval_mean_token_accuracy"};
    double accuracy[STEPS + 1];
    int best = 1;
    (void)state;
    lab *l = open_lab();
    lab_ok(train(l, set, 1, 0));
    assert_int_equal(read_values(l, "\"eval_mean_token_accuracy\": ", accuracy), STEPS);
    for (int i = 2; i <= STEPS; i++)
        if (accuracy[i] > accuracy[best]) best = i;
    assert_int_equal((int)manifest_number(l, "/best_global_step"), best);
    assert_true(manifest_number(l, "/best_metric") == accuracy[best]);
    lab_close(l);
}

/* A gain below the threshold is the best all the same, but wears out the patience. */
static void small_gains_wear_out_patience(void **state) {
    static const char *const set[] = {
        "trainer.early_stopping_patience=2", "trainer.early_stopping_threshold=1000"};
    double loss[STEPS + 1];
    (void)state;
    lab *l = open_lab();
    lab_ok(train(l, set, 2, 0));
    assert_int_equal(read_losses(l, loss), 3);
    assert_true(lowest(loss, 3) > 1);
    assert_int_equal((int)manifest_number(l, "/best_global_step"), lowest(loss, 3));
    lab_close(l);
}

/* Best and patience are part of the run's place; the best outlives save_total_limit. */
static void resumed_is_uninterrupted(void **state) {
    static const char *const set[] = {"trainer.save_strategy=steps", "trainer.save_steps=1",
        "trainer.save_total_limit=2", "trainer.early_stopping_patience=2"};
    double loss[STEPS + 1];
    char name[64], *gone;
    size_t n_before, n_after;
    (void)state;
    lab *l = open_lab();
    lab_ok(train(l, set, 4, 0));
    const int n = read_losses(l, loss), best = lowest(loss, n);
    assert_int_equal(n, best + 2);
    snprintf(name, sizeof name, "out/checkpoint-%d/MANIFEST.json", best);
    assert_true(there(l, name));
    char *before = lab_contents(l, "out/adapter_model.safetensors", &n_before);
    gone = mem_printf("%s/out/checkpoint-%d", l->folder, n);
    lab_ok(dir_remove(gone)); /* the last: it goes on one step before */
    lab_ok(train(l, set, 4, 1));
    char *after = lab_contents(l, "out/adapter_model.safetensors", &n_after);
    assert_int_equal(n_before, n_after);
    assert_memory_equal(before, after, n_before);
    assert_int_equal(read_losses(l, loss), n);
    assert_int_equal((int)manifest_number(l, "/best_global_step"), best);
    lab_ok(train(l, set, 4, 1)); /* nothing is left to do, though steps would be */
    assert_int_equal(read_losses(l, loss), n);
    mem_free(before);
    mem_free(after);
    mem_free(gone);
    lab_close(l);
}

static void refused(const lab *l, const char *const *set, uint32_t n, const char *says) {
    assert_int_equal(train(l, set, n, 0), QFW_E_CONFIG);
    assert_int_equal(err_exit_code(), EXIT_CONFIG);
    if (!strstr(err_text(0), says)) fail_msg("%s\nnot %s", err_text(0), says);
}

static void nothing_to_compare_is_refused(void **state) {
    static const char *const none[] = {"trainer.eval_strategy=no"};
    static const char *const patience[] = {"trainer.eval_strategy=no",
        "trainer.load_best_model_at_end=false", "trainer.early_stopping_patience=3"};
    static const char *const unknown[] = {"trainer.metric_for_best_model=eval_los"};
    static const char *const scores[] = {"trainer.metric_for_best_model=in_range"};
    (void)state;
    lab *l = open_lab();
    refused(l, none, 1, "trainer.load_best_model_at_end: true, but eval_strategy = no");
    refused(l, patience, 3, "trainer.early_stopping_patience: 3, but eval_strategy = no");
    refused(l, unknown, 1,
        "'los' is nothing that an evaluation of this run says; did you mean 'loss'?");
    refused(l, scores, 1, "'in_range' is nothing that an evaluation of this run says");
    lab_close(l);
}

/* 30 rows are 8 steps an epoch. */
static void epochs_are_a_strategy(void **state) {
    static const char *const set[] = {"trainer.eval_strategy=epoch", "trainer.save_strategy=epoch",
        "trainer.load_best_model_at_end=false"};
    double loss[STEPS + 1];
    (void)state;
    lab *l = open_lab();
    lab_ok(train(l, set, 3, 0));
    assert_int_equal(read_losses(l, loss), 2); /* after the first, and at the end */
    assert_true(there(l, "out/checkpoint-8/MANIFEST.json"));
    assert_true(there(l, "out/checkpoint-10/MANIFEST.json"));
    lab_close(l);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(best_weights_are_left),
        cmocka_unit_test(greater_may_be_better),
        cmocka_unit_test(patience_ends_the_run),
        cmocka_unit_test(metric_of_the_trainer_decides),
        cmocka_unit_test(small_gains_wear_out_patience),
        cmocka_unit_test(resumed_is_uninterrupted),
        cmocka_unit_test(nothing_to_compare_is_refused),
        cmocka_unit_test(epochs_are_a_strategy),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
