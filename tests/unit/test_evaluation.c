/* test_evaluation.c -- counting, comparing, writing and reading of evaluations; the table and the
 * verdict of six rows: four of six in range, Java over, Communication under.
 */
#define _POSIX_C_SOURCE 200809L
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../support/temp.h"
#include "base/error.h"
#include "base/mem.h"
#include "files/file.h"
#include "serve/evaluation_print.h"

#include <cmocka.h>

static const char *const skills[6] = {
    "Python", "Java", "SQL", "Cloud", "Communication", "Leadership"};
static const verdict_bands bands = {0.8, 0.6};

static evaluation *make(const char *name) {
    evaluation *e = NULL;
    assert_int_equal(
        evaluation_create(name, "set.jsonl", "", skills, 6, (scale){0, 6}, &e), QFW_OK);
    return e;
}

static void add(evaluation *e, const char *document, uint32_t skill, int32_t low, int32_t high,
    int32_t score, double confidence) {
    judged j = {.document = document,
        .text = "text of \"it\"",
        .reason = "because\n",
        .skill = skill,
        .low = low,
        .high = high,
        .score = score,
        .expected = score + 1.0 / 3,
        .confidence = confidence};
    j.p[score] = confidence;
    j.p[(score + 1) % 6] = 1 - confidence;
    assert_int_equal(evaluation_add(e, &j), QFW_OK);
}

/* The first scorer: Java over-scored, Communication under-scored, the others right. */
static evaluation *make_seed(void) {
    evaluation *e = make("sft");
    add(e, "resume-1", 0, 4, 5, 4, 0.9);
    add(e, "resume-1", 1, 1, 2, 4, 0.8);
    add(e, "resume-1", 2, 3, 4, 3, 0.7);
    add(e, "resume-1", 3, 2, 3, 3, 0.6);
    add(e, "resume-1", 4, 4, 5, 2, 0.5);
    add(e, "resume-1", 5, 3, 3, 3, 0.4);
    return e;
}

static char *printed(const evaluation *e) {
    char *text = NULL;
    size_t n;
    FILE *f = open_memstream(&text, &n);
    evaluation_print_document(e, "resume-1", &bands, f);
    fclose(f);
    return text;
}

static void the_first_table(void **state) {
    (void)state;
    evaluation *e = make_seed();
    char *text = printed(e);
    assert_string_equal(text, "  skill            predicted  expected   verdict\n"
                              "  Python                   4       4-5   in range\n"
                              "  Java                     4       1-2   over\n"
                              "  SQL                      3       3-4   in range\n"
                              "  Cloud                    3       2-3   in range\n"
                              "  Communication            2       4-5   under\n"
                              "  Leadership               3         3   in range\n"
                              "  4 of 6 in range (67 %, 95 % interval 30 - 90 %): fair\n");
    free(text);
    assert_string_equal(evaluation_verdict(0.8, &bands), "good");
    assert_string_equal(evaluation_verdict(0.59, &bands), "poor");
    evaluation_destroy(e);
}

static void numbers(void **state) {
    (void)state;
    evaluation *e = make_seed();
    const skill_metrics m = evaluation_metrics(e, 6), java = evaluation_metrics(e, 1);
    assert_int_equal(m.n, 6);
    assert_int_equal(m.in_range.hits, 4);
    assert_int_equal(m.over, 1);
    assert_int_equal(m.under, 1);
    assert_true(m.sign_p == 1);
    assert_true(fabs(m.mae - 4.0 / 6) < 1e-15); /* two away twice */
    assert_true(fabs(m.bias) < 1e-15);
    const double brier = (0.01 + 0.64 + 0.09 + 0.16 + 0.25 + 0.36) / 6;
    assert_true(fabs(m.brier - brier) < 1e-15);
    /* one row a bin: |confidence - right| */
    const double error = (0.1 + 0.8 + 0.3 + 0.4 + 0.5 + 0.6) / 6;
    assert_true(fabs(m.calibration_err - error) < 1e-12);
    assert_int_equal(java.n, 1);
    assert_true(java.bias == 2);
    assert_true(java.kappa == 0);
    e->rows[1].abstained = 1;
    const skill_metrics less = evaluation_metrics(e, 6);
    assert_int_equal(less.n, 5);
    assert_int_equal(less.abstained, 1);
    assert_int_equal(less.over, 0);
    evaluation_destroy(e);
}

