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
#include "plugin/host.h"
#include "train/progress.h"

#include <cmocka.h>

static const char keys[] =
    "load_in_4bit = true\nbnb_4bit_quant_type = nf4\nbnb_4bit_use_double_quant = true\n"
    "[adapter]\nuse = lora\nr = 4\nlora_alpha = 8\nlora_dropout = 0.1\n"
    "target_modules = all-linear\n"
    "[data]\ntrain = rows.jsonl\nmax_length = 128\n"
    "[trainer]\nlearning_rate = 1e-2\nmax_grad_norm = 0.01\nper_device_train_batch_size = 4\n"
    "gradient_accumulation_steps = 2\nlogging_steps = 1000\nsave_strategy = no\n";

/* A loop asks once after each step whether to stop. */
enum { STEPS = 64 };
static uint64_t n_asked, count_at[STEPS];

static int32_t note_count(const qfw_host *h) {
    (void)h;
    assert_true(n_asked < STEPS);
    count_at[n_asked++] = mem_count();
    return 0;
}

/* Two epochs and a step, one of them begun in between. */
static void loop(lab *l) {
    progress p = {0};
    n_asked = 0;
    l->r->max_steps = 2 * l->r->steps_per_epoch + 1;
    lab_ok(train_loop(l->r, NULL, &p));
    assert_true(p.value[0] > 0);     /* metrics were kept */
    assert_true(p.grad_norm > 0.01); /* and gradients clipped */
    assert_true(n_asked > 3 && n_asked == p.step);
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
    qfw_host host = *l->r->host;
    host.cancelled = note_count;
    l->r->host = &host;
    loop(l); /* passes of a length that was not met before are planned in it */
    assert_true(count_at[n_asked - 1] > count_at[0]);
    loop(l);
    for (uint64_t i = 1; i < n_asked; i++) assert_int_equal(count_at[i], count_at[i - 1]);
    l->r->host = host_table();
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
