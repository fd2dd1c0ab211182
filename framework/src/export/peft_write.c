/* peft_write.c -- an adapter into a PEFT folder. */
#include <math.h>
#include <string.h>

#include "base/error.h"
#include "base/mem.h"
#include "export/peft.h"
#include "files/file.h"
#include "files/json.h"
#include "files/safetensors.h"

enum { MAX_SLICES = 8, MAX_LEAVES = 16 };

/* The LoRAs of one weight, as PEFT will see them: one module. */
typedef struct group {
    const lora *first;
    uint32_t n;
    int64_t r, in, out;
    double scale;
} group;

void peft_fuse(
    const peft_slice *slices, uint32_t n, int64_t in, int64_t out_rows, float *a, float *b) {
    int64_t rank = 0, at = 0;
    for (uint32_t i = 0; i < n; i++) rank += slices[i].r;
    memset(b, 0, (size_t)(out_rows * rank) * sizeof *b);
    for (uint32_t i = 0; i < n; i++) {
        const peft_slice *s = &slices[i];
        memcpy(a + at * in, s->a, (size_t)(s->r * in) * sizeof *a);
        for (int64_t row = 0; row < s->rows; row++)
            memcpy(b + (s->row0 + row) * rank + at, s->b + row * s->r, (size_t)s->r * sizeof *b);
        at += s->r;
    }
}

static group next_group(const store *s, const lora *loras, uint32_t n) {
    group g = {.first = loras, .in = loras->a->t.dim[1], .scale = (double)loras->scale};
    while (g.n < n && !strcmp(loras[g.n].param, loras->param)) g.r += loras[g.n++].a->t.dim[0];
    g.out = store_find(s, loras->param)->t.dim[0];
    return g;
}

/* "base_model.model.<module>.lora_<which>.weight" of the weight "<module>.weight"; mem_free. */
static char *tensor_name(const char *param, char which) {
    const int n = (int)(strlen(param) - strlen(".weight"));
    return mem_printf("base_model.model.%.*s.lora_%c.weight", n, param, which);
}

static qfw_status declare_group(st_writer *w, const group *g) {
    const int64_t dim_a[2] = {g->r, g->in}, dim_b[2] = {g->out, g->r};
    char *a = tensor_name(g->first->param, 'A'), *b = tensor_name(g->first->param, 'B');
    qfw_status status = a && b ? st_writer_add(w, a, QFW_F32, 2, dim_a) : QFW_E_NOMEM;
    if (status == QFW_OK) status = st_writer_add(w, b, QFW_F32, 2, dim_b);
    mem_free(a);
    mem_free(b);
    return status;
}

static float *read_entry(store *s, const store_entry *e, qfw_status *status) {
    float *data = mem_alloc((size_t)qfw_tensor_count(&e->t), sizeof *data);
    if (!data) *status = QFW_E_NOMEM;
    if (*status == QFW_OK) *status = store_read(s, e, data);
    return data;
}

static qfw_status write_group(st_writer *w, store *s, const group *g) {
    peft_slice slices[MAX_SLICES] = {{NULL}};
    qfw_status status = g->n <= MAX_SLICES ? QFW_OK
                                           : err_fail("E_INTERNAL", QFW_E_INTERNAL,
                                                 "%s: %u LoRAs on one weight, at most %d",
                                                 g->first->param, g->n, MAX_SLICES);
    float *a = mem_alloc((size_t)(g->r * g->in), sizeof *a);
    float *b = mem_alloc((size_t)(g->out * g->r), sizeof *b);
    if (!a || !b) status = QFW_E_NOMEM;
    for (uint32_t i = 0; status == QFW_OK && i < g->n; i++) {
        const lora *l = &g->first[i];
        slices[i] = (peft_slice){read_entry(s, l->a, &status), read_entry(s, l->b, &status),
            l->a->t.dim[0], l->row0, l->rows};
    }
    if (status == QFW_OK) {
        peft_fuse(slices, g->n, g->in, g->out, a, b);
        status = st_writer_data(w, a, (uint64_t)(g->r * g->in) * sizeof *a);
    }
    if (status == QFW_OK) status = st_writer_data(w, b, (uint64_t)(g->out * g->r) * sizeof *b);
    for (uint32_t i = 0; i < MAX_SLICES; i++) {
        mem_free((void *)slices[i].a);
        mem_free((void *)slices[i].b);
    }
    mem_free(a);
    mem_free(b);
    return status;
}

