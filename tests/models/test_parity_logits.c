/* test_parity_logits.c -- phi3's logits against transformers' Phi3ForCausalLM on 18 tiny configs:
 * head ratios, windows, tied embeddings, partial rotary, longrope on both sides of its switch, in
 * both spellings of config.json (tests/parity/README.md, logits).
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include "../support/logits.h"
#include "files/file.h"

#include <cmocka.h>

static const char *case_name(const lab *l, uint64_t i) {
    char ptr[64];
    const char *name = NULL;
    snprintf(ptr, sizeof ptr, "/cases/%llu/name", (unsigned long long)i);
    lab_ok(json_doc_api.str(l->fixture, ptr, &name));
    return name;
}

static void read_case(const lab *l, uint64_t i, logits_case *c) {
    char ptr[64];
    snprintf(ptr, sizeof ptr, "/cases/%llu/tokens", (unsigned long long)i);
    logits_tokens(l->fixture, ptr, c);
    snprintf(ptr, sizeof ptr, "/cases/%llu/positions", (unsigned long long)i);
    logits_positions(l->fixture, ptr, c);
}

static void check_case(uint64_t i, const char *config_name) {
    char path[512], config[256];
    logits_case c;
    lab *l = lab_open("logits/logits.json");
    const char *name = case_name(l, i);
    snprintf(config, sizeof config, "logits/%s/%s", name, config_name);
    if (!file_exists(lab_golden(config, path))) {
        lab_close(l);
        return;
    }
    read_case(l, i, &c);
    lab_model(l, path);
    logits_rows(l, &c);
    lab_run(l, "[adapter]\nuse = none\n[data]\ntrain = rows.jsonl\n[trainer]\n"
               "per_device_train_batch_size = 2\n");
    float *logits = logits_run(l, &c);
    const double worst = logits_against(l, &c, logits, "logits/logits.safetensors", name);
    print_message("%-28s %-18s %.2e\n", name, config_name, worst);
    assert_true(worst <= 1e-5);
    free(logits);
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
