/* test_peft_io.c -- adapters and models in and out: what PEFT wrote computes here what it computes
 * there, and what qfw wrote is, loaded again, the same function (tests/parity/README.md, peft_io).
 *
 * With QFW_KEEP=FOLDER every written output stays below it, with its logits, so that the scripts in
 * tests/parity can load it into PEFT and transformers and compare.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "../support/logits.h"
#include "base/mem.h"
#include "files/file.h"
#include "train/outputs.h"

#include <cmocka.h>

static const char nf4[] =
    "load_in_4bit = true\nbnb_4bit_quant_type = nf4\nbnb_4bit_use_double_quant = true\n"
    "nested_codes = cpu_table\n";
static const char data[] = "[data]\ntrain = rows.jsonl\nmax_length = 128\n[trainer]\n"
                           "per_device_train_batch_size = 2\nmax_steps = 5\nlearning_rate = 1e-2\n"
                           "save_strategy = no\nlogging_steps = 1\n";

/* A lab on the config with the fixture's rows of tokens, each below `vocab`. */
static lab *open_lab(const char *config, int32_t vocab, logits_case *c) {
    char path[512];
    qfw_doc *tokens = NULL;
    lab *l = lab_open("peft_io/peft_io.json");
    lab_ok(json_read(lab_golden("peft_io/tokens.json", path), 1 << 20, NULL, &tokens));
    logits_tokens(tokens, "", c);
    json_destroy(tokens);
    for (int row = 0; row < 2; row++)
        for (int64_t t = 0; t < c->n_tokens; t++) c->token[row][t] %= vocab;
    logits_rows(l, c);
    lab_model(l, lab_golden(config, path));
    return l;
}

static void run_with(lab *l, const char *model_keys, const char *adapter_keys) {
    char *settings = mem_printf("%s[adapter]\n%s%s", model_keys, adapter_keys, data);
    run_close(l->r);
    l->r = NULL;
    lab_run(l, settings);
    mem_free(settings);
}

/* --- in: PEFT's adapters --- */

static void check_adapter(const char *base, const char *model_keys) {
    logits_case c;
    for (int i = 0; i < 3; i++) {
        char ptr[64], folder[512], golden[64], tensor[64];
        const char *name = NULL;
        lab *l = open_lab("peft_io/config.json", 256, &c);
        snprintf(ptr, sizeof ptr, "/cases/%d/positions", i);
        logits_positions(l->fixture, ptr, &c);
        snprintf(ptr, sizeof ptr, "/cases/%d/adapter", i);
        lab_ok(json_doc_api.str(l->fixture, ptr, &name));
        snprintf(golden, sizeof golden, "peft_io/%s", name);
        char *keys = mem_printf("path = %s\n", lab_golden(golden, folder));
        run_with(l, model_keys, keys);
        mem_free(keys);
        float *logits = logits_run(l, &c);
        snprintf(tensor, sizeof tensor, "%s.%s", name, base);
        const double worst = logits_against(l, &c, logits, "peft_io/logits.safetensors", tensor);
        print_message("%-12s on %s: %.2e\n", name, base, worst);
        assert_true(worst <= 1e-5);
        free(logits);
        lab_close(l);
    }
}

static void adapters_of_peft_on_fp32(void **state) {
    (void)state;
    check_adapter("fp32", "");
}

static void adapters_of_peft_on_nf4(void **state) {
    (void)state;
    check_adapter("nf4", nf4);
}

/* An adapter folder whose modules are named apart, as for a model with unfused weights: the LoRAs
 * of the open run under their own names. */
