/* test_examples.c -- every INI of docs/examples/ini passes --dry-run against the config of
 * Phi-3-medium-128k, and its head comment is the command that runs it.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../support/command.h"
#include "../support/temp.h"
#include "base/mem.h"
#include "files/file.h"

#include <cmocka.h>

static command c;

/* The sizes of the published config; the factors are made up, the real ones are not ours. */
static void make_model(void) {
    char text[8192];
    int at = snprintf(text, sizeof text,
        "{\"model_type\": \"phi3\", \"vocab_size\": 32064, \"hidden_size\": 5120, "
        "\"intermediate_size\": 17920, \"num_hidden_layers\": 40, \"num_attention_heads\": 40, "
        "\"num_key_value_heads\": 10, \"max_position_embeddings\": 131072, "
        "\"original_max_position_embeddings\": 4096, \"sliding_window\": 131072, "
        "\"rope_theta\": 10000.0, \"rms_norm_eps\": 1e-05, \"hidden_act\": \"silu\", "
        "\"tie_word_embeddings\": false, \"bos_token_id\": 1, \"eos_token_id\": 32000, "
        "\"torch_dtype\": \"bfloat16\", \"rope_scaling\": {\"type\": \"longrope\"");
    for (int list = 0; list < 2; list++) {
        at += snprintf(
            text + at, sizeof text - (size_t)at, ", \"%s_factor\": [", list ? "long" : "short");
        for (int i = 0; i < 64; i++)
            at += snprintf(text + at, sizeof text - (size_t)at, "%s%g", i ? ", " : "",
                1 + 0.5 * list + 0.25 * list * i);
        at += snprintf(text + at, sizeof text - (size_t)at, "]");
    }
    snprintf(text + at, sizeof text - (size_t)at, "}}");
    assert_int_equal(dir_make(temp_path("model")), QFW_OK);
    temp_text("model/config.json", text);
    for (int i = 0; i < 2; i++) {
        const char *name = i ? "tokenizer_config.json" : "tokenizer.json";
        char *from = mem_printf("%s/docs/examples/demo/model/%s", getenv("QFW_SOURCE"), name);
        char *to = mem_printf("model/%s", name);
        assert_int_equal(file_copy(from, temp_path(to)), QFW_OK);
        mem_free(from);
        mem_free(to);
    }
}

static void make_data(void) {
    temp_text("train.jsonl",
        "{\"messages\": [{\"role\": \"user\", \"content\": \"Ada built Spring services.\"}, "
        "{\"role\": \"assistant\", \"content\": \"3. built Spring services\"}]}\n");
    temp_text("pairs.jsonl",
        "{\"prompt\": [{\"role\": \"user\", \"content\": \"Ada built Spring services.\"}], "
        "\"chosen\": [{\"role\": \"assistant\", \"content\": \"3. built Spring services\"}], "
        "\"rejected\": [{\"role\": \"assistant\", \"content\": \"5. built Spring services\"}]}\n");
    temp_text("set.jsonl",
        "{\"id\": \"a\", \"text\": \"Ada built Spring services.\", \"expected\": {\"Java\": [2, "
        "3]}}\n");
}

/* The INI with these words besides, and those that stand in for what is not here. */
static void check(const char *name, const char *const *more) {
    char *ini = mem_printf("%s/docs/examples/ini/%s", getenv("QFW_SOURCE"), name);
    char *model = mem_printf("model.path=%s", temp_path("model"));
    char *out = mem_printf("run.output_dir=%s", temp_path("out"));
    const char *argv[32] = {build_path("qfw"), "--ini", ini, "--dry-run", "--set", model, "--set",
        out, "--set", "model.init=random", "--set", "run.max_memory=900GiB", "--set",
        "data.chat_template=phi3-medium"};
    int n = 14;
    for (; *more; more++) {
        argv[n++] = "--set";
        argv[n++] = *more;
    }
    assert_int_equal(command_run(argv, &c), 0);
    if (c.exit_code) fail_msg("%s: exit %d: %s", name, c.exit_code, c.err);
    assert_non_null(strstr(c.out, "Plan for "));
    assert_non_null(strstr(c.out, "Dry run: nothing is wrong"));
    char *text = NULL, *command_line = mem_printf("; build/qfw --ini docs/examples/ini/%s ", name);
    size_t bytes;
    assert_int_equal(file_read(ini, 1 << 20, &text, &bytes), QFW_OK);
    assert_int_equal(strncmp(text, command_line, strlen(command_line)), 0);
    mem_free(text);
    mem_free(command_line);
    mem_free(ini);
    mem_free(model);
    mem_free(out);
}

static char *set(const char *key, const char *file) {
    return mem_printf("%s=%s", key, temp_path(file));
}

static void all_pass(void **state) {
    char *train = set("data.train", "train.jsonl"), *eval = set("data.eval", "train.jsonl");
    char *pairs = set("data.train", "pairs.jsonl"), *known = set("pairs.set", "set.jsonl");
    char *test = set("evaluate.set", "set.jsonl"), *input = set("score.input", "set.jsonl");
    (void)state;
    check("sft.ini", (const char *[]){train, eval, NULL});
    check("pairs.ini", (const char *[]){known, "adapter.path=", NULL});
    check("dpo.ini", (const char *[]){pairs, "adapter.path=", NULL});
    check("evaluate.ini", (const char *[]){test, "evaluate.adapters=base", NULL});
    /* The adapter is the run's input, which is not there: the same without one. */
    check("export.ini", (const char *[]){eval, "adapter.path=", "adapter.use=none",
                            "export.merged=none", "export.gguf_adapter=false", NULL});
    check("score.ini", (const char *[]){input, "adapter.path=", "adapter.use=none", NULL});
    mem_free(train);
    mem_free(eval);
    mem_free(pairs);
    mem_free(known);
    mem_free(test);
    mem_free(input);
}

static int make_all(void **state) {
    if (temp_make(state)) return -1;
    make_model();
    make_data();
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(all_pass)};
    return cmocka_run_group_tests(tests, make_all, temp_drop);
}
