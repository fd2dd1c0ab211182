/* test_near.c -- rows that say nearly the same: planted ones are found, with their exact index, and
 * nothing else is; hostile sets take no more time than others.
 */
#define _POSIX_C_SOURCE 200809L
#include "../support/temp.h"
#include "../support/texts.h"
#include "base/error.h"
#include "base/log.h"
#include "base/mem.h"
#include "files/file.h"
#include "text/near.h"

#include <math.h>
#include <stdlib.h>
#include <time.h>

#include "../support/test.h"

static tokenizer *tok;
static dataset_opts opts;

static qfw_status test_encode(qfw_inst *inst, qfw_encoder *e) {
    (void)inst;
    if (json_doc_api.kind(encoder_api.row(e), "/messages"))
        return encoder_api.messages(e, "/messages", QFW_TRAIN_ALL);
    if (json_doc_api.kind(encoder_api.row(e), "/input_ids"))
        return encoder_api.tokens(e, "/input_ids", "/labels");
    return encoder_api.text(e, "/text");
}

static const qfw_trainer trainer = {.size = sizeof trainer, .encode = test_encode};

static int setup(void **state) {
    if (temp_make(state)) return -1;
    must(file_copy(golden_path("bytefallback/tokenizer.json"), temp_path("tokenizer.json")));
    temp_text("tokenizer_config.json", "{\"eos_token\": \"<|endoftext|>\"}");
    must(tokenizer_open(temp_folder(), 500, &tok));
    log_set_level(QFW_LOG_ERROR);
    opts = (dataset_opts){.tok = tok,
        .chat = chat_by_name("phi3-mini"),
        .max_length = 4096,
        .trainer = &trainer,
        .shingles = 1};
    return 0;
}

static int teardown(void **state) {
    tokenizer_close(tok);
    return temp_drop(state);
}

/* --- sets --- */

typedef struct text {
    char *s;
    size_t n, cap;
} text;

static void add(text *t, const char *s) {
    const size_t n = strlen(s);
    if (t->n + n + 1 > t->cap) {
        t->cap = 2 * (t->n + n + 1);
        t->s = realloc(t->s, t->cap);
        assert_non_null(t->s);
    }
    memcpy(t->s + t->n, s, n + 1);
    t->n += n;
}

/* A row of n words that no row of another seed has; of every `step`-th word another version. */
static void add_row(text *t, unsigned seed, int n, int step, unsigned version) {
    char word[64];
    add(t, "{\"text\": \"");
    for (int i = 0; i < n; i++) {
        const int other = step && i % step == step - 1;
        snprintf(word, sizeof word, "%sw%ux%d%s%u", i ? " " : "", seed, i, other ? "v" : "",
            other ? version : 0);
        add(t, word);
    }
    add(t, "\"}\n");
}

static dataset *opened(text *t, const char *name) {
    dataset *d = NULL;
    temp_text(name, t->s);
    must(dataset_open(temp_path(name), &opts, &d));
    free(t->s);
    *t = (text){0};
    return d;
}

static near_facts found(dataset *train, dataset *eval, double threshold) {
    near_facts f;
    must(near_find(train, eval, threshold, &f));
    return f;
}

/* --- what is found --- */

static void test_planted(void **state) {
    (void)state;
    text t = {0}, e = {0};
    for (unsigned i = 0; i < 300; i++) add_row(&t, i, 60, 0, 0);
    add_row(&t, 17, 60, 60, 1); /* line 301: the last word differs: 55 of 57 shingles */
    add_row(&t, 40, 60, 0, 0);  /* line 302: the same */
    add_row(&t, 90, 60, 7, 1);  /* line 303: hardly a shingle in common */
    for (unsigned i = 1000; i < 1100; i++) add_row(&e, i, 60, 0, 0);
    add_row(&e, 5, 60, 0, 0);  /* line 101: the same as line 6 */
    add_row(&e, 6, 60, 60, 1); /* lines 102 and 103: near line 7 */
    add_row(&e, 6, 60, 60, 1);
    add_row(&e, 1000, 60, 0, 0); /* line 104: twice in eval is no leak */
    dataset *train = opened(&t, "train.jsonl"), *eval = opened(&e, "eval.jsonl");
    const near_facts f = found(train, eval, 0.8);
    assert_int_equal(f.train.of, 303);
    assert_int_equal(f.train.rows, 2);
    assert_int_equal(f.train.n_worst, 2);
    assert_int_equal(f.train.worst[0].line, 302);
    assert_int_equal(f.train.worst[0].train_line, 41);
    assert_true(f.train.worst[0].jaccard == 1);
    assert_int_equal(f.train.worst[1].line, 301);
    assert_int_equal(f.train.worst[1].train_line, 18);
    assert_true(fabs(f.train.worst[1].jaccard - 55.0 / 57.0) < 1e-12);
    assert_int_equal(f.eval.of, 104);
    assert_int_equal(f.eval.rows, 3);
    assert_int_equal(f.eval.worst[0].line, 101);
    assert_int_equal(f.eval.worst[0].train_line, 6);
    assert_int_equal(f.eval.worst[1].line, 102);
    assert_int_equal(f.eval.worst[1].train_line, 7);
    must(near_check(&f, train, eval, 1, 1));
    must(near_check(&f, train, eval, 2.0 / 303, 3.0 / 104));
    assert_error(near_check(&f, train, eval, 0.001, 1), "E_DATA_NEAR", EXIT_DATA,
        "train.jsonl: 2 of 303 rows .*max_near_duplicates.*line 302 is near line 41, Jaccard 1");
    assert_error(near_check(&f, train, eval, 1, 0.01), "E_DATA_LEAK", EXIT_DATA,
        "eval.jsonl: 3 of 104 rows .*max_leakage.*line 101 is near .*train.jsonl:6, Jaccard 1");
    dataset_close(train);
    dataset_close(eval);
}

