/* test_parity_grads.c -- the gradients of one batch against torch: every LoRA tensor on a plain and
 * on an NF4 base, and whole weights without an adapter, tied and untied (tests/parity/README.md,
 * lora_grads).
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "../support/lab.h"
#include "base/mem.h"

#include <cmocka.h>

typedef struct setup {
    const char *name, *settings;
    int has_adapter;
} setup;

static uint64_t find_case(const lab *l, const char *wanted) {
    const uint64_t n = json_doc_api.count(l->fixture, "/cases");
    for (uint64_t i = 0; i < n; i++) {
        char ptr[64];
        const char *name;
        snprintf(ptr, sizeof ptr, "/cases/%llu/name", (unsigned long long)i);
        lab_ok(json_doc_api.str(l->fixture, ptr, &name));
        if (!strcmp(name, wanted)) return i;
    }
    fail_msg("no case %s", wanted);
    return 0;
}

/* The case's rows as rows.jsonl; how many there are. */
static uint32_t write_rows(const lab *l, uint64_t at) {
    static const char *const keys[] = {"input_ids", "labels"};
    char base[64], ptr[128], text[16384];
    size_t n = 0;
    snprintf(base, sizeof base, "/cases/%llu/rows", (unsigned long long)at);
    const uint32_t rows = (uint32_t)json_doc_api.count(l->fixture, base);
    for (uint32_t row = 0; row < rows; row++) {
        for (int k = 0; k < 2; k++) {
            snprintf(ptr, sizeof ptr, "%s/%u/%s", base, row, keys[k]);
            const uint64_t count = json_doc_api.count(l->fixture, ptr);
            n +=
                (size_t)snprintf(text + n, sizeof text - n, "%s\"%s\": [", k ? ", " : "{", keys[k]);
            for (uint64_t t = 0; t < count; t++) {
                snprintf(
                    ptr, sizeof ptr, "%s/%u/%s/%llu", base, row, keys[k], (unsigned long long)t);
                n += (size_t)snprintf(
                    text + n, sizeof text - n, "%s%.0f", t ? ", " : "", lab_number(l, ptr));
            }
            n += (size_t)snprintf(text + n, sizeof text - n, "]");
        }
        n += (size_t)snprintf(text + n, sizeof text - n, "}\n");
    }
    lab_write(l, "rows.jsonl", text);
    return rows;
}

/* Every gradient that the fixture holds for this case. */
static void compare(const lab *l, const setup *s) {
    char path[512], name[320];
    double worst = 0;
    int n_compared = 0;
    st_file *f = NULL;
    lab_ok(st_open(lab_golden("lora_grads/grads.safetensors", path), &f));
    for (uint32_t i = 0; i < l->r->n_trainables; i++) {
        const trainable *t = &l->r->trainables[i];
        const int64_t n = qfw_tensor_count(&t->grad->t);
        snprintf(name, sizeof name, "%s/%s%s", s->name, s->has_adapter ? "base_model.model." : "",
            t->param->name);
        const st_tensor *wanted = st_find(f, name);
        if (!wanted) {
            assert_false(s->has_adapter); /* of adapters, every tensor is there */
            continue;
        }
        float *a = malloc((size_t)n * sizeof *a), *b = malloc((size_t)n * sizeof *b);
        assert_int_equal(wanted->bytes, (uint64_t)n * sizeof *b);
        lab_ok(store_read(l->r->store, t->grad, a));
        lab_ok(st_read_f32(f, wanted, 0, wanted->dim[0], b));
        const double difference = lab_relative(a, b, n);
        if (difference > 1e-4) print_error("%s: %.2e\n", name, difference);
        worst = fmax(worst, difference);
        n_compared++;
        free(a);
        free(b);
    }
    st_close(f);
    print_message("%s: %d gradients within %.2e\n", s->name, n_compared, worst);
    assert_true(n_compared >= 4);
    assert_true(worst <= 1e-4);
}

static void check(const setup *s, const char *checkpointing) {
    char config[128], path[512], ptr[96];
    const char *file;
    batch *b = NULL;
    pass_result res;
    const qfw_example *rows[8];
    lab *l = lab_open("lora_grads/lora_grads.json");
    const uint64_t at = find_case(l, s->name);
    snprintf(ptr, sizeof ptr, "/cases/%llu/config", (unsigned long long)at);
    lab_ok(json_doc_api.str(l->fixture, ptr, &file));
    snprintf(config, sizeof config, "lora_grads/%s", file);
    lab_model(l, lab_golden(config, path));
    const uint32_t n = write_rows(l, at);
    char *settings = mem_printf("%s[data]\ntrain = rows.jsonl\nmax_length = 128\n[trainer]\n"
                                "per_device_train_batch_size = %u\ngradient_checkpointing = %s\n",
        s->settings, n, checkpointing);
    lab_run(l, settings);
    lab_adapters(l, 0);
    for (uint32_t i = 0; i < n; i++) rows[i] = dataset_at(l->r->train, i);
    lab_ok(batch_create(n, 1, l->r->graphs->max_rows[PASS_TRAIN], &b));
    lab_ok(batch_fill(b, l->r, rows, n, 1));
    lab_ok(graphs_run(l->r, PASS_TRAIN, b, 1 / b->weight, &res));
    snprintf(ptr, sizeof ptr, "/cases/%llu/loss", (unsigned long long)at);
    assert_true(fabs(res.loss - lab_number(l, ptr)) <= 1e-5 * lab_number(l, ptr));
    compare(l, s);
    mem_free(settings);
    batch_destroy(b);
    lab_close(l);
}

static const char lora_keys[] = "[adapter]\nuse = lora\nr = 8\nlora_alpha = 16\n"
                                "target_modules = qkv_proj, o_proj, gate_up_proj, down_proj\n";

static void lora_on_plain_base(void **state) {
    const setup s = {"lora_fp32", lora_keys, 1};
    (void)state;
    check(&s, "none");
    check(&s, "full");
}

static void lora_on_nf4_base(void **state) {
    char *settings = mem_printf("load_in_4bit = true\nbnb_4bit_quant_type = nf4\n"
                                "bnb_4bit_use_double_quant = true\nnested_codes = cpu_table\n%s",
        lora_keys);
    const setup s = {"lora_nf4", settings, 1};
    (void)state;
    check(&s, "full");
    mem_free(settings);
}

static void full_untied(void **state) {
    const setup s = {"full_untied", "[adapter]\nuse = none\n", 0};
    (void)state;
    check(&s, "none");
    check(&s, "full");
}

static void full_tied(void **state) {
    const setup s = {"full_tied", "[adapter]\nuse = none\n", 0};
    (void)state;
    check(&s, "full");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lora_on_plain_base),
        cmocka_unit_test(lora_on_nf4_base),
        cmocka_unit_test(full_untied),
        cmocka_unit_test(full_tied),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
