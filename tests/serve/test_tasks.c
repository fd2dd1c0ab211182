/* test_tasks.c -- generate, pairs and evaluate from an INI to their files, on a fresh model of the
 * demo's shape: what stands in each row, that trainer dpo takes the pairs, and what is refused.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../support/command.h"
#include "../support/temp.h"
#include "base/mem.h"
#include "files/file.h"
#include "files/json.h"
#include "serve/evaluation.h"

#include <cmocka.h>

static command c;

static const char ini[] =
    "[run]\noutput_dir = out\nseed = 5\n[model]\npath = model\ninit = random\n"
    "[adapter]\nr = 4\n[data]\nmax_length = 128\ntrain = out/pairs.jsonl\n"
    "[rubric]\nskills = Java, SQL\nscale = 0-5\nprompt = {document}\\nScore for {skill}:\n"
    "answer = \\s{score}. {reason}\n[score]\nmax_reason_tokens = 4\n"
    "[generate]\ninput = prompts.jsonl\nmax_new_tokens = 5\nper_device_batch_size = 3\n"
    "[pairs]\nset = set.jsonl\nsamples = 3\nmax_new_tokens = 8\n"
    "[evaluate]\nset = set.jsonl\nadapters = base\nevidence_rows = 2\nwordings = other.txt\n"
    "[trainer]\nuse = dpo\nmax_steps = 1\nper_device_train_batch_size = 2\nsave_strategy = no\n";

static const char set_rows[] =
    "{\"id\": \"a\", \"text\": \"Ada built Spring services, joined two tables.\", \"expected\": "
    "{\"Java\": 3, \"SQL\": [2, 3]}, \"evidence\": {\"Java\": \"built Spring services\"}}\n"
    "{\"id\": \"b\", \"text\": \"Ben likes long walks.\", \"expected\": {\"Java\": 0}}\n"
    "{\"text\": \"Kim wrote stored procedures.\", \"expected\": {\"Java\": 0, \"SQL\": [3, 4]}}\n";

static void copy_model(const char *name) {
    char *from = mem_printf("%s/docs/examples/demo/model/%s", getenv("QFW_SOURCE"), name);
    char *to = mem_printf("model/%s", name);
    assert_int_equal(file_copy(from, temp_path(to)), QFW_OK);
    mem_free(from);
    mem_free(to);
}

static int make_all(void **state) {
    if (temp_make(state)) return -1;
    assert_int_equal(dir_make(temp_path("model")), QFW_OK);
    copy_model("config.json");
    copy_model("tokenizer.json");
    copy_model("tokenizer_config.json");
    temp_text("run.ini", ini);
    temp_text("set.jsonl", set_rows);
    temp_text("other.txt", "{document}\nHow good at {skill}?\n");
    temp_text("prompts.jsonl", "{\"prompt\": \"Ada built\"}\n{\"prompt\": \"Ben likes long\"}\n"
                               "{\"prompt\": \"Score for Java:\"}\n{\"prompt\": \"Kim\"}\n");
    return 0;
}

/* The task, with one --set more unless it is NULL; its exit code. */
static int run_task(const char *task, const char *set) {
    char *word = mem_printf("run.task=%s", task);
    const char *argv[] = {build_path("qfw"), "--ini", temp_path("run.ini"), "--set", word,
        set ? "--set" : NULL, set, NULL};
    assert_int_equal(command_run(argv, &c), 0);
    mem_free(word);
    return c.exit_code;
}

static char *contents(const char *name) {
    char *text = NULL;
    size_t n;
    assert_int_equal(file_read(temp_path(name), 1 << 20, &text, &n), QFW_OK);
    return text;
}

/* Line i of a JSONL. */
static qfw_doc *row(const char *text, int i) {
    qfw_doc *d = NULL;
    for (; i > 0; i--) text = strchr(text, '\n') + 1;
    assert_int_equal(json_parse(text, strcspn(text, "\n"), "test", 1, "E_JSON", NULL, &d), QFW_OK);
    return d;
}

static int lines(const char *text) {
    int n = 0;
    for (; *text; text++) n += *text == '\n';
    return n;
}

static int64_t number(const qfw_doc *d, const char *ptr) {
    int64_t value = -1;
    assert_int_equal(json_doc_api.i64(d, ptr, &value), QFW_OK);
    return value;
}

