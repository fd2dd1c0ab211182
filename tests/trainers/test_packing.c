/* test_packing.c -- rows packed: into the units that TRL makes of them, to the losses and gradients
 * of the rows alone, and along the curve of SFTTrainer (tests/parity/README.md, packing).
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "../support/curve.h"
#include "base/error.h"
#include "base/mem.h"
#include "packing_table.h"
#include "train/batch.h"
#include "train/packing.h"

#include <cmocka.h>

enum { STEPS = sizeof packing_steps / sizeof packing_steps[0], MOST = 64 };

/* Rows that begin with 8 and with 16 tokens of a prompt, and some that do not. */
static void write_rows(const lab *l) {
    char text[8192];
    size_t at = 0;
    for (int row = 0; row < 12; row++) {
        const int prompt = row % 4 == 3 ? 3 : row % 4 == 2 ? 8 : 16, n = 20 + row;
        at += (size_t)snprintf(text + at, sizeof text - at, "{\"input_ids\": [");
        for (int t = 0; t < n; t++)
            at += (size_t)snprintf(text + at, sizeof text - at, "%s%d", t ? ", " : "",
                t < prompt ? 40 + t : (17 * row + 5 * t) % 250);
        at += (size_t)snprintf(text + at, sizeof text - at, "], \"labels\": [");
        for (int t = 0; t < n; t++)
            at += (size_t)snprintf(text + at, sizeof text - at, "%s%d", t ? ", " : "",
                t < 17 ? -100 : (17 * row + 5 * t) % 250);
        at += (size_t)snprintf(text + at, sizeof text - at, "]}\n");
    }
    lab_write(l, "prefixed.jsonl", text);
}

static lab *open_lab(const char *data_keys, int zero_b) {
    char path[512];
    lab *l = lab_open("sft_curve/sft_curve.json");
    lab_model(l, lab_golden("sft_curve/config.json", path));
    lab_copy(l, lab_golden("sft_curve/rows.jsonl", path), "rows.jsonl");
    write_rows(l);
    char *settings = mem_printf(
        "load_in_4bit = true\nbnb_4bit_quant_type = nf4\nbnb_4bit_use_double_quant = true\n"
        "nested_codes = cpu_table\n[adapter]\nuse = lora\nr = 16\nlora_alpha = 32\n"
        "target_modules = qkv_proj, o_proj\n[data]\nmax_length = 96\n%s"
        "[trainer]\nper_device_train_batch_size = 2\ngradient_accumulation_steps = 2\n"
        "max_steps = %d\nlearning_rate = 5e-3\nlr_scheduler_type = cosine\nwarmup_steps = 10\n"
        "logging_steps = 1\nsave_strategy = no\n[optimizer]\nweight_decay = 0.01\n",
        data_keys, (int)STEPS);
    lab_run(l, settings);
    for (int i = 0; i < LAB_RULES && l->rules[i].match && !zero_b; i++)
        if (!strcmp(l->rules[i].match, "lora_B")) l->rules[i].scale = 0.05; /* the fixture's is 0 */
    lab_adapters(l, zero_b);
    mem_free(settings);
    return l;
}

static void units_are_trls(void **state) {
    (void)state;
    lab *l = open_lab("train = rows.jsonl\npacking = true\n", 1);
    const packing *p = l->r->units;
    size_t at = 0;
    for (uint32_t u = 0; u < p->n; u++, at++)
        for (uint32_t k = p->first[u]; k < p->first[u + 1]; k++, at++)
            assert_int_equal(p->row[k], packs[at]);
    assert_int_equal(at, sizeof packs / sizeof packs[0]);
    assert_int_equal(p->first[p->n], 42);
    assert_int_equal(p->most, 4);
    lab_close(l);
}