static void write_apart(const lab *l, const char *folder) {
    static const char config[] = "{\"peft_type\": \"LORA\", \"r\": 4, \"lora_alpha\": 8, "
                                 "\"target_modules\": [\"k_proj\", \"up_proj\"]}";
    char *path = mem_printf("%s/adapter_config.json", folder);
    st_writer *w = NULL;
    const run *r = l->r;
    lab_ok(dir_make(folder));
    lab_ok(file_write(path, config, sizeof config - 1));
    mem_free(path);
    path = mem_printf("%s/adapter_model.safetensors", folder);
    lab_ok(st_writer_create(path, &w));
    for (int turn = 0; turn < 2; turn++)
        for (uint32_t i = 0; i < 2 * r->n_loras; i++) {
            const store_entry *e = i % 2 ? r->loras[i / 2].b : r->loras[i / 2].a;
            const int64_t n = qfw_tensor_count(&e->t);
            char *name = mem_printf("base_model.model.%s", e->name);
            float *values = malloc((size_t)n * sizeof *values);
            assert_non_null(values);
            lab_ok(store_read(r->store, e, values));
            lab_ok(turn ? st_writer_data(w, values, (uint64_t)n * sizeof *values)
                        : st_writer_add(w, name, QFW_F32, 2, e->t.dim));
            free(values);
            mem_free(name);
        }
    lab_ok(st_writer_finish(w));
    mem_free(path);
}

static void modules_named_apart_are_loaded(void **state) {
    logits_case c;
    (void)state;
    lab *l = open_lab("peft_io/config.json", 256, &c);
    char *folder = mem_printf("%s/apart", l->folder), *path = mem_printf("path = %s\n", folder);
    run_with(l, "", "r = 4\nlora_alpha = 8\ntarget_modules = k_proj, up_proj\n");
    lab_adapters(l, 0);
    write_apart(l, folder);
    float *wanted = logits_run(l, &c);
    run_with(l, "", path);
    float *found = logits_run(l, &c);
    assert_memory_equal(
        found, wanted, (size_t)(2 * c.n_tokens * l->r->facts.vocab) * sizeof *found);
    free(wanted);
    free(found);
    mem_free(folder);
    mem_free(path);
    lab_close(l);
}

/* --- out and in again --- */

/* The folder that the run's weights are written to: of the lab, or one that stays. */
static char *output_folder(const lab *l, const char *name) {
    const char *kept = getenv("QFW_KEEP");
    char *folder = mem_printf("%s/%s", kept ? kept : l->folder, name);
    lab_ok(dir_make(folder));
    return folder;
}

/* logits.safetensors and tokens.json, as the scripts read them. */
static void write_logits(
    const lab *l, const logits_case *c, const char *folder, const float *logits) {
    const int64_t dim[3] = {2, c->n_tokens, l->r->facts.vocab};
    char *path = mem_printf("%s/logits.safetensors", folder);
    st_writer *w = NULL;
    lab_ok(st_writer_create(path, &w));
    lab_ok(st_writer_add(w, "logits", QFW_F32, 3, dim));
    lab_ok(st_writer_data(w, logits, (uint64_t)(dim[0] * dim[1] * dim[2]) * sizeof *logits));
    lab_ok(st_writer_finish(w));
    mem_free(path);
    path = mem_printf("%s/tokens.json", folder);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    for (int row = 0; row < 2; row++)
        for (int64_t t = 0; t < c->n_tokens; t++)
            fprintf(f, "%s%d", t ? ", " : row ? "],\n [" : "[[", c->token[row][t]);
    fprintf(f, "]]\n");
    fclose(f);
    mem_free(path);
}

/* Train the open run, write its weights to `folder`, and give its logits. */
static float *train_and_write(lab *l, const logits_case *c, const char *folder) {
    progress p = {0};
    char *out = mem_printf("%s/out", l->folder);
    float *before = logits_run(l, c);
    lab_ok(dir_make(out));
    mem_free(out);
    lab_ok(train_loop(l->r, NULL, &p));
    lab_ok(outputs_weights(l->r, folder));
    float *after = logits_run(l, c);
    write_logits(l, c, folder, after);
    /* Five steps moved it far beyond what is compared below. */
    assert_true(lab_relative(after, before, 2 * c->n_tokens * l->r->facts.vocab) > 1e-2);
    free(before);
    return after;
}

static void expect_logits(lab *l, const logits_case *c, const float *wanted, const char *name) {
    float *found = logits_run(l, c);
    const double worst = lab_relative(found, wanted, 2 * c->n_tokens * l->r->facts.vocab);
    print_message("%-16s %.2e\n", name, worst);
    assert_true(worst <= 3e-6); /* fp32 sums in another order; a wrong part shows above 1e-3 */
    free(found);
}