static qfw_status write_tensors(const char *folder, store *s, const lora *loras, uint32_t n) {
    st_writer *w = NULL;
    char *path = path_join(folder, "adapter_model.safetensors");
    qfw_status status = path ? st_writer_create(path, &w) : QFW_E_NOMEM;
    mem_free(path);
    if (status != QFW_OK) return status;
    status = st_writer_meta(w, "format", "pt");
    for (uint32_t i = 0; status == QFW_OK && i < n;) {
        const group g = next_group(s, loras + i, n - i);
        status = declare_group(w, &g);
        i += g.n;
    }
    for (uint32_t i = 0; status == QFW_OK && i < n;) {
        const group g = next_group(s, loras + i, n - i);
        status = write_group(w, s, &g);
        i += g.n;
    }
    if (status == QFW_OK) return st_writer_finish(w);
    st_writer_abort(w);
    return status;
}

/* The module's last part: "qkv_proj" of "....self_attn.qkv_proj.weight". */
static void leaf_of(const char *param, char leaf[64]) {
    const size_t n = strlen(param) - strlen(".weight");
    size_t from = n;
    while (from > 0 && param[from - 1] != '.') from--;
    snprintf(leaf, 64, "%.*s", (int)(n - from), param + from);
}

/* Distinct leaves with the group that each stands for. */
static uint32_t collect_leaves(const store *s, const lora *loras, uint32_t n,
    char leaves[MAX_LEAVES][64], group groups[MAX_LEAVES]) {
    uint32_t count = 0;
    for (uint32_t i = 0; i < n && count < MAX_LEAVES;) {
        const group g = next_group(s, loras + i, n - i);
        uint32_t at = 0;
        leaf_of(g.first->param, leaves[count]);
        while (strcmp(leaves[at], leaves[count])) at++;
        if (at == count) groups[count++] = g;
        i += g.n;
    }
    return count;
}

/* alpha under which PEFT's scale for this rank is the one that was trained. */
static double alpha_of(const group *g, int use_rslora) {
    return g->scale * (use_rslora ? sqrt((double)g->r) : (double)g->r);
}

/* Where a module's rank or alpha is not the config's own. */
static void write_patterns(json_out *o, const peft_info *info, char leaves[MAX_LEAVES][64],
    const group *groups, uint32_t n) {
    json_open(o, "alpha_pattern", '{');
    for (uint32_t i = 0; i < n; i++) {
        const double alpha = alpha_of(&groups[i], info->use_rslora);
        if (fabs(alpha - info->lora_alpha) > 1e-6 * alpha) json_float(o, leaves[i], alpha);
    }
    json_close(o);
    json_open(o, "rank_pattern", '{');
    for (uint32_t i = 0; i < n; i++)
        if (groups[i].r != info->r) json_int(o, leaves[i], groups[i].r);
    json_close(o);
}

static qfw_status write_config(
    const char *folder, const peft_info *info, const store *s, const lora *loras, uint32_t n) {
    static const char *const nulls[] = {"auto_mapping", "layer_replication", "layers_pattern",
        "layers_to_transform", "megatron_config", "modules_to_save", "revision"};
    char leaves[MAX_LEAVES][64];
    group groups[MAX_LEAVES];
    size_t length = 0;
    const uint32_t count = collect_leaves(s, loras, n, leaves, groups);
    json_out *o = json_out_create(2);
    json_open(o, NULL, '{');
    json_str(o, "base_model_name_or_path", info->base_model);
    json_str(o, "bias", "none");
    json_bool(o, "fan_in_fan_out", 0);
    json_bool(o, "inference_mode", 1);
    json_bool(o, "init_lora_weights", 1);
    json_open(o, "loftq_config", '{');
    json_close(o);
    json_float(o, "lora_alpha", info->lora_alpha);
    json_float(o, "lora_dropout", info->lora_dropout);
    json_str(o, "megatron_core", "megatron.core");
    json_str(o, "peft_type", "LORA");
    json_int(o, "r", info->r);
    write_patterns(o, info, leaves, groups, count);
    json_open(o, "target_modules", '[');
    for (uint32_t i = 0; i < count; i++) json_str(o, NULL, leaves[i]);
    json_close(o);
    json_str(o, "task_type", "CAUSAL_LM");
    json_bool(o, "use_dora", 0);
    json_bool(o, "use_rslora", info->use_rslora);
    for (size_t i = 0; i < sizeof nulls / sizeof nulls[0]; i++) json_str(o, nulls[i], NULL);
    json_close(o);
    const char *text = json_out_text(o, &length);
    char *path = text ? path_join(folder, "adapter_config.json") : NULL;
    const qfw_status status = path ? file_write(path, text, length) : QFW_E_NOMEM;
    mem_free(path);
    json_out_destroy(o);
    return status;
}

qfw_status peft_write(
    const char *folder, const peft_info *info, store *s, const lora *loras, uint32_t n) {
    QFW_TRY(write_tensors(folder, s, loras, n));
    return write_config(folder, info, s, loras, n);
}
