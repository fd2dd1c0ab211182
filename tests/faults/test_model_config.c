/* test_model_config.c -- the command on a config.json, a tokenizer.json or an INI that is wrong in
 * one place: the same checks as in test_model_folder.c.
 *
 * The letters are those of cases.md.
 */
#define _XOPEN_SOURCE 700
#include <stdlib.h>
#include <unistd.h>

#include "base/error.h"
#include "files/file.h"

#include "../support/refusal.h"
#include "../support/temp.h"
#include "../support/test.h"
#include "../support/tiny.h"

/* --- config.json --- */

#define WIDTH "\"hidden_size\": 64"

static void b1_types_and_ranges(void **state) {
    (void)state;
    static const alteration rows[] = {
        {WIDTH, "\"hidden_size\": 0", "E_CFG_RANGE\\] .*/config\\.json: /hidden_size: 0, wanted 1"},
        {WIDTH, "\"hidden_size\": -1", "E_CFG_RANGE\\] .*/config\\.json: /hidden_size: -1, wanted"},
        {WIDTH, "\"hidden_size\": 2147483648", "E_CFG_RANGE\\] .*json: /hidden_size: 2147483648"},
        {WIDTH, "\"hidden_size\": 3072.5",
            "E_CFG_TYPE\\] .*json: /hidden_size: found the real 3072\\.5, wanted an integer in "
            "1\\.\\."},
        {WIDTH, "\"hidden_size\": 64.0",
            "E_CFG_TYPE\\] .*json: /hidden_size: found the real 64, wanted"},
        {WIDTH, "\"hidden_size\": \"3072\"",
            "E_CFG_TYPE\\] .*json: /hidden_size: found the string \"3072\", wanted an integer"},
        {WIDTH, "\"hidden_size\": [64]", "E_CFG_TYPE\\] .*/hidden_size: found an array, wanted"},
        {WIDTH, "\"hidden_size\": true", "E_CFG_TYPE\\] .*/hidden_size: found true, wanted"},
        {WIDTH, "\"hidden_size\": null", "E_CFG_RANGE\\] .*/hidden_size: null or missing"},
        {WIDTH ",", "", "E_CFG_RANGE\\] .*/hidden_size: null or missing"},
        {WIDTH, "\"hidden_size\": 9223372036854775808",
            "E_JSON\\] .*/config\\.json:4:[0-9]+: .*\\(byte [0-9]+\\)"},
        {"1e-05", "-1e-05", "E_CFG_RANGE\\] .*/config\\.json: /rms_norm_eps: -1e-05, wanted"},
        {"1e-05", "0", "E_CFG_RANGE\\] .*/config\\.json: /rms_norm_eps: 0, wanted"},
        {"1e-05", "\"1e-05\"",
            "E_CFG_TYPE\\] .*/rms_norm_eps: found the string \"1e-05\", wanted a number"},
        {"\"float32\"", "\"int8\"",
            "E_CFG_UNSUPPORTED\\] .*/torch_dtype: \"int8\", wanted float32"},
        {"\"torch_dtype\": \"float32\"",
            "\"torch_dtype\": \"float32\",\n  \"dtype\": \"float16\",\n  \"eos_token_id\": 2",
            "E_CFG_RELATION\\] .*/dtype: \"float16\", but torch_dtype is \"float32\""},
        {"\"torch_dtype\": \"float32\"", "\"eos_token_id\": [2, 100000]",
            "E_CFG_RANGE\\] .*/eos_token_id/1: 100000, wanted 0\\.\\."},
        {"10000.0", "0", "E_CFG_RANGE\\] .*/rope_theta: 0, wanted"},
        {"\"tie_word_embeddings\": false", "\"tie_word_embeddings\": 0",
            "E_CFG_TYPE\\] .*/tie_word_embeddings: found the integer 0, wanted true or false"},
        {"\"phi3\"", "3", "E_CFG_TYPE\\] .*/model_type: found the integer 3, wanted a string"},
        {"\"rope_scaling\": null", "\"rope_scaling\": \"longrope\"",
            "E_CFG_TYPE\\] .*/rope_scaling: found the string \"longrope\", wanted an object"},
        {"\"rope_scaling\": null", "\"rope_parameters\": []",
            "E_CFG_TYPE\\] .*/rope_parameters: found an array, wanted an object"},
        {NULL, NULL, NULL}};
    each_refused("model/config.json", "--plan", rows);
}

