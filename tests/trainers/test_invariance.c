/* test_invariance.c -- what must not matter: how a window is cut into micro-batches, what else
 * stands in a batch, how many threads there are, which ops the backend has, which instructions the
 * machine has, whether activations are kept.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "../support/lab.h"
#include "base/mem.h"
#include "base/parallel.h"
#include "files/file.h"

#include <cmocka.h>

enum { ROWS = 16 };

static const char adapter_keys[] =
    "load_in_4bit = true\nbnb_4bit_quant_type = nf4\nbnb_4bit_use_double_quant = true\n"
    "[adapter]\nuse = lora\nr = 8\nlora_alpha = 16\n"
    "target_modules = q_proj, k_proj, v_proj, o_proj, down_proj\n";

static lab *open_with(const char *dropout, const char *more) {
    char path[512];
    lab *l = lab_open("sft_curve/sft_curve.json");
    lab_model(l, lab_golden("sft_curve/config.json", path));
    lab_copy(l, lab_golden("sft_curve/rows.jsonl", path), "rows.jsonl");
    char *settings =
        mem_printf("%slora_dropout = %s\n[data]\ntrain = rows.jsonl\nmax_length = 128\n%s",
            adapter_keys, dropout, more);
    lab_run(l, settings);
    for (int i = 0; i < LAB_RULES && l->rules[i].match; i++)
        if (!strcmp(l->rules[i].match, "lora_B")) l->rules[i].scale = 0.05; /* the fixture's is 0 */
    lab_adapters(l, 0);
    mem_free(settings);
    return l;
}

static lab *open_lab(const char *more) { return open_with("0.1", more); }

/* Gradients of one window of ROWS rows cut into passes of `size`, one after another; and its
 * loss. */
static float *window(lab *l, uint32_t size, double *loss, int64_t *n_values) {
    const run *r = l->r;
    const qfw_example *rows[ROWS];
    double weight = 0;
    batch *b = NULL;
    pass_result res;
    *loss = 0;
    *n_values = 0;
    lab_ok(batch_create(ROWS, 1, r->graphs->max_rows[PASS_TRAIN], &b));
    for (uint32_t i = 0; i < ROWS; i++) {
        qfw_example *e = dataset_at(r->train, i);
        e->ordinal = (int32_t)i;
        rows[i] = e;
        weight += e->seq[0].n_trained;
    }
    for (uint32_t i = 0; i < r->n_trainables; i++) {
        lab_ok(store_zero(r->store, r->trainables[i].grad));
        *n_values += qfw_tensor_count(&r->trainables[i].grad->t);
    }
    for (uint32_t at = 0; at < ROWS; at += size) {
        lab_ok(batch_fill(b, r, rows + at, size, 1));
        lab_ok(graphs_run(l->r, PASS_TRAIN, b, 1 / weight, &res));
        *loss += res.loss;
    }
    batch_destroy(b);
    float *grads = malloc((size_t)*n_values * sizeof *grads), *to = grads;
    for (uint32_t i = 0; i < r->n_trainables; i++) {
        lab_ok(store_read(r->store, r->trainables[i].grad, to));
        to += qfw_tensor_count(&r->trainables[i].grad->t);
    }
    return grads;
}

/* 16x1 = 8x2 = 4x4 = 1x16, dropout on. */
static void accumulation_does_not_matter(void **state) {
    static const uint32_t sizes[] = {8, 4, 1};
    double loss, other;
    int64_t n;
    (void)state;
    lab *l = open_lab("[trainer]\nper_device_train_batch_size = 16\n");
    float *whole = window(l, ROWS, &loss, &n);
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        float *cut = window(l, sizes[i], &other, &n);
        const double difference = lab_relative(cut, whole, n);
        print_message("16 rows, %2u a pass: loss %.1e, gradients %.1e\n", sizes[i],
            fabs(other - loss) / loss, difference);
        assert_true(fabs(other - loss) <= 1e-6 * loss);
        assert_true(difference <= 1e-6);
        free(cut);
    }
    free(whole);
    lab_close(l);
}

/* Dropout is there at all; and the same run twice gives the same bits. */
static void dropout_is_on(void **state) {
    double loss, again, plain;
    int64_t n;
    (void)state;
    lab *l = open_lab("[trainer]\nper_device_train_batch_size = 16\n");
    float *a = window(l, ROWS, &loss, &n), *b = window(l, ROWS, &again, &n);
    assert_true(loss == again);
    assert_memory_equal(a, b, (size_t)n * sizeof *a);
    free(a);
    free(b);
    lab_close(l);
    l = open_with("0", "[trainer]\nper_device_train_batch_size = 16\n");
    free(window(l, ROWS, &plain, &n));
    assert_true(loss != plain);
    lab_close(l);
}

