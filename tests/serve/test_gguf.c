/* test_gguf.c -- GGUF files of the command: after a training run and by the task export, with
 * llama.cpp's names, keys and tokenizer; their values are the merged model's and the adapter's.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "../support/command.h"
#include "../support/temp.h"
#include "base/error.h"
#include "base/mem.h"
#include "export/full.h"
#include "export/gguf.h"
#include "export/peft.h"
#include "files/file.h"
#include "files/safetensors.h"
#include "ops/ref.h"

#include "../support/test.h"

static command c;

static const char base_keys[] =
    "[run]\noutput_dir = base\nthreads = 1\n[model]\npath = model\ninit = random\n"
    "[adapter]\nuse = none\n[data]\ntrain = rows.jsonl\nmax_length = 64\n"
    "[trainer]\nmax_steps = 2\nper_device_train_batch_size = 4\nsave_strategy = no\n";

static const char adapter_keys[] =
    "[run]\noutput_dir = ad\nthreads = 1\n[model]\npath = base\nload_in_4bit = true\n"
    "[adapter]\nr = 4\nlora_alpha = 12\ntarget_modules = q_proj, v_proj, down_proj\n"
    "[data]\ntrain = rows.jsonl\nmax_length = 64\n"
    "[trainer]\nmax_steps = 4\nper_device_train_batch_size = 4\nlearning_rate = 1e-2\n"
    "save_strategy = no\n[export]\nmerged = base16\ngguf = f16\ngguf_adapter = true\n";

static const char export_keys[] =
    "[run]\ntask = export\noutput_dir = only\nthreads = 1\n[model]\npath = base\n"
    "[adapter]\npath = ad\n[export]\ngguf = q8_0\n";

static void run_ini(const char *name, const char *word, const char *second) {
    char *path = mem_strdup(temp_path(name));
    const char *argv[] = {build_path("qfw"), "--ini", path, word, second, NULL};
    assert_int_equal(command_run(argv, &c), 0);
    mem_free(path);
}

static int make_all(void **state) {
    static const char *const names[] = {"config.json", "tokenizer.json", "tokenizer_config.json"};
    char rows[1024] = "";
    if (temp_make(state)) return -1;
    assert_int_equal(dir_make(temp_path("model")), QFW_OK);
    for (int i = 0; i < 3; i++) {
        char *from = mem_printf("%s/docs/examples/demo/model/%s", getenv("QFW_SOURCE"), names[i]);
        char *to = mem_printf("model/%s", names[i]);
        assert_int_equal(file_copy(from, temp_path(to)), QFW_OK);
        mem_free(from);
        mem_free(to);
    }
    for (int i = 0; i < 8; i++)
        snprintf(rows + strlen(rows), sizeof rows - strlen(rows),
            "{\"text\": \"Ada built %d services.\"}\n", i);
    temp_text("rows.jsonl", rows);
    temp_text("base.ini", base_keys);
    temp_text("ad.ini", adapter_keys);
    temp_text("export.ini", export_keys);
    run_ini("base.ini", NULL, NULL);
    if (c.exit_code) fail_msg("%s", c.err);
    run_ini("ad.ini", NULL, NULL);
    if (c.exit_code) fail_msg("%s", c.err);
    return 0;
}

static gguf_file *open_gguf(const char *name) {
    gguf_file *f = NULL;
    if (gguf_open(temp_path(name), &f) != QFW_OK) fail_msg("%s", err_text(0));
    return f;
}

static const gguf_tensor *tensor(const gguf_file *f, const char *name) {
    for (uint32_t i = 0; gguf_at(f, i); i++)
        if (!strcmp(gguf_at(f, i)->name, name)) return gguf_at(f, i);
    fail_msg("there is no %s", name);
    return NULL;
}

/* A tensor holds what its type makes of the folder's values, to the bit. */
static void matches(
    const gguf_file *f, const char *name, uint32_t type, const st_file *model, const char *from) {
    const gguf_tensor *t = tensor(f, name);
    const st_tensor *w = st_find(model, from);
    assert_non_null(w);
    assert_int_equal(t->type, type);
    assert_int_equal(t->rank, w->rank);
    for (uint32_t d = 0; d < t->rank; d++) assert_int_equal(t->dim[d], w->dim[d]);
    const size_t n = (size_t)(t->dim[0] * t->dim[1]);
    float *a = malloc(n * sizeof *a), *b = malloc(n * sizeof *b);
    void *packed = malloc(n * sizeof *b);
    assert_int_equal(gguf_read(f, t, a), QFW_OK);
    assert_int_equal(st_read_f32((st_file *)(uintptr_t)model, w, 0, w->dim[0], b), QFW_OK);
    assert_int_equal(gguf_encode(type, b, n, packed), 0);
    gguf_decode(type, packed, n, b);
    if (memcmp(a, b, n * sizeof *a)) fail_msg("%s is not %s", name, from);
    free(a);
    free(b);
    free(packed);
}

