/* test_assistant_only.c -- [trainer.sft] assistant_only_loss: the tokens that are trained, and the
 * curve of SFTTrainer(assistant_only_loss=True) (tests/parity/README.md, assistant_only).
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "../support/curve.h"
#include "assistant_only_table.h"
#include "base/error.h"
#include "base/mem.h"

#include <cmocka.h>

#define COUNT(list) (sizeof(list) / sizeof(list)[0])
enum { STEPS = COUNT(steps) };

/* The model's folder, and the rows with a system turn or without. */
static lab *open_lab(int with_system) {
    char path[512], *text = mem_strdup("");
    lab *l = lab_open("sft_curve/sft_curve.json");
    lab_write(l, "config.json", config);
    snprintf(path, sizeof path, "%s/config.json", l->folder);
    lab_model(l, path);
    lab_copy(l, lab_golden("tokenizer/bytefallback/tokenizer.json", path), "model/tokenizer.json");
    lab_write(l, "model/tokenizer_config.json", "{\"eos_token\": \"<|endoftext|>\"}");
    for (size_t i = 0; i < COUNT(rows); i++) {
        if (!with_system && strstr(rows[i], "\"system\"")) continue;
        char *longer = mem_printf("%s%s\n", text, rows[i]);
        mem_free(text);
        text = longer;
    }
    lab_write(l, "rows.jsonl", text);
    mem_free(text);
    return l;
}

static const char settings[] =
    "load_in_4bit = true\nbnb_4bit_quant_type = nf4\nbnb_4bit_use_double_quant = true\n"
    "nested_codes = cpu_table\n[adapter]\nuse = lora\nr = 16\nlora_alpha = 32\n"
    "target_modules = qkv_proj, o_proj\n[data]\ntrain = rows.jsonl\nmax_length = 128\n"
    "chat_template = %s\n[trainer]\nper_device_train_batch_size = 4\n"
    "gradient_accumulation_steps = 4\nmax_steps = %d\nlearning_rate = 5e-3\n"
    "lr_scheduler_type = cosine\nwarmup_steps = 10\nlogging_steps = 1\nsave_strategy = no\n"
    "[trainer.sft]\nassistant_only_loss = true\n%s[optimizer]\nweight_decay = 0.01\n";

static lab *open_run(const char *name, int with_system) {
    lab *l = open_lab(with_system);
    char *text = mem_printf(settings, name, (int)STEPS, "");
    lab_run(l, text);
    mem_free(text);
    return l;
}

static void expect_masks(const char *name, int with_system, const char *const *masks, size_t n) {
    lab *l = open_run(name, with_system);
    assert_int_equal(dataset_count(l->r->train), n);
    for (size_t i = 0; i < n; i++) {
        const qfw_seq *s = &dataset_at(l->r->train, i)->seq[0];
        assert_int_equal(s->n, strlen(masks[i]));
        for (uint32_t t = 0; t < s->n; t++) assert_int_equal(s->trained[t], masks[i][t] == '1');
    }
    lab_close(l);
}

static void masks_are_trls(void **state) {
    (void)state;
    expect_masks("phi3-mini", 1, mini_masks, COUNT(mini_masks));
    expect_masks("phi3-medium", 0, medium_masks, COUNT(medium_masks));
}

static void curve_matches_trl(void **state) {
    double loss = 0, norm = 0;
    curve c;
    (void)state;
    lab *l = open_run("phi3-mini", 1);
    lab_adapters(l, 1);
    curve_train(l, &c);
    assert_int_equal(c.n, STEPS);
    for (int s = 0; s < STEPS; s++) {
        loss = fmax(loss, fabs(c.loss[s] / steps[s][0] - 1));
        norm = fmax(norm, fabs(c.grad_norm[s] / steps[s][1] - 1));
    }
    print_message("%d steps: loss within %.1e, grad norm within %.1e\n", c.n, loss, norm);
    assert_true(loss <= 1e-3 && norm <= 1e-3);
    lab_close(l);
}

/* The set of one row, with these lines of [trainer.sft]. */
static qfw_status plan_row(lab *l, const char *row, const char *sft) {
    const run_flags flags = {.plan_only = 1};
    char *body = mem_printf(settings, "phi3-mini", 1, sft);
    char *text = mem_printf("[run]\noutput_dir = %s/out\n[model]\nuse = phi3\npath = %s/model\n%s",
        l->folder, l->folder, body);
    lab_write(l, "rows.jsonl", row);
    lab_write(l, "run.ini", text);
    const qfw_status status = lab_main(l, &flags, NULL);
    mem_free(body);
    mem_free(text);
    return status;
}

#define SAY(role, text) "{\"role\": \"" role "\", \"content\": \"" text "\"}"