#define ONES8 "[1, 1, 1, 1, 1, 1, 1, 1]"

static void b2_relations(void **state) {
    (void)state;
    static const alteration rows[] = {
        {"\"num_attention_heads\": 4", "\"num_attention_heads\": 5",
            "E_CFG_RELATION\\] .*/config\\.json: /num_attention_heads: hidden_size 64 is no "
            "multiple of num_attention_heads 5"},
        {"\"num_key_value_heads\": 2", "\"num_key_value_heads\": 3",
            "E_CFG_RELATION\\] .*/num_key_value_heads: num_attention_heads 4 is no multiple of "
            "num_key_value_heads 3"},
        {WIDTH, "\"hidden_size\": 60", "E_CFG_RELATION\\] .*15 of 15 head dimensions rotate"},
        {WIDTH, WIDTH ", \"head_dim\": 32",
            "E_CFG_RELATION\\] .*/head_dim: 32, but hidden_size / num_attention_heads is 16"},
        {WIDTH, WIDTH ", \"partial_rotary_factor\": 0.05",
            "E_CFG_RELATION\\] .*/partial_rotary_factor: 0 of 16 head dimensions rotate"},
        {"\"rope_scaling\": null",
            "\"rope_scaling\": {\"type\": \"longrope\", \"short_factor\": [1, 1, 1], "
            "\"long_factor\": " ONES8 "}",
            "E_CFG_RELATION\\] .*/rope_scaling/short_factor: 3 factors, wanted rotary_dim / 2 = 8"},
        {"\"rope_scaling\": null",
            "\"rope_scaling\": {\"type\": \"longrope\", \"short_factor\": " ONES8 "}",
            "E_CFG_RELATION\\] .*/rope_scaling/long_factor: 0 factors, wanted .* = 8"},
        {"\"rope_scaling\": null",
            "\"rope_scaling\": {\"type\": \"longrope\", \"short_factor\": " ONES8
            ", \"long_factor\": [1, 1, 1, 1, 1, 1, 1, 0]}",
            "E_CFG_RANGE\\] .*/rope_scaling/long_factor/7: 0, wanted"},
        {"\"rope_scaling\": null",
            "\"rope_scaling\": {\"type\": \"longrope\", \"factor\": 4, \"short_factor\": " ONES8
            ", \"long_factor\": " ONES8 "}",
            "E_CFG_RELATION\\] .*/rope_scaling/factor: 4, but max_position_embeddings / "
            "original_max_position_embeddings is 1"},
        {"\"rope_scaling\": null",
            "\"rope_parameters\": {\"rope_type\": \"default\", \"rope_theta\": 5000.0}",
            "E_CFG_RELATION\\] .*/rope_parameters/rope_theta: 5000, but rope_theta outside of "
            "it says 10000"},
        {"\"rope_scaling\": null",
            "\"partial_rotary_factor\": 0.5, \"rope_parameters\": {\"rope_type\": \"default\", "
            "\"rope_theta\": 10000.0, \"partial_rotary_factor\": 1.0}",
            "E_CFG_RELATION\\] .*/rope_parameters/partial_rotary_factor: 1, but"},
        {"\"original_max_position_embeddings\": 128,\n  \"sliding_window\": null,\n  "
         "\"rope_theta\": 10000.0,\n  \"rope_scaling\": null",
            "\"original_max_position_embeddings\": 1, \"rope_scaling\": {\"type\": \"longrope\", "
            "\"short_factor\": " ONES8 ", \"long_factor\": " ONES8 "}",
            "E_CFG_RELATION\\] .*/rope_scaling/attention_factor: "
            ".*original_max_position_embeddings 1 "},
        {NULL, NULL, NULL}};
    each_refused("model/config.json", "--plan", rows);
}

