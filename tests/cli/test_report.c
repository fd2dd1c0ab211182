/* test_report.c -- the command writes report.html of two adapters that it has trained: every
 * section has its content, nothing is loaded from elsewhere, and what the data say is text, not
 * markup.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../support/command.h"
#include "../support/markup.h"
#include "../support/temp.h"
#include "base/mem.h"
#include "files/file.h"

#include <cmocka.h>

static command c;

static const char train_ini[] =
    "[run]\nthreads = 1\nseed = 5\n[model]\npath = model\ninit = random\n[adapter]\nr = 4\n"
    "[data]\nmax_length = 128\ntrain = rows.jsonl\n[trainer]\nmax_steps = 3\nlogging_steps = 1\n"
    "learning_rate = 0.01\nsave_strategy = no\n";

static const char evaluate_ini[] =
    "[run]\ntask = evaluate\noutput_dir = out\noverwrite_output_dir = true\nthreads = 1\nseed = 5\n"
    "[model]\npath = model\ninit = random\n[data]\nmax_length = 128\n"
    "[rubric]\nskills = Java, <script>alert(1)</script>\nscale = 0-5\n"
    "prompt = {document}\\nScore for {skill}:\nanswer = \\s{score}. {reason}\n"
    "[score]\nmax_reason_tokens = 4\n[evaluate]\nset = set.jsonl\nadapters = first, second\n";

/* Java is right for at most one document at each score: some are out of range whatever is said. */
static const char set_rows[] =
    "{\"id\": \"a\", \"text\": \"Ada <script src='https://example.org/x.js'></script> built Spring "
    "services & more.\", \"expected\": {\"Java\": 3, \"<script>alert(1)</script>\": [2, 3]}, "
    "\"evidence\": {\"Java\": \"built Spring services\"}}\n"
    "{\"id\": \"b\", \"text\": \"Ben <script>likes</script> long walks.\", \"expected\": "
    "{\"Java\": 0, \"<script>alert(1)</script>\": 5}}\n"
    "{\"id\": \"<img src=x>\", \"text\": \"Kim <script>wrote</script> procedures.\", \"expected\": "
    "{\"Java\": 5, \"<script>alert(1)</script>\": 0}}\n";

static void copy_model(const char *name) {
    char *from = mem_printf("%s/docs/examples/demo/model/%s", getenv("QFW_SOURCE"), name);
    char *to = mem_printf("model/%s", name);
    assert_int_equal(file_copy(from, temp_path(to)), QFW_OK);
    mem_free(from);
    mem_free(to);
}

static void run_ini(const char *name, const char *set) {
    const char *argv[] = {
        build_path("qfw"), "--ini", temp_path(name), set ? "--set" : NULL, set, NULL};
    assert_int_equal(command_run(argv, &c), 0);
    if (c.exit_code) fail_msg("%s: %d\n%s", name, c.exit_code, c.err);
}

static int make_all(void **state) {
    if (temp_make(state)) return -1;
    assert_int_equal(dir_make(temp_path("model")), QFW_OK);
    copy_model("config.json");
    copy_model("tokenizer.json");
    copy_model("tokenizer_config.json");
    temp_text("train.ini", train_ini);
    temp_text("evaluate.ini", evaluate_ini);
    temp_text("set.jsonl", set_rows);
    temp_text("other.txt", "{document}\nHow good at {skill}?\n");
    temp_text("rows.jsonl", "{\"text\": \"Ada built Spring services. Score for Java: 3.\"}\n");
    run_ini("train.ini", "run.output_dir=first");
    run_ini("train.ini", "run.output_dir=second");
    return 0;
}

/* report.html of out/, which opens offline and is well-formed; mem_free. */
static char *report(void) {
    static const char *const reaches[] = {"@import", "src=", "http:", "https:", "url(", "<script",
        "<link", "<iframe", "<img", "<object"};
    char *page = NULL;
    size_t n = 0;
    assert_int_equal(file_read(temp_path("out/report.html"), 1 << 24, &page, &n), QFW_OK);
    const char *problem = markup_problem(page, 0), *load = markup_loads(page);
    if (problem) fail_msg("%s", problem);
    if (load) fail_msg("asks for something: %.80s", load);
    for (size_t i = 0; i < sizeof reaches / sizeof *reaches; i++)
        for (const char *at = page; (at = strstr(at, reaches[i])) != NULL; at++)
            if (strncmp(at, "url(data:", 9) && strncmp(at, "https://example.org/x.js", 24) &&
                strncmp(at, "src=&#39;", 9) && strncmp(at, "src=x&gt;", 9))
                fail_msg("reaches out: %.80s", at);
    for (const char *at = page; (at = strstr(at, "href=\"")) != NULL; at++)
        if (at[6] != '#') fail_msg("links to outside: %.80s", at);
    return page;
}

/* `text` stands in the section; "" any: the section alone. */
static void section_has(const char *page, const char *id, const char *text) {
    char *open = mem_printf("<section id=\"%s\">", id);
    const char *from = strstr(page, open), *to = from ? strstr(from, "</section>") : NULL;
    mem_free(open);
    if (!to) fail_msg("no section %s", id);
    const char *at = strstr(from, text);
    if (!at || at > to) fail_msg("section %s lacks: %s", id, text);
}

static void two_adapters_and_their_runs(void **state) {
    (void)state;
    run_ini("evaluate.ini", NULL);
    char *page = report();
    section_has(page, "comparison", "first &rarr; second");
    section_has(page, "skills", "&lt;script&gt;alert(1)&lt;/script&gt;</th><td>3</td>");
    section_has(page, "calibration", "<svg");
    section_has(page, "confusion", "<caption>&lt;script&gt;alert(1)&lt;/script&gt;");
    section_has(page, "sensitivity", "Not probed");
    section_has(page, "worst", "<blockquote>Ben &lt;script&gt;likes&lt;/script&gt; long walks.");
    section_has(page, "worst", "&lt;img src=x&gt;");
    section_has(page, "training", "<figcaption>Loss");
    section_has(page, "training", "<svg");
    section_has(page, "data", "rows.jsonl");
    mem_free(page);
}

static void wordings_and_evidence(void **state) {
    (void)state;
    temp_text("both.ini", evaluate_ini);
    char *text = mem_printf("%swordings = other.txt\nevidence_rows = 2\n", evaluate_ini);
    temp_text("both.ini", text);
    mem_free(text);
    run_ini("both.ini", NULL);
    char *page = report();
    section_has(page, "sensitivity", "<h3>first</h3>");
    section_has(page, "sensitivity", "<h3>second</h3>");
    section_has(page, "sensitivity", "Under 2 wordings of the question");
    section_has(page, "sensitivity", "&lt;script&gt;alert(1)&lt;/script&gt;</th><td>3</td>");
    section_has(page, "sensitivity", "With the evidence changed");
    section_has(page, "sensitivity", "Java</th><td>1</td>");
    mem_free(page);
    assert_non_null(strstr(c.out, "first under 2 wordings of the question"));
}

static void what_is_missing_is_said(void **state) {
    (void)state;
    assert_int_equal(remove(temp_path("first/trainer_log.jsonl")), 0);
    run_ini("evaluate.ini", "evaluate.adapters=first");
    char *page = report();
    section_has(page, "training", "There is no trainer_log.jsonl to read");
    section_has(page, "comparison", "needs two evaluations of the same set");
    mem_free(page);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(two_adapters_and_their_runs),
        cmocka_unit_test(wordings_and_evidence),
        cmocka_unit_test(what_is_missing_is_said),
    };
    return cmocka_run_group_tests(tests, make_all, temp_drop);
}
