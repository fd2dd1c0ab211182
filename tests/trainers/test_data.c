/* test_data.c -- what [data] says of bad rows, from the INI to the plan and manifest.json. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "../support/lab.h"
#include "base/error.h"
#include "base/mem.h"

#include <cmocka.h>

static const char settings[] =
    "[adapter]\nr = 2\n[data]\ntrain = rows.jsonl\neval = eval.jsonl\nmax_length = 64\n"
    "[trainer]\nmax_steps = 1\nsave_strategy = no\nper_device_train_batch_size = 2\n";
static const char rows[] =
    "{\"input_ids\": [5, 6, 7]}\n{\"input_ids\": [5, 999]}\n{\"input_ids\":\n"
    "{\"input_ids\": [8, 9]}\n";

/* Weights, rows and run.ini. */
static lab *open_lab(void) {
    char path[512];
    lab *l = lab_open("sft_curve/sft_curve.json");
    lab_model(l, lab_golden("sft_curve/config.json", path));
    lab_write(l, "rows.jsonl", "{\"input_ids\": [5, 6, 7]}\n");
    lab_write(l, "eval.jsonl", "{\"input_ids\": [5, 7, 7]}\n");
    lab_run(l, settings);
    run_close(l->r);
    l->r = NULL;
    lab_write(l, "rows.jsonl", rows);
    return l;
}

static qfw_status run_with(const lab *l, const char *const *set, uint32_t n, FILE *out) {
    return lab_main(l, &(run_flags){.set = set, .n_set = n}, out);
}

static void bad_rows_are_left_out(void **state) {
    static const char *const set[] = {"data.on_error=skip", "data.max_errors=2"};
    static const char *const few[] = {"data.on_error=skip", "data.max_errors=1"};
    int64_t n = 0;
    const char *why = NULL;
    char path[512];
    qfw_doc *manifest = NULL;
    (void)state;
    lab *l = open_lab();
    assert_int_not_equal(run_with(l, NULL, 0, NULL), QFW_OK);
    assert_non_null(strstr(err_text(0), "rows.jsonl:2: /input_ids/1: 999 is no token"));
    assert_int_equal(err_exit_code(), EXIT_DATA);
    assert_int_not_equal(run_with(l, few, 2, NULL), QFW_OK);
    assert_non_null(strstr(err_text(0), "more than 1 rows are wrong"));
    assert_non_null(strstr(err_text(0), "rows.jsonl:3:"));
    assert_int_equal(err_exit_code(), EXIT_DATA);
    err_clear();
    lab_ok(run_with(l, set, 2, NULL));
    snprintf(path, sizeof path, "%s/out/manifest.json", l->folder);
    lab_ok(json_read(path, 1 << 20, NULL, &manifest));
    lab_ok(json_doc_api.i64(manifest, "/data/train/errors", &n));
    assert_int_equal(n, 2);
    lab_ok(json_doc_api.i64(manifest, "/data/train/left_out/1/line", &n));
    assert_int_equal(n, 3);
    lab_ok(json_doc_api.str(manifest, "/data/train/left_out/0/why", &why));
    assert_non_null(strstr(why, "999 is no token"));
    json_destroy(manifest);
    lab_close(l);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bad_rows_are_left_out),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
