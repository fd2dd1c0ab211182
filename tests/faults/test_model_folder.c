/* test_model_folder.c -- the command on a model folder that is wrong in one place: it says what and
 * where in a line, ends with the right exit code, soon, in little memory, and leaves nothing.
 *
 * Every row alters one thing of a folder that trains. The cases' letters are those of cases.md.
 */
#define _XOPEN_SOURCE 700
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/error.h"
#include "base/mem.h"
#include "files/file.h"
#include "files/safetensors.h"

#include "../support/refusal.h"
#include "../support/temp.h"
#include "../support/test.h"
#include "../support/tiny.h"

#define SAFETENSORS "model/model.safetensors"
#define INDEX       "model/model.safetensors.index.json"

/* --- the folder as it is --- */

static void a_right_folder_trains(void **state) {
    (void)state;
    tiny_make("case");
    assert_int_equal(case_run("--plan"), 0);
    assert_int_equal(case_run("--dry-run"), 0);
    assert_false(dir_exists(temp_path("case/out")));
    trains("nothing altered");
}

/* --- model.safetensors --- */

static void a_the_file_itself(void **state) {
    (void)state;
    const uint64_t huge = 100000001;
    tiny_make("case");
    assert_int_equal(truncate(temp_path(in_case(SAFETENSORS)), 5), 0);
    refused("A1", NULL, EXIT_DATA, "E_ST_SHORT\\] .*/model\\.safetensors: .*size 5 < 8");
    tiny_make("case");
    patch(SAFETENSORS, 0, &huge, sizeof huge);
    assert_int_equal(truncate(temp_path(in_case(SAFETENSORS)), 100001000), 0);
    refused("A3", NULL, EXIT_DATA, "E_ST_HDRLEN\\] .*/model\\.safetensors: .*100000001");
    tiny_make("case");
    assert_int_equal(truncate(temp_path(in_case(SAFETENSORS)), 500), 0);
    refused("A4", NULL, EXIT_DATA,
        "E_ST_TRUNC\\] .*/model\\.safetensors: .*file has 500.*download incomplete");
    tiny_make("case");
    assert_int_equal(truncate(temp_path(in_case(SAFETENSORS)), 50000), 0);
    refused("A9: data cut off", NULL, EXIT_DATA,
        "E_ST_OFFSET\\] .*/model\\.safetensors: tensor \"[a-z_0-9.]+\": .*hint: the download is "
        "incomplete");
    tiny_make("case");
    patch(SAFETENSORS, -1, "xy", 2);
    refused("A10: a byte behind the last tensor", NULL, EXIT_DATA,
        "E_ST_HOLE\\] .*/model\\.safetensors: .*lm_head");
}

/* One tensor of another shape, name or kind. */
static void weights(const char *tensor, tiny_tensor wanted) {
    tiny_tensor list[TINY_TENSORS + 1];
    int i = 0;
    tiny_make("case");
    memcpy(list, tiny_tensors, sizeof list);
    while (strcmp(list[i].name, tensor) != 0) i++;
    list[i] = wanted;
    if (!wanted.name) memmove(&list[i], &list[i + 1], sizeof *list * (size_t)(TINY_TENSORS - i));
    tiny_weights(in_case(SAFETENSORS), list);
}

