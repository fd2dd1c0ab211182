/* test_outputs.c -- what a run leaves behind and what it says: the log under TRL's names, settings
 * that give the run again, a manifest whose hashes are right, the plan, and the profile.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "../support/lab.h"
#include "base/error.h"
#include "base/ini.h"
#include "base/mem.h"
#include "files/file.h"
#include "train/progress.h"

#include <cmocka.h>

static const char qlora[] = "load_in_4bit = true\nbnb_4bit_quant_type = nf4\n"
                            "[adapter]\nuse = lora\nr = 4\nlora_alpha = 8\nlora_dropout = 0.1\n"
                            "target_modules = q_proj, k_proj, v_proj, o_proj\n";
static const char every_weight[] = "[adapter]\nuse = none\n";
static const char keys[] =
    "[data]\ntrain = rows.jsonl\neval = eval.jsonl\nmax_length = 128\nsource = by formula\n"
    "[trainer]\nmax_steps = 6\nlearning_rate = 1e-2\nper_device_train_batch_size = 4\n"
    "gradient_accumulation_steps = 2\nlogging_steps = 2\neval_strategy = steps\neval_steps = 3\n"
    "per_device_eval_batch_size = 3\nsave_steps = 3\n";

/* A lab with data, settings and a model folder that has no weights. */
static lab *open_lab(const char *start) {
    char path[512], *settings, *ini_text;
    lab *l = lab_open("sft_curve/sft_curve.json");
    lab_model(l, lab_golden("sft_curve/config.json", path));
    lab_copy(l, lab_golden("sft_curve/rows.jsonl", path), "rows.jsonl");
    lab_write(l, "eval.jsonl",
        "{\"input_ids\": [5, 6, 7, 8], \"labels\": [-100, 6, 7, 8]}\n"
        "{\"input_ids\": [9, 8, 7], \"labels\": [-100, 8, 7]}\n"
        "{\"input_ids\": [1, 2, 3, 4, 5], \"labels\": [-100, -100, 3, 4, 5]}\n"
        "{\"input_ids\": [11, 12], \"labels\": [-100, 12]}\n");
    settings = mem_printf("%s%s", start, keys);
    ini_text = mem_printf("[run]\noutput_dir = %s/out\n[model]\nuse = phi3\npath = %s/model\n%s",
        l->folder, l->folder, settings);
    lab_write(l, "run.ini", ini_text);
    mem_free(settings);
    mem_free(ini_text);
    return l;
}

/* The same with weights. */
static lab *open_whole(const char *start) {
    lab *l = open_lab(start);
    char *settings = mem_printf("%s%s", start, keys);
    lab_run(l, settings);
    run_close(l->r);
    l->r = NULL;
    mem_free(settings);
    return l;
}

static void expect_error(const char *name, int exit_code, const char *part) {
    assert_non_null(err_text(0));
    if (strcmp(err_name(), name) || !strstr(err_text(0), part))
        fail_msg("wanted %s with '%s', found: %s", name, part, err_text(0));
    assert_int_equal(err_exit_code(), exit_code);
    err_clear();
}

static qfw_status main_with(const lab *l, const char *const *set, uint32_t n, FILE *out) {
    return lab_main(l, &(run_flags){.set = set, .n_set = n}, out);
}

static qfw_doc *open_json(const lab *l, const char *name) {
    char *path = mem_printf("%s/%s", l->folder, name);
    qfw_doc *d = NULL;
    lab_ok(json_read(path, 16 << 20, NULL, &d));
    mem_free(path);
    return d;
}

/* --- trainer_log.jsonl --- */

/* The log's line i, which must be there; json_destroy. */
static qfw_doc *log_line_at(const char *text, int i) {
    qfw_doc *d = NULL;
    for (; i > 0; i--) {
        assert_non_null(strchr(text, '\n'));
        text = strchr(text, '\n') + 1;
    }
    lab_ok(json_parse(text, strcspn(text, "\n"), "log", 1, "E_JSON", NULL, &d));
    return d;
}

/* Exactly these keys, each a finite number; `step` has this value. */
static void expect_keys(const char *text, int i, const char *const *names, double step) {
    qfw_doc *d = log_line_at(text, i);
    uint64_t n = 0;
    double value;
    for (; names[n]; n++) {
        char ptr[64];
        snprintf(ptr, sizeof ptr, "/%s", names[n]);
        lab_ok(json_doc_api.f64(d, ptr, &value));
        assert_true(isfinite(value));
    }
    assert_int_equal(json_doc_api.count(d, ""), n);
    lab_ok(json_doc_api.f64(d, "/step", &value));
    assert_true(value == step);
    json_destroy(d);
}

