/* test_half.c -- runs of 16 bits: bf16 against TRL's SFTTrainer, the loss scale against torch's
 * GradScaler, and a planted overflow of fp16 (tests/parity/README.md, bf16).
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "../support/curve.h"
#include "base/mem.h"
#include "files/file.h"
#include "half_table.h"
#include "train/progress.h"

#include <cmocka.h>

enum { STEPS = sizeof bf16_steps / sizeof bf16_steps[0] };

#define MODEL                                                                                      \
    "load_in_4bit = true\nbnb_4bit_quant_type = nf4\nbnb_4bit_use_double_quant = true\n"           \
    "nested_codes = cpu_table\n"
#define ADAPTER                                                                                    \
    "[adapter]\nuse = lora\nr = 16\nlora_alpha = 32\ntarget_modules = qkv_proj, o_proj\n"          \
    "[data]\ntrain = rows.jsonl\nmax_length = 128\n"
#define TRAINER                                                                                    \
    "[trainer]\nper_device_train_batch_size = 4\ngradient_accumulation_steps = 4\n"                \
    "learning_rate = 5e-3\nlr_scheduler_type = cosine\nwarmup_steps = 10\nlogging_steps = 1\n"

static lab *open_lab(void) {
    char path[512];
    lab *l = lab_open("sft_curve/sft_curve.json");
    lab_model(l, lab_golden("sft_curve/config.json", path));
    lab_copy(l, lab_golden("sft_curve/rows.jsonl", path), "rows.jsonl");
    return l;
}

static void train(lab *l, const char *settings, curve *c) {
    lab_run(l, settings);
    lab_adapters(l, 1);
    curve_train(l, c);
}

static void bf16_matches_trl(void **state) {
    double loss = 0, norm = 0;
    curve c;
    (void)state;
    lab *l = open_lab();
    train(l,
        MODEL "bnb_4bit_compute_dtype = bfloat16\n" ADAPTER TRAINER
              "bf16 = true\nmax_steps = 50\nsave_strategy = no\n[optimizer]\nweight_decay = 0.01\n",
        &c);
    assert_int_equal(c.n, STEPS);
    for (int s = 0; s < STEPS; s++) {
        loss = fmax(loss, fabs(c.loss[s] / bf16_steps[s][0] - 1));
        norm = fmax(norm, fabs(c.grad_norm[s] / bf16_steps[s][1] - 1));
    }
    print_message("%d steps: loss within %.2e, grad norm within %.2e\n", c.n, loss, norm);
    assert_true(loss <= 1e-2);
    lab_close(l);
}

static void the_scale_moves_as_torch_s(void **state) {
    scaler s = scaler_start(1);
    (void)state;
    assert_true(scaler_start(0).scale == 1);
    assert_int_equal(sizeof scaler_scales / sizeof scaler_scales[0], strlen(scaler_found));
    for (size_t i = 0; i < strlen(scaler_found); i++) {
        if (s.scale != scaler_scales[i])
            fail_msg("update %zu: scale %g, wanted %g", i, s.scale, scaler_scales[i]);
        scaler_move(&s, scaler_found[i] == '1', 4);
    }
    for (int i = 0; i < 200; i++) scaler_move(&s, 0, 1);
    assert_true(isfinite((float)s.scale));
}

/* Every step sees all rows, so that without an update the loss is that of the step before. The
 * head is made `head` times as large: gradients grow with it. */
static void train_fp16(double head, int steps, curve *c, progress *p) {
    char *settings = mem_printf(MODEL
        "bnb_4bit_compute_dtype = float16\n" ADAPTER
        "[trainer]\nfp16 = true\nper_device_train_batch_size = 42\nlearning_rate = 1e-3\n"
        "lr_scheduler_type = linear\nlogging_steps = 1\nsave_strategy = no\nmax_steps = %d\n",
        steps);
    lab *l = open_lab();
    for (synth_rule *r = l->rules; *r->match; r++)
        if (strstr(r->match, "head")) r->scale *= head;
    *p = (progress){.step = 0};
    lab_run(l, settings);
    lab_adapters(l, 1);
    char *out = mem_printf("%s/out", l->folder);
    lab_ok(dir_make(out));
    lab_ok(train_loop(l->r, NULL, p));
    curve_read(l, c);
    mem_free(out);
    mem_free(settings);
    lab_close(l);
}

static void fp16_trains_without_one(void **state) {
    curve c;
    progress p;
    (void)state;
    train_fp16(1, 4, &c, &p);
    assert_int_equal(p.scaler.left_out, 0);
    assert_true(p.scaler.scale == 65536 && p.scaler.good == 4);
    assert_true(c.loss[3] < c.loss[0]);
}

static void an_overflow_halves_the_scale_and_skips(void **state) {
    curve c;
    progress p;
    (void)state;
    train_fp16(2000, 8, &c, &p);
    const int k = (int)p.scaler.left_out;
    print_message("%d of 8 updates left out, scale %g\n", k, p.scaler.scale);
    assert_true(k >= 1 && k <= 5);
    assert_true(p.scaler.scale == 65536 / pow(2, k));
    assert_int_equal(p.step, 8);
    for (int s = 0; s < 8; s++) {
        /* skipped steps come first; the rate goes on with the first update */
        const double rate = 1e-3 * (1 - (s < k ? 0 : s - k) / 8.0);
        assert_true(fabs(c.learning_rate[s] - rate) < 1e-12);
        assert_true(isfinite(c.grad_norm[s]) == (s >= k));
        if (s > 0 && s <= k) assert_true(fabs(c.loss[s] / c.loss[0] - 1) < 1e-5);
    }
    assert_true(c.loss[k + 1] < c.loss[k] * (1 - 1e-5));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bf16_matches_trl),
        cmocka_unit_test(the_scale_moves_as_torch_s),
        cmocka_unit_test(fp16_trains_without_one),
        cmocka_unit_test(an_overflow_halves_the_scale_and_skips),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