static void a15_wrong_shapes(void **state) {
    (void)state;
    static const struct {
        tiny_tensor t;
        const char *regex;
    } rows[] = {
        {{"layers.1.self_attn.qkv_proj", {128, 65}}, "\\[128, 65\\], wanted \\[128, 64\\]"},
        {{"layers.1.mlp.gate_up_proj", {96, 64}}, "\\[96, 64\\], wanted \\[192, 64\\]"},
        {{"layers.0.mlp.down_proj", {96, 64}}, "\\[96, 64\\], wanted \\[64, 96\\]"},
        {{"embed_tokens", {63, 64}}, "\\[63, 64\\], wanted \\[64, 64\\]"},
        {{"norm", {65, 0}}, "\\[65\\], wanted \\[64\\]"},
        {{"norm", {64, 1}}, "\\[64, 1\\], wanted \\[64\\]"},
        {{"lm_head", {4096, 0}}, "\\[4096\\], wanted \\[64, 64\\]"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char regex[256];
        weights(rows[i].t.name, rows[i].t);
        snprintf(regex, sizeof regex,
            "E_MODEL_SHAPE\\] .*/model\\.safetensors: .*%s\\.weight: shape %s.* config\\.json",
            rows[i].t.name, rows[i].regex);
        refused(rows[i].t.name, NULL, EXIT_DATA, regex);
    }
    tiny_make("case");
    alter("model/config.json", "\"hidden_size\": 64", "\"hidden_size\": 128");
    refused("another config", NULL, EXIT_DATA, "wanted \\[64, 128\\]");
    assert_true(has_line(case_command.err, "o_proj.*wanted \\[128, 128\\]")); /* all are listed */
}

static void a15_wrong_dtypes(void **state) {
    (void)state;
    tiny_make("case");
    for (int i = 0; i < 2; i++)
        alter(SAFETENSORS, "norm.weight\": {\"dtype\": \"F32\"",
            "norm.weight\": {\"dtype\": \"I32\"");
    refused("I32", NULL, EXIT_DATA,
        "E_ST_DTYPE\\] .*/model\\.safetensors: tensor "
        "\"model\\.layers\\.0\\.input_layernorm\\.weight\": "
        "dtype: I32, wanted F32, BF16 or F16");
    assert_true(has_line(case_command.err, "E_ST_DTYPE\\] .*post_attention_layernorm\\.weight"));
}

static void a16_names(void **state) {
    (void)state;
    tiny_tensor none[] = {{NULL, {0, 0}}}, strange[TINY_TENSORS + 1];
    weights("layers.1.self_attn.o_proj", none[0]);
    refused("one is missing", NULL, EXIT_DATA,
        "E_MODEL_MISSING\\] .*/model: model\\.layers\\.1\\.self_attn\\.o_proj\\.weight is missing");
    weights("layers.0.mlp.down_proj", (tiny_tensor){"layers.0.mlp.down", {64, 96}});
    refused(
        "another name", NULL, EXIT_DATA, "E_MODEL_MISSING\\] .*\\.0\\.mlp\\.down_proj\\.weight");
    memcpy(strange, tiny_tensors, sizeof strange);
    for (int i = 0; i < 3; i++) strange[i].name = i ? i > 1 ? "c" : "b" : "a";
    tiny_weights(in_case(SAFETENSORS), strange);
    refused("three are missing", NULL, EXIT_DATA, "E_MODEL_MISSING\\] .*model\\.embed_tokens\\.");
    assert_true(has_line(
        case_command.err, "E_MODEL_MISSING\\] .*layers\\.0\\.input_layernorm\\.weight is"));
    assert_true(has_line(
        case_command.err, "E_MODEL_MISSING\\] .*layers\\.0\\.self_attn\\.qkv_proj\\.weight"));
    /* One more than the model has. */
    tiny_make("case");
    alter("model/config.json", "\"num_hidden_layers\": 2", "\"num_hidden_layers\": 1");
    refused("a layer too many", NULL, EXIT_DATA,
        "E_MODEL_EXTRA\\] .*/model\\.safetensors: model\\.layers\\.1\\.input_layernorm\\.weight: ");
    assert_true(has_line(case_command.err, "E_MODEL_EXTRA\\] .*layers\\.1\\.mlp\\.down_proj"));
}

/* q_proj beside qkv_proj: one of them would be ignored. */
static void a16_two_layouts(void **state) {
    (void)state;
    tiny_tensor list[TINY_TENSORS + 2];
    memcpy(list, tiny_tensors, sizeof tiny_tensors);
    list[TINY_TENSORS] = (tiny_tensor){"layers.0.self_attn.q_proj", {64, 64}};
    list[TINY_TENSORS + 1] = (tiny_tensor){NULL, {0, 0}};
    tiny_make("case");
    tiny_weights(in_case(SAFETENSORS), list);
    refused("two layouts", NULL, EXIT_DATA,
        "E_MODEL_EXTRA\\] .*/model\\.safetensors: .*\\.0\\.self_attn\\.q_proj\\.weight: .* form");
}

/* [adapter] path: a key whose prefix is not PEFT's would leave a fresh adapter in its place. */
static void a16_an_adapter(void **state) {
    (void)state;
    static const int64_t a_dim[] = {4, 64}, b_dim[] = {64, 4};
    static const float zeros[256] = {0};
    st_writer *w = NULL;
    tiny_make("case");
    alter("run.ini", "r = 4\n", "r = 4\nlora_alpha = 8\ntarget_modules = o_proj\npath = start\n");
    assert_int_equal(dir_make(temp_path(in_case("start"))), QFW_OK);
    temp_text(in_case("start/adapter_config.json"),
        "{\"peft_type\": \"LORA\", \"r\": 4, \"lora_alpha\": 8, \"target_modules\": [\"o_proj\"]}");
    assert_int_equal(
        st_writer_create(temp_path(in_case("start/adapter_model.safetensors")), &w), QFW_OK);
    assert_int_equal(
        st_writer_add(w, "model.model.layers.0.self_attn.o_proj.lora_A.weight", QFW_F32, 2, a_dim),
        QFW_OK);
    assert_int_equal(
        st_writer_add(w, "model.model.layers.0.self_attn.o_proj.lora_B.weight", QFW_F32, 2, b_dim),
        QFW_OK);
    for (int i = 0; i < 2; i++) assert_int_equal(st_writer_data(w, zeros, sizeof zeros), QFW_OK);
    assert_int_equal(st_writer_finish(w), QFW_OK);
    refused("another prefix", NULL, EXIT_DATA,
        "/start/adapter_model\\.safetensors: .*model\\.model\\.layers\\.0\\.self_attn\\.o_proj");
}

/* The file holds a head of its own although the config ties it: equal is one way to write a tied
 * model, different is another model. */
static void b3_a_tied_head(void **state) {
    (void)state;
    tiny_tensor list[TINY_TENSORS + 1];
    tiny_make("case");
    alter("model/config.json", "embeddings\": false", "embeddings\": true");
    refused("a head of its own", NULL, EXIT_DATA,
        "E_CFG_UNSUPPORTED\\] .*/model\\.safetensors: lm_head\\.weight: value [0-9]+ is not that "
        "of "
        "model\\.embed_tokens\\.weight, .*tie_word_embeddings");
    memcpy(list, tiny_tensors, sizeof list);
    list[TINY_TENSORS - 1] = (tiny_tensor){NULL, {0, 0}};
    tiny_weights(in_case(SAFETENSORS), list);
    trains("no head");
    tiny_make("case");
    tiny_weights(in_case(SAFETENSORS), list);
    refused("no head, not tied", NULL, EXIT_DATA,
        "E_MODEL_MISSING\\] .*/model: lm_head\\.weight is missing");
}

static void a18_values(void **state) {
    (void)state;
    static const uint32_t nan_bits = 0x7fc00000, infinity_bits = 0xff800000;
    float zeros[256] = {0};
    tiny_make("case");
    patch(SAFETENSORS, -4 * (2 * 64 + 3), &nan_bits, 4); /* in the head, which is last */
    refused("NaN", NULL, EXIT_DATA,
        "E_ST_NONFINITE\\] .*/model\\.safetensors: tensor \"lm_head\\.weight\": value 3965: NaN");
    tiny_make("case");
    patch(SAFETENSORS, -4 * (64 * 64 + 64 + 96 * 64), &infinity_bits, 4); /* packed to 4 bits */
    refused("infinite", NULL, EXIT_DATA,
        "E_ST_NONFINITE\\] .*: tensor \"model\\.layers\\.1\\.mlp\\.down_proj\\.weight\": value 0: "
        "infinite");
    tiny_make("case");
    patch(SAFETENSORS, -4 * (64 * 64 + 64 + 96 * 64), zeros, sizeof zeros);
    trains("blocks of zeros");
    assert_false(has_line(case_command.out, "nan|inf"));
}

static void a20_data_off_its_alignment(void **state) {
    (void)state;
    unsigned char length[8];
    char *text = NULL;
    size_t n = 0, n_header = 0;
    tiny_make("case");
    assert_int_equal(file_read(temp_path(in_case(SAFETENSORS)), 1 << 20, &text, &n), QFW_OK);
    for (int i = 7; i >= 0; i--) n_header = n_header << 8 | (unsigned char)text[i];
    char *made = malloc(n + 1);
    assert_non_null(made);
    for (int i = 0; i < 8; i++) length[i] = (unsigned char)((n_header + 1) >> 8 * i);
    memcpy(made, length, 8);
    memcpy(made + 8, text + 8, n_header);
    made[8 + n_header] = ' ';
    memcpy(made + 9 + n_header, text + 8 + n_header, n - 8 - n_header);
    temp_write(in_case(SAFETENSORS), made, n + 1);
    free(made);
    mem_free(text);
    trains("one byte off");
}

/* --- an index and two shards --- */

/* The folder with its tensors in a.safetensors and b.safetensors, and an index of them. */
static void split(void) {
    tiny_tensor part[TINY_TENSORS + 1];
    char text[4096] = "{\"weight_map\": {";
    tiny_make("case");
    assert_int_equal(unlink(temp_path(in_case(SAFETENSORS))), 0);
    for (int half = 0; half < 2; half++) {
        int n = 0;
        for (int i = 0; i < TINY_TENSORS; i++) {
            const size_t used = strlen(text);
            const char *name = tiny_tensors[i].name;
            if (i % 2 != half) continue;
            part[n++] = tiny_tensors[i];
            snprintf(text + used, sizeof text - used, "%s\n\"%s%s.weight\": \"%s\"",
                half || i ? "," : "", strcmp(name, "lm_head") ? "model." : "", name,
                half ? "b.safetensors" : "a.safetensors");
        }
        part[n] = (tiny_tensor){NULL, {0, 0}};
        tiny_weights(in_case(half ? "model/b.safetensors" : "model/a.safetensors"), part);
    }
    strcat(text, "\n}}\n");
    temp_text(in_case(INDEX), text);
}

#define NORM "\"model.norm.weight\": \"b.safetensors\""

static void i_a_right_index_trains(void **state) {
    (void)state;
    split();
    trains("two shards");
    split();
    alter(INDEX, "{", "{\"metadata\": {\"total_size\": 7}, ");
    trains("a wrong total");
    assert_true(
        has_line(case_command.err, "/metadata/total_size: 7, but the tensors have [0-9]+ bytes"));
}

static void i1_paths(void **state) {
    (void)state;
    static const char *const names[] = {"../b.safetensors", "/etc/passwd", "a/b.safetensors", "",
        "a\\nb.safetensors", "\\u001b[2J.safetensors", "~/b.safetensors"};
    char name[128], longest[4200];
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        split();
        snprintf(name, sizeof name, "\"model.norm.weight\": \"%s\"", names[i]);
        alter(INDEX, NORM, name);
        refused(names[i], NULL, EXIT_DATA,
            "E_IDX_PATH\\] .*/model\\.safetensors\\.index\\.json: "
            "/weight_map/model\\.norm\\.weight: "
            "\".*\", wanted the plain name");
    }
    split();
    memset(longest, 'x', sizeof longest);
    memcpy(longest, "\"model.norm.weight\": \"", 22);
    snprintf(longest + 22 + 4096, 16, ".safetensors\"");
    alter(INDEX, NORM, longest);
    refused("4 KiB", NULL, EXIT_DATA, "E_IDX_PATH\\] .*: /weight_map/model\\.norm\\.weight: \"xxx");
    split();
    alter(INDEX, NORM, "\"model.norm.weight\": \"b\\u0000.safetensors\"");
    refused(
        "NUL", NULL, EXIT_DATA, "E_JSON\\] .*/model\\.safetensors\\.index\\.json:[0-9]+:[0-9]+: ");
    split();
    alter(INDEX, NORM, "\"model.norm.weight\": 7");
    refused("a number", NULL, EXIT_DATA, "E_IDX_PATH\\] .*/model\\.norm\\.weight: not a string");
}