static const char *string(const qfw_doc *d, const char *ptr) {
    const char *value = NULL;
    assert_int_equal(json_doc_api.str(d, ptr, &value), QFW_OK);
    return value;
}

static void generates(void **state) {
    (void)state;
    assert_int_equal(run_task("generate", NULL), 0);
    char *first = contents("out/generations.jsonl");
    assert_int_equal(lines(first), 4);
    for (int i = 0; i < 4; i++) {
        qfw_doc *d = row(first, i);
        const int64_t n = number(d, "/n_tokens");
        const int stopped = !strcmp(string(d, "/finish"), "stop");
        assert_int_equal(number(d, "/line"), i + 1);
        assert_true(n >= 1 && n <= 5 && (stopped || n == 5));
        json_destroy(d);
    }
    assert_int_equal(run_task("generate", NULL), 73); /* what is there is not overwritten */
    assert_non_null(strstr(c.err, "it holds generations already"));
    assert_int_equal(remove(temp_path("out/generations.jsonl")), 0);
    assert_int_equal(run_task("generate", "generate.per_device_batch_size=1"), 0);
    char *again = contents("out/generations.jsonl");
    assert_string_equal(first, again); /* whoever ran beside whom */
    mem_free(first);
    mem_free(again);
}

static void makes_pairs(void **state) {
    (void)state;
    assert_int_equal(run_task("pairs", NULL), 0);
    char *text = contents("out/pairs.jsonl");
    assert_int_equal(lines(text), 5); /* a question for each expected score */
    for (int i = 0; i < 5; i++) {
        qfw_doc *d = row(text, i);
        const int64_t low = number(d, "/provenance/expected/0");
        const int64_t high = number(d, "/provenance/expected/1");
        const int64_t chosen = number(d, "/provenance/chosen/score");
        const int64_t rejected = number(d, "/provenance/rejected/score");
        assert_true(chosen >= low && chosen <= high);
        assert_true(rejected < low || rejected > high);
        assert_int_equal(string(d, "/chosen")[1] - '0', chosen);
        assert_int_equal(string(d, "/rejected")[1] - '0', rejected);
        assert_non_null(strstr(string(d, "/prompt"), string(d, "/provenance/skill")));
        json_destroy(d);
    }
    mem_free(text);
    assert_int_equal(run_task("pairs", NULL), 73); /* a person may have corrected them */
    assert_int_equal(run_task("train", "run.output_dir=dpo"), 0);
    assert_non_null(strstr(c.out, "loss       0.6931 first")); /* ln 2: policy = reference */
}

static void evaluates(void **state) {
    evaluation *e = NULL;
    (void)state;
    assert_int_equal(run_task("evaluate", NULL), 0);
    assert_int_equal(evaluation_read(temp_path("out/evaluation-base.json"), &e), QFW_OK);
    assert_int_equal(e->n_rows, 5);
    for (size_t i = 0; i < e->n_rows; i++) {
        double sum = 0;
        for (uint32_t k = 0; k < 6; k++) sum += e->rows[i].p[k];
        assert_true(sum > 0.999999 && sum < 1.000001);
    }
    assert_string_equal(e->rows[4].document, "3"); /* a row without an id is its line */
    evaluation_destroy(e);
    assert_non_null(strstr(c.out, "base under 2 wordings of the question"));
    assert_non_null(strstr(c.out, "base with the evidence changed"));
    assert_int_equal(run_task("evaluate", NULL), 73);
    assert_non_null(strstr(c.err, "it holds an evaluation already; hint: another output_dir"));
    char *kept = mem_strdup(temp_path("kept.json"));
    assert_int_equal(rename(temp_path("out/evaluation-base.json"), kept), 0);
    char *with = mem_printf("evaluate.compare_with=%s", kept);
    assert_int_equal(run_task("evaluate", with), 0);
    assert_int_equal(remove(temp_path("out/evaluation-base.json")), 0);
    assert_int_equal(remove(temp_path("out/evaluation-base-2.json")), 0);
    assert_non_null(strstr(c.out, "no difference is shown between base-2 and base"));
    /* One of other rows is refused before anything is scored. */
    char *other = NULL;
    size_t n = 0;
    assert_int_equal(file_read(kept, 1 << 20, &other, &n), QFW_OK);
    char *id = strstr(other, "\"3\"");
    assert_non_null(id);
    id[1] = '4';
    assert_int_equal(file_write(kept, other, n), QFW_OK);
    assert_int_equal(run_task("evaluate", with), 78);
    assert_non_null(
        strstr(c.err, "evaluate.compare_with: the evaluation of base was not made with"));
    assert_false(file_exists(temp_path("out/evaluation-base.json")));
    mem_free(other);
    mem_free(with);
    mem_free(kept);
    /* The same of the last of several adapters, by the key that names it. */
    assert_int_equal(run_task("evaluate", "evaluate.adapters=base,nowhere"), 66);
    assert_non_null(strstr(c.err, "[evaluate] adapters, "));
    assert_null(strstr(c.out, "in range"));
    /* Two of one name are told apart. */
    assert_int_equal(run_task("evaluate", "evaluate.adapters=base,base"), 0);
    assert_true(file_exists(temp_path("out/evaluation-base-2.json")));
    assert_int_equal(remove(temp_path("out/evaluation-base.json")), 0);
    assert_int_equal(remove(temp_path("out/evaluation-base-2.json")), 0);
    assert_int_equal(run_task("evaluate", "evaluate.good=0.5"), 78);
}