static void rows_without_turns_are_refused(void **state) {
    static const char *const bad[][2] = {
        {"{\"text\": \"the\"}", "rows.jsonl:1: /text: the row has no turns of an assistant"},
        {"{\"input_ids\": [5, 6]}", "rows.jsonl:1: /input_ids: the row has no turns"},
        {"{\"prompt\": \"the\", \"completion\": \"year\"}",
            "rows.jsonl:1: /prompt: wanted a list of messages"},
        {"{\"messages\": [" SAY("user", "the") "]}", "rows.jsonl:1: no token of the row"},
    };
    (void)state;
    lab *l = open_lab(1);
    for (size_t i = 0; i < COUNT(bad); i++) {
        assert_int_equal(plan_row(l, bad[i][0], ""), QFW_E_DATA);
        if (!strstr(err_text(0), bad[i][1])) fail_msg("%s, found: %s", bad[i][1], err_text(0));
    }
    lab_close(l);
}

/* Every form that sft reads by its keys: how many tokens of a row are trained. */
static void forms_are_read(void **state) {
#define CHAT "[" SAY("user", "the") ", " SAY("assistant", "year") "]"
    static const struct {
        const char *row;
        uint32_t all, assistant; /* 0: refused */
    } forms[] = {
        {"{\"messages\": " CHAT "}", 6, 3},
        {"{\"conversations\": [{\"from\": \"human\", \"value\": \"the\"}, {\"from\": \"gpt\", "
         "\"value\": \"year\"}]}",
            6, 3},
        {"{\"prompt\": [" SAY("user", "the") "], \"completion\": [" SAY("assistant", "year") "]}",
            3, 3},
        {"{\"instruction\": \"the\", \"output\": \"year\"}", 3, 3},
        {"{\"prompt\": \"the\", \"completion\": \" year\"}", 2, 0},
        {"{\"text\": \"the year\"}", 2, 0},
        {"{\"input_ids\": [5, 6, 7]}", 2, 0},
        {"{\"prompt\": \"the\"}", 0, 0},
        {"{\"instruction\": \"the\"}", 0, 0},
        {"{\"question\": \"the\"}", 0, 0},
    };
    (void)state;
    lab *l = open_lab(1);
    for (size_t i = 0; i < 2 * COUNT(forms); i++) {
        const uint32_t wanted = i % 2 ? forms[i / 2].assistant : forms[i / 2].all;
        const char *only = i % 2 ? "true" : "false";
        char *text = mem_printf("[adapter]\nr = 2\n[data]\ntrain = rows.jsonl\nmax_length = 128\n"
                                "chat_template = phi3-mini\n[trainer.sft]\n"
                                "assistant_only_loss = %s\n",
            only);
        lab_write(l, "rows.jsonl", forms[i / 2].row);
        if (wanted) {
            lab_run(l, text);
            assert_int_equal(dataset_at(l->r->train, 0)->seq[0].n_trained, wanted);
            run_close(l->r);
            l->r = NULL;
        } else {
            assert_int_equal(plan_row(l, forms[i / 2].row, ""), QFW_E_DATA);
            assert_non_null(strstr(err_text(0), "rows.jsonl:1: "));
        }
        mem_free(text);
    }
    lab_close(l);
}

/* Of a completion of several turns the user's are not trained; nor, where the prompt's answers are
 * not to be, those. */
static void pairs_train_turns(void **state) {
    static const char row[] = "{\"prompt\": [" SAY("user", "the") ", " SAY(
        "assistant", "year") ", " SAY("user", "for") "], \"completion\": [" SAY("assistant",
        "year") ", " SAY("user", "the") ", " SAY("assistant", "the") "]}";
    (void)state;
    lab *l = open_lab(1);
    const char *const sft[] = {"", "completion_only_loss = false\n"};
    /* contents of one token; "<|end|>" after each, the EOS at the end */
    const uint32_t trained[] = {2 + 2 + 1, 2 + 2 + 2 + 1};
    for (size_t i = 0; i < COUNT(sft); i++) {
        char *text = mem_printf(settings, "phi3-mini", 1, sft[i]);
        lab_write(l, "rows.jsonl", row);
        lab_run(l, text);
        assert_int_equal(dataset_at(l->r->train, 0)->seq[0].n_trained, trained[i]);
        run_close(l->r);
        l->r = NULL;
        mem_free(text);
    }
    lab_close(l);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(masks_are_trls),
        cmocka_unit_test(curve_matches_trl),
        cmocka_unit_test(rows_without_turns_are_refused),
        cmocka_unit_test(forms_are_read),
        cmocka_unit_test(pairs_train_turns),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
