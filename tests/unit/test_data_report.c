/* test_data_report.c -- what a person is told of a data set: the report, a row, the warnings. */
#define _POSIX_C_SOURCE 200809L
#include "../support/temp.h"
#include "../support/texts.h"
#include "base/error.h"
#include "base/log.h"
#include "base/mem.h"
#include "files/file.h"
#include "text/dataset.h"

#include <stdlib.h>
#include <unistd.h>

#include "../support/test.h"

#define B "\xe2\x96\x81" /* the blank of this vocabulary */

static tokenizer *tok;
static dataset_opts opts;

static qfw_status test_encode(qfw_inst *inst, qfw_encoder *e) {
    const qfw_doc *row = encoder_api.row(e);
    (void)inst;
    if (json_doc_api.kind(row, "/input_ids")) return encoder_api.tokens(e, "/input_ids", "/labels");
    if (json_doc_api.kind(row, "/messages"))
        return encoder_api.messages(e, "/messages", QFW_TRAIN_ALL);
    if (json_doc_api.kind(row, "/text")) return encoder_api.text(e, "/text");
    return encoder_api.pair(e, "/prompt", "/completion", QFW_TRAIN_COMPLETION);
}

static const qfw_trainer trainer = {.size = sizeof trainer, .encode = test_encode};

static int setup(void **state) {
    if (temp_make(state)) return -1;
    must(file_copy(golden_path("bytefallback/tokenizer.json"), temp_path("tokenizer.json")));
    temp_text("tokenizer_config.json",
        "{\"eos_token\": \"<|endoftext|>\", \"chat_template\": \"another\"}");
    must(tokenizer_open(temp_folder(), 500, &tok));
    opts = (dataset_opts){
        .tok = tok, .chat = chat_by_name("phi3-mini"), .max_length = 1024, .trainer = &trainer};
    return 0;
}

static int teardown(void **state) {
    tokenizer_close(tok);
    return temp_drop(state);
}

static dataset *opened(const char *text) {
    dataset *d = NULL;
    temp_text("rows.jsonl", text);
    must(dataset_open(temp_path("rows.jsonl"), &opts, &d));
    return d;
}

/* --- prints --- */

static const char *printed(void (*print)(const dataset *d, FILE *out), const dataset *d) {
    static char text[8192];
    FILE *f = tmpfile();
    assert_non_null(f);
    print(d, f);
    rewind(f);
    text[fread(text, 1, sizeof text - 1, f)] = 0;
    fclose(f);
    return text;
}

static void print_report(const dataset *d, FILE *out) { dataset_print_report(d, "train", out); }
static void print_row(const dataset *d, FILE *out) { dataset_print_row(d, 0, out, 0); }
static void print_coloured(const dataset *d, FILE *out) { dataset_print_row(d, 0, out, 1); }

static void test_prints(void **state) {
    (void)state;
    char wanted[2048];
    opts.max_length = 5;
    opts.overlong = OVERLONG_TRUNCATE;
    dataset *d =
        opened("{\"prompt\": \"<|user|>the\", \"completion\": \" for\"}\n\n"
               "{\"prompt\": \"the\", \"completion\": \" year for the year for the year\"}\n");
    snprintf(wanted, sizeof wanted,
        "train: %s\n  rows      2 read, 2 kept (1 cut), 1 blank lines\n"
        "  tokens    9 in all, 6 trained (66.7 %%)\n"
        "  a row     4 tokens at least, median 4, 95 %% up to 5, 5 at most (max_length 5)\n"
        "  lengths        4            ######################################## 1\n"
        "                 5            ######################################## 1\n"
        "  sha256    %s\n",
        temp_path("rows.jsonl"), dataset_facts(d)->sha256);
    assert_string_equal(printed(print_report, d), wanted);
    const qfw_seq *s = &dataset_at(d, 0)->seq[0];
    snprintf(wanted, sizeof wanted,
        "row 1 of 2 (line 1), token by token; * is trained\n"
        "       496 <|user|>          %6d " B "the                *%d " B "for\n"
        "      *%d <|endoftext|>\n"
        "  4 tokens, 2 trained\n",
        s->token[1], s->token[2], s->token[3]);
    assert_string_equal(printed(print_row, d), wanted);
    const char *coloured = printed(print_coloured, d);
    assert_non_null(strstr(coloured, "\x1b[2m   496 <|user|>\x1b[0m"));
    assert_non_null(strstr(coloured, "\x1b[32m   490 <|endoftext|>\x1b[0m\n"));
    dataset_close(d);
}

static void test_long_print(void **state) {
    (void)state;
    char *row = calloc(1, 2048);
    opts.max_length = 1024;
    assert_non_null(row);
    strcat(row, "{\"input_ids\": [4");
    for (int i = 1; i < 100; i++) strcat(row, ",13");
    strcat(row, "]}");
    dataset *d = opened(row);
    const char *text = printed(print_row, d);
    size_t lines = 0;
    for (const char *p = text; *p; p++) lines += *p == '\n';
    assert_int_equal(lines, 1 + 20 + 1 + 7 + 1);
    for (const char *p = text, *end; (end = strchr(p, '\n')); p = end + 1)
        assert_true(end - p <= 80);
    assert_non_null(strstr(text, "\n    ... 20 tokens more, 20 of them trained ...\n"));
    assert_non_null(strstr(text, "\n  100 tokens, 99 trained\n"));
    dataset_close(d);
    free(row);
}

