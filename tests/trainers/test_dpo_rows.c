/* test_dpo_rows.c -- rows and keys that the dpo trainer refuses, each with its place. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "../support/dpolab.h"
#include "base/error.h"
#include "base/mem.h"

#include <cmocka.h>

/* A run on this row, or with these lines of [trainer.dpo], is refused with `part`. */
static void expect_refused(lab *l, const char *row, const char *dpo, const char *part) {
    char *settings = dpolab_settings(l, "bad.jsonl", "", dpo);
    char *text = mem_printf("[run]\noutput_dir = %s/out\n[model]\nuse = phi3\npath = %s/model\n%s",
        l->folder, l->folder, settings);
    const run_flags flags = {.plan_only = 1};
    lab_write(l, "bad.jsonl", row);
    lab_write(l, "run.ini", text);
    assert_int_not_equal(lab_main(l, &flags, NULL), QFW_OK);
    assert_non_null(err_text(0));
    if (!strstr(err_text(0), part)) fail_msg("wanted '%s', found: %s", part, err_text(0));
    mem_free(text);
    mem_free(settings);
}

#define SAY(role, text) "{\"role\": \"" role "\", \"content\": \"" text "\"}"

static void bad_rows_are_refused(void **state) {
    static const char *const rows[][2] = {
        {"{\"prompt\": \"a\", \"chosen\": \"b\"}", "bad.jsonl:1: /rejected"},
        {"{\"prompt\": \"a\", \"rejected\": \"b\"}", "bad.jsonl:1: /chosen"},
        {"{\"prompt\": \"a\", \"chosen\": \"b\", \"rejected\": \"b\"}", "the same as /chosen"},
        {"{\"prompt\": \"a\", \"chosen\": \"\", \"rejected\": \"b\"}", "/chosen"},
        {"{\"prompt\": \"a\", \"chosen\": 3, \"rejected\": \"b\"}", "/chosen"},
        {"{\"prompt\": [" SAY("user", "a") "], \"chosen\": \"b\", \"rejected\": \"c\"}",
            "wanted the prompt alike"},
        {"{\"prompt\": \"a\", \"chosen\": [" SAY("assistant", "b") "], \"rejected\": [" SAY(
             "assistant", "c") "]}",
            "wanted the prompt alike"},
        {"{\"prompt\": [" SAY("user", "a") "], \"chosen\": [" SAY(
             "assistant", "b") "], \"rejected\": \"c\"}",
            "/rejected"},
        {"{\"prompt\": [" SAY("user", "a") "], \"chosen\": [" SAY(
             "user", "b") "], \"rejected\": [" SAY("assistant", "c") "]}",
            "/chosen/0/role"},
        {"{\"chosen\": [" SAY("user", "a") ", " SAY("assistant", "b") "], \"rejected\": [" SAY(
             "user", "c") ", " SAY("assistant", "d") "]}",
            "do not begin with the same messages"},
        {"{\"chosen\": \"a b\", \"rejected\": \"a b c\"}", "do not part"},
    };
    (void)state;
    lab *l = dpolab_open();
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        expect_refused(l, rows[i][0], "", rows[i][1]);
    lab_close(l);
}

static void bad_keys_are_refused(void **state) {
    static const char row[] = "{\"prompt\": \"a\", \"chosen\": \"b\", \"rejected\": \"c\"}";
    static const char *const keys[][2] = {
        {"loss_type = sigmod\n", "'sigmod', wanted sigmoid, hinge"},
        {"loss_type = exo_pair\n", "exo_pair takes its logarithm"},
        {"loss_type = robust\nlabel_smoothing = 0.5\n", "robust divides"},
        {"loss_type = sigmoid, sft\nloss_weights = 1\n", "for each loss_type"},
        {"loss_type = sigmoid\nloss_weights = 1, 2\n", "for each loss_type"},
        {"loss_type = sigmoid, aot\nf_divergence_type = js_divergence\n", "wanted reverse_kl"},
        {"use_weighting = true\n", "not supported yet"},
        {"beta = 0\n", "beta"},
    };
    (void)state;
    lab *l = dpolab_open();
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++)
        expect_refused(l, row, keys[i][0], keys[i][1]);
    lab_close(l);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bad_rows_are_refused),
        cmocka_unit_test(bad_keys_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
