/* tiny.c -- see tiny.h. */
#include "tiny.h"

#include <stdlib.h>

#include "files/file.h"
#include "files/safetensors.h"
#include "synth.h"
#include "temp.h"

#include "test.h"

const char tiny_config[] = "{\n"
                           "  \"model_type\": \"phi3\",\n"
                           "  \"vocab_size\": 64,\n"
                           "  \"hidden_size\": 64,\n"
                           "  \"intermediate_size\": 96,\n"
                           "  \"num_hidden_layers\": 2,\n"
                           "  \"num_attention_heads\": 4,\n"
                           "  \"num_key_value_heads\": 2,\n"
                           "  \"hidden_act\": \"silu\",\n"
                           "  \"rms_norm_eps\": 1e-05,\n"
                           "  \"max_position_embeddings\": 128,\n"
                           "  \"original_max_position_embeddings\": 128,\n"
                           "  \"sliding_window\": null,\n"
                           "  \"rope_theta\": 10000.0,\n"
                           "  \"rope_scaling\": null,\n"
                           "  \"attention_bias\": false,\n"
                           "  \"attention_dropout\": 0.0,\n"
                           "  \"tie_word_embeddings\": false,\n"
                           "  \"torch_dtype\": \"float32\"\n"
                           "}\n";

const char tiny_tokenizer[] =
    "{\n"
    "  \"added_tokens\": [{\"id\": 3, \"content\": \"<s>\", \"special\": true}],\n"
    "  \"normalizer\": null,\n"
    "  \"pre_tokenizer\": null,\n"
    "  \"post_processor\": null,\n"
    "  \"decoder\": null,\n"
    "  \"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": 0, \"b\": 1, \"ab\": 2}, "
    "\"merges\": [\"a b\"]}\n"
    "}\n";

const char tiny_rows[] = "{\"input_ids\": [5, 6, 7, 8], \"labels\": [-100, 6, 7, 8]}\n"
                         "{\"input_ids\": [9, 8, 7], \"labels\": [-100, 8, 7]}\n"
                         "{\"input_ids\": [11, 12], \"labels\": [-100, 12]}\n";

const char tiny_ini[] = "[run]\n"
                        "output_dir = out\n"
                        "threads = 1\n"
                        "[model]\n"
                        "use = phi3\n"
                        "path = model\n"
                        "load_in_4bit = true\n"
                        "[adapter]\n"
                        "r = 4\n"
                        "[data]\n"
                        "train = rows.jsonl\n"
                        "max_length = 128\n"
                        "[trainer]\n"
                        "max_steps = 1\n"
                        "per_device_train_batch_size = 2\n";

#define LAYER(i)                                                                                   \
    {"layers." #i ".input_layernorm", {64, 0}}, {"layers." #i ".self_attn.qkv_proj", {128, 64}},   \
        {"layers." #i ".self_attn.o_proj", {64, 64}},                                              \
        {"layers." #i ".post_attention_layernorm", {64, 0}},                                       \
        {"layers." #i ".mlp.gate_up_proj", {192, 64}}, {"layers." #i ".mlp.down_proj", {64, 96}},

const tiny_tensor tiny_tensors[TINY_TENSORS + 1] = {{"embed_tokens", {64, 64}},
    LAYER(0) LAYER(1){"norm", {64, 0}}, {"lm_head", {64, 64}}, {NULL, {0, 0}}};

void tiny_weights(const char *name, const tiny_tensor *list) {
    char full[128];
    st_writer *w = NULL;
    assert_int_equal(st_writer_create(temp_path(name), &w), QFW_OK);
    for (int data = 0; data < 2; data++)
        for (const tiny_tensor *t = list; t->name; t++) {
            const int64_t n = t->dim[0] * (t->dim[1] ? t->dim[1] : 1);
            snprintf(full, sizeof full, "%s%s.weight", strcmp(t->name, "lm_head") ? "model." : "",
                t->name);
            if (!data) {
                assert_int_equal(
                    st_writer_add(w, full, QFW_F32, t->dim[1] ? 2 : 1, t->dim), QFW_OK);
                continue;
            }
            float *values = calloc((size_t)n + 1, sizeof *values);
            assert_non_null(values);
            synth_fill(full, 0, 0.1, values, n);
            assert_int_equal(st_writer_data(w, values, (uint64_t)n * sizeof *values), QFW_OK);
            free(values);
        }
    assert_int_equal(st_writer_finish(w), QFW_OK);
}

void tiny_make(const char *name) {
    static const struct {
        const char *file, *text;
    } files[] = {{"run.ini", tiny_ini}, {"rows.jsonl", tiny_rows},
        {"model/config.json", tiny_config}, {"model/tokenizer.json", tiny_tokenizer}};
    char path[128];
    assert_int_equal(dir_remove(temp_path(name)), QFW_OK);
    snprintf(path, sizeof path, "%s/model", name);
    assert_int_equal(dir_make(temp_path(path)), QFW_OK);
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        snprintf(path, sizeof path, "%s/%s", name, files[i].file);
        temp_text(path, files[i].text);
    }
    snprintf(path, sizeof path, "%s/model/model.safetensors", name);
    tiny_weights(path, tiny_tensors);
}