/* Runs of 16 bits score as those of 32 do, a rounding apart. */
static void sixteen_bits_score(void **state) {
    static const char *const sets[] = {
        "trainer.bf16=false", "trainer.bf16=true", "trainer.fp16=true"};
    evaluation *e[3] = {NULL};
    (void)state;
    for (int i = 0; i < 3; i++) {
        if (run_task("evaluate", sets[i])) fail_msg("%s", c.err);
        assert_int_equal(evaluation_read(temp_path("out/evaluation-base.json"), &e[i]), QFW_OK);
        assert_int_equal(remove(temp_path("out/evaluation-base.json")), 0);
    }
    for (int i = 1; i < 3; i++) {
        double worst = 0;
        for (size_t k = 0; k < e[0]->n_rows; k++)
            worst = fmax(worst, fabs(e[i]->rows[k].p[1] / e[0]->rows[k].p[1] - 1));
        if (worst == 0 || worst > 0.05) fail_msg("%s: probabilities off by %g", sets[i], worst);
    }
    for (int i = 0; i < 3; i++) evaluation_destroy(e[i]);
}

static void refused(const char *rows, const char *message) {
    temp_text("bad.jsonl", rows);
    char *set = mem_printf("evaluate.set=%s", temp_path("bad.jsonl"));
    assert_int_equal(run_task("evaluate", set), 65);
    mem_free(set);
    if (!strstr(c.err, message)) fail_msg("%s, wanted %s", c.err, message);
}

static void sets_that_are_wrong(void **state) {
    (void)state;
    refused("", "bad.jsonl: no rows");
    refused("{\"text\": \"x\"}\n", "bad.jsonl:1: /expected: wanted an object");
    refused("{\"text\": \"x\", \"expected\": {\"Jav\": 1}}\n",
        "bad.jsonl:1: /expected/Jav: not one of the rubric's skills; did you mean");
    refused("{\"text\": \"x\", \"expected\": {\"Java\": 6}}\n", "wanted a whole number of 0 to 5");
    refused("{\"text\": \"x\", \"expected\": {\"Java\": [3, 2]}}\n", "above the highest");
    refused("{\"id\": \"a\", \"text\": \"x\", \"expected\": {\"Java\": 1}}\n"
            "{\"id\": \"a\", \"text\": \"y\", \"expected\": {\"Java\": 1}}\n",
        "bad.jsonl:2: /id: another row has the same id");
    refused("{\"text\": \"x\", \"expected\": {\"Java\": 1}, \"evidence\": {\"Java\": \"y\"}}\n",
        "/evidence/Java: wanted words that stand in /text");
}

static void tasks_without_input(void **state) {
    (void)state;
    assert_int_equal(run_task("evaluate", "evaluate.set="), 78);
    assert_non_null(strstr(c.err, "evaluate.set: missing, and task = evaluate needs it"));
    assert_int_equal(run_task("evaluat", NULL), 78);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(generates),
        cmocka_unit_test(makes_pairs),
        cmocka_unit_test(evaluates),
        cmocka_unit_test(sixteen_bits_score),
        cmocka_unit_test(sets_that_are_wrong),
        cmocka_unit_test(tasks_without_input),
    };
    return cmocka_run_group_tests(tests, make_all, temp_drop);
}
