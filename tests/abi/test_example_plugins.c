/* test_example_plugins.c -- the plugins of docs/examples/plugins, each built as a stranger builds
 * it, against what the Python stack computes (tests/parity/README.md, plugins); and all of them in
 * one run of the command.
 */
#include <math.h>
#include <stdlib.h>

#include "../support/command.h"
#include "../support/curve.h"
#include "../support/example.h"
#include "../support/logits.h"
#include "../support/temp.h"
#include "base/error.h"
#include "base/mem.h"
#include "files/file.h"
#include "ops/suite.h"
#include "plugin/host.h"
#include "plugin/loader.h"

#include "../support/test.h"

static const char *llama, *orpo, *lion, *focal, *bigram, *gate; /* files, made once */

static int setup(void **state) {
    if (temp_make(state)) return -1;
    plugin_set_host(host_table());
    llama = example_build(temp_folder(), "model", "llama");
    orpo = example_build(temp_folder(), "trainer", "orpo");
    lion = example_build(temp_folder(), "optimizer", "lion");
    focal = example_build(temp_folder(), "trainer", "focal");
    bigram = example_build(temp_folder(), "model", "bigram");
    gate = example_build(temp_folder(), "backend", "gate");
    example_build(temp_folder(), "backend", "storage");
    return 0;
}

static void pointer(char ptr[64], uint64_t at, const char *key) {
    snprintf(ptr, 64, "/cases/%llu/%s", (unsigned long long)at, key);
}

/* --- llama --- */

static void logits_of(uint64_t at) {
    char ptr[64], path[512], file[128];
    const char *name;
    logits_case c;
    lab *l = lab_open("plugins/plugins.json");
    l->model = llama;
    pointer(ptr, at, "name");
    lab_ok(json_doc_api.str(l->fixture, ptr, &name));
    pointer(ptr, at, "tokens");
    logits_tokens(l->fixture, ptr, &c);
    pointer(ptr, at, "positions");
    logits_positions(l->fixture, ptr, &c);
    snprintf(file, sizeof file, "plugins/%s.json", name);
    lab_model(l, lab_golden(file, path));
    logits_rows(l, &c);
    lab_run(l, "[adapter]\nuse = none\n[data]\ntrain = rows.jsonl\n");
    float *logits = logits_run(l, &c);
    const double worst = logits_against(l, &c, logits, "plugins/plugins.safetensors", name);
    print_message("%-10s %.2e\n", name, worst);
    assert_true(worst <= 1e-5);
    free(logits);
    lab_close(l);
}

static void llama_gives_the_logits_of_transformers(void **state) {
    (void)state;
    logits_of(0);
    logits_of(1);
}

/* What of a config.json would change the arithmetic is refused, by its place. */
static void llama_refuses_what_it_does_not_know(void **state) {
    static const char *const rows[][2] = {
        {"\"attention_bias\": true", "/attention_bias: biases are not built here"},
        {"\"hidden_act\": \"gelu\"", "/hidden_act: wanted \"silu\""},
        {"\"num_key_value_heads\": 3", "/num_key_value_heads: does not divide"},
        {"\"rope_scaling\": {\"rope_type\": \"yarn\"}", "/rope_scaling: rope_type: wanted"},
        {"\"rope_scaling\": {\"beta\": 1}", "/rope_scaling/beta: a key that llama does not know"},
        {"\"attention_scale\": 2", "/attention_scale: a key that llama does not know"},
    };
    (void)state;
    lab *l = lab_open("plugins/plugins.json");
    char path[512];
    lab_model(l, lab_golden("plugins/plain.json", path));
    char *file = mem_printf("%s/run.ini", l->folder);
    char *keys = mem_printf("[run]\noutput_dir = out\n[model]\nuse = %s\npath = model\n"
                            "init = random\n[data]\ntrain = rows.jsonl\n",
        llama);
    lab_write(l, "run.ini", keys);
    lab_write(l, "rows.jsonl", "{\"input_ids\": [5, 6, 7]}\n");
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char *config = mem_printf("{\"model_type\": \"llama\", \"vocab_size\": 512, "
                                  "\"hidden_size\": 64, \"intermediate_size\": 128, "
                                  "\"num_hidden_layers\": 2, \"num_attention_heads\": 4, %s}",
            rows[i][0]);
        const run_flags flags = {.ini_path = file};
        lab_write(l, "model/config.json", config);
        assert_int_equal(lab_start(&flags, stderr, &l->r), QFW_E_DATA);
        if (!strstr(err_text(0), rows[i][1])) fail_msg("%s\nlacks %s", err_text(0), rows[i][1]);
        err_clear();
        mem_free(config);
    }
    mem_free(keys);
    mem_free(file);
    lab_close(l);
}

