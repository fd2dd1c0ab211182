/* test_data.c -- what [data] says of bad rows and near ones, from the INI to manifest.json. */
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

static void near_rows_are_told(void **state) {
    static const char *const none[] = {"data.max_leakage=0"};
    static const char *const off[] = {"data.max_leakage=0", "data.near_duplicate=0"};
    char path[512], *text = NULL;
    int64_t n = 0;
    size_t bytes = 0;
    qfw_doc *manifest = NULL;
    (void)state;
    lab *l = open_lab();
    lab_write(l, "rows.jsonl",
        "{\"input_ids\": [5, 6, 7]}\n{\"input_ids\": [5, 7, 7]}\n"
        "{\"input_ids\": [5, 6, 7], \"labels\": [-100, -100, 7]}\n");
    assert_int_not_equal(run_with(l, none, 1, NULL), QFW_OK);
    assert_string_equal(err_name(), "E_DATA_LEAK");
    assert_int_equal(err_exit_code(), EXIT_DATA);
    assert_non_null(strstr(err_text(0), "eval.jsonl: 1 of 1 rows"));
    assert_non_null(strstr(err_text(0), "rows.jsonl:2, Jaccard 1.000"));
    err_clear();
    snprintf(path, sizeof path, "%s/said", l->folder);
    FILE *said = fopen(path, "w");
    assert_non_null(said);
    lab_ok(run_with(l, NULL, 0, said));
    assert_int_equal(fclose(said), 0);
    text = lab_contents(l, "said", &bytes);
    assert_non_null(strstr(text, "  near      1 of 3 rows of train say what an earlier one says"));
    assert_non_null(strstr(text, "            line 3 is near line 1 of train: 1.000\n"));
    assert_non_null(strstr(text, "  leakage   1 of 1 rows of eval say what one of train says"));
    mem_free(text);
    snprintf(path, sizeof path, "%s/out/manifest.json", l->folder);
    lab_ok(json_read(path, 1 << 20, NULL, &manifest));
    lab_ok(json_doc_api.i64(manifest, "/data/near_duplicates/worst/0/train_line", &n));
    assert_int_equal(n, 1);
    lab_ok(json_doc_api.i64(manifest, "/data/leakage/rows", &n));
    assert_int_equal(n, 1);
    lab_ok(json_doc_api.i64(manifest, "/data/train/duplicates", &n));
    assert_int_equal(n, 0); /* another mask */
    lab_ok(json_doc_api.i64(manifest, "/data/train/lengths/0/rows", &n));
    assert_int_equal(n, 3);
    json_destroy(manifest);
    lab_ok(lab_main(l, &(run_flags){.set = off, .n_set = 2, .plan_only = 1}, NULL));
    lab_close(l);
}

/* --rows: how many rows are shown token by token; no more than there are. */
static void rows_are_shown(void **state) {
    static const struct {
        uint32_t asked;
        int shown;
    } cases[] = {{0, 1}, {2, 2}, {9, 3}};
    char path[512];
    size_t bytes = 0;
    (void)state;
    lab *l = open_lab();
    lab_write(l, "rows.jsonl",
        "{\"input_ids\": [5, 6]}\n{\"input_ids\": [5, 7]}\n{\"input_ids\": [5, 8]}\n");
    snprintf(path, sizeof path, "%s/said", l->folder);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        int shown = 0;
        FILE *said = fopen(path, "w");
        assert_non_null(said);
        lab_ok(lab_main(l, &(run_flags){.dry_run = 1, .n_rows = cases[i].asked}, said));
        assert_int_equal(fclose(said), 0);
        char *text = lab_contents(l, "said", &bytes);
        for (const char *p = text; (p = strstr(p, "token by token;")); p++) shown++;
        assert_int_equal(shown, cases[i].shown);
        assert_null(strchr(text, 27)); /* no colours in a file */
        mem_free(text);
    }
    lab_close(l);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bad_rows_are_left_out),
        cmocka_unit_test(near_rows_are_told),
        cmocka_unit_test(rows_are_shown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