/* Log-probabilities of row `index` alone, or among `n` rows from `first` on. */
static float *row_logprobs(lab *l, uint32_t first, uint32_t n, uint32_t index, uint32_t *count) {
    const qfw_example *rows[ROWS];
    batch *b = NULL;
    uint32_t at = 0;
    for (uint32_t i = 0; i < n; i++) rows[i] = dataset_at(l->r->train, first + i);
    lab_ok(batch_create(ROWS, 1, l->r->graphs->max_rows[PASS_TRAIN], &b));
    lab_ok(batch_fill(b, l->r, rows, n, 0));
    for (uint32_t i = 0; first + i < index; i++) at += rows[i]->seq[0].n;
    *count = dataset_at(l->r->train, index)->seq[0].n;
    float *all = lab_logprobs(l, b), *row = malloc(*count * sizeof *row);
    memcpy(row, all + at, *count * sizeof *row);
    free(all);
    batch_destroy(b);
    return row;
}

static void neighbours_and_threads_do_not_matter(void **state) {
    uint32_t n;
    (void)state;
    lab *l = open_lab("[trainer]\nper_device_train_batch_size = 16\n");
    for (uint32_t index = 0; index < ROWS; index += 3) {
        float *alone = row_logprobs(l, index, 1, index, &n);
        for (uint32_t threads = 1; threads <= 2; threads++) {
            lab_ok(parallel_start(threads));
            float *among = row_logprobs(l, 0, ROWS, index, &n);
            assert_memory_equal(alone, among, n * sizeof *alone);
            free(among);
        }
        free(alone);
    }
    lab_close(l);
}

/* The gradients of a window, and the bytes of a pass, under gradient_checkpointing = word. */
static float *under(const char *word, double *loss, int64_t *n, uint64_t *bytes) {
    char more[128];
    snprintf(more, sizeof more,
        "[trainer]\nper_device_train_batch_size = 16\ngradient_checkpointing = %s\n", word);
    lab *l = open_lab(more);
    float *grads = window(l, ROWS, loss, n);
    *bytes = l->r->graphs->step_bytes;
    lab_close(l);
    return grads;
}

static void recomputation_does_not_matter(void **state) {
    static const char *const words[] = {"selective", "full", "true"};
    double kept, redone;
    uint64_t all, bytes, before;
    int64_t n;
    (void)state;
    float *a = under("none", &kept, &n, &all);
    before = all;
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) {
        float *b = under(words[i], &redone, &n, &bytes);
        assert_true(kept == redone);
        assert_memory_equal(a, b, (size_t)n * sizeof *a);
        print_message("%s: %llu bytes, none: %llu\n", words[i], (unsigned long long)bytes,
            (unsigned long long)all);
        assert_true(i < 2 ? bytes < before : bytes == before);
        before = bytes;
        free(b);
    }
    free(a);
}

static int has_isa(const char *isa) {
#if defined(__x86_64__)
    const int avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    if (!strcmp(isa, "avx2")) return avx2;
    if (!strcmp(isa, "avx512")) return avx2 && __builtin_cpu_supports("avx512f");
#endif
    return !strcmp(isa, "generic");
}

/* The gradients of a window have these bits on every machine. */
static void instructions_do_not_matter(void **state) {
    static const char *const isas[] = {"avx512", "avx2", "generic"};
    static const char golden[] = "edbe146a771fc646cdf3069b13f98ed442fe89d426cee89a85558a24f69d5253";
    int n_run = 0;
    (void)state;
    for (size_t i = 0; i < sizeof isas / sizeof isas[0]; i++) {
        char more[128], digest[65];
        double loss;
        int64_t n;
        sha256 s;
        snprintf(more, sizeof more,
            "[trainer]\nper_device_train_batch_size = 16\n[backend.cpu]\nisa = %s\n", isas[i]);
        if (!has_isa(isas[i])) continue;
        lab *l = open_lab(more);
        float *grads = window(l, ROWS, &loss, &n);
        sha256_init(&s);
        sha256_add(&s, &loss, sizeof loss);
        sha256_add(&s, grads, (size_t)n * sizeof *grads);
        sha256_hex(&s, digest);
        print_message("%s: %s\n", isas[i], digest);
        assert_string_equal(digest, golden);
        free(grads);
        lab_close(l);
        n_run++;
    }
    assert_true(n_run > 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(accumulation_does_not_matter),
        cmocka_unit_test(dropout_is_on),
        cmocka_unit_test(neighbours_and_threads_do_not_matter),
        cmocka_unit_test(recomputation_does_not_matter),
        cmocka_unit_test(instructions_do_not_matter),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