static void i2_kinds(void **state) {
    (void)state;
    char b[600];
    snprintf(b, sizeof b, "%s", temp_path("case/model/b.safetensors"));
    split();
    assert_int_equal(unlink(b), 0);
    assert_int_equal(mkfifo(b, 0600), 0);
    refused(
        "a FIFO", NULL, EXIT_DATA, "E_IDX_TYPE\\] .*/model/b\\.safetensors: a FIFO, wanted a reg");
    assert_int_equal(unlink(b), 0);
    assert_int_equal(mkdir(b, 0700), 0);
    refused(
        "a folder", NULL, EXIT_DATA, "E_IDX_TYPE\\] .*/model/b\\.safetensors: a folder, wanted");
    assert_int_equal(rmdir(b), 0);
    assert_int_equal(symlink("/dev/zero", b), 0);
    refused(
        "a device", NULL, EXIT_DATA, "E_IDX_TYPE\\] .*/model/b\\.safetensors: a device, wanted");
    assert_int_equal(unlink(b), 0);
    assert_int_equal(symlink("b.safetensors", b), 0);
    refused(
        "itself", NULL, EXIT_DATA, "E_IDX_TYPE\\] .*/model/b\\.safetensors: .*, wanted a regular");
    split();
    assert_int_equal(rename(b, temp_path("case/blob")), 0);
    assert_int_equal(symlink("../blob", b), 0);
    trains("a link to a file");
}