/* The names of SFTTrainer's log_history, and first_token_accuracy. Without total_flos: nothing here
 * counts operations. */
static void log_has_trl_names(void **state) {
    static const char *const train[] = {"loss", "grad_norm", "learning_rate", "entropy",
        "num_tokens", "mean_token_accuracy", "first_token_accuracy", "epoch", "step", NULL};
    static const char *const eval[] = {"eval_loss", "eval_entropy", "eval_num_tokens",
        "eval_mean_token_accuracy", "eval_first_token_accuracy", "eval_runtime",
        "eval_samples_per_second", "eval_steps_per_second", "epoch", "step", NULL};
    static const char *const end[] = {"train_runtime", "train_samples_per_second",
        "train_steps_per_second", "train_loss", "epoch", "step", NULL};
    size_t n;
    (void)state;
    lab *l = open_whole(qlora);
    lab_ok(main_with(l, NULL, 0, NULL));
    char *text = lab_contents(l, "out/trainer_log.jsonl", &n);
    expect_keys(text, 0, train, 2);
    expect_keys(text, 1, eval, 3);
    expect_keys(text, 2, train, 4);
    expect_keys(text, 3, train, 6);
    expect_keys(text, 4, eval, 6);
    expect_keys(text, 5, end, 6);
    mem_free(text);
    lab_close(l);
}

static double number_of(const char *text, int i, const char *ptr) {
    qfw_doc *d = log_line_at(text, i);
    double value;
    lab_ok(json_doc_api.f64(d, ptr, &value));
    json_destroy(d);
    return value;
}

/* A line tells of all steps since the last: the mean of their losses, the sum of their tokens. */
static void log_is_the_mean_of_its_steps(void **state) {
    static const char *const each[] = {"trainer.logging_steps=1", "trainer.eval_strategy=no"};
    static const char *const pairs[] = {
        "run.overwrite_output_dir=true", "trainer.eval_strategy=no"};
    size_t n;
    (void)state;
    lab *l = open_whole(qlora);
    lab_ok(main_with(l, each, 2, NULL));
    char *ones = lab_contents(l, "out/trainer_log.jsonl", &n);
    lab_ok(main_with(l, pairs, 2, NULL));
    char *twos = lab_contents(l, "out/trainer_log.jsonl", &n);
    double sum = 0;
    for (int i = 0; i < 3; i++) {
        const double a = number_of(ones, 2 * i, "/loss"), b = number_of(ones, 2 * i + 1, "/loss");
        assert_true(fabs(number_of(twos, i, "/loss") - (a + b) / 2) < 1e-12);
        assert_true(number_of(twos, i, "/num_tokens") == number_of(ones, 2 * i + 1, "/num_tokens"));
        assert_true(number_of(twos, i, "/grad_norm") == number_of(ones, 2 * i + 1, "/grad_norm"));
        sum += a + b;
    }
    assert_true(fabs(number_of(twos, 3, "/train_loss") - sum / 6) < 1e-12);
    mem_free(ones);
    mem_free(twos);
    lab_close(l);
}

/* --- resolved.ini --- */

static void expect_same(const lab *l, const char *one, const char *other) {
    size_t n, m;
    char *a = lab_contents(l, one, &n), *b = lab_contents(l, other, &m);
    assert_int_equal(n, m);
    assert_memory_equal(a, b, n);
    mem_free(a);
    mem_free(b);
}

static void expect_setting(const lab *l, const char *section, const char *key, const char *value) {
    char *path = mem_printf("%s/out/resolved.ini", l->folder);
    ini *i = NULL;
    lab_ok(ini_read(path, &i));
    const ini_entry *e = ini_find(i, section, key);
    assert_non_null(e);
    assert_string_equal(e->value, value);
    ini_destroy(i);
    mem_free(path);
}

