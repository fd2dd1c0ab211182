/* test_resume.c -- a run that is stopped and taken up again ends in the bits of one that was not:
 * weights, optimizer state, place and log; dropout on. And what a resume refuses.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "../support/lab.h"
#include "base/error.h"
#include "base/mem.h"
#include "files/file.h"
#include "files/safetensors.h"
#include "train/changes.h"
#include "train/checkpoint.h"
#include "train/outputs.h"

#include <cmocka.h>

static const char keys[] =
    "load_in_4bit = true\nbnb_4bit_quant_type = nf4\nbnb_4bit_use_double_quant = true\n"
    "[adapter]\nuse = lora\nr = 4\nlora_alpha = 8\nlora_dropout = 0.1\n"
    "target_modules = q_proj, k_proj, v_proj, o_proj\n"
    "[data]\ntrain = rows.jsonl\nmax_length = 128\n"
    "[trainer]\nmax_steps = 8\nlearning_rate = 1e-2\nlr_scheduler_type = cosine\nwarmup_steps = 2\n"
    "per_device_train_batch_size = 4\ngradient_accumulation_steps = 3\nlogging_steps = 2\n"
    "save_steps = 3\n";

/* A lab whose model has its weights, with no run open. */
static lab *open_lab(void) {
    char path[512];
    lab *l = lab_open("sft_curve/sft_curve.json");
    lab_model(l, lab_golden("sft_curve/config.json", path));
    lab_copy(l, lab_golden("sft_curve/rows.jsonl", path), "rows.jsonl");
    lab_run(l, keys);
    run_close(l->r);
    l->r = NULL;
    return l;
}

static qfw_status run_again(const lab *l, const char *const *set, uint32_t n_set, int resume) {
    const run_flags flags = {.set = set, .n_set = n_set, .resume = resume};
    return lab_main(l, &flags, NULL);
}

static void drop(const lab *l, const char *name) {
    char *path = mem_printf("%s/%s", l->folder, name);
    lab_ok(dir_remove(path));
    mem_free(path);
}

static void expect_same(const lab *l, const char *name, const char *before, size_t n_before) {
    size_t n;
    char *now = lab_contents(l, name, &n);
    assert_int_equal(n, n_before);
    assert_memory_equal(now, before, n);
    mem_free(now);
}

static void expect_resumed_is_uninterrupted(const char *const *set, uint32_t n_set) {
    static const char *const files[] = {"out/checkpoint-8/trainer.safetensors",
        "out/checkpoint-8/trainer_state.json", "out/adapter_model.safetensors"};
    char *before[3];
    size_t n[3];
    lab *l = open_lab();
    lab_ok(run_again(l, set, n_set, 0));
    for (int i = 0; i < 3; i++) before[i] = lab_contents(l, files[i], &n[i]);
    drop(l, "out/checkpoint-8");
    drop(l, "out/checkpoint-6");
    lab_ok(run_again(l, set, n_set, 1));
    for (int i = 0; i < 3; i++) {
        expect_same(l, files[i], before[i], n[i]);
        mem_free(before[i]);
    }
    lab_close(l);
}

static void resumed_is_uninterrupted(void **state) {
    (void)state;
    expect_resumed_is_uninterrupted(NULL, 0);
}

/* States of 8 bits beside those of small tensors, which stay wide. */
static void resumed_is_uninterrupted_in_8_bits(void **state) {
    static const char *const set[] = {
        "optimizer.use=adamw_8bit", "adapter.r=16", "adapter.target_modules=q_proj, down_proj"};
    (void)state;
    expect_resumed_is_uninterrupted(set, 3);
}

static void resumed_is_uninterrupted_in_16_bits(void **state) {
    static const char *const bf16[] = {
        "trainer.bf16=true", "model.bnb_4bit_compute_dtype=bfloat16"};
    static const char *const fp16[] = {"trainer.fp16=true", "model.bnb_4bit_compute_dtype=float16"};
    (void)state;
    expect_resumed_is_uninterrupted(bf16, 2);
    expect_resumed_is_uninterrupted(fp16, 2);
}

static void expect_error(const char *name, const char *part) {
    assert_non_null(err_text(0));
    if (strcmp(err_name(), name) || !strstr(err_text(0), part))
        fail_msg("wanted %s with '%s', found: %s", name, part, err_text(0));
}