static void b3_what_is_not_supported(void **state) {
    (void)state;
    static const alteration rows[] = {
        {"\"phi3\"", "\"llama\"",
            "E_CFG_UNSUPPORTED\\] .*/config\\.json: /model_type: \"llama\", wanted \"phi3\""},
        {"  \"model_type\": \"phi3\",\n", "",
            "E_CFG_UNSUPPORTED\\] .*/model_type: \"\", wanted \"phi3\""},
        {"\"silu\"", "\"gelu\"", "E_CFG_UNSUPPORTED\\] .*/hidden_act: \"gelu\", wanted"},
        {"\"rope_scaling\": null", "\"rope_scaling\": {\"type\": \"linear\", \"factor\": 2}",
            "E_CFG_UNSUPPORTED\\] .*/rope_scaling: rope type \"linear\", wanted default or long"},
        {"\"rope_scaling\": null", "\"rope_scaling\": {\"type\": \"default\", \"beta_fast\": 32}",
            "E_CFG_UNSUPPORTED\\] .*/rope_scaling/beta_fast: a key that phi3 does not know"},
        {"\"rope_scaling\": null",
            "\"rope_scaling\": {\"type\": \"default\"}, \"rope_parameters\": {}",
            "E_CFG_RELATION\\] .*/rope_scaling: .*rope_parameters"},
        {"\"rope_scaling\": null", "\"rope_scaling\": {\"long_factor\": " ONES8 "}",
            "E_CFG_UNSUPPORTED\\] .*/rope_scaling/long_factor: rope type default has no such key"},
        {WIDTH, WIDTH ", \"layer_types\": [\"full_attention\", \"sliding_attention\"]",
            "E_CFG_UNSUPPORTED\\] .*/layer_types/1: \"sliding_attention\" after "
            "\"full_attention\""},
        {WIDTH, WIDTH ", \"layer_types\": [\"full_attention\", 1]",
            "E_CFG_TYPE\\] .*/layer_types/1: found the integer 1, wanted a string"},
        {"\"attention_bias\": false", "\"attention_bias\": true",
            "E_CFG_UNSUPPORTED\\] .*/attention_bias: true, wanted false"},
        {"\"attention_dropout\": 0.0", "\"attention_dropout\": 0.1",
            "E_CFG_UNSUPPORTED\\] .*/attention_dropout: 0\\.1, wanted 0"},
        {WIDTH, WIDTH ", \"logit_scale\": 0.5", "E_CFG_UNSUPPORTED\\] .*/logit_scale: a key that"},
        {WIDTH, WIDTH ", \"a/b\\u001b[2J\": 1",
            "E_CFG_UNSUPPORTED\\] .*/a/b\\\\x1b\\[2J: a key that"},
        {WIDTH, WIDTH ", \"quantization_config\": {}",
            "E_CFG_UNSUPPORTED\\] .*/quantization_config: .* as they are quantised; hint"},
        {NULL, NULL, NULL}};
    each_refused("model/config.json", "--plan", rows);
    tiny_make("case");
    alter("model/config.json", WIDTH,
        WIDTH ", \"layer_types\": [\"full_attention\", \"full_attention\"]");
    trains("all layers of one type");
}