static void resolved_settings_give_the_run_again(void **state) {
    size_t n;
    (void)state;
    lab *l = open_whole(qlora);
    lab_ok(main_with(l, NULL, 0, NULL));
    expect_setting(l, "backend", "use", "cpu"); /* what auto came to */
    expect_setting(l, "trainer", "lr_scheduler_type", "linear");
    char *text = lab_contents(l, "out/resolved.ini", &n);
    char *other = mem_printf("run.output_dir=%s/other", l->folder);
    const char *const set[] = {other};
    lab_write(l, "run.ini", text);
    lab_ok(main_with(l, set, 1, NULL));
    expect_same(l, "out/adapter_model.safetensors", "other/adapter_model.safetensors");
    expect_same(
        l, "out/checkpoint-6/trainer.safetensors", "other/checkpoint-6/trainer.safetensors");
    mem_free(text);
    mem_free(other);
    lab_close(l);
}

/* --- manifest.json --- */

/* A text of item i of a list. */
static const char *string_at(const json_node *list, uint64_t i, const char *key) {
    const char *text = json_node_str(json_node_member(json_node_item(list, i), key));
    if (!text) fail_msg("item %llu has no %s", (unsigned long long)i, key);
    return text;
}

static const json_node *list_at(const qfw_doc *d, const char *object, const char *key) {
    const json_node *root = json_root(d);
    return json_node_member(object ? json_node_member(root, object) : root, key);
}

/* Every file of the list with its hash; `wanted`, the ends of their paths. */
static void expect_files(const json_node *list, const char *const *wanted) {
    uint64_t n = 0;
    char hex[65];
    for (; wanted[n]; n++) {
        const char *path = string_at(list, n, "path"), *leaf = strrchr(path, '/') + 1;
        assert_string_equal(leaf, wanted[n]);
        lab_ok(file_sha256(path, hex));
        assert_string_equal(string_at(list, n, "sha256"), hex);
    }
    assert_int_equal(json_node_count(list), n);
}

static void manifest_tells_what_went_in_and_came_out(void **state) {
    static const char *const base[] = {"config.json", "tokenizer.json", "model.safetensors", NULL};
    static const char *const outputs[] = {"adapter_model.safetensors", "adapter_config.json",
        "trainer_log.jsonl", "resolved.ini", "README.md", "tokenizer.json", NULL};
    static const char *const kinds[] = {"backend", "model", "trainer", "optimizer"};
    char hex[65];
    double value;
    const char *text;
    (void)state;
    lab *l = open_whole(qlora);
    lab_ok(main_with(l, NULL, 0, NULL));
    qfw_doc *d = open_json(l, "out/manifest.json");
    expect_files(list_at(d, "base_model", "files"), base);
    expect_files(list_at(d, NULL, "outputs"), outputs);
    for (uint64_t i = 0; i < 4; i++)
        assert_string_equal(string_at(list_at(d, NULL, "plugins"), i, "kind"), kinds[i]);
    lab_ok(file_sha256(string_at(list_at(d, NULL, "plugins"), 1, "path"), hex));
    assert_string_equal(string_at(list_at(d, NULL, "plugins"), 1, "sha256"), hex);
    lab_ok(json_doc_api.str(d, "/data/train/path", &text));
    lab_ok(file_sha256(text, hex));
    lab_ok(json_doc_api.str(d, "/data/train/sha256", &text));
    assert_string_equal(text, hex);
    lab_ok(json_doc_api.str(d, "/data/source", &text));
    assert_string_equal(text, "by formula");
    lab_ok(json_doc_api.f64(d, "/steps", &value));
    assert_true(value == 6);
    lab_ok(json_doc_api.f64(d, "/seed", &value));
    assert_true(value == 42);
    json_destroy(d);
    size_t n;
    char *bytes = lab_contents(l, "out/manifest.json", &n);
    assert_true(n > 2 && bytes[n - 2] == '}' && bytes[n - 1] == '\n');
    mem_free(bytes);
    lab_close(l);
}

/* --- the folder --- */

/* The folder holds these names, each ended by a blank. */
static void expect_layout(const lab *l, const char *folder, const char *names) {
    char name[512];
    for (const char *at = names; *at; at += strcspn(at, " ") + 1) {
        snprintf(name, sizeof name, "%s/%s/%.*s", l->folder, folder, (int)strcspn(at, " "), at);
        if (!file_exists(name)) fail_msg("%s is missing", name);
    }
}

static void adapter_folder_is_complete(void **state) {
    (void)state;
    lab *l = open_whole(qlora);
    lab_ok(main_with(l, NULL, 0, NULL));
    expect_layout(l, "out",
        "adapter_model.safetensors adapter_config.json tokenizer.json trainer_log.jsonl "
        "resolved.ini manifest.json ");
    expect_layout(l, "out/checkpoint-3",
        "adapter_model.safetensors adapter_config.json tokenizer.json trainer.safetensors "
        "trainer_state.json resolved.ini MANIFEST.json ");
    char *config = mem_printf("%s/out/config.json", l->folder);
    assert_false(file_exists(config)); /* of the base, which is elsewhere */
    mem_free(config);
    lab_close(l);
}