/* A token wider than its cell leaves the others where they are. */
static void test_wide_token(void **state) {
    (void)state;
    char *json = NULL;
    size_t n = 0;
    tokenizer *wide = NULL;
    must(file_read(golden_path("bytefallback/tokenizer.json"), 1 << 20, &json, &n));
    const char *name = "<|placeholder2|>", *at = strstr(json, name);
    assert_non_null(at);
    char *made =
        mem_printf("%.*s<|a longer placeholder|>%s", (int)(at - json), json, at + strlen(name));
    must(dir_make(temp_path("wide")));
    temp_text("wide/tokenizer.json", made);
    must(tokenizer_open(temp_path("wide"), 0, &wide));
    const int32_t id = tokenizer_id(wide, "<|a longer placeholder|>");
    char row[128];
    snprintf(row, sizeof row, "{\"input_ids\": [%d, 5, 6]}", id);
    opts.tok = wide;
    dataset *d = opened(row);
    assert_non_null(strstr(printed(print_row, d), " <|a_longer_plac~      *5 <0x02>"));
    opts.tok = tok;
    dataset_close(d);
    tokenizer_close(wide);
    mem_free(made);
    mem_free(json);
}

/* --- warnings --- */

/* What opening the set says to stderr. */
static char *warnings(const char *rows) {
    char *text = NULL;
    size_t n = 0;
    (void)fflush(stderr);
    const int kept = dup(STDERR_FILENO);
    FILE *aside = fopen(temp_path("stderr"), "w");
    assert_true(kept >= 0 && aside);
    assert_true(dup2(fileno(aside), STDERR_FILENO) >= 0);
    dataset *d = opened(rows);
    (void)fflush(stderr);
    assert_true(dup2(kept, STDERR_FILENO) >= 0);
    close(kept);
    assert_int_equal(fclose(aside), 0);
    dataset_close(d);
    must(file_read(temp_path("stderr"), 1 << 20, &text, &n));
    return text;
}

static void warns(const char *rows, const char *wanted) {
    char *text = warnings(rows);
    if (*wanted ? !strstr(text, wanted) : *text) fail_msg("said '%s', wanted '%s'", text, wanted);
    size_t lines = 0;
    for (const char *p = text; *p; p++) lines += *p == '\n';
    assert_int_equal(lines, *wanted ? 1 : 0);
    mem_free(text);
}

static void test_warnings(void **state) {
    (void)state;
    static const char talk[] = "{\"messages\": [{\"role\": \"user\", \"content\": \"a\"}]}\n"
                               "{\"messages\": [{\"role\": \"user\", \"content\": \"a\"}]}\n";
    opts.max_length = 4;
    opts.overlong = OVERLONG_DROP;
    warns("{\"text\": \"the\"}\n", "");
    warns("{\"text\": \"the\", \"provenance\": {\"by\": \"hand\"}}\n", "");
    warns("{\"text\": \"the\"}\n{\"text\": \"the\", \"id\": 1}\n{\"text\": \"a\", \"id\": 1}\n",
        "rows.jsonl: 2 of 3 rows have keys that nothing reads, first 'id' in line 2\n");
    warns("{\"text\": \"the\"}\n{\"text\": \"the year for you\"}\n",
        "rows.jsonl: 50.0 % OF THE ROWS ARE DROPPED: 1 are too long, 0 have no trained token\n");
    opts.max_length = 1024;
    warns(
        talk, "messages are rendered by the template phi3-mini; the tokenizer's own is another\n");
}

/* --- lengths and doubles --- */

static void test_lengths(void **state) {
    (void)state;
    static char rows[65536];
    dataset_bin b;
    uint64_t n = 0;
    uint32_t bins = 0;
    opts.max_length = 1024;
    rows[0] = 0;
    for (int i = 0; i < 100; i++) { /* 2 .. 101 tokens */
        strcat(rows, "{\"input_ids\": [4");
        for (int k = 0; k <= i; k++) strcat(rows, ",5");
        strcat(rows, "]}\n");
    }
    dataset *d = opened(rows);
    for (; dataset_length_bin(d, bins, &b); bins++) {
        assert_int_equal(b.from, 16 * bins);
        assert_int_equal(b.to, 16 * bins + 15);
        n += b.rows;
    }
    assert_int_equal(bins, 7);
    assert_int_equal(n, 100);
    const char *text = printed(print_report, d);
    assert_non_null(strstr(text,
        "  lengths        0 .. 15      ################################### 14\n"
        "                16 .. 31      ######################################## 16\n"));

    assert_non_null(strstr(text, "                96 .. 111     ############### 6\n"));
    dataset_close(d);
}

