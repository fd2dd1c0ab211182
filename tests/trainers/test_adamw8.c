/* test_adamw8.c -- 8-bit AdamW against bitsandbytes' in TRL's SFTTrainer: the loss and the gradient
 * norm of every step (tests/parity/README.md, adamw8), and what its states take.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "../support/curve.h"
#include "adamw8_table.h"
#include "base/mem.h"
#include "graph/store.h"
#include "ops/quant4.h"

#include <cmocka.h>

enum { STEPS = sizeof adamw8_steps / sizeof adamw8_steps[0] };

static void train(lab *l, const char *use, curve *c) {
    char path[512];
    char *settings = mem_printf(
        "load_in_4bit = true\nbnb_4bit_quant_type = nf4\nbnb_4bit_use_double_quant = true\n"
        "nested_codes = cpu_table\n[adapter]\nuse = lora\nr = 64\nlora_alpha = 64\n"
        "target_modules = qkv_proj, o_proj\n"
        "[trainer]\nper_device_train_batch_size = 4\ngradient_accumulation_steps = 4\n"
        "max_steps = %d\nlearning_rate = 5e-3\nlr_scheduler_type = cosine\nwarmup_steps = 10\n"
        "max_grad_norm = 1\nlogging_steps = 1\nsave_strategy = no\n"
        "[optimizer]\nuse = %s\nweight_decay = 0.01\n"
        "[data]\ntrain = rows.jsonl\nmax_length = 128\n",
        (int)STEPS, use);
    lab_model(l, lab_golden("sft_curve/config.json", path));
    lab_copy(l, lab_golden("sft_curve/rows.jsonl", path), "rows.jsonl");
    lab_run(l, settings);
    lab_adapters(l, 1);
    curve_train(l, c);
    mem_free(settings);
}

static void unsigned_map_is_bitsandbytes(void **state) {
    const unsigned char *bytes = (const unsigned char *)quant8_unsigned_map();
    uint64_t hash = 0xCBF29CE484222325;
    (void)state;
    for (size_t i = 0; i < 256 * sizeof(float); i++) hash = (hash ^ bytes[i]) * 0x100000001B3;
    assert_true(hash == unsigned_map_fnv1a);
}

/* The largest relative distances from loss and norm of one of the two roundings. */
static void measure(const curve *c, int rounding, double *loss, double *norm) {
    *loss = *norm = 0;
    for (int s = 0; s < STEPS; s++) {
        const double *wanted = adamw8_steps[s][rounding];
        *loss = fmax(*loss, fabs(c->loss[s] / wanted[0] - 1));
        *norm = fmax(*norm, fabs(c->grad_norm[s] / wanted[1] - 1));
    }
}

static void matches_bitsandbytes(void **state) {
    double loss, norm;
    curve c;
    (void)state;
    lab *l = lab_open("sft_curve/sft_curve.json");
    train(l, "adamw_8bit", &c);
    assert_int_equal(c.n, STEPS);
    measure(&c, 0, &loss, &norm);
    print_message("exact rounding: loss within %.1e, grad norm within %.1e\n", loss, norm);
    assert_true(loss <= 1e-3 && norm <= 1e-3);
    measure(&c, 1, &loss, &norm);
    print_message("its CPU table: loss within %.1e, grad norm within %.1e\n", loss, norm);
    assert_true(loss <= 2e-3 && norm <= 2e-3);
    const trainable *t = &l->r->trainables[0];
    assert_int_equal(t->spec.n, 4);
    for (int i = 0; i < 4; i++) {
        const qfw_tensor *held = &t->state[i]->t;
        assert_int_equal(held->dtype, i < 2 ? QFW_U8 : QFW_F32);
        assert_int_equal(held->dim[0], qfw_tensor_count(&t->param->t) / (i < 2 ? 1 : 256));
    }
    lab_close(l);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(unsigned_map_is_bitsandbytes), cmocka_unit_test(matches_bitsandbytes)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