static void has_the_model(const gguf_file *f, const char *folder, uint32_t type) {
    static const char *const outer[][2] = {{"token_embd.weight", "model.embed_tokens.weight"},
        {"output.weight", "lm_head.weight"}, {"output_norm.weight", "model.norm.weight"}};
    static const char *const inner[][2] = {{"attn_qkv", "self_attn.qkv_proj"},
        {"attn_output", "self_attn.o_proj"}, {"ffn_up", "mlp.gate_up_proj"},
        {"ffn_down", "mlp.down_proj"}, {"attn_norm", "input_layernorm"},
        {"ffn_norm", "post_attention_layernorm"}};
    enum { LAYERS = 4, TENSORS = 3 + 6 * LAYERS };
    st_file *model = NULL;
    assert_int_equal(st_open_folder(temp_path(folder), &model), QFW_OK);
    for (int i = 0; i < 3; i++)
        matches(f, outer[i][0], i < 2 ? type : GGUF_F32, model, outer[i][1]);
    for (int i = 0; i < 6 * LAYERS; i++) {
        char name[64], from[96];
        snprintf(name, sizeof name, "blk.%d.%s.weight", i / 6, inner[i % 6][0]);
        snprintf(from, sizeof from, "model.layers.%d.%s.weight", i / 6, inner[i % 6][1]);
        matches(f, name, i % 6 < 4 ? type : GGUF_F32, model, from);
    }
    assert_int_equal(st_count(model), TENSORS);
    assert_non_null(gguf_at(f, TENSORS - 1));
    assert_null(gguf_at(f, TENSORS));
    st_close(model);
}

/* The base with its values rounded to 16 bits, as published ones are, and one of them a million
 * where a tensor is named. */
static void make_16_bit(const char *folder, const char *large) {
    char *to = mem_strdup(temp_path(folder)), *path = path_join(to, "model.safetensors");
    st_file *base = NULL;
    st_writer *w = NULL;
    assert_int_equal(dir_make(to), QFW_OK);
    assert_int_equal(full_copy_files(temp_path("base"), to, 1), QFW_OK);
    assert_int_equal(st_open_folder(temp_path("base"), &base), QFW_OK);
    assert_int_equal(st_writer_create(path, &w), QFW_OK);
    for (uint32_t i = 0; i < st_count(base); i++) {
        const st_tensor *t = st_at(base, i);
        assert_int_equal(st_writer_add(w, t->name, QFW_BF16, t->rank, t->dim), QFW_OK);
    }
    for (uint32_t i = 0; i < st_count(base); i++) {
        const st_tensor *t = st_at(base, i);
        const size_t n = (size_t)t->bytes / sizeof(float);
        float *v = malloc(n * sizeof *v);
        uint16_t *half = malloc(n * sizeof *half);
        assert_int_equal(st_read_f32(base, t, 0, t->dim[0], v), QFW_OK);
        if (large && !strcmp(t->name, large)) v[n - 1] = 1e6f;
        for (size_t k = 0; k < n; k++) half[k] = ref_bf16((double)v[k]);
        assert_int_equal(st_writer_data(w, half, n * sizeof *half), QFW_OK);
        free(v);
        free(half);
    }
    assert_int_equal(st_writer_finish(w), QFW_OK);
    st_close(base);
    mem_free(path);
    mem_free(to);
}