static void another_run_is_refused(void **state) {
    static const char *const other_rate[] = {"trainer.learning_rate=1e-3"};
    static const char *const other_rank[] = {"adapter.r=8"};
    static const char *const other_log[] = {"trainer.logging_steps=1"};
    (void)state;
    lab *l = open_lab();
    lab_ok(run_again(l, NULL, 0, 0));
    assert_int_not_equal(run_again(l, NULL, 0, 0), QFW_OK); /* neither resumed nor overwritten */
    expect_error("E_OUT_EXISTS", "--resume");
    assert_int_equal(err_exit_code(), EXIT_OUTPUT);
    assert_int_not_equal(run_again(l, other_rate, 1, 1), QFW_OK);
    expect_error("E_CONFIG_RESUME", "trainer.learning_rate");
    assert_int_equal(err_exit_code(), EXIT_CONFIG);
    assert_int_not_equal(run_again(l, other_rank, 1, 1), QFW_OK);
    expect_error("E_CONFIG_RESUME", "adapter.r");
    lab_ok(run_again(l, other_log, 1, 1));
    lab_close(l);
}

static void expect_class(const char *name, change_class wanted) {
    const char *meaning, *dot = strrchr(name, '.');
    char section[64];
    snprintf(section, sizeof section, "%.*s", (int)(dot - name), name);
    const change_class found = change_class_of(section, dot + 1, &meaning);
    if (found != wanted) fail_msg("%s: class %d, wanted %d", name, (int)found, (int)wanted);
    assert_true((meaning != NULL) == (wanted == CHANGE_COMPATIBLE));
}

/* Everything that the weights depend on is forbidden, and what no table knows. */
static void c10_classes(void **state) {
    static const char *const forbidden[] = {"run.seed", "model.path", "model.load_in_4bit",
        "adapter.r", "adapter.lora_dropout", "data.max_length", "data.overlong", "data.packing",
        "data.train_sampling_strategy", "trainer.use", "trainer.max_steps",
        "trainer.num_train_epochs", "trainer.learning_rate", "trainer.lr_scheduler_type",
        "trainer.warmup_steps", "trainer.max_grad_norm", "trainer.per_device_train_batch_size",
        "trainer.gradient_accumulation_steps", "trainer.bf16", "trainer.fp16",
        "trainer.metric_for_best_model", "trainer.load_best_model_at_end", "optimizer.use",
        "optimizer.weight_decay", "trainer.dpo.beta", "trainer.logging_steps_", "exporter.x"};
    static const char *const exact[] = {"run.threads", "run.max_memory", "run.output_dir",
        "trainer.gradient_checkpointing", "trainer.save_steps", "data.train", "export.merged",
        "plugins.path", "trainer.dpo.ref_cache"};
    static const char *const compatible[] = {"backend.use", "data.eval", "trainer.eval_steps",
        "trainer.per_device_eval_batch_size", "trainer.early_stopping_patience"};
    (void)state;
    for (size_t i = 0; i < sizeof forbidden / sizeof *forbidden; i++)
        expect_class(forbidden[i], CHANGE_FORBIDDEN);
    for (size_t i = 0; i < sizeof exact / sizeof *exact; i++) expect_class(exact[i], CHANGE_EXACT);
    for (size_t i = 0; i < sizeof compatible / sizeof *compatible; i++)
        expect_class(compatible[i], CHANGE_COMPATIBLE);
    expect_class("run.resume_from_checkpoint", CHANGE_OF_CALL);
}

/* All that is forbidden is told in one run. */
static void c10_all_that_changed(void **state) {
    static const char *const set[] = {"adapter.r=8", "trainer.learning_rate=1e-3",
        "trainer.max_steps=9", "trainer.eval_steps=3", "run.threads=2"};
    (void)state;
    lab *l = open_lab();
    lab_ok(run_again(l, NULL, 0, 0));
    assert_int_not_equal(run_again(l, set, 5, 1), QFW_OK);
    assert_int_equal(err_count(), 3);
    expect_error("E_CONFIG_RESUME", "adapter.r was \"4\", now \"8\"");
    assert_non_null(strstr(err_text(1), "trainer.max_steps was \"8\", now \"9\""));
    assert_non_null(strstr(err_text(2), "trainer.learning_rate was \""));
    assert_int_equal(err_exit_code(), EXIT_CONFIG);
    lab_close(l);
}

