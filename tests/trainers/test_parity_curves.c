/* test_parity_curves.c -- whole runs against TRL's SFTTrainer and transformers' Trainer: the loss,
 * the gradient norm and the learning rate of every step (tests/parity/README.md, sft_curve and
 * full_curve).
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "../support/curve.h"
#include "base/mem.h"

#include <cmocka.h>

static double step_number(const lab *l, int step, const char *key) {
    char ptr[64];
    snprintf(ptr, sizeof ptr, "/steps/%d/%s", step, key);
    return lab_number(l, ptr);
}

static void compare(const lab *l, const curve *c, double bar, int has_tokens) {
    double worst_loss = 0, worst_norm = 0;
    assert_int_equal(c->n, json_doc_api.count(l->fixture, "/steps"));
    for (int s = 0; s < c->n; s++) {
        const double loss = step_number(l, s, "loss"), norm = step_number(l, s, "grad_norm");
        worst_loss = fmax(worst_loss, fabs(c->loss[s] - loss) / fabs(loss));
        worst_norm = fmax(worst_norm, fabs(c->grad_norm[s] - norm) / fabs(norm));
        assert_true(c->learning_rate[s] == step_number(l, s, "learning_rate"));
        assert_true(fabs(c->epoch[s] - step_number(l, s, "epoch")) < 1e-12);
        if (has_tokens) assert_true(c->num_tokens[s] == step_number(l, s, "num_tokens"));
    }
    print_message(
        "%d steps: loss within %.2e, grad norm within %.2e\n", c->n, worst_loss, worst_norm);
    assert_true(worst_loss <= bar);
    assert_true(worst_norm <= bar);
}

/* The trainer's keys of the INI from the fixture's own arguments. */
static char *trainer_keys(const lab *l) {
    const char *scheduler;
    lab_ok(json_doc_api.str(l->fixture, "/train/lr_scheduler_type", &scheduler));
    return mem_printf(
        "[trainer]\nper_device_train_batch_size = %.0f\n"
        "gradient_accumulation_steps = %.0f\nmax_steps = %.0f\nlearning_rate = %.17g\n"
        "lr_scheduler_type = %s\nwarmup_steps = %.0f\nmax_grad_norm = %.17g\n"
        "logging_steps = 1\nsave_strategy = no\n[optimizer]\nweight_decay = %.17g\n",
        lab_number(l, "/train/per_device_train_batch_size"),
        lab_number(l, "/train/gradient_accumulation_steps"), lab_number(l, "/train/max_steps"),
        lab_number(l, "/train/learning_rate"), scheduler, lab_number(l, "/train/warmup_steps"),
        lab_number(l, "/train/max_grad_norm"), lab_number(l, "/train/weight_decay"));
}

static void run_curve(lab *l, const char *config, const char *rows, const char *more, int zero_b,
    double bar, int has_tokens) {
    char path[512];
    curve c;
    lab_model(l, lab_golden(config, path));
    lab_copy(l, lab_golden(rows, path), "rows.jsonl");
    char *keys = trainer_keys(l);
    char *settings = mem_printf("%s%s[data]\ntrain = rows.jsonl\nmax_length = 128\n", more, keys);
    lab_run(l, settings);
    if (l->r->n_loras) lab_adapters(l, zero_b);
    curve_train(l, &c);
    compare(l, &c, bar, has_tokens);
    mem_free(keys);
    mem_free(settings);
}

static void sft_matches_trl(void **state) {
    (void)state;
    lab *l = lab_open("sft_curve/sft_curve.json");
    run_curve(l, "sft_curve/config.json", "sft_curve/rows.jsonl",
        "load_in_4bit = true\nbnb_4bit_quant_type = nf4\nbnb_4bit_use_double_quant = true\n"
        "nested_codes = cpu_table\n[adapter]\nuse = lora\nr = 16\nlora_alpha = 32\n"
        "target_modules = qkv_proj, o_proj\n",
        1, 1e-3, 1);
    lab_close(l);
}

static void full_untied_matches_trainer(void **state) {
    (void)state;
    lab *l = lab_open("full_curve/untied_curve.json");
    run_curve(l, "full_curve/untied.json", "full_curve/rows.jsonl", "[adapter]\nuse = none\n", 0,
        1e-3, 0);
    lab_close(l);
}

static void full_tied_matches_trainer(void **state) {
    (void)state;
    lab *l = lab_open("full_curve/tied_curve.json");
    run_curve(
        l, "full_curve/tied.json", "full_curve/rows.jsonl", "[adapter]\nuse = none\n", 0, 1e-3, 0);
    lab_close(l);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sft_matches_trl),
        cmocka_unit_test(full_untied_matches_trainer),
        cmocka_unit_test(full_tied_matches_trainer),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