static void model_after_training(void **state) {
    (void)state;
    gguf_file *f = open_gguf("ad/merged/model-f16.gguf");
    has_the_model(f, "ad/merged", GGUF_F16);
    assert_string_equal(gguf_find(f, "general.architecture")->text, "phi3");
    assert_string_equal(gguf_find(f, "general.name")->text, "Phi-3 base"); /* as its tokens strip */
    assert_true(gguf_find(f, "general.file_type")->number == 1);
    assert_true(gguf_find(f, "phi3.block_count")->number == 4);
    assert_string_equal(gguf_find(f, "tokenizer.ggml.model")->text, "llama");
    const gguf_key *tokens = gguf_find(f, "tokenizer.ggml.tokens");
    assert_int_equal(tokens->n, tensor(f, "token_embd.weight")->dim[0]);
    assert_string_equal(tokens->strings[0], "<unk>");
    assert_non_null(gguf_find(f, "tokenizer.ggml.eos_token_id"));
    assert_string_equal(gguf_find(f, "general.size_label")->text, "1.0M"); /* 1,049,728 */
    gguf_close(f);
}

/* (alpha / rank) B A is PEFT's adapter in the same folder. */
static void adapter_after_training(void **state) {
    peft *p = NULL;
    (void)state;
    gguf_file *f = open_gguf("ad/merged/adapter.gguf");
    assert_int_equal(peft_open(temp_path("ad"), &p), QFW_OK);
    const double alpha = gguf_find(f, "adapter.lora.alpha")->number;
    assert_string_equal(gguf_find(f, "adapter.type")->text, "lora");
    for (uint32_t k = 0; k < peft_count(p); k++) {
        const peft_module *l = peft_at(p, k);
        const int is_qkv = strstr(l->name, "qkv_proj") != NULL;
        char name[96];
        unsigned layer;
        assert_int_equal(sscanf(strstr(l->name, "layers."), "layers.%u", &layer), 1);
        snprintf(
            name, sizeof name, "blk.%u.%s.weight.lora_a", layer, is_qkv ? "attn_qkv" : "ffn_down");
        const gguf_tensor *ga = tensor(f, name);
        name[strlen(name) - 1] = 'b';
        const gguf_tensor *gb = tensor(f, name);
        assert_int_equal(ga->dim[0], gb->dim[1]);
        assert_int_equal(ga->dim[1], l->in);
        assert_int_equal(gb->dim[0], l->out);
        const int64_t rank = ga->dim[0];
        float *a = malloc((size_t)(l->r * l->in) * 4), *b = malloc((size_t)(l->out * l->r) * 4);
        float *x = malloc((size_t)(rank * l->in) * 4), *y = malloc((size_t)(l->out * rank) * 4);
        assert_int_equal(peft_read(p, k, a, b), QFW_OK);
        assert_int_equal(gguf_read(f, ga, x), QFW_OK);
        assert_int_equal(gguf_read(f, gb, y), QFW_OK);
        for (int64_t o = 0; o < l->out; o += 7)
            for (int64_t i = 0; i < l->in; i += 5) {
                double wanted = 0, got = 0;
                for (int64_t r = 0; r < l->r; r++)
                    wanted += l->scale * (double)b[o * l->r + r] * (double)a[r * l->in + i];
                for (int64_t r = 0; r < rank; r++)
                    got +=
                        alpha / (double)rank * (double)y[o * rank + r] * (double)x[r * l->in + i];
                assert_true(fabs(wanted - got) <= 1e-6);
            }
        free(a);
        free(b);
        free(x);
        free(y);
    }
    peft_close(p);
    gguf_close(f);
}

static void task_export_alone(void **state) {
    (void)state;
    run_ini("export.ini", NULL, NULL);
    if (c.exit_code) fail_msg("%s", c.err);
    assert_non_null(strstr(c.out, "model-q8_0.gguf: 27 tensors"));
    assert_non_null(strstr(c.err, "73 pairs of tokens make a token and have no merge"));
    assert_false(file_exists(temp_path("only/model.safetensors")));
    gguf_file *f = open_gguf("only/model-q8_0.gguf");
    has_the_model(f, "ad/merged", GGUF_Q8_0);
    assert_true(gguf_find(f, "general.file_type")->number == 7);
    gguf_close(f);
    run_ini("export.ini", NULL, NULL); /* nothing is overwritten */
    assert_int_equal(c.exit_code, EXIT_OUTPUT);
}