/* Every pair at the threshold is found, none below it. */
static void test_threshold(void **state) {
    (void)state;
    text t = {0};
    for (unsigned i = 0; i < 200; i++) {
        add_row(&t, i, 94, 0, 0);
        add_row(&t, i, 94, 47, 1); /* 6 of 90 shingles differ: 84 of 96 */
    }
    dataset *d = opened(&t, "train.jsonl");
    const double index = 84.0 / 96.0;
    near_facts f = found(d, NULL, index);
    assert_int_equal(f.train.rows, 200);
    assert_true(fabs(f.train.worst[4].jaccard - index) < 1e-12);
    assert_int_equal(f.train.worst[0].line, 2);
    assert_int_equal(f.eval.of, 0);
    dataset_close(d);
    for (unsigned i = 0; i < 200; i++) {
        add_row(&t, i, 94, 0, 0);
        add_row(&t, i, 94, 47, 1);
    }
    d = opened(&t, "train.jsonl");
    f = found(d, NULL, index + 1e-6);
    assert_int_equal(f.train.rows, 0);
    dataset_close(d);
}

static void test_words(void **state) {
    (void)state;
    text t = {0};
    add(&t,
        "{\"messages\": [{\"role\": \"user\", \"content\": \"The year, for the year of it\"}]}\n"
        "{\"messages\": [{\"role\": \"user\", \"content\": \"the YEAR for  the year: of it!\"}]}\n"
        "{\"messages\": [{\"role\": \"user\", \"content\": \"\"}]}\n"
        "{\"messages\": [{\"role\": \"user\", \"content\": \"\"}]}\n" /* nothing says nothing */
        "{\"messages\": [{\"role\": \"user\", \"content\": \"the year\"}]}\n"
        "{\"messages\": [{\"role\": \"user\", \"content\": \"the year\"}]}\n"
        "{\"messages\": [{\"role\": \"user\", \"content\": \"\xe4\xb8\xad\xe6\x96\x87\xe5\xad\x97"
        "\xe7\xac\xa6\xe4\xb8\x80\xe4\xba\x8c\"}]}\n");
    dataset *d = opened(&t, "train.jsonl");
    const near_facts f = found(d, NULL, 0.8);
    assert_int_equal(f.train.rows, 2);
    assert_int_equal(f.train.worst[0].line, 2);
    assert_int_equal(f.train.worst[1].line, 6);
    dataset_close(d);
    add(&t, "{\"input_ids\": [4, 5, 6, 7, 8, 9]}\n{\"input_ids\": [4, 5, 6, 7, 8, 10]}\n"
            "{\"input_ids\": [4, 5, 6, 7, 8, 9], \"labels\": [-100, 5, 6, 7, 8, 9]}\n");
    d = opened(&t, "train.jsonl");
    assert_int_equal(found(d, NULL, 0.8).train.rows, 1);
    dataset_close(d);
}

/* --- hostile sets --- */

static double seconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* All rows the same; all rows different from each other in one word: each shares most bands with
 * all others. A comparison of all pairs would be 200 million. */
static void test_hostile(void **state) {
    enum { ROWS = 20000 };
    (void)state;
    for (int kind = 0; kind < 2; kind++) {
        text t = {0};
        for (unsigned i = 0; i < ROWS; i++) add_row(&t, 1, 24, kind ? 24 : 0, i);
        dataset *d = opened(&t, "train.jsonl");
        const double before = seconds();
        const near_facts f = found(d, NULL, 0.8);
        const double spent = seconds() - before;
        print_message("%d hostile rows in %.2f s\n", ROWS, spent);
        assert_int_equal(f.train.rows, ROWS - 1);
        assert_int_equal(f.train.worst[0].line, 2);
        assert_int_equal(f.train.worst[0].train_line, 1);
        assert_true(spent < 10);
        dataset_close(d);
    }
}

/* A needle of eval whose twin stands among thousands of rows of one form. */
static void test_form(void **state) {
    enum { ROWS = 4000 };
    (void)state;
    text t = {0}, e = {0};
    for (unsigned i = 0; i < ROWS; i++) add_row(&t, 1, 90, 30, i); /* 0.77 of each other */
    add_row(&e, 1, 90, 30, 2345);
    e.n -= strlen("\"}\n");
    add(&e, " more\"}\n");
    dataset *train = opened(&t, "train.jsonl"), *eval = opened(&e, "eval.jsonl");
    const near_facts f = found(train, eval, 0.8);
    assert_int_equal(f.train.rows, 0);
    assert_int_equal(f.eval.rows, 1);
    assert_int_equal(f.eval.worst[0].train_line, 2346);
    dataset_close(train);
    dataset_close(eval);
}

static void test_no_memory(void **state) {
    (void)state;
    for (uint64_t k = 1;; k++) {
        text t = {0};
        near_facts f;
        add_row(&t, 1, 9, 0, 0);
        add_row(&t, 1, 9, 0, 0);
        dataset *d = opened(&t, "train.jsonl");
        mem_fail_at(k);
        const qfw_status status = near_find(d, NULL, 0.8, &f);
        mem_fail_at(0);
        dataset_close(d);
        if (status == QFW_OK) break;
        assert_string_equal(err_name(), "E_MEM");
    }
    err_clear();
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_planted),
        cmocka_unit_test(test_threshold),
        cmocka_unit_test(test_words),
        cmocka_unit_test(test_hostile),
        cmocka_unit_test(test_form),
        cmocka_unit_test(test_no_memory),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