static void model_folder_is_complete(void **state) {
    static const char *const set[] = {"trainer.save_strategy=no"};
    (void)state;
    lab *l = open_whole(every_weight);
    lab_ok(lab_main(l, &(run_flags){.set = set, .n_set = 1, .profile = 1}, NULL));
    expect_layout(l, "out",
        "model.safetensors config.json tokenizer.json trainer_log.jsonl resolved.ini manifest.json "
        "profile.json ");
    expect_same(l, "model/config.json", "out/config.json");
    lab_close(l);
}

/* Norms of 96 floats are no multiple of the store's alignment; a checkpoint holds what they are. */
static void odd_widths_make_checkpoints(void **state) {
    static const char *const again[] = {"run.resume_from_checkpoint=auto"};
    size_t n;
    (void)state;
    lab *l = open_lab(every_weight);
    char *config = lab_contents(l, "model/config.json", &n), *settings;
    char *width = strstr(config, "\"hidden_size\": 128");
    assert_non_null(width);
    memcpy(width, "\"hidden_size\":  96", 18);
    lab_write(l, "model/config.json", config);
    settings = mem_printf("%s%s", every_weight, keys);
    lab_run(l, settings);
    run_close(l->r);
    l->r = NULL;
    lab_ok(main_with(l, NULL, 0, NULL));
    char *whole = lab_contents(l, "out/model.safetensors", &n);
    char *last = mem_printf("%s/out/checkpoint-6", l->folder);
    lab_ok(dir_remove(last));
    lab_ok(main_with(l, again, 1, NULL));
    size_t m;
    char *resumed = lab_contents(l, "out/model.safetensors", &m);
    assert_int_equal(n, m);
    assert_memory_equal(resumed, whole, n);
    mem_free(config);
    mem_free(settings);
    mem_free(whole);
    mem_free(last);
    mem_free(resumed);
    lab_close(l);
}

/* --- the plan --- */

/* What the run prints under these flags; free(). */
static char *printed(const lab *l, const run_flags *flags, qfw_status *status) {
    FILE *f = tmpfile();
    assert_non_null(f);
    *status = lab_main(l, flags, f);
    const long n = ftell(f);
    char *text = calloc((size_t)n + 1, 1);
    assert_non_null(text);
    rewind(f);
    assert_int_equal(fread(text, 1, (size_t)n, f), n);
    fclose(f);
    return text;
}

static void plan_needs_no_weights(void **state) {
    static const char *const parts[] = {"Plan for cpu", "weights, 4-bit", "weights, fp32",
        "adapter", "gradients", "optimizer state", "activations", "workspace", "process, libraries",
        "peak", "ops on cpu", "6 steps"};
    qfw_status status;
    (void)state;
    lab *l = open_lab(qlora);
    char *text = printed(l, &(run_flags){.plan_only = 1}, &status);
    lab_ok(status);
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++)
        if (!strstr(text, parts[i])) fail_msg("no '%s' in:\n%s", parts[i], text);
    assert_null(strstr(text, "loading")); /* a step needs more */
    free(text);
    char *out = mem_printf("%s/out", l->folder);
    assert_false(dir_exists(out));
    mem_free(out);
    assert_int_not_equal(main_with(l, NULL, 0, NULL), QFW_OK); /* no weights: not planned only */
    err_clear();
    lab_close(l);
}

/* Refused before anything is read, with the changes that would help and no others. */
static void too_little_memory_is_refused(void **state) {
    static const char *const little[] = {"run.max_memory=1MiB"};
    static const char *const tight[] = {"run.max_memory=1MiB", "model.load_in_4bit=false"};
    (void)state;
    lab *l = open_lab(qlora);
    assert_int_not_equal(main_with(l, little, 1, NULL), QFW_OK);
    assert_null(strstr(err_text(0), "per_device_train_batch_size")); /* would not do */
    assert_null(strstr(err_text(0), "load_in_4bit"));                /* is so already */
    /* What the hint asks for is enough. */
    assert_non_null(strstr(err_text(0), "at least "));
    char *enough = mem_printf(
        "run.max_memory=%luMiB", strtoul(strstr(err_text(0), "at least ") + 9, NULL, 10));
    const char *const set[] = {enough};
    expect_error("E_PLAN_MEMORY", 71, "[run] max_memory is 1.00 MiB; hint: ");
    lab_ok(lab_main(l, &(run_flags){.set = set, .n_set = 1, .plan_only = 1}, NULL));
    mem_free(enough);
    assert_int_not_equal(main_with(l, tight, 2, NULL), QFW_OK);
    expect_error("E_PLAN_MEMORY", 71, "load_in_4bit = true");
    lab_close(l);
}