/* A base of 16 bits: the files hold what the merged folder does, not the sums before rounding. */
static void sums_are_rounded_as_merged(void **state) {
    static const char *const types[] = {"f16", "q8_0"};
    (void)state;
    make_16_bit("b16", NULL);
    for (int i = 0; i < 2; i++) {
        char *text = mem_printf("[run]\ntask = export\noutput_dir = m16_%s\nthreads = 1\n[model]\n"
                                "path = b16\n[adapter]\npath = ad\n[export]\nmerged = base16\n"
                                "gguf = %s\n",
            types[i], types[i]);
        char *folder = mem_printf("m16_%s", types[i]);
        char *path = mem_printf("m16_%s/model-%s.gguf", types[i], types[i]);
        temp_text("m16.ini", text);
        run_ini("m16.ini", NULL, NULL);
        if (c.exit_code) fail_msg("%s", c.err);
        gguf_file *f = open_gguf(path);
        has_the_model(f, folder, i ? GGUF_Q8_0 : GGUF_F16);
        gguf_close(f);
        mem_free(text);
        mem_free(folder);
        mem_free(path);
    }
}

static void values_that_no_half_holds(void **state) {
    static const char name[] = "model.layers.1.mlp.down_proj.weight";
    (void)state;
    make_16_bit("large", name);
    temp_text("large.ini",
        "[run]\ntask = export\noutput_dir = never\nthreads = 1\n[model]\npath = large\n"
        "[adapter]\nuse = none\n[export]\ngguf = f16\n");
    run_ini("large.ini", NULL, NULL);
    assert_int_equal(c.exit_code, EXIT_DATA);
    if (!strstr(c.err, name) || !strstr(c.err, "past what fp16 holds")) fail_msg("%s", c.err);
    assert_false(file_exists(temp_path("never/model-f16.gguf")));
    run_ini("large.ini", "--set=export.gguf=q8_0", NULL); /* its scale is one */
    if (c.exit_code) fail_msg("%s", c.err);
}

/* The model without an adapter. */
static void a_model_alone(void **state) {
    (void)state;
    temp_text("bare.ini",
        "[run]\ntask = export\noutput_dir = bare\nthreads = 1\n[model]\npath = base\n"
        "[adapter]\nuse = none\n[export]\ngguf = f16\n");
    run_ini("bare.ini", NULL, NULL);
    if (c.exit_code) fail_msg("%s", c.err);
    gguf_file *f = open_gguf("bare/model-f16.gguf");
    has_the_model(f, "base", GGUF_F16);
    gguf_close(f);
}

/* A model that was trained whole. */
static void a_trained_model(void **state) {
    (void)state;
    run_ini("base.ini", "--set=run.output_dir=whole", "--set=export.gguf=f16");
    if (c.exit_code) fail_msg("%s", c.err);
    gguf_file *f = open_gguf("whole/merged/model-f16.gguf");
    has_the_model(f, "whole", GGUF_F16);
    gguf_close(f);
}

static void refused_by_key(const char *set, const char *second, const char *part) {
    run_ini("export.ini", set, second);
    assert_int_equal(c.exit_code, EXIT_CONFIG);
    if (!strstr(c.err, part)) fail_msg("%s, wanted %s", c.err, part);
}

static void wrong_keys(void **state) {
    (void)state;
    refused_by_key("--set=export.gguf=q4_0", NULL, "none | f16 | q8_0");
    refused_by_key(
        "--set=export.gguf=none", NULL, "task = export makes nothing then; hint: merged, gguf or");
    refused_by_key("--set=export.merged=requant", "--set=model.load_in_4bit=true",
        "beside merged = requant, whose codes GGUF does not have");
    refused_by_key("--set=adapter.use=none", "--set=export.gguf_adapter=true",
        "export.gguf_adapter: true, but [adapter] use = none");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(model_after_training),
        cmocka_unit_test(adapter_after_training),
        cmocka_unit_test(task_export_alone),
        cmocka_unit_test(sums_are_rounded_as_merged),
        cmocka_unit_test(values_that_no_half_holds),
        cmocka_unit_test(a_model_alone),
        cmocka_unit_test(a_trained_model),
        cmocka_unit_test(wrong_keys),
    };
    return cmocka_run_group_tests_name("serve/gguf", tests, make_all, temp_drop);
}
