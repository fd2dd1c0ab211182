/* test_generate.c -- greedy continuations equal transformers' on 800 prompts of four tiny configs,
 * one of which crosses longrope's switch (tests/parity/README.md, generation); a sequence does not
 * depend on how many run beside it; samplers on distributions that a person can check.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "../support/answers.h"
#include "base/rng.h"
#include "files/safetensors.h"
#include "serve/generate.h"

#include <cmocka.h>

enum { MAX_PROMPT = 24, MAX_NEW = 64, MAX_PROMPTS = 200 };

/* The prompts of one case, and room for what follows them. */
typedef struct prompts {
    size_t n;
    int64_t n_new;
    int32_t prompt[MAX_PROMPTS][MAX_PROMPT], tokens[MAX_PROMPTS][MAX_NEW];
    int64_t length[MAX_PROMPTS], close[MAX_PROMPTS];
    uint8_t wanted[MAX_PROMPTS][MAX_NEW];
    generation g[MAX_PROMPTS];
} prompts;

static int64_t number(const lab *l, uint64_t i, const char *key, int64_t k) {
    char ptr[96];
    snprintf(ptr, sizeof ptr, k < 0 ? "/cases/%llu/%s" : "/cases/%llu/%s/%lld",
        (unsigned long long)i, key, (long long)k);
    return (int64_t)lab_number(l, ptr);
}

static void read_prompts(const lab *l, uint64_t i, const char *name, int64_t vocab, prompts *p) {
    char stream[96], path[512];
    st_file *f = NULL;
    p->n = (size_t)number(l, i, "prompts", -1);
    p->n_new = number(l, i, "new", -1);
    assert_true(p->n <= MAX_PROMPTS && p->n_new <= MAX_NEW);
    lab_ok(st_open(lab_golden("generation/generation.safetensors", path), &f));
    const st_tensor *t = st_find(f, name);
    assert_non_null(t);
    lab_ok(st_read(f, t, 0, (int64_t)p->n, p->wanted));
    st_close(f);
    for (size_t k = 0; k < p->n; k++) {
        p->length[k] = number(l, i, "lengths", (int64_t)k);
        p->close[k] = number(l, i, "close", (int64_t)k);
        snprintf(stream, sizeof stream, "generation.%s.%zu", name, k);
        for (int64_t at = 0; at < p->length[k]; at++)
            p->prompt[k][at] = (int32_t)(synth_word(stream, (uint64_t)at) % (uint64_t)(vocab - 1));
    }
}

static void fill_generations(prompts *p) {
    for (size_t k = 0; k < p->n; k++) {
        memset(p->tokens[k], -1, sizeof p->tokens[k]);
        p->g[k] = (generation){.prompt = p->prompt[k],
            .n_prompt = p->length[k],
            .key = k,
            .max_new = p->n_new,
            .tokens = p->tokens[k]};
    }
}

static void open_case(lab *l, uint64_t i, const char **name) {
    char ptr[64], config[128], path[512];
    snprintf(ptr, sizeof ptr, "/cases/%llu/name", (unsigned long long)i);
    lab_ok(json_doc_api.str(l->fixture, ptr, name));
    snprintf(config, sizeof config, "logits/%s/config.json", *name);
    lab_model(l, lab_golden(config, path));
    lab_write(l, "rows.jsonl", "{\"input_ids\": [1, 2, 3]}\n");
    lab_run(l, "[adapter]\nuse = none\n[data]\ntrain = rows.jsonl\n");
}

static void generate(const lab *l, uint32_t n_slots, const sampling *s, prompts *p) {
    answers a;
    answers_open(l, &(engine_opts){n_slots, MAX_PROMPT + MAX_NEW, 64}, &a);
    fill_generations(p);
    lab_ok(generate_all(a.e, s, NULL, 0, p->g, p->n));
    answers_close(&a);
}

/* Up to where the reference's two best logits are too close to call. */
static void check_rows(const char *name, const prompts *p) {
    size_t close = 0;
    for (size_t k = 0; k < p->n; k++) {
        close += p->close[k] < p->n_new;
        assert_int_equal(p->g[k].n_tokens, p->n_new);
        for (int64_t t = 0; t < p->close[k]; t++)
            if (p->tokens[k][t] != p->wanted[k][t])
                fail_msg("%s: prompt %zu, token %lld: %d, wanted %d", name, k, (long long)t,
                    p->tokens[k][t], p->wanted[k][t]);
    }
    print_message("%-16s %zu prompts of %lld tokens, %zu with a close call\n", name, p->n,
        (long long)p->n_new, close);
    assert_true(close * 50 < p->n);
}

static void greedy_is_transformers(void **state) {
    static const sampling greedy = {.temperature = 1, .top_p = 1, .repetition_penalty = 1};
    prompts *p = calloc(1, sizeof *p);
    lab *l = lab_open("generation/generation.json");
    const uint64_t n = json_doc_api.count(l->fixture, "/cases");
    (void)state;
    lab_close(l);
    assert_int_equal(n, 4);
    for (uint64_t i = 0; i < n; i++) {
        const char *name = NULL;
        l = lab_open("generation/generation.json");
        open_case(l, i, &name);
        read_prompts(l, i, name, l->r->facts.vocab, p);
        generate(l, 32, &greedy, p);
        check_rows(name, p);
        lab_close(l);
    }
    free(p);
}

