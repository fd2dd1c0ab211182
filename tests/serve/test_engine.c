/* test_engine.c -- with cache = without cache, in any cut, alone or with others, bit for bit: on
 * every config of the logits fixtures (head ratios, windows, partial rotary, longrope on both sides
 * of its switch).
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "../support/answers.h"
#include "../support/logits.h"
#include "base/error.h"

#include <cmocka.h>

/* The model of case i, and the logits of its two rows without a cache. */
typedef struct scene {
    lab *l;
    logits_case c;
    float *whole; /* [2, n_tokens, V] */
    int64_t vocab;
} scene;

static void scene_open(uint64_t i, scene *s) {
    char ptr[64], config[256], path[512];
    const char *name = NULL;
    s->l = lab_open("logits/logits.json");
    snprintf(ptr, sizeof ptr, "/cases/%llu/name", (unsigned long long)i);
    lab_ok(json_doc_api.str(s->l->fixture, ptr, &name));
    snprintf(config, sizeof config, "logits/%s/config.json", name);
    snprintf(ptr, sizeof ptr, "/cases/%llu/tokens", (unsigned long long)i);
    logits_tokens(s->l->fixture, ptr, &s->c);
    lab_model(s->l, lab_golden(config, path));
    logits_rows(s->l, &s->c);
    lab_run(s->l, "[adapter]\nuse = none\n[data]\ntrain = rows.jsonl\n[trainer]\n"
                  "per_device_train_batch_size = 2\n");
    s->whole = logits_run(s->l, &s->c);
    s->vocab = s->l->r->facts.vocab;
}

static void scene_close(scene *s) {
    free(s->whole);
    lab_close(s->l);
}

static const float *after(const scene *s, int row, int64_t t) {
    return s->whole + (row * s->c.n_tokens + t) * s->vocab;
}

static void same_bits(const scene *s, const float *found, const float *wanted) {
    assert_memory_equal(found, wanted, (size_t)s->vocab * sizeof *found);
}

static void check_cuts(const scene *s, const engine_opts *o) {
    static const int64_t steps[] = {1, 7, 1000};
    answers a;
    answers_open(s->l, o, &a);
    for (size_t k = 0; k < sizeof steps / sizeof steps[0]; k++) {
        engine_cut(a.e, 1, 0);
        float *found = answers_read(&a, 1, s->c.token[0], s->c.n_tokens, steps[k]);
        same_bits(s, found, after(s, 0, s->c.n_tokens - 1));
        free(found);
    }
    answers_close(&a);
}

static uint64_t each_case(void (*check)(const scene *s)) {
    lab *l = lab_open("logits/logits.json");
    const uint64_t n = json_doc_api.count(l->fixture, "/cases");
    lab_close(l);
    for (uint64_t i = 0; i < n; i++) {
        scene s;
        scene_open(i, &s);
        check(&s);
        scene_close(&s);
    }
    return n;
}

static void any_cut_of(const scene *s) {
    check_cuts(s, &(engine_opts){2, s->c.n_tokens, 512});
    check_cuts(s, &(engine_opts){3, s->c.n_tokens + 9, 16});
}

static void any_cut(void **state) {
    (void)state;
    assert_true(each_case(any_cut_of) >= 8);
}

/* Two slots that grow together, one token ahead of the other; the third begins with a part of the
 * first. */
static void together_of(const scene *s) {
    const int64_t n = s->c.n_tokens, cut = n - 3;
    answers a;
    answers_open(s->l, &(engine_opts){3, n, 32}, &a);
    float *logits = calloc((size_t)(2 * s->vocab), sizeof *logits);
    assert_non_null(logits);
    const engine_append first[2] = {{2, s->c.token[0], n - 1}, {0, s->c.token[1], n - 2}};
    lab_ok(engine_read(a.e, first, 2, NULL));
    const engine_append last[2] = {{0, s->c.token[1] + n - 2, 2}, {2, s->c.token[0] + n - 1, 1}};
    lab_ok(engine_read(a.e, last, 2, logits));
    same_bits(s, logits, after(s, 1, n - 1));
    same_bits(s, logits + s->vocab, after(s, 0, n - 1));
    free(logits);
    lab_ok(engine_fork(a.e, 2, 1, cut));
    float *found = answers_read(&a, 1, s->c.token[0] + cut, n - cut, 2);
    same_bits(s, found, after(s, 0, n - 1));
    free(found);
    answers_close(&a);
}

static void together_and_forked(void **state) {
    (void)state;
    assert_true(each_case(together_of) >= 8);
}

/* A slot that is cut back goes on as if it had never been longer. */
static void cut_back_of(const scene *s) {
    const int64_t n = s->c.n_tokens;
    answers a;
    answers_open(s->l, &(engine_opts){1, n, 64}, &a);
    free(answers_read(&a, 0, s->c.token[1], n, n));
    engine_cut(a.e, 0, 0);
    free(answers_read(&a, 0, s->c.token[0], n, n));
    engine_cut(a.e, 0, n / 2);
    int64_t kept = 0;
    const int32_t *tokens = engine_tokens(a.e, 0, &kept);
    assert_true(kept == n / 2 || kept == 0);
    assert_memory_equal(tokens, s->c.token[0], (size_t)kept * sizeof *tokens);
    float *found = answers_read(&a, 0, s->c.token[0] + kept, n - kept, 5);
    same_bits(s, found, after(s, 0, n - 1));
    free(found);
    answers_close(&a);
}

static void cut_back(void **state) {
    (void)state;
    assert_true(each_case(cut_back_of) >= 8);
}

static void refusals(void **state) {
    scene s;
    answers a;
    (void)state;
    scene_open(0, &s);
    answers_open(s.l, &(engine_opts){2, 8, 64}, &a);
    const engine_append longer = {0, s.c.token[0], 9},
                        twice[2] = {{1, s.c.token[0], 1}, {1, s.c.token[0], 1}};
    assert_int_equal(engine_read(a.e, &longer, 1, NULL), QFW_E_DATA);
    assert_non_null(strstr(err_text(0), "a sequence of 9 tokens, at most 8 fit"));
    assert_int_equal(engine_read(a.e, twice, 2, NULL), QFW_E_INVALID);
    free(answers_read(&a, 0, s.c.token[0], 8, 3)); /* nothing was appended by what failed */
    answers_close(&a);
    scene_close(&s);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(any_cut),
        cmocka_unit_test(together_and_forked),
        cmocka_unit_test(cut_back),
        cmocka_unit_test(refusals),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
