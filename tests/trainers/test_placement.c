/* test_placement.c -- a backend of seven functions and no op trains the model to the losses of the
 * cpu backend; and under fallback = error the run is refused with the list of what it lacks.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "../support/curve.h"
#include "base/error.h"
#include "base/mem.h"

#include <cmocka.h>

static const char keys[] =
    "load_in_4bit = true\nbnb_4bit_quant_type = nf4\n"
    "[adapter]\nuse = lora\nr = 8\nlora_alpha = 16\nlora_dropout = 0.05\n"
    "target_modules = q_proj, v_proj, o_proj, gate_up_proj\n"
    "[data]\ntrain = rows.jsonl\nmax_length = 128\n"
    "[trainer]\nmax_steps = 6\nlearning_rate = 2e-2\nper_device_train_batch_size = 16\n"
    "logging_steps = 1\nsave_strategy = no\n";

static lab *open_lab(void) {
    char path[512];
    lab *l = lab_open("sft_curve/sft_curve.json");
    lab_model(l, lab_golden("sft_curve/config.json", path));
    lab_copy(l, lab_golden("sft_curve/rows.jsonl", path), "rows.jsonl");
    return l;
}

static char *settings_for(const char *fallback) {
    return mem_printf("%s[backend]\nuse = %s/tests/badplugins/libqfw_backend_storage.so\n"
                      "fallback = %s\n",
        keys, getenv("QFW_BUILD"), fallback);
}

static void train_on(const char *settings, curve *c) {
    lab *l = open_lab();
    lab_run(l, settings);
    curve_train(l, c);
    lab_close(l);
}

/* Its memory is not this process's: the two are told, and not as if one were planned for the
 * other. */
static void plan_and_peak_are_told_apart(void **state) {
    char text[16384];
    (void)state;
    char *settings = settings_for("allow");
    lab *l = open_lab();
    lab_run(l, settings);
    run_close(l->r);
    l->r = NULL;
    FILE *f = tmpfile();
    assert_non_null(f);
    lab_ok(lab_main(l, &(run_flags){.ini_path = NULL}, f));
    rewind(f);
    text[fread(text, 1, sizeof text - 1, f)] = 0;
    fclose(f);
    assert_non_null(strstr(text, " planned on storage, this process "));
    size_t n;
    char *manifest = lab_contents(l, "out/manifest.json", &n);
    assert_non_null(strstr(manifest, "\"plan_bytes\""));
    assert_null(strstr(manifest, "process_peak_bytes"));
    mem_free(manifest);
    mem_free(settings);
    lab_close(l);
}

static void storage_alone_trains(void **state) {
    curve cpu, storage;
    double worst = 0;
    (void)state;
    char *settings = settings_for("allow");
    train_on(keys, &cpu);
    train_on(settings, &storage);
    assert_int_equal(storage.n, cpu.n);
    assert_int_equal(storage.n, 6);
    for (int s = 0; s < cpu.n; s++)
        worst = fmax(worst, fabs(storage.loss[s] - cpu.loss[s]) / cpu.loss[s]);
    print_message("losses within %.1e of the cpu backend's\n", worst);
    assert_true(worst <= 1e-6);
    assert_true(cpu.loss[5] < cpu.loss[0]);
    mem_free(settings);
}

static void missing_ops_are_listed(void **state) {
    static const char *const ops[] = {"qmatmul", "qmatmul_dx", "rmsnorm", "rope", "attn",
        "attn_bwd", "swiglu", "lora", "token_logprob", "token_logprob_bwd"};
    (void)state;
    lab *l = open_lab();
    char *more = settings_for("error");
    char *text = mem_printf("[run]\noutput_dir = out\n[model]\nuse = phi3\npath = model\n%s", more);
    char *path = mem_printf("%s/run.ini", l->folder);
    FILE *nowhere = fopen("/dev/null", "w");
    lab_write(l, "run.ini", text);
    const run_flags flags = {.ini_path = path};
    assert_int_equal(lab_start(&flags, nowhere, &l->r), QFW_E_CONFIG);
    if (!strstr(err_text(0), "run.ini:25:12: backend.fallback: error, but backend storage"))
        fail_msg("%s", err_text(0));
    for (size_t i = 0; i < sizeof ops / sizeof ops[0]; i++)
        if (!strstr(err_text(0), ops[i])) fail_msg("'%s' is not in: %s", ops[i], err_text(0));
    fclose(nowhere);
    mem_free(more);
    mem_free(text);
    mem_free(path);
    lab_close(l);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(plan_and_peak_are_told_apart),
        cmocka_unit_test(storage_alone_trains),
        cmocka_unit_test(missing_ops_are_listed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