/* --- orpo on llama, stepped by lion --- */

/* Not yet trained; its INI takes two micro-batches of four pairs a step, in the file's order. */
static lab *open_pairs(void) {
    char path[512];
    lab *l = lab_open("plugins/plugins.json");
    l->model = llama;
    lab_model(l, lab_golden("plugins/stretched.json", path));
    lab_copy(l, lab_golden("tokenizer/bytefallback/tokenizer.json", path), "model/tokenizer.json");
    lab_write(l, "model/tokenizer_config.json",
        "{\"bos_token\": \"<s>\", \"eos_token\": \"<|endoftext|>\", \"add_bos_token\": false}");
    lab_copy(l, lab_golden("dpo/rows.jsonl", path), "rows.jsonl");
    char *settings = mem_printf(
        "[adapter]\nuse = none\n[data]\ntrain = rows.jsonl\ntrain_sampling_strategy = sequential\n"
        "[trainer]\nuse = %s\nper_device_train_batch_size = 4\ngradient_accumulation_steps = 2\n"
        "max_steps = %.0f\nlearning_rate = %.17g\nlr_scheduler_type = constant\nlogging_steps = 1\n"
        "save_strategy = no\n[trainer.orpo]\nbeta = %.17g\n[optimizer]\nuse = %s\n"
        "[optimizer.lion]\nweight_decay = %.17g\n",
        orpo, lab_number(l, "/train/max_steps"), lab_number(l, "/train/learning_rate"),
        lab_number(l, "/train/beta"), lion, lab_number(l, "/train/weight_decay"));
    lab_run(l, settings);
    mem_free(settings);
    return l;
}

/* Those that two passes, of rows 0-3 and 4-7, have added up. */
static void compare_gradients(const lab *l) {
    char path[512];
    int n_compared = 0;
    st_file *f = NULL;
    lab_ok(st_open(lab_golden("plugins/plugins.safetensors", path), &f));
    for (uint32_t i = 0; i < l->r->n_trainables; i++) {
        const trainable *t = &l->r->trainables[i];
        const int64_t n = qfw_tensor_count(&t->grad->t);
        const st_tensor *wanted = st_find(f, t->param->name);
        if (!wanted) continue;
        float *a = malloc((size_t)n * sizeof *a), *b = malloc((size_t)n * sizeof *b);
        assert_int_equal(wanted->bytes, (uint64_t)n * sizeof *b);
        lab_ok(store_read(l->r->store, t->grad, a));
        lab_ok(st_read_f32(f, wanted, 0, wanted->dim[0], b));
        const double difference = lab_relative(a, b, n);
        print_message("%-40s %.2e\n", t->param->name, difference);
        assert_true(difference <= 3e-6);
        n_compared++;
        free(a);
        free(b);
    }
    st_close(f);
    assert_int_equal(n_compared, 5);
}

static void orpo_gives_the_gradients_of_trl(void **state) {
    const qfw_example *rows[4];
    batch *b = NULL;
    pass_result res;
    double loss = 0;
    (void)state;
    lab *l = open_pairs();
    lab_ok(batch_create(4, 2, l->r->graphs->max_rows[PASS_TRAIN], &b));
    for (uint64_t half = 0; half < 2; half++) {
        for (uint64_t i = 0; i < 4; i++) rows[i] = dataset_at(l->r->train, 4 * half + i);
        lab_ok(batch_fill(b, l->r, rows, 4, 1));
        lab_ok(graphs_run(l->r, PASS_TRAIN, b, 1 / (2 * b->weight), &res));
        loss += res.loss;
    }
    assert_true(fabs(loss - lab_number(l, "/steps/0/loss")) <= 1e-5 * loss);
    compare_gradients(l);
    batch_destroy(b);
    lab_close(l);
}

/* How far from `wanted` a number of the step is, as a part of what it may be. Lion takes a
 * gradient's sign, and one near 0 may have either: from the first update on, small differences of
 * large numbers are held less tightly. */
static double part_of_bar(double found, double wanted, uint64_t step) {
    const double difference = fabs(found - wanted);
    return step ? difference / (1e-3 * fmax(fabs(wanted), 1))
                : difference / (1e-4 * fmax(fabs(wanted), 1e-2));
}