static void test_doubles(void **state) {
    (void)state;
    dataset *d = opened("{\"input_ids\": [4, 5, 6]}\n{\"input_ids\": [4, 5, 7]}\n"
                        "{\"input_ids\": [4, 5, 6], \"labels\": [4, -100, 6]}\n"
                        "{\"input_ids\": [4, 5, 7]}\n{\"input_ids\": [4, 5, 6]}\n"
                        "{\"input_ids\": [4, 5, 7]}\n{\"input_ids\": [4, 5]}\n");
    const dataset_report *f = dataset_facts(d);
    assert_int_equal(f->duplicates, 3); /* another mask is another row */
    assert_int_equal(f->duplicate_line, 4);
    assert_int_equal(f->duplicate_of, 2);
    assert_non_null(strstr(printed(print_report, d),
        "  doubles   3 of the rows repeat an earlier one, the first: line 4 as line 2\n"));
    dataset_close(d);
}

/* --- rows that are wrong --- */

static const char bad_rows[] = "{\"text\": \"the\"}\n{\"text\": 7}\n{\"text\": }\n"
                               "{\"prompt\": \"a\", \"completion\": \"b\"}\n{\"text\": \"for\"}\n";

static void test_skips(void **state) {
    (void)state;
    uint64_t line = 0;
    dataset *d = NULL;
    log_set_level(QFW_LOG_ERROR);
    opts.skip_errors = 1;
    opts.max_errors = 3;
    d = opened(bad_rows);
    assert_int_equal(dataset_count(d), 2);
    assert_int_equal(dataset_at(d, 1)->line, 5);
    assert_int_equal(dataset_facts(d)->errors, 3);
    assert_non_null(strstr(dataset_problem(d, 0, &line), "rows.jsonl:2: /text: found the integer"));
    assert_int_equal(line, 2);
    assert_non_null(strstr(dataset_problem(d, 2, &line), "rows.jsonl:4: a row of another form"));
    assert_null(dataset_problem(d, 3, &line));
    const char *text = printed(print_report, d);
    assert_non_null(strstr(text, ", 2 kept, 3 left out as wrong\n"));
    assert_non_null(strstr(text, "\n  wrong     line 2: /text: found the integer 7, wanted a str"));
    for (const char *p = text, *end; (end = strchr(p, '\n')); p = end + 1)
        assert_true(end - p <= 80 || strstr(p, "rows.jsonl") < end);
    dataset_close(d);
    opts.max_errors = 2;
    assert_error(dataset_open(temp_path("rows.jsonl"), &opts, &d), "E_DATA_MIXED", 65,
        "more than 2 rows are wrong \\(\\[data\\] max_errors\\), the last: .*rows.jsonl:4: ");
    opts.skip_errors = 0;
    assert_error(dataset_open(temp_path("rows.jsonl"), &opts, &d), "E_DATA_FIELD", 65,
        "rows.jsonl:2: /text");
    log_set_level(QFW_LOG_INFO);
}

static void test_skips_are_named(void **state) {
    char many[8192] = "";
    (void)state;
    opts.skip_errors = 1;
    opts.max_errors = 100;
    for (int i = 0; i < 30; i++) strcat(many, "{\"text\": 7}\n");
    strcat(many, "{\"text\": \"the\"}\n");
    temp_text("rows.jsonl", many);
    char *text = warnings(many);
    size_t lines = 0;
    for (const char *p = text; *p; p++) lines += *p == '\n';
    assert_int_equal(lines, DATASET_PROBLEMS + 1);
    assert_non_null(strstr(text, "left out: "));
    assert_non_null(strstr(text, "rows.jsonl:21: left out; from here on they are only counted"));
    mem_free(text);
    opts.skip_errors = 0;
}

static void test_skips_keep_memory(void **state) {
    (void)state;
    log_set_level(QFW_LOG_ERROR);
    temp_text("rows.jsonl", bad_rows);
    opts.skip_errors = 1;
    opts.max_errors = 3;
    for (uint64_t k = 1;; k++) {
        dataset *d = NULL;
        mem_fail_at(k);
        const qfw_status status = dataset_open(temp_path("rows.jsonl"), &opts, &d);
        mem_fail_at(0);
        if (status == QFW_OK) {
            assert_int_equal(dataset_facts(d)->errors, 3);
            dataset_close(d);
            break;
        }
        assert_string_equal(err_name(), "E_MEM");
    }
    err_clear();
    opts.skip_errors = 0;
    log_set_level(QFW_LOG_INFO);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_prints),
        cmocka_unit_test(test_long_print),
        cmocka_unit_test(test_wide_token),
        cmocka_unit_test(test_warnings),
        cmocka_unit_test(test_lengths),
        cmocka_unit_test(test_doubles),
        cmocka_unit_test(test_skips),
        cmocka_unit_test(test_skips_are_named),
        cmocka_unit_test(test_skips_keep_memory),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