/* The same tokens and probabilities, bit for bit, alone, in threes and all at once. */
static void beside_others(void **state) {
    static const sampling s = {.do_sample = 1,
        .temperature = 0.8,
        .top_p = 0.9,
        .top_k = 40,
        .repetition_penalty = 1.1,
        .seed = 7};
    prompts *alone = calloc(1, sizeof *alone), *p = calloc(1, sizeof *p);
    const char *name = NULL;
    lab *l = lab_open("generation/generation.json");
    (void)state;
    open_case(l, 3, &name);
    read_prompts(l, 3, name, l->r->facts.vocab, alone);
    alone->n = 24;
    *p = *alone;
    generate(l, 1, &s, alone);
    for (uint32_t slots = 3; slots <= 24; slots += 21) {
        generate(l, slots, &s, p);
        for (size_t k = 0; k < p->n; k++) {
            assert_memory_equal(p->tokens[k], alone->tokens[k], sizeof p->tokens[k]);
            assert_memory_equal(&p->g[k].mean_logp, &alone->g[k].mean_logp, sizeof(double));
        }
    }
    assert_memory_not_equal(alone->tokens[0], alone->tokens[1], sizeof alone->tokens[0]);
    lab_close(l);
    free(alone);
    free(p);
}

/* A stop token ends a sequence and belongs to it; so does a full slot. */
static void ends(void **state) {
    static const sampling greedy = {.temperature = 1, .top_p = 1, .repetition_penalty = 1};
    prompts *p = calloc(1, sizeof *p);
    const char *name = NULL;
    answers a;
    lab *l = lab_open("generation/generation.json");
    (void)state;
    open_case(l, 0, &name);
    read_prompts(l, 0, name, l->r->facts.vocab, p);
    p->n = 4;
    answers_open(l, &(engine_opts){2, 20, 64}, &a);
    fill_generations(p);
    const int32_t stop = p->wanted[0][5];
    int64_t first = 0;
    while (p->wanted[0][first] != stop) first++;
    lab_ok(generate_all(a.e, &greedy, &stop, 1, p->g, p->n));
    assert_int_equal(p->g[0].n_tokens, first + 1);
    assert_int_equal(p->g[0].stopped, 1);
    fill_generations(p);
    lab_ok(generate_all(a.e, &greedy, NULL, 0, p->g, p->n));
    assert_int_equal(p->g[0].n_tokens, 20 - p->length[0] + 1);
    assert_int_equal(p->g[0].stopped, 0);
    answers_close(&a);
    lab_close(l);
    free(p);
}

/* --- sample_token --- */

enum { VOCAB = 5, DRAWS = 20000 };
static const float logits[VOCAB] = {0, 3, 1, 3, -2};

static void count_draws(const sampling *s, double share[VOCAB]) {
    candidate work[VOCAB];
    memset(share, 0, VOCAB * sizeof *share);
    for (int i = 0; i < DRAWS; i++) share[sample_token(s, logits, VOCAB, NULL, 0, 11, i, work)]++;
    for (int i = 0; i < VOCAB; i++) share[i] /= DRAWS;
}

/* Within four standard errors of what the formula says for the tokens that are kept. */
static void check_shares(const sampling *s, const uint8_t kept[VOCAB]) {
    double share[VOCAB], sum = 0;
    for (int i = 0; i < VOCAB; i++) sum += kept[i] ? exp((double)logits[i] / s->temperature) : 0;
    count_draws(s, share);
    for (int i = 0; i < VOCAB; i++) {
        const double p = kept[i] ? exp((double)logits[i] / s->temperature) / sum : 0;
        assert_true(fabs(share[i] - p) <= 4 * sqrt(p * (1 - p) / DRAWS));
    }
}

static void samplers(void **state) {
    sampling s = {.do_sample = 1, .temperature = 1, .top_p = 1, .repetition_penalty = 1, .seed = 3};
    (void)state;
    check_shares(&s, (uint8_t[]){1, 1, 1, 1, 1});
    s.temperature = 2.5;
    check_shares(&s, (uint8_t[]){1, 1, 1, 1, 1});
    s.top_k = 1; /* what ties with the first stays */
    check_shares(&s, (uint8_t[]){0, 1, 0, 1, 0});
    s.top_k = 3;
    check_shares(&s, (uint8_t[]){0, 1, 1, 1, 0});
    s.top_k = 0;
    s.temperature = 1; /* 0.4569, 0.4569, 0.0618, 0.0227, 0.0031 */
    s.top_p = 0.95;
    check_shares(&s, (uint8_t[]){0, 1, 1, 1, 0});
    s.top_p = 0.1;
    check_shares(&s, (uint8_t[]){0, 1, 0, 0, 0});
}

/* transformers' rule: 3 / 2 = 1.5, -2 * 2 = -4; a token that stands twice is punished once. */
static void repetition(void **state) {
    static const int32_t seen[4] = {1, 3, 1, 4};
    static const sampling s = {.temperature = 1, .top_p = 1, .repetition_penalty = 4};
    candidate work[VOCAB];
    (void)state;
    assert_int_equal(sample_token(&s, logits, VOCAB, NULL, 0, 0, 0, work), 1);
    assert_int_equal(sample_token(&s, logits, VOCAB, seen, 1, 0, 0, work), 3);
    assert_int_equal(sample_token(&s, logits, VOCAB, seen, 4, 0, 0, work), 2);
    assert_true(work[1].logit == 0.75f && work[4].logit == -8.0f);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(greedy_is_transformers),
        cmocka_unit_test(beside_others),
        cmocka_unit_test(ends),
        cmocka_unit_test(samplers),
        cmocka_unit_test(repetition),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