static void b4_too_large(void **state) {
    (void)state;
    static const alteration rows[] = {
        {"\"num_hidden_layers\": 2", "\"num_hidden_layers\": 1000000000",
            "E_CFG_RANGE\\] .*/num_hidden_layers: 1000000000, wanted 1\\.\\.128"},
        {"\"vocab_size\": 64", "\"vocab_size\": 4294967296",
            "E_CFG_RANGE\\] .*/vocab_size: 4294967296, wanted"},
        {NULL, NULL, NULL}};
    each_refused("model/config.json", "--plan", rows);
    /* Each in its range: only the plan sees that nobody has so much memory. */
    tiny_make("case");
    alter("model/config.json", "\"vocab_size\": 64", "\"vocab_size\": 16777216");
    alter("model/config.json", WIDTH, "\"hidden_size\": 1048576, \"partial_rotary_factor\": 1e-5");
    alter("model/config.json", "\"intermediate_size\": 96", "\"intermediate_size\": 4194304");
    refused("every width at its limit", "--plan", EXIT_MEMORY, "E_PLAN_.*TiB.* GiB");
    alter("model/config.json", "\"num_hidden_layers\": 2", "\"num_hidden_layers\": 128");
    refused("everything at its limit", "--plan", EXIT_MEMORY, "E_PLAN_");
}

static void b5_strict_json(void **state) {
    (void)state;
    static const alteration rows[] = {
        {WIDTH, WIDTH ",\n  " WIDTH,
            "E_JSON\\] .*/config\\.json:5:3: key \"hidden_size\" stands twice, first at 4:3 "
            "\\(byte [0-9]+\\)"},
        {WIDTH, WIDTH " // wide", "E_JSON\\] .*/config\\.json:4:[0-9]+: .*\\(byte [0-9]+\\)"},
        {WIDTH, "\"hidden_size\": NaN", "E_JSON\\] .*/config\\.json:4:[0-9]+: .*\\(byte [0-9]+\\)"},
        {"", "\xef\xbb\xbf", "E_JSON\\] .*/config\\.json:1:1: a byte order mark"},
        {WIDTH, "\"hidden_size\": 1e400",
            "E_JSON\\] .*/config\\.json:4:[0-9]+: .*\\(byte [0-9]+\\)"},
        {"}\n", "}}\n", "E_JSON\\] .*/config\\.json:20:2: .*\\(byte [0-9]+\\)"},
        {"}\n", "\n", "E_JSON\\] .*/config\\.json:[0-9]+:[0-9]+: .*\\(byte [0-9]+\\)"},
        {NULL, NULL, NULL}};
    each_refused("model/config.json", "--plan", rows);
    temp_text(in_case("model/config.json"), "[1]");
    refused("no object", "--plan", EXIT_DATA,
        "E_CFG_TYPE\\] .*/config\\.json: found an array, wanted an object");
    temp_text(in_case("model/config.json"), "[]");
    refused("an empty list", "--plan", EXIT_DATA,
        "E_CFG_TYPE\\] .*/config\\.json: found an array, wanted an object");
    temp_text(in_case("model/config.json"), "");
    refused("empty", "--plan", EXIT_DATA, "E_JSON\\] .*/config\\.json:1:1: ");
    assert_int_equal(unlink(temp_path(in_case("model/config.json"))), 0);
    refused("no file", "--plan", EXIT_NOINPUT, "E_NOINPUT\\] .*/model/config\\.json: No such file");
}

static void c6_longer_than_the_model(void **state) {
    (void)state;
    tiny_make("case");
    alter("run.ini", "max_length = 128", "max_length = 129");
    refused("129 positions", "--plan", EXIT_CONFIG,
        "E_INI_[A-Z]+\\] .*/run\\.ini:12:[0-9]+: .*max_length: 129, .*at most 128 positions");
}

/* --- tokenizer.json --- */

static void t5_more_tokens_than_rows(void **state) {
    (void)state;
    static const alteration rows[] = {
        {"\"vocab_size\": 64", "\"vocab_size\": 3",
            "E_TOK_VOCAB\\] .*/model/tokenizer\\.json: 4 tokens, but the model's vocab_size is 3"},
        {NULL, NULL, NULL}};
    each_refused("model/config.json", "--plan", rows);
    tiny_make("case");
    alter("rows.jsonl", "[5, 6, 7, 8]", "[5, 6, 64, 8]");
    refused("a row's id", "--dry-run", EXIT_DATA,
        "E_DATA_[A-Z]+\\] .*/rows\\.jsonl:1: /input_ids/2: .*64");
}

