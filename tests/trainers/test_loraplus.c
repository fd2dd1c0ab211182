/* test_loraplus.c -- LoRA+ against PEFT's optimizer in TRL's SFTTrainer: the loss and the gradient
 * norm of every step (tests/parity/README.md, loraplus).
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "../support/curve.h"
#include "base/mem.h"
#include "loraplus_table.h"

#include <cmocka.h>

enum { STEPS = sizeof loraplus_steps / sizeof loraplus_steps[0] };

static void matches_peft(void **state) {
    char path[512];
    double loss = 0, norm = 0;
    curve c;
    (void)state;
    lab *l = lab_open("sft_curve/sft_curve.json");
    lab_model(l, lab_golden("sft_curve/config.json", path));
    lab_copy(l, lab_golden("sft_curve/rows.jsonl", path), "rows.jsonl");
    lab_run(l,
        "load_in_4bit = true\nbnb_4bit_quant_type = nf4\nbnb_4bit_use_double_quant = true\n"
        "nested_codes = cpu_table\n[adapter]\nuse = lora\nr = 16\nlora_alpha = 32\n"
        "target_modules = qkv_proj, o_proj\n"
        "[trainer]\nper_device_train_batch_size = 4\ngradient_accumulation_steps = 4\n"
        "max_steps = 30\nlearning_rate = 5e-4\nlr_scheduler_type = cosine\nwarmup_steps = 10\n"
        "logging_steps = 1\nsave_strategy = no\n"
        "[optimizer]\nloraplus_lr_ratio = 16\nweight_decay = 0.01\n"
        "[data]\ntrain = rows.jsonl\nmax_length = 128\n");
    lab_adapters(l, 1);
    curve_train(l, &c);
    assert_int_equal(c.n, STEPS);
    for (int s = 0; s < STEPS; s++) {
        loss = fmax(loss, fabs(c.loss[s] / loraplus_steps[s][0] - 1));
        norm = fmax(norm, fabs(c.grad_norm[s] / loraplus_steps[s][1] - 1));
    }
    print_message("%d steps: loss within %.1e, grad norm within %.1e\n", c.n, loss, norm);
    assert_true(loss <= 1e-4 && norm <= 1e-4);
    lab_close(l);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(matches_peft)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