/* A value that is not finite, however it came there. */
static void spoil(run *r) {
    store_entry *e = r->trainables[1].param;
    const size_t n = (size_t)qfw_tensor_count(&e->t);
    const uint32_t nan_bits = 0x7fc00000;
    float *values = mem_alloc(n, sizeof *values);
    assert_non_null(values);
    lab_ok(store_read(r->store, e, values));
    memcpy(&values[7], &nan_bits, sizeof nan_bits);
    lab_ok(store_write(r->store, e, values));
    mem_free(values);
}

/* What is not finite is neither published nor taken up. */
static void f5_no_checkpoint_holds_it(void **state) {
    const progress p = {.step = 5};
    (void)state;
    lab *l = open_lab();
    lab_ok(run_again(l, NULL, 0, 0));
    lab_run(l, keys);
    spoil(l->r);
    assert_int_equal(checkpoint_save(l->r, &p), QFW_E_NUMERIC);
    expect_error("E_NUM_STATE", "value 7 is not finite");
    expect_error("E_NUM_STATE", l->r->trainables[1].param->name);
    assert_int_equal(err_exit_code(), EXIT_NUMERIC);
    char *path = mem_printf("%s/out/checkpoint-5", l->folder);
    assert_false(dir_exists(path));
    mem_free(path);
    lab_close(l);
}

static void f5_no_checkpoint_with_it_is_taken_up(void **state) {
    const uint32_t nan_bits = 0xffc00000;
    st_file *f = NULL;
    (void)state;
    lab *l = open_lab();
    lab_ok(run_again(l, NULL, 0, 0));
    char *folder = mem_printf("%s/out/checkpoint-8", l->folder);
    char *path = mem_printf("%s/trainer.safetensors", folder);
    lab_ok(st_open(path, &f));
    const st_tensor *t = NULL;
    for (uint32_t i = 0; !t || !strstr(t->name, ".v"); i++) t = st_at(f, i);
    const long at = (long)t->begin + 4 * 3;
    char *name = mem_strdup(t->name);
    st_close(f);
    FILE *out = fopen(path, "r+b");
    assert_non_null(out);
    assert_int_equal(fseek(out, at, SEEK_SET), 0);
    assert_int_equal(fwrite(&nan_bits, 4, 1, out), 1);
    assert_int_equal(fclose(out), 0);
    char *manifest = mem_printf("%s/MANIFEST.json", folder);
    assert_int_equal(remove(manifest), 0);
    lab_ok(manifest_write_all(folder));
    drop(l, "out/manifest.json");
    drop(l, "out/checkpoint-6");
    assert_int_not_equal(run_again(l, NULL, 0, 1), QFW_OK);
    expect_error("E_ST_NONFINITE", name);
    expect_error("E_ST_NONFINITE", "value 3 is not finite");
    assert_int_equal(err_exit_code(), EXIT_DATA);
    mem_free(manifest);
    mem_free(name);
    mem_free(path);
    mem_free(folder);
    lab_close(l);
}

/* Neither the log nor what came out is written again. */
static void a_finished_run_is_left_alone(void **state) {
    static const char *const files[] = {
        "out/trainer_log.jsonl", "out/manifest.json", "out/adapter_model.safetensors"};
    char *before[3];
    size_t n[3];
    (void)state;
    lab *l = open_lab();
    lab_ok(run_again(l, NULL, 0, 0));
    for (int i = 0; i < 3; i++) before[i] = lab_contents(l, files[i], &n[i]);
    lab_ok(run_again(l, NULL, 0, 1));
    for (int i = 0; i < 3; i++) expect_same(l, files[i], before[i], n[i]);
    /* One that was killed after its last checkpoint still owes them; its log is whole. */
    char *manifest = mem_printf("%s/out/manifest.json", l->folder);
    remove(manifest);
    drop(l, "out/adapter_model.safetensors");
    lab_ok(run_again(l, NULL, 0, 1));
    assert_true(file_exists(manifest));
    mem_free(manifest);
    for (int i = 0; i < 3; i++) {
        if (i != 1) expect_same(l, files[i], before[i], n[i]);
        mem_free(before[i]);
    }
    lab_close(l);
}

static void flip_byte(const lab *l, const char *name) {
    char *path = mem_printf("%s/%s", l->folder, name);
    FILE *f = fopen(path, "r+b");
    assert_non_null(f);
    fseek(f, -7, SEEK_END);
    const int c = fgetc(f);
    fseek(f, -7, SEEK_END);
    fputc(c ^ 0x40, f);
    fclose(f);
    mem_free(path);
}

