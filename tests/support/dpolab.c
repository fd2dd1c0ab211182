/* dpolab.c -- see dpolab.h. */
#include "dpolab.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include "base/mem.h"
#include "files/file.h"
#include "train/outputs.h"

#include <cmocka.h>

static const char model_keys[] =
    "load_in_4bit = true\nbnb_4bit_quant_type = nf4\nbnb_4bit_use_double_quant = true\n"
    "nested_codes = cpu_table\n";

static void copy(const lab *l, const char *golden, const char *name) {
    char path[512];
    lab_copy(l, lab_golden(golden, path), name);
}

static void close_run(lab *l) {
    run_close(l->r);
    l->r = NULL;
}

char *dpolab_settings(const lab *l, const char *rows, const char *trainer, const char *dpo) {
    return mem_printf("%s[adapter]\nuse = lora\npath = %s/sft\nlora_dropout = 0.3\n[data]\ntrain = "
                      "%s\nchat_template = phi3-mini\n"
                      "[trainer]\nuse = dpo\n%s[trainer.dpo]\n%s",
        model_keys, l->folder, rows, trainer, dpo);
}

static void make_adapter(lab *l) {
    char *folder = mem_printf("%s/sft", l->folder);
    char *text = mem_printf(
        "%s[adapter]\nuse = lora\nr = 4\nlora_alpha = 8\ntarget_modules = qkv_proj, o_proj\n"
        "[data]\ntrain = rows.jsonl\n[trainer]\nuse = dpo\n",
        model_keys);
    copy(l, "dpo/rows.jsonl", "rows.jsonl");
    lab_run(l, text);
    lab_adapters(l, 0);
    lab_ok(dir_make(folder));
    lab_ok(outputs_weights(l->r, folder));
    close_run(l);
    mem_free(text);
    mem_free(folder);
}

lab *dpolab_open(void) {
    char path[512];
    lab *l = lab_open("dpo/dpo.json");
    lab_model(l, lab_golden("dpo/config.json", path));
    copy(l, "tokenizer/bytefallback/tokenizer.json", "model/tokenizer.json");
    lab_write(l, "model/tokenizer_config.json",
        "{\"bos_token\": \"<s>\", \"eos_token\": \"<|endoftext|>\", "
        "\"pad_token\": \"<|placeholder2|>\", \"add_bos_token\": false}");
    make_adapter(l);
    return l;
}

void dpolab_run(lab *l, const char *rows, const char *trainer, const char *dpo) {
    char *from = mem_printf("dpo/%s", rows);
    char *settings = dpolab_settings(l, rows, trainer, dpo);
    if (l->r) close_run(l);
    copy(l, from, rows);
    lab_run(l, settings);
    mem_free(settings);
    mem_free(from);
}

void dpolab_move_policy(lab *l) {
    for (uint32_t i = 0; i < l->r->n_loras; i++) {
        char name[320];
        store_entry *b = l->r->loras[i].b;
        const int64_t n = qfw_tensor_count(&b->t);
        float *data = malloc((size_t)n * sizeof *data);
        assert_non_null(data);
        snprintf(name, sizeof name, "dpo_policy.base_model.model.%s", b->name);
        synth_tensor(l->rules, name, b->t.dim[1], data, n);
        lab_ok(store_write(l->r->store, b, data));
        free(data);
    }
}