static void comparisons(void **state) {
    comparison c;
    (void)state;
    evaluation *a = make("a"), *b = make("b");
    for (int i = 0; i < 20; i++) {
        char id[16];
        snprintf(id, sizeof id, "d%d", i);
        add(a, id, 0, 3, 3, i < 5 ? 3 : 4, 0.5);
        add(b, id, 0, 3, 3, i == 0 ? 5 : i < 15 ? 3 : 0, 0.5);
    }
    assert_int_equal(evaluation_compare(a, b, 6, &c), QFW_OK);
    assert_int_equal(c.both, 4);
    assert_int_equal(c.first_only, 1);
    assert_int_equal(c.second_only, 10);
    assert_int_equal(c.neither, 5);
    assert_true(fabs(c.p - 2 * (1 + 11) / 2048.0) < 1e-14); /* 1 or fewer of 11, twice */
    b->rows[3].low = 2;
    assert_int_equal(evaluation_compare(a, b, 6, &c), QFW_E_DATA);
    assert_non_null(strstr(err_text(0), "a and b cannot be compared"));
    evaluation_destroy(a);
    evaluation_destroy(b);
}

static void written_and_read(void **state) {
    const char *path = temp_path("evaluation.json");
    evaluation *e = make_seed(), *again = NULL;
    (void)state;
    e->rows[2].abstained = 1;
    e->n_wordings = 3;
    e->evidence_rows = 50;
    e->movement[0] = (skill_movement){stats_share(4, 9), 1.0 / 3, 7, 3.1, 0.7, 3.2};
    assert_int_equal(evaluation_write(e, path), QFW_OK);
    assert_int_equal(evaluation_read(path, &again), QFW_OK);
    assert_int_equal(again->n_wordings, 3);
    assert_int_equal(again->evidence_rows, 50);
    assert_memory_equal(e->movement, again->movement, sizeof e->movement);
    assert_int_equal(again->n_rows, 6);
    for (size_t i = 0; i < 6; i++) {
        const judged *x = &e->rows[i], *y = &again->rows[i];
        assert_string_equal(x->document, y->document);
        assert_string_equal(x->text, y->text);
        assert_string_equal(x->reason, y->reason);
        assert_memory_equal(x->p, y->p, sizeof x->p);
        assert_memory_equal(&x->expected, &y->expected, sizeof x->expected);
        assert_int_equal(x->abstained, y->abstained);
        assert_int_equal(x->score, y->score);
    }
    evaluation_destroy(again);
    evaluation_destroy(e);
}

static void refused(const char *from, const char *to, const char *message) {
    const char *path = temp_path("evaluation.json");
    evaluation *e = make_seed(), *again = NULL;
    char *text = NULL;
    size_t n = 0;
    assert_int_equal(evaluation_write(e, path), QFW_OK);
    evaluation_destroy(e);
    assert_int_equal(file_read(path, 1 << 20, &text, &n), QFW_OK);
    char *at = strstr(text, from);
    assert_non_null(at);
    char *other = mem_printf("%.*s%s%s", (int)(at - text), text, to, at + strlen(from));
    assert_int_equal(file_write(path, other, strlen(other)), QFW_OK);
    mem_free(text);
    mem_free(other);
    assert_int_not_equal(evaluation_read(path, &again), QFW_OK);
    assert_null(again);
    if (!strstr(err_text(0), message)) fail_msg("%s, wanted %s", err_text(0), message);
}

static void refusals(void **state) {
    (void)state;
    refused("\"score\": 4", "\"score\": 6", "/rows/0/score: 6, wanted 0 to 5");
    refused("\"skill\": \"SQL\"", "\"skill\": \"Sql\"", "/rows/2/skill: a skill that is not");
    refused("\"levels\": 6", "\"levels\": 99", "/levels: 99, wanted 1 to 16");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_first_table),
        cmocka_unit_test(numbers),
        cmocka_unit_test(comparisons),
        cmocka_unit_test(written_and_read),
        cmocka_unit_test(refusals),
    };
    return cmocka_run_group_tests(tests, temp_make, temp_drop);
}
