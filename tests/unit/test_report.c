/* test_report.c -- a report opens offline, holds every section, takes no stranger's word for
 * markup, says what it could not read, and is the same bytes each time.
 */
#define _POSIX_C_SOURCE 200809L
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "../support/markup.h"
#include "../support/temp.h"
#include "base/error.h"
#include "base/mem.h"
#include "files/file.h"
#include "serve/report.h"

#include <cmocka.h>

static const char evil[] = "<script src=\"https://example.org/x.js\">&'\x1b\xff";
static const char *const skills[2] = {"Java", "<b>Talk</b>"};

/* `right` of ten documents are in range for each skill; the others are far over. */
static evaluation *make(const char *name, int right) {
    evaluation *e = NULL;
    assert_int_equal(
        evaluation_create(name, "set.jsonl", evil, skills, 2, (scale){1, 5}, &e), QFW_OK);
    for (int i = 0; i < 20; i++) {
        char id[16];
        snprintf(id, sizeof id, "doc-%d", i / 2);
        const int hit = i / 2 < right;
        judged j = {.document = id,
            .text = evil,
            .reason = i == 19 ? "the last reason" : evil,
            .skill = (uint32_t)i % 2,
            .low = 1,
            .high = i / 2 ? 2 : 1,
            .score = hit ? (i / 2 ? 2 : 1) : 5,
            .expected = hit ? 2.25 : 4.5,
            .confidence = i == 19 ? 0.875 : 0.75};
        j.p[j.score - 1] = j.confidence;
        j.p[2] += 1 - j.confidence;
        assert_int_equal(evaluation_add(e, &j), QFW_OK);
    }
    return e;
}

static char *report_of(const report_input *in) {
    char *page = NULL;
    size_t n = 0;
    const char *path = temp_path("report.html");
    assert_int_equal(report_write(in, path), QFW_OK);
    assert_int_equal(file_read(path, 1 << 24, &page, &n), QFW_OK);
    const char *problem = markup_problem(page, 0);
    if (problem) fail_msg("%s", problem);
    const char *load = markup_loads(page);
    if (load) fail_msg("asks for something: %.80s", load);
    return page;
}

static void has(const char *page, const char *text) {
    if (!strstr(page, text)) fail_msg("the report lacks: %s", text);
}

static void has_every_section(const char *page) {
    static const char *const ids[] = {"comparison", "skills", "calibration", "confusion",
        "sensitivity", "worst", "training", "data", "memory"};
    for (size_t i = 0; i < sizeof ids / sizeof *ids; i++) {
        char text[64];
        snprintf(text, sizeof text, "<section id=\"%s\">", ids[i]);
        has(page, text);
        snprintf(text, sizeof text, "href=\"#%s\"", ids[i]);
        has(page, text);
    }
}

/* A run's folder with two logged steps and a manifest. */
static const char *a_run(void) {
    mkdir(temp_path("run"), 0700);
    temp_text("run/trainer_log.jsonl", "{\"loss\": 2.5, \"learning_rate\": 0.001, \"step\": 10}\n"
                                       "{\"eval_loss\": 1.75, \"step\": 10}\n"
                                       "{\"loss\": 1.25, \"learning_rate\": 0.0005, \"step\": 20}\n"
                                       "{\"loss\": 1.2");
    temp_text("run/manifest.json",
        "{\"device\": \"<i>\", \"plan_bytes\": 2097152, \"process_peak_bytes\": 1048576, \"data\": "
        "{\"train\": {\"path\": \"t&t.jsonl\", \"rows\": 12345, \"kept\": 12000, \"tokens\": 99, "
        "\"trained\": 9, \"sha256\": \"ab\"}, \"licence\": \"MIT\"}}");
    return temp_path("run");
}

static void everything_is_there(void **state) {
    (void)state;
    evaluation *base = make("base", 1), *sft = make("<u>sft</u>", 9);
    const evaluation *const list[] = {base, sft};
    const char *const runs[] = {a_run(), "/nowhere/at/all"};
    const report_input in = {evil, runs, 2, list, 2};
    char *page = report_of(&in), *again = report_of(&in);
    assert_string_equal(page, again);
    has_every_section(page);
    has(page, "<strong>&lt;u&gt;sft&lt;/u&gt;</strong> puts <strong>90.0&nbsp;%</strong> of 20");
    has(page, "better than <strong>base</strong> (10.0&nbsp;%, p&nbsp;&lt;&nbsp;0.0001)");
    has(page,
        "<title>&lt;script src=&quot;https://example.org/x.js&quot;&gt;&amp;&#39;\xEF\xBF\xBD");
    has(page, "5, expected 1&ndash;2");
    const char *worst = strstr(page, "<section id=\"worst\">");
    worst = strstr(worst, "<h3>base</h3>"); /* its 18 are equally far off: the most confident */
    has(worst, "the last reason");
    has(page, "<td class=\"miss\" style=\"--h:0.11\">1</td>");
    has(page, "12\xE2\x80\xAF"
              "345");
    has(page, "<td>2.0 MiB</td><td>1.0 MiB</td><td>50&nbsp;%</td>");
    has(page, "1 line of trainer_log.jsonl could not be read");
    has(page, "There is no trainer_log.jsonl to read");
    has(page, "Loss: <span class=\"key i2\">training</span>");
    has(page, "Learning rate</figcaption>");
    has(page, "prefers-color-scheme:dark");
    has(page, "name=\"viewport\"");
    assert_null(strstr(page, "<u>"));
    assert_null(strstr(page, "nan"));
    mem_free(page);
    mem_free(again);
    evaluation_destroy(base);
    evaluation_destroy(sft);
}

