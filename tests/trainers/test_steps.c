/* test_steps.c -- a training step allocates nothing: forward and backward of its micro-batches, the
 * order of a new epoch, clipping, the update and the metrics.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include "../support/lab.h"
#include "base/mem.h"
#include "files/file.h"
#include "train/progress.h"

#include <cmocka.h>

static const char keys[] =
    "load_in_4bit = true\nbnb_4bit_quant_type = nf4\nbnb_4bit_use_double_quant = true\n"
    "[adapter]\nuse = lora\nr = 4\nlora_alpha = 8\nlora_dropout = 0.1\n"
    "target_modules = all-linear\n"
    "[data]\ntrain = rows.jsonl\nmax_length = 128\n"
    "[trainer]\nlearning_rate = 1e-2\nmax_grad_norm = 0.01\nper_device_train_batch_size = 4\n"
    "gradient_accumulation_steps = 2\nlogging_steps = 1000\nsave_strategy = no\n";

/* Allocations of a loop of so many steps, its start and its end included. */
static uint64_t allocations(lab *l, uint64_t steps) {
    progress p = {0};
    const uint64_t before = mem_count();
    l->r->max_steps = steps;
    lab_ok(train_loop(l->r, NULL, &p));
    assert_true(p.step == steps && p.value[0] > 0);
    assert_true(p.grad_norm > 0.01); /* it was clipped */
    return mem_count() - before;
}

static void expect_none_a_step(const char *more) {
    char path[512];
    lab *l = lab_open("sft_curve/sft_curve.json");
    lab_model(l, lab_golden("sft_curve/config.json", path));
    lab_copy(l, lab_golden("sft_curve/rows.jsonl", path), "rows.jsonl");
    char *settings = mem_printf("%s%s", keys, more);
    char *out = mem_printf("%s/out", l->folder);
    lab_run(l, settings);
    lab_ok(dir_make(out));
    const uint64_t many = 2 * l->r->steps_per_epoch + 1;
    assert_true(many > 3);
    assert_true(allocations(l, many) > 0); /* a pass of a length not met before is planned */
    const uint64_t one = allocations(l, 1);
    assert_int_equal(allocations(l, many), one);
    mem_free(settings);
    mem_free(out);
    lab_close(l);
}

static void a_step_allocates_nothing(void **state) {
    (void)state;
    expect_none_a_step("");
    expect_none_a_step("gradient_checkpointing = none\n");
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(a_step_allocates_nothing)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