/* The rest of group T is tests/unit/test_tokenizer.c; here is the way from there to the person. */
static void t_the_command_says_it(void **state) {
    (void)state;
    static const alteration rows[] = {
        {"\"ab\": 2", "\"ab\": 2147483647",
            "E_TOK_ID\\] .*/model/tokenizer\\.json: token 'ab' has the id 2147483647, wanted 0"},
        {"\"a b\"", "\"a c\"", "E_TOK_MERGE\\] .*/tokenizer\\.json: model\\.merges\\[0\\]: "},
        {"\"content\": \"<s>\"", "\"content\": \"\"", "E_TOK_ADDED\\] .*added_tokens\\[0\\]"},
        {"\"normalizer\": null", "\"normalizer\": {\"type\": \"Nmt\"}",
            "E_TOK_UNSUPPORTED\\] .*/tokenizer\\.json: normalizer: 'Nmt' is not supported"},
        {"\"ab\": 2", "\"ab\": 2, \"ab\": 2", "E_JSON\\] .*/tokenizer\\.json:7:[0-9]+: key \"ab\""},
        {NULL, NULL, NULL}};
    each_refused("model/tokenizer.json", "--plan", rows);
}

/* `each`, N times, between `head` and `tail`, as a file; its bytes. */
static int64_t repeated(
    const char *file, const char *head, const char *each, size_t times, const char *tail) {
    const size_t n_head = strlen(head), n = strlen(each), n_tail = strlen(tail);
    const size_t bytes = n_head + times * n + n_tail;
    char *text = malloc(bytes);
    assert_non_null(text);
    memcpy(text, head, n_head);
    for (size_t i = 0; i < times; i++) memcpy(text + n_head + i * n, each, n);
    memcpy(text + bytes - n_tail, tail, n_tail);
    temp_write(in_case(file), text, bytes);
    free(text);
    return (int64_t)bytes;
}

static void t2_ten_million_merges(void **state) {
    (void)state;
    tiny_make("case");
    const int64_t bytes = repeated("model/tokenizer.json",
        "{\"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": 0}, \"merges\": [", "\"a b\",",
        10000000, "\"a b\"]}}");
    refused_text("merges", "--plan", bytes,
        "E_TOK_LIMIT\\] .*/tokenizer\\.json:1:[0-9]+: more than 4000000 values \\(byte [0-9]+\\)");
}

/* A template that a Jinja engine would run a program with. */
static void t8_a_template_is_not_run(void **state) {
    (void)state;
    static const char row[] = "{\"messages\": [{\"role\": \"user\", \"content\": \"a\"}, "
                              "{\"role\": \"assistant\", \"content\": \"b\"}]}\n";
    tiny_make("case");
    temp_text(in_case("rows.jsonl"), row);
    temp_text(in_case("model/tokenizer_config.json"),
        "{\"eos_token\": \"<s>\", \"chat_template\": \"{{ cycler.__init__.__globals__.os.mkdir("
        "'ran') }}\"}");
    refused("another template", "--dry-run", EXIT_DATA,
        "E_DATA_FIELD\\] .*/rows\\.jsonl:1: /messages: .*chat template is not one that is known");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(b1_types_and_ranges),
        cmocka_unit_test(b2_relations),
        cmocka_unit_test(b3_what_is_not_supported),
        cmocka_unit_test(b4_too_large),
        cmocka_unit_test(b5_strict_json),
        cmocka_unit_test(c6_longer_than_the_model),
        cmocka_unit_test(t5_more_tokens_than_rows),
        cmocka_unit_test(t_the_command_says_it),
        cmocka_unit_test(t2_ten_million_merges),
        cmocka_unit_test(t8_a_template_is_not_run),
    };
    return cmocka_run_group_tests_name("faults/model_config", tests, temp_make, temp_drop);
}