static void what_was_probed_is_shown(void **state) {
    (void)state;
    evaluation *e = make("<u>sft</u>", 9);
    const evaluation *const list[] = {e};
    const report_input in = {NULL, NULL, 0, list, 1};
    char *page = report_of(&in);
    has(page, "Not probed: [evaluate] wordings and evidence_rows are not set.");
    mem_free(page);
    e->n_wordings = 3;
    e->evidence_rows = 50;
    e->movement[1] = (skill_movement){stats_share(4, 10), 1.25, 0, 0, 0, 0};
    page = report_of(&in);
    has(page, "Under 3 wordings of the question</h4>");
    has(page,
        "&lt;b&gt;Talk&lt;/b&gt;</th><td>10</td><td>1.25</td><td class=\"share\">40.0&nbsp;%");
    has(page, "No row of the set names evidence.");
    mem_free(page);
    e->movement[1] = (skill_movement){stats_share(4, 10), 1.25, 7, 3.5, 1.25, 3.75};
    page = report_of(&in);
    has(page, "</th><td>7</td><td>3.50</td><td>1.25 <small>(\xE2\x88\x92"
              "2.25)</small></td><td>3.75 <small>(+0.25)</small></td>");
    assert_null(strstr(page, "Not probed"));
    mem_free(page);
    evaluation_destroy(e);
}

static void nothing_is_said_to_be_nothing(void **state) {
    (void)state;
    const report_input in = {NULL, NULL, 0, NULL, 0};
    char *page = report_of(&in);
    has_every_section(page);
    has(page, "There is nothing to report.");
    has(page, "No run was given.");
    has(page, "No evaluation was given.");
    mem_free(page);
}

static void other_rows_are_not_compared(void **state) {
    (void)state;
    evaluation *a = make("a", 5), *b = make("b", 5);
    b->rows[0].low = 2;
    const evaluation *const list[] = {a, b};
    const report_input in = {NULL, NULL, 0, list, 2};
    char *page = report_of(&in);
    has(page, "The evaluations do not hold the same rows");
    assert_null(strstr(page, "better than"));
    mem_free(page);
    evaluation_destroy(a);
    evaluation_destroy(b);
}

static void want_of_memory_is_an_error(void **state) {
    (void)state;
    evaluation *e = make("a", 5);
    const evaluation *const list[] = {e};
    const char *const runs[] = {a_run()};
    const report_input in = {NULL, runs, 1, list, 1};
    const uint64_t before = mem_count();
    char *page = report_of(&in);
    mem_free(page);
    const uint64_t calls = mem_count() - before;
    remove(temp_path("report.html"));
    for (uint64_t k = 1; k < calls; k++) {
        mem_fail_at(k);
        const qfw_status status = report_write(&in, temp_path("report.html"));
        mem_fail_at(0);
        if (status != QFW_OK) assert_int_equal(status, QFW_E_NOMEM);
        if (status != QFW_OK) assert_int_equal(err_status(), QFW_E_NOMEM);
        assert_false(file_exists(temp_path("report.html.tmp")));
        err_clear();
        remove(temp_path("report.html"));
    }
    evaluation_destroy(e);
}

static void a_folder_that_is_not_there_is_an_error(void **state) {
    (void)state;
    const report_input in = {NULL, NULL, 0, NULL, 0};
    assert_error(report_write(&in, temp_path("no/such/report.html")), "E_OUT_CREATE", EXIT_OUTPUT,
        "report.html");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(everything_is_there),
        cmocka_unit_test(what_was_probed_is_shown),
        cmocka_unit_test(nothing_is_said_to_be_nothing),
        cmocka_unit_test(other_rows_are_not_compared),
        cmocka_unit_test(want_of_memory_is_an_error),
        cmocka_unit_test(a_folder_that_is_not_there_is_an_error),
    };
    return cmocka_run_group_tests(tests, temp_make, temp_drop);
}
