/* test_parity_logits.c -- phi3's logits against transformers' Phi3ForCausalLM on 18 tiny configs:
 * head ratios, windows, tied embeddings, partial rotary, longrope on both sides of its switch, in
 * both spellings of config.json (tests/parity/README.md, logits).
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "../support/lab.h"
#include "base/mem.h"
#include "files/file.h"

#include <cmocka.h>

enum { MAX_POSITIONS = 16, MAX_TOKENS = 256 };

typedef struct logits_case {
    char name[64];
    int64_t n_tokens, n_positions, vocab;
    int64_t position[MAX_POSITIONS];
    int32_t token[2][MAX_TOKENS];
} logits_case;

static double number_at(const lab *l, uint64_t i, const char *rest) {
    char ptr[192];
    snprintf(ptr, sizeof ptr, "/cases/%llu/%s", (unsigned long long)i, rest);
    return lab_number(l, ptr);
}

static void read_case(const lab *l, uint64_t i, logits_case *c) {
    char ptr[128];
    const char *name;
    snprintf(ptr, sizeof ptr, "/cases/%llu/name", (unsigned long long)i);
    lab_ok(json_doc_api.str(l->fixture, ptr, &name));
    snprintf(c->name, sizeof c->name, "%s", name);
    c->n_tokens = (int64_t)number_at(l, i, "T");
    snprintf(ptr, sizeof ptr, "/cases/%llu/positions", (unsigned long long)i);
    c->n_positions = (int64_t)json_doc_api.count(l->fixture, ptr);
    assert_true(c->n_tokens <= MAX_TOKENS && c->n_positions <= MAX_POSITIONS);
    for (int64_t p = 0; p < c->n_positions; p++) {
        snprintf(ptr, sizeof ptr, "positions/%lld", (long long)p);
        c->position[p] = (int64_t)number_at(l, i, ptr);
    }
    for (int row = 0; row < 2; row++)
        for (int64_t t = 0; t < c->n_tokens; t++) {
            snprintf(ptr, sizeof ptr, "tokens/%d/%lld", row, (long long)t);
            c->token[row][t] = (int32_t)number_at(l, i, ptr);
        }
}

/* Both rows as one batch: two examples of one sequence each. */
static void make_rows(const lab *l, const logits_case *c) {
    char text[16384];
    size_t at = 0;
    for (int row = 0; row < 2; row++) {
        at += (size_t)snprintf(text + at, sizeof text - at, "{\"input_ids\": [");
        for (int64_t t = 0; t < c->n_tokens; t++)
            at += (size_t)snprintf(
                text + at, sizeof text - at, "%s%d", t ? ", " : "", c->token[row][t]);
        at += (size_t)snprintf(text + at, sizeof text - at, "]}\n");
    }
    lab_write(l, "rows.jsonl", text);
}

/* The fixture's rows and positions, picked out of `all`. */
static double compare(const lab *l, const logits_case *c, const float *all) {
    char path[512];
    st_file *f = NULL;
    const int64_t vocab = l->r->facts.vocab, n = 2 * c->n_positions * vocab;
    float *wanted = malloc((size_t)n * sizeof *wanted), *found = malloc((size_t)n * sizeof *found);
    lab_ok(st_open(lab_golden("logits/logits.safetensors", path), &f));
    const st_tensor *t = st_find(f, c->name);
    assert_non_null(t);
    assert_int_equal(t->bytes, (uint64_t)n * sizeof(float));
    lab_ok(st_read_f32(f, t, 0, t->dim[0], wanted));
    st_close(f);
    for (int row = 0; row < 2; row++)
        for (int64_t p = 0; p < c->n_positions; p++)
            memcpy(found + (row * c->n_positions + p) * vocab,
                all + (row * c->n_tokens + c->position[p]) * vocab, (size_t)vocab * sizeof(float));
    const double worst = lab_relative(found, wanted, n);
    free(wanted);
    free(found);
    return worst;
}

static void check_case(uint64_t i, const char *config_name) {
    char path[512], config[256];
    logits_case c = {.n_tokens = 0};
    batch *b = NULL;
    lab *l = lab_open("logits/logits.json");
    read_case(l, i, &c);
    snprintf(config, sizeof config, "logits/%s/%s", c.name, config_name);
    if (!file_exists(lab_golden(config, path))) {
        lab_close(l);
        return;
    }
    lab_model(l, path);
    make_rows(l, &c);
    lab_run(l, "[adapter]\nuse = none\n[data]\ntrain = rows.jsonl\n[trainer]\n"
               "per_device_train_batch_size = 2\n");
    const qfw_example *rows[2] = {dataset_at(l->r->train, 0), dataset_at(l->r->train, 1)};
    lab_ok(batch_create(2, 1, batch_bucket(2 * c.n_tokens), &b));
    lab_ok(batch_fill(b, l->r, rows, 2, 0));
    float *logits = lab_logits(l, b);
    const double worst = compare(l, &c, logits);
    print_message("%-28s %-18s %.2e\n", c.name, config_name, worst);
    assert_true(worst <= 1e-5);
    free(logits);
    batch_destroy(b);
    lab_close(l);
}

static void all_cases(const char *config_name) {
    lab *l = lab_open("logits/logits.json");
    const uint64_t n = json_doc_api.count(l->fixture, "/cases");
    lab_close(l);
    assert_true(n >= 8);
    for (uint64_t i = 0; i < n; i++) check_case(i, config_name);
}

static void logits_match(void **state) {
    (void)state;
    all_cases("config.json");
}

static void new_spelling_matches(void **state) {
    (void)state;
    all_cases("config_new.json");
}

static void old_rope_type_matches(void **state) {
    (void)state;
    all_cases("config_su.json");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(logits_match),
        cmocka_unit_test(new_spelling_matches),
        cmocka_unit_test(old_rope_type_matches),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