/* Each number of the fixture's step, in that step's line of the log. */
static double worst_of_step(const lab *l, const qfw_doc *line, uint64_t step) {
    char at[64], ptr[128], logged[64];
    const char *key;
    double worst = 0, found = (double)NAN;
    snprintf(at, sizeof at, "/steps/%llu", (unsigned long long)step);
    for (uint64_t i = 0; (key = json_doc_api.key(l->fixture, at, i)) != NULL; i++) {
        const char *slash = strchr(key, '/'); /* "~1" in a JSON pointer */
        const int head = slash ? (int)(slash - key) : (int)strlen(key);
        snprintf(logged, sizeof logged, "/%.*s%s%s", head, key, slash ? "~1" : "",
            slash ? slash + 1 : "");
        snprintf(ptr, sizeof ptr, "%s%s", at, logged);
        const double wanted = lab_number(l, ptr);
        lab_ok(json_doc_api.f64(line, logged, &found));
        const double part = part_of_bar(found, wanted, step);
        if (!(part <= 1))
            print_error("step %d %s: %.9g, not %.9g\n", (int)step + 1, key, found, wanted);
        worst = fmax(worst, part);
    }
    return worst;
}

static void lion_on_orpo_follows_the_curve(void **state) {
    curve c;
    size_t n;
    uint64_t step = 0;
    double worst = 0;
    (void)state;
    lab *l = open_pairs();
    curve_train(l, &c);
    char *log = lab_contents(l, "out/trainer_log.jsonl", &n);
    for (char *at = log; *at; at = strchr(at, '\n') + 1) {
        qfw_doc *line = NULL;
        lab_ok(json_parse(at, strcspn(at, "\n"), "log", 1, "E_JSON", NULL, &line));
        if (json_doc_api.kind(line, "/loss") != QFW_DOC_ABSENT)
            worst = fmax(worst, worst_of_step(l, line, step++));
        json_destroy(line);
    }
    print_message("%d steps, the worst at %.2f of its bar\n", (int)step, worst);
    assert_int_equal(step, json_doc_api.count(l->fixture, "/steps"));
    assert_true(worst <= 1);
    mem_free(log);
    lab_close(l);
}

/* --- the small ones --- */

/* The losses of three steps on the rows of tests/golden/sft_curve; with a config of its own, on one
 * row that says the same again and again. */
static void losses_of(const char *model, const char *config, const char *more, curve *c) {
    char path[512];
    lab *l = lab_open("sft_curve/sft_curve.json");
    l->model = model;
    lab_model(l, lab_golden("sft_curve/config.json", path));
    lab_copy(l, lab_golden("sft_curve/rows.jsonl", path), "rows.jsonl");
    if (config) {
        lab_write(l, "model/config.json", config);
        lab_write(l, "rows.jsonl", "{\"input_ids\": [5, 6, 7, 8, 5, 6, 7, 8]}\n");
    }
    char *settings = mem_printf(
        "%s[adapter]\nuse = none\n[data]\ntrain = rows.jsonl\nmax_length = 128\n[trainer]\n"
        "max_steps = 3\nlearning_rate = %s\nlogging_steps = 1\nsave_strategy = no\n%s",
        config ? "init = random\n" : "", config ? "5e-2" : "1e-3", more);
    lab_run(l, settings);
    curve_train(l, c);
    mem_free(settings);
    lab_close(l);
}

static void focal_without_focus_is_sft(void **state) {
    curve sft, same, focused;
    char *other = mem_printf("use = %s\n[trainer.focal]\ngamma = 0\n", focal);
    char *own = mem_printf("use = %s\n", focal);
    (void)state;
    losses_of("phi3", NULL, "", &sft);
    losses_of("phi3", NULL, other, &same);
    losses_of("phi3", NULL, own, &focused);
    for (int s = 0; s < 3; s++) {
        assert_true(fabs(same.loss[s] - sft.loss[s]) <= 1e-6 * sft.loss[s]);
        assert_true(fabs(same.grad_norm[s] - sft.grad_norm[s]) <= 1e-5 * sft.grad_norm[s]);
    }
    assert_true(focused.loss[0] < 0.9999 * sft.loss[0]);
    mem_free(other);
    mem_free(own);
}

static void bigram_learns(void **state) {
    curve c;
    (void)state;
    losses_of(
        bigram, "{\"model_type\": \"bigram\", \"vocab_size\": 512, \"hidden_size\": 16}", "", &c);
    assert_true(fabs(c.loss[0] - log(512)) < 1e-2); /* it knows nothing yet */
    assert_true(c.loss[2] < c.loss[0] - 1e-2);
}

static void print_failure(void *arg, const char *text) {
    (void)arg;
    print_error("%s\n", text);
}