static void damaged_checkpoint_is_passed_over(void **state) {
    size_t n;
    (void)state;
    lab *l = open_lab();
    lab_ok(run_again(l, NULL, 0, 0));
    char *whole = lab_contents(l, "out/checkpoint-8/trainer.safetensors", &n);
    flip_byte(l, "out/checkpoint-8/trainer.safetensors");
    flip_byte(l, "out/checkpoint-6/trainer.safetensors");
    lab_ok(run_again(l, NULL, 0, 1)); /* from checkpoint-3 */
    expect_same(l, "out/checkpoint-8/trainer.safetensors", whole, n);
    mem_free(whole);
    lab_close(l);
}

static void changed_data_is_refused(void **state) {
    char *path;
    (void)state;
    lab *l = open_lab();
    lab_ok(run_again(l, NULL, 0, 0));
    path = mem_printf("%s/rows.jsonl", l->folder);
    FILE *f = fopen(path, "a");
    fputs("{\"input_ids\": [1, 2, 3], \"labels\": [-100, 2, 3]}\n", f);
    fclose(f);
    assert_int_not_equal(run_again(l, NULL, 0, 1), QFW_OK);
    expect_error("E_DATA_CHANGED", "rows.jsonl");
    mem_free(path);
    lab_close(l);
}

static void expect_checkpoints(const lab *l, const char *steps) {
    char path[512], found[64] = "";
    for (int step = 0; step <= 9; step++) {
        snprintf(path, sizeof path, "%s/out/checkpoint-%d", l->folder, step);
        if (dir_exists(path))
            snprintf(found + strlen(found), sizeof found - strlen(found), "%d ", step);
    }
    assert_string_equal(found, steps);
}

/* What an earlier run left is neither resumed from nor outlives its folder's new run. */
static void starting_over_forgets(void **state) {
    static const char *const over[] = {"run.overwrite_output_dir=true", "trainer.max_steps=4",
        "trainer.save_total_limit=2", "run.seed=7"};
    (void)state;
    lab *l = open_lab();
    lab_ok(run_again(l, NULL, 0, 0));
    expect_checkpoints(l, "3 6 8 ");
    lab_ok(run_again(l, over, 4, 0));
    expect_checkpoints(l, "3 4 ");
    lab_ok(run_again(l, over, 4, 1));
    char *log = mem_printf("%s/out/trainer_log.jsonl", l->folder);
    remove(log);
    mem_free(log);
    assert_int_not_equal(run_again(l, NULL, 0, 0), QFW_OK);
    expect_error("E_OUT_EXISTS", "it holds a run already");
    expect_checkpoints(l, "3 4 ");
    lab_close(l);
}

/* Going on from an earlier step leaves the later ones behind once there is a new one. */
static void earlier_checkpoint_wins(void **state) {
    (void)state;
    lab *l = open_lab();
    lab_ok(run_again(l, NULL, 0, 0));
    char *from = mem_printf("run.resume_from_checkpoint=%s/out/checkpoint-3", l->folder);
    const char *const set[] = {from, "trainer.save_strategy=no"};
    lab_ok(run_again(l, set, 2, 0));
    expect_checkpoints(l, "3 6 8 ");
    const char *const often[] = {from, "trainer.save_steps=1", "trainer.save_total_limit=2"};
    lab_ok(run_again(l, often, 3, 0));
    expect_checkpoints(l, "7 8 ");
    mem_free(from);
    lab_close(l);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(resumed_is_uninterrupted),
        cmocka_unit_test(resumed_is_uninterrupted_in_8_bits),
        cmocka_unit_test(resumed_is_uninterrupted_in_16_bits),
        cmocka_unit_test(another_run_is_refused),
        cmocka_unit_test(c10_classes),
        cmocka_unit_test(c10_all_that_changed),
        cmocka_unit_test(f5_no_checkpoint_holds_it),
        cmocka_unit_test(f5_no_checkpoint_with_it_is_taken_up),
        cmocka_unit_test(a_finished_run_is_left_alone),
        cmocka_unit_test(damaged_checkpoint_is_passed_over),
        cmocka_unit_test(changed_data_is_refused),
        cmocka_unit_test(starting_over_forgets),
        cmocka_unit_test(earlier_checkpoint_wins),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