/* A plugin's refusal of a key says where the INI has it, as the core's own do. */
static void plugin_refusal_has_its_place(void **state) {
    static const char *const set[] = {"trainer.use=dpo", "trainer.dpo.loss_type=sigmoyd"};
    (void)state;
    lab *l = open_lab(qlora);
    assert_int_not_equal(main_with(l, set, 2, NULL), QFW_OK);
    expect_error("E_CONFIG_PLUGIN", 78, "--set: trainer.dpo.loss_type: 'sigmoyd', wanted");
    lab_close(l);
}

/* --- the profile, and what a person reads --- */

static void profile_is_a_trace(void **state) {
    qfw_status status;
    double us = 0;
    uint64_t n_events = 0;
    (void)state;
    lab *l = open_whole(qlora);
    char *text = printed(l, &(run_flags){.profile = 1}, &status);
    lab_ok(status);
    assert_non_null(strstr(text, "\n  attn_bwd "));
    assert_non_null(strstr(text, "profile.json"));
    free(text);
    qfw_doc *d = open_json(l, "out/profile.json");
    const json_node *events = list_at(d, NULL, "traceEvents");
    for (uint64_t i = 0; i < json_node_count(events); i++) {
        const char *kind = string_at(events, i, "ph");
        assert_true(!strcmp(kind, "X") || !strcmp(kind, "M"));
        if (*kind != 'X') continue;
        us += json_node_f64(json_node_member(json_node_item(events, i), "dur"));
        n_events++;
    }
    assert_true(n_events > 100);
    assert_true(us > (double)n_events * 0.01 && us < 60e6); /* ops of a few microseconds */
    json_destroy(d);
    lab_close(l);
}

static void summary_says_where_everything_is(void **state) {
    static const char *const parts[] = {"Done: 6 steps, ", "loss ", " on the eval rows",
        "at the peak, ", "written to ", "adapter_model.safetensors", "checkpoint-6"};
    qfw_status status;
    (void)state;
    lab *l = open_whole(qlora);
    char *text = printed(l, &(run_flags){.plan_only = 0}, &status);
    lab_ok(status);
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++)
        if (!strstr(text, parts[i])) fail_msg("no '%s' in:\n%s", parts[i], text);
    free(text);
    lab_close(l);
}

static void numbers_are_written_for_people(void **state) {
    char buf[32];
    (void)state;
    assert_string_equal(format_count(0, buf), "0");
    assert_string_equal(format_count(999, buf), "999");
    assert_string_equal(format_count(1000, buf), "1,000");
    assert_string_equal(format_count(12345678, buf), "12,345,678");
    assert_string_equal(format_count(UINT64_MAX, buf), "18,446,744,073,709,551,615");
    assert_string_equal(format_bytes(1023, buf), "1023 B");
    assert_string_equal(format_bytes(1536, buf), "1.50 KiB");
    assert_string_equal(format_bytes(UINT64_C(3) << 39, buf), "1.50 TiB");
    assert_string_equal(format_time(59.6, buf), "1:00");
    assert_string_equal(format_time(3723, buf), "1:02:03");
    assert_string_equal(format_time(-1, buf), "0:00");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(log_has_trl_names),
        cmocka_unit_test(log_is_the_mean_of_its_steps),
        cmocka_unit_test(resolved_settings_give_the_run_again),
        cmocka_unit_test(manifest_tells_what_went_in_and_came_out),
        cmocka_unit_test(adapter_folder_is_complete),
        cmocka_unit_test(model_folder_is_complete),
        cmocka_unit_test(odd_widths_make_checkpoints),
        cmocka_unit_test(plan_needs_no_weights),
        cmocka_unit_test(plugin_refusal_has_its_place),
        cmocka_unit_test(too_little_memory_is_refused),
        cmocka_unit_test(profile_is_a_trace),
        cmocka_unit_test(summary_says_where_everything_is),
        cmocka_unit_test(numbers_are_written_for_people),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