/* Its one op passes the suite that every backend is held to, and is the only one it takes. */
static void gate_passes_the_suite(void **state) {
    static suite_report report;
    const plugin *p;
    const qfw_component *c;
    (void)state;
    if (plugin_open("backend", gate, &p, &c) != QFW_OK) fail_msg("%s", err_text(0));
    device dev = {
        .be = c->iface, .host = host_table(), .name = "gate", .info = {.size = sizeof dev.info}};
    lab_ok(dev.be->create(dev.host, NULL, 0, &dev.inst));
    const suite_target target = suite_backend(&dev);
    report = (suite_report){.on_failure = print_failure};
    lab_ok(suite_run(&target, 0, &report));
    const suite_row *row = &report.row[QFW_OP_SWIGLU];
    print_message("swiglu: %u passed, %u refused\n", row->passed, row->refused);
    assert_true(row->passed > row->empty);
    assert_int_equal(report.passed, row->passed);
    assert_int_equal(report.failed, 0);
    dev.be->destroy(dev.inst);
}

static void gate_trains(void **state) {
    curve cpu, own;
    char *more = mem_printf("[backend]\nuse = %s\nfallback = allow\n", gate);
    (void)state;
    losses_of("phi3", NULL, "", &cpu);
    losses_of("phi3", NULL, more, &own);
    for (int s = 0; s < 3; s++) assert_true(fabs(own.loss[s] - cpu.loss[s]) <= 1e-5 * cpu.loss[s]);
    mem_free(more);
}

/* --- all together, by name --- */

/* Four bits, LoRA, checkpoints: backend, model, trainer and optimizer are all strangers'. */
static void strangers_train_together(void **state) {
    static command c;
    (void)state;
    lab *l = open_pairs(); /* its model and rows */
    char *text = mem_printf(
        "[run]\noutput_dir = %s/out\n[backend]\nuse = storage\nfallback = allow\n"
        "[model]\nuse = llama\npath = %s/model\nload_in_4bit = true\n"
        "[adapter]\nr = 4\ntarget_modules = q_proj, v_proj\n[data]\ntrain = rows.jsonl\n"
        "[trainer]\nuse = orpo\nper_device_train_batch_size = 4\nmax_steps = 4\nsave_steps = 2\n"
        "learning_rate = 1e-3\nlogging_steps = 1\n[optimizer]\nuse = lion\n",
        l->folder, l->folder);
    char *file = mem_printf("%s/run.ini", l->folder);
    lab_write(l, "run.ini", text);
    const char *argv[] = {
        build_path("qfw"), "--ini", file, "--plugin-dir", temp_folder(), NULL, NULL};
    assert_int_equal(command_run(argv, &c), 0);
    if (c.exit_code) fail_msg("exit %d: %s", c.exit_code, c.err);
    assert_non_null(strstr(c.out, "on storage"));
    curve before, after;
    curve_read(l, &before);
    assert_int_equal(before.n, 4);
    assert_true(before.loss[3] < before.loss[0]);
    char *last = mem_printf("%s/out/checkpoint-4", l->folder);
    lab_ok(dir_remove(last));
    argv[5] = "--resume";
    assert_int_equal(command_run(argv, &c), 0);
    if (c.exit_code) fail_msg("exit %d: %s", c.exit_code, c.err);
    curve_read(l, &after);
    assert_int_equal(after.n, 4);
    assert_memory_equal(after.loss, before.loss, 4 * sizeof *after.loss);
    char *resolved = mem_printf("%s/out/resolved.ini", l->folder);
    argv[2] = resolved; /* the same run, as it says of itself: there is nothing left to do */
    assert_int_equal(command_run(argv, &c), 0);
    if (c.exit_code) fail_msg("exit %d: %s", c.exit_code, c.err);
    assert_non_null(strstr(c.out, "Nothing left to do"));
    mem_free(resolved);
    mem_free(text);
    mem_free(file);
    mem_free(last);
    lab_close(l);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(llama_gives_the_logits_of_transformers),
        cmocka_unit_test(llama_refuses_what_it_does_not_know),
        cmocka_unit_test(orpo_gives_the_gradients_of_trl),
        cmocka_unit_test(lion_on_orpo_follows_the_curve),
        cmocka_unit_test(focal_without_focus_is_sft),
        cmocka_unit_test(bigram_learns),
        cmocka_unit_test(gate_passes_the_suite),
        cmocka_unit_test(gate_trains),
        cmocka_unit_test(strangers_train_together),
    };
    return cmocka_run_group_tests(tests, setup, temp_drop);
}