/* Trained as slices, written, loaded as what the folder says: on the fused weights. */
static void check_round(
    const char *name, const char *model_keys, const char *adapter_keys, uint32_t n_written) {
    logits_case c;
    lab *l = open_lab("peft_io/config.json", 256, &c);
    char *folder = output_folder(l, name), *path = mem_printf("path = %s\n", folder);
    run_with(l, model_keys, adapter_keys);
    assert_true(l->r->n_loras > n_written);
    float *trained = train_and_write(l, &c, folder);
    run_with(l, model_keys, path);
    assert_int_equal(l->r->n_loras, n_written);
    expect_logits(l, &c, trained, name);
    free(trained);
    mem_free(path);
    mem_free(folder);
    lab_close(l);
}

static const char slices[] = "r = 8\nlora_alpha = 16\ntarget_modules = q_proj, k_proj, v_proj, "
                             "o_proj\n";

static void slices_are_written_fused(void **state) {
    (void)state;
    check_round("slices", "", slices, 4);
}

static void slices_on_nf4_are_written_fused(void **state) {
    (void)state;
    check_round("slices_nf4", nf4, slices, 4);
}

/* v alone in qkv, and gate apart from up: rows that no LoRA touches must stay untouched. */
static void parts_of_weights(void **state) {
    (void)state;
    check_round("parts", "",
        "r = 4\nlora_alpha = 6\nuse_rslora = true\n"
        "target_modules = q_proj, v_proj, gate_proj, down_proj\n",
        6);
}

/* What was loaded from a folder, trained on and written again. */
static void loaded_adapter_is_written_as_it_was(void **state) {
    logits_case c;
    char golden[512];
    (void)state;
    lab *l = open_lab("peft_io/config.json", 256, &c);
    char *first = mem_printf("path = %s\n", lab_golden("peft_io/rslora_bf16", golden));
    char *folder = output_folder(l, "continued"), *again = mem_printf("path = %s\n", folder);
    run_with(l, "", first);
    float *trained = train_and_write(l, &c, folder);
    run_with(l, "", again);
    expect_logits(l, &c, trained, "continued");
    free(trained);
    mem_free(first);
    mem_free(folder);
    mem_free(again);
    lab_close(l);
}

/* --- full training --- */

/* One tensor for each weight; none for a tied head, which transformers would have to drop. */
static void expect_tensors(const lab *l, const char *folder) {
    st_file *f = NULL;
    uint32_t n = 0;
    for (uint32_t i = 0; i < l->r->n_weights; i++) n += !l->r->weights[i].tied;
    lab_ok(st_open_folder(folder, &f));
    assert_int_equal(st_count(f), n);
    st_close(f);
}

/* The model folder that a full training wrote, loaded as a model. */
static void check_full(const char *name, const char *config) {
    logits_case c;
    lab *l = open_lab(config, 191, &c);
    char *folder = output_folder(l, name), *from = mem_printf("model.path=%s", folder);
    char *settings = mem_printf("%s/run.ini", l->folder);
    const char *const set[] = {from};
    const run_flags flags = {.ini_path = settings, .set = set, .n_set = 1};
    FILE *nowhere = fopen("/dev/null", "w");
    run_with(l, "", "use = none\n");
    float *trained = train_and_write(l, &c, folder);
    run_close(l->r);
    lab_ok(lab_start(&flags, nowhere, &l->r));
    lab_ok(train_load(l->r));
    expect_logits(l, &c, trained, name);
    expect_tensors(l, folder);
    fclose(nowhere);
    free(trained);
    mem_free(folder);
    mem_free(from);
    mem_free(settings);
    lab_close(l);
}

static void full_untied_is_written(void **state) {
    (void)state;
    check_full("full_untied", "full_curve/untied.json");
}

static void full_tied_is_written(void **state) {
    (void)state;
    check_full("full_tied", "full_curve/tied.json");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(adapters_of_peft_on_fp32),
        cmocka_unit_test(adapters_of_peft_on_nf4),
        cmocka_unit_test(modules_named_apart_are_loaded),
        cmocka_unit_test(slices_are_written_fused),
        cmocka_unit_test(slices_on_nf4_are_written_fused),
        cmocka_unit_test(parts_of_weights),
        cmocka_unit_test(loaded_adapter_is_written_as_it_was),
        cmocka_unit_test(full_untied_is_written),
        cmocka_unit_test(full_tied_is_written),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