static void curve_matches_trl(void **state) {
    double loss = 0, norm = 0;
    curve c;
    (void)state;
    lab *l = open_lab("train = rows.jsonl\npacking = true\n", 1);
    curve_train(l, &c);
    assert_int_equal(c.n, STEPS);
    for (int s = 0; s < STEPS; s++) {
        loss = fmax(loss, fabs(c.loss[s] / packing_steps[s][0] - 1));
        norm = fmax(norm, fabs(c.grad_norm[s] / packing_steps[s][1] - 1));
        assert_true(fabs(c.epoch[s] - packing_steps[s][2]) < 1e-12);
    }
    print_message("%d steps: loss within %.1e, grad norm within %.1e\n", c.n, loss, norm);
    assert_true(loss <= 1e-3 && norm <= 1e-3);
    lab_close(l);
}

/* The summed loss and the gradients of the whole set, unit by unit. */
static float *whole_set(lab *l, double *loss, int64_t *n_values) {
    const run *r = l->r;
    const qfw_example *rows[MOST];
    pass_result res;
    batch *b = NULL;
    *loss = 0;
    *n_values = 0;
    lab_ok(batch_create(MOST, 2, r->graphs->max_rows[PASS_TRAIN], &b));
    for (uint32_t u = 0; u < r->units->n; u++) {
        uint32_t n = 0;
        for (uint32_t k = r->units->first[u]; k < r->units->first[u + 1]; k++)
            rows[n++] = dataset_at(r->train, r->units->row[k]);
        lab_ok(batch_fill(b, r, rows, n, 1));
        lab_ok(graphs_run(l->r, PASS_TRAIN, b, 1, &res));
        *loss += res.loss;
    }
    batch_destroy(b);
    for (uint32_t i = 0; i < r->n_trainables; i++)
        *n_values += qfw_tensor_count(&r->trainables[i].grad->t);
    float *grads = malloc((size_t)*n_values * sizeof *grads), *to = grads;
    for (uint32_t i = 0; i < r->n_trainables; i++) {
        lab_ok(store_read(r->store, r->trainables[i].grad, to));
        to += qfw_tensor_count(&r->trainables[i].grad->t);
    }
    return grads;
}

static void expect_same(const char *what, lab *l, lab *other) {
    double loss, other_loss;
    int64_t n;
    float *a = whole_set(l, &loss, &n), *b = whole_set(other, &other_loss, &n);
    const double difference = lab_relative(a, b, n);
    print_message("%s: loss %.1e, gradients %.1e\n", what, fabs(loss / other_loss - 1), difference);
    assert_true(fabs(loss / other_loss - 1) <= 1e-5);
    assert_true(difference <= 1e-5);
    free(a);
    free(b);
    lab_close(l);
    lab_close(other);
}

static void packed_is_unpacked(void **state) {
    (void)state;
    lab *alone = open_lab("train = rows.jsonl\n", 0);
    assert_int_equal(alone->r->units->n, 42);
    expect_same("packed", open_lab("train = rows.jsonl\npacking = true\n", 0), alone);
}

/* The tokens that a shared prompt has are computed once for its rows, gradients included. */
static void shared_is_separate(void **state) {
    const qfw_example *rows[MOST];
    uint64_t n_rows = 0, n_tokens = 0;
    batch *b = NULL;
    (void)state;
    lab *shared = open_lab("train = prefixed.jsonl\npacking = true\nshare_prefix = true\n", 0);
    const run *r = shared->r;
    lab_ok(batch_create(MOST, 2, r->graphs->max_rows[PASS_TRAIN], &b));
    for (uint32_t i = 0; i < 3; i++) rows[i] = dataset_at(r->train, i);
    lab_ok(batch_count(b, r, rows, 2, &n_rows, &n_tokens)); /* 20 and 21 tokens, 16 alike */
    assert_int_equal(n_tokens - n_rows, 16);
    n_rows = n_tokens = 0;
    lab_ok(batch_count(b, r, rows, 3, &n_rows, &n_tokens)); /* 8 alike in three save as much */
    assert_int_equal(n_tokens - n_rows, 16);
    batch_destroy(b);
    expect_same("shared", shared, open_lab("train = prefixed.jsonl\npacking = true\n", 0));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(units_are_trls),
        cmocka_unit_test(curve_matches_trl),
        cmocka_unit_test(packed_is_unpacked),
        cmocka_unit_test(shared_is_separate),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