static void i3_disagreements(void **state) {
    (void)state;
    split();
    alter(INDEX, NORM, "\"model.norm.weight\": \"a.safetensors\"");
    refused("in the other shard", NULL, EXIT_DATA,
        "E_IDX_TENSOR\\] .*index\\.json: tensor \"model\\.norm\\.weight\": \"a\\.safetensors\" "
        "lacks "
        "it, found in b\\.safetensors");
    split();
    tiny_weights(in_case("model/b.safetensors"), tiny_tensors);
    refused("in both", NULL, EXIT_DATA,
        "E_IDX_DUP\\] .*index\\.json: tensor \"lm_head\\.weight\": in \"a\\.safetensors\" and in ");
    assert_true(has_line(case_command.err, "E_IDX_DUP\\] .*embed_tokens"));
    split();
    assert_int_equal(unlink(temp_path(in_case("model/b.safetensors"))), 0);
    refused("no such shard", NULL, EXIT_DATA,
        "E_IDX_SHARD\\] .*index\\.json: /weight_map: \"b\\.safetensors\" is missing");
}

static void i4_two_ways(void **state) {
    (void)state;
    split();
    tiny_weights(in_case(SAFETENSORS), tiny_tensors);
    refused("both", NULL, EXIT_DATA,
        "E_IDX_AMBIGUOUS\\] .*/model: both model\\.safetensors and "
        "model\\.safetensors\\.index\\.json");
    assert_int_equal(unlink(temp_path(in_case(SAFETENSORS))), 0);
    assert_int_equal(unlink(temp_path(in_case(INDEX))), 0);
    refused(
        "neither", NULL, EXIT_NOINPUT, "E_NOINPUT\\] .*/model: neither model\\.safetensors nor ");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_right_folder_trains),
        cmocka_unit_test(b3_a_tied_head),
        cmocka_unit_test(a_the_file_itself),
        cmocka_unit_test(a15_wrong_shapes),
        cmocka_unit_test(a15_wrong_dtypes),
        cmocka_unit_test(a16_names),
        cmocka_unit_test(a16_two_layouts),
        cmocka_unit_test(a16_an_adapter),
        cmocka_unit_test(a18_values),
        cmocka_unit_test(a20_data_off_its_alignment),
        cmocka_unit_test(i_a_right_index_trains),
        cmocka_unit_test(i1_paths),
        cmocka_unit_test(i2_kinds),
        cmocka_unit_test(i3_disagreements),
        cmocka_unit_test(i4_two_ways),
    };
    return cmocka_run_group_tests_name("faults/model_folder", tests, temp_make, temp_drop);
}
