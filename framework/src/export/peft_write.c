/* peft_write.c -- an adapter into a PEFT folder. */
#include <math.h>
#include <string.h>

#include "base/error.h"
#include "base/mem.h"
#include "export/peft.h"
#include "files/file.h"
#include "files/json.h"
#include "files/safetensors.h"

/* The LoRAs of one weight, as PEFT will see them: one module. */
typedef struct group {
    const lora *first;
    uint32_t n;
    int64_t r, in, out;
    double scale, alpha;
    int leaf_says_all; /* its last name alone stands for it, in targets and in patterns */
} group;

typedef struct adapter { /* while it is written */
    const char *folder;
    const peft_info *info;
    store *store;
    group *groups;
    uint32_t n_groups;
} adapter;

void peft_fuse(const peft_slice *slices, uint32_t n, int64_t in, int64_t out, double scale,
    float *a, float *b) {
    int64_t rank = 0, at = 0;
    for (uint32_t i = 0; i < n; i++) rank += slices[i].r;
    memset(b, 0, (size_t)(out * rank) * sizeof *b);
    for (uint32_t i = 0; i < n; i++) {
        const peft_slice *s = &slices[i];
        const float factor = (float)(s->scale / scale);
        memcpy(a + at * in, s->a, (size_t)(s->r * in) * sizeof *a);
        for (int64_t row = 0; row < s->rows; row++)
            for (int64_t k = 0; k < s->r; k++)
                b[(s->row0 + row) * rank + at + k] = s->b[row * s->r + k] * factor;
        at += s->r;
    }
}

/* --- what PEFT will see --- */

/* "model.layers.0.self_attn.qkv_proj" of the weight's name: so many bytes of it. */
static int module_length(const char *param) { return (int)(strlen(param) - strlen(".weight")); }

/* Its last part, without an end: "qkv_proj.weight". */
static const char *leaf_of(const char *param) {
    const char *leaf = param + module_length(param);
    while (leaf > param && leaf[-1] != '.') leaf--;
    return leaf;
}

/* Scale, and the alpha under which PEFT computes it. Where it is the one that the config's alpha
 * and r give, it is computed from these: exactly. */
static void set_scale(group *g, const peft_info *info) {
    const double r = (double)info->r, grown = (double)g->r / r;
    const double usual = info->lora_alpha / (info->use_rslora ? sqrt(r) : r);
    g->scale = (double)g->first->scale;
    g->alpha = g->scale * (info->use_rslora ? sqrt((double)g->r) : (double)g->r);
    if ((float)usual == g->first->scale) {
        g->scale = usual;
        g->alpha = info->lora_alpha * (info->use_rslora ? sqrt(grown) : grown);
    }
}

static qfw_status collect_groups(adapter *x, const lora *loras, uint32_t n) {
    size_t cap = 0;
    for (uint32_t i = 0; i < n;) {
        const lora *l = &loras[i++];
        const store_entry *weight = store_find(x->store, l->param);
        if (l->which != QFW_ADAPTER_POLICY) continue;
        if (!weight)
            return err_fail("E_INTERNAL", QFW_E_INTERNAL, "%s: adapts no weight", l->module);
        if (mem_grow(&x->groups, &cap, x->n_groups + 1, sizeof *x->groups)) return QFW_E_NOMEM;
        group *g = &x->groups[x->n_groups++];
        *g = (group){.first = l, .n = 1, .r = l->a->t.dim[0], .in = l->a->t.dim[1]};
        g->out = weight->t.dim[0];
        for (; i < n && loras[i].which == l->which && !strcmp(loras[i].param, l->param); i++) {
            g->r += loras[i].a->t.dim[0];
            g->n++;
        }
        set_scale(g, x->info);
    }
    return QFW_OK;
}

/* Whether every weight of the group's leaf is adapted, with one rank and alpha. */
static int is_uniform(const adapter *x, const group *g) {
    const char *leaf = leaf_of(g->first->param);
    uint32_t n_weights = 0, n_groups = 0;
    const store_entry *e;
    for (uint32_t i = 0; (e = store_at(x->store, i)) != NULL; i++) {
        const size_t n = strlen(e->name), n_leaf = strlen(leaf);
        n_weights +=
            n > n_leaf && e->name[n - n_leaf - 1] == '.' && !strcmp(e->name + n - n_leaf, leaf);
    }
    for (uint32_t i = 0; i < x->n_groups; i++) {
        const group *other = &x->groups[i];
        if (strcmp(leaf_of(other->first->param), leaf)) continue;
        if (other->r != g->r || other->alpha != g->alpha) return 0;
        n_groups++;
    }
    return n_groups >= n_weights;
}

/* The groups of one leaf are told by it if they can be, else each by its whole name. */
static void choose_names(adapter *x) {
    for (uint32_t i = 0; i < x->n_groups; i++) {
        group *g = &x->groups[i];
        uint32_t k = 0;
        while (strcmp(leaf_of(x->groups[k].first->param), leaf_of(g->first->param))) k++;
        g->leaf_says_all = k < i ? x->groups[k].leaf_says_all : is_uniform(x, g);
    }
}

/* --- tensors --- */

/* "base_model.model.<module>.lora_<which>.weight"; mem_free. */
static char *tensor_name(const char *param, char which) {
    return mem_printf("base_model.model.%.*s.lora_%c.weight", module_length(param), param, which);
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

static qfw_status read_entry(store *s, const store_entry *e, float **out) {
    *out = mem_alloc((size_t)qfw_tensor_count(&e->t), sizeof **out);
    return *out ? store_read(s, e, *out) : QFW_E_NOMEM;
}

static qfw_status read_slice(store *s, const lora *l, peft_slice *out) {
    float *a = NULL, *b = NULL;
    qfw_status status = read_entry(s, l->a, &a);
    if (status == QFW_OK) status = read_entry(s, l->b, &b);
    *out = (peft_slice){a, b, l->a->t.dim[0], l->row0, l->rows, (double)l->scale};
    return status;
}

static qfw_status write_group(st_writer *w, store *s, const group *g) {
    peft_slice *slices = mem_alloc(g->n, sizeof *slices);
    float *a = mem_alloc((size_t)(g->r * g->in), sizeof *a);
    float *b = mem_alloc((size_t)(g->out * g->r), sizeof *b);
    qfw_status status = slices && a && b ? QFW_OK : QFW_E_NOMEM;
    for (uint32_t i = 0; status == QFW_OK && i < g->n; i++) {
        status = read_slice(s, &g->first[i], &slices[i]);
        /* The same scale, told as a double: no factor. */
        if (g->first[i].scale == g->first->scale) slices[i].scale = g->scale;
    }
    if (status == QFW_OK) peft_fuse(slices, g->n, g->in, g->out, g->scale, a, b);
    if (status == QFW_OK) status = st_writer_data(w, a, (uint64_t)(g->r * g->in) * sizeof *a);
    if (status == QFW_OK) status = st_writer_data(w, b, (uint64_t)(g->out * g->r) * sizeof *b);
    for (uint32_t i = 0; slices && i < g->n; i++) {
        mem_free((void *)(uintptr_t)slices[i].a);
        mem_free((void *)(uintptr_t)slices[i].b);
    }
    mem_free(slices);
    mem_free(a);
    mem_free(b);
    return status;
}

static qfw_status write_tensors(const adapter *x) {
    st_writer *w = NULL;
    char *path = path_join(x->folder, "adapter_model.safetensors");
    qfw_status status = path ? st_writer_create(path, &w) : QFW_E_NOMEM;
    mem_free(path);
    if (status == QFW_OK) status = st_writer_meta(w, "format", "pt");
    for (uint32_t i = 0; status == QFW_OK && i < x->n_groups; i++)
        status = declare_group(w, &x->groups[i]);
    for (uint32_t i = 0; status == QFW_OK && i < x->n_groups; i++)
        status = write_group(w, x->store, &x->groups[i]);
    if (status == QFW_OK) return st_writer_finish(w);
    st_writer_abort(w);
    return status;
}

/* --- adapter_config.json --- */

/* The group's name in targets and patterns, in `name`; 0: a group before it said the same. */
static int group_name(const adapter *x, uint32_t i, char *name, size_t cap) {
    const group *g = &x->groups[i];
    const char *param = g->first->param, *leaf = leaf_of(param);
    const char *from = g->leaf_says_all ? leaf : param;
    snprintf(name, cap, "%.*s", (int)(param + module_length(param) - from), from);
    for (uint32_t k = 0; g->leaf_says_all && k < i; k++)
        if (!strcmp(leaf_of(x->groups[k].first->param), leaf)) return 0;
    return 1;
}

/* 32 rather than 32.0, as PEFT's users write it. */
static void put_number(json_out *o, const char *key, double value) {
    if (value == floor(value) && fabs(value) < 1e9)
        json_int(o, key, (int64_t)value);
    else
        json_float(o, key, value);
}

enum { ALPHA_PATTERN, RANK_PATTERN, TARGETS };

/* Patterns say where a module's rank or alpha is not the config's own. */
static void put_groups(json_out *o, const adapter *x, const char *key, int what) {
    char name[512];
    json_open(o, key, what == TARGETS ? '[' : '{');
    for (uint32_t i = 0; i < x->n_groups; i++) {
        const group *g = &x->groups[i];
        if (!group_name(x, i, name, sizeof name)) continue;
        if (what == TARGETS) json_str(o, NULL, name);
        if (what == RANK_PATTERN && g->r != x->info->r) json_int(o, name, g->r);
        if (what == ALPHA_PATTERN && g->alpha != x->info->lora_alpha) put_number(o, name, g->alpha);
    }
    json_close(o);
}

/* The keys that PEFT 0.11 knows, sorted: an older PEFT fails on others. */
static void put_config(json_out *o, const adapter *x) {
    const peft_info *info = x->info;
    json_open(o, NULL, '{');
    put_groups(o, x, "alpha_pattern", ALPHA_PATTERN);
    json_str(o, "auto_mapping", NULL);
    json_str(o, "base_model_name_or_path", info->base_model);
    json_str(o, "bias", "none");
    json_bool(o, "fan_in_fan_out", 0);
    json_bool(o, "inference_mode", 1);
    json_bool(o, "init_lora_weights", 1);
    json_str(o, "layer_replication", NULL);
    json_str(o, "layers_pattern", NULL);
    json_str(o, "layers_to_transform", NULL);
    json_open(o, "loftq_config", '{');
    json_close(o);
    put_number(o, "lora_alpha", info->lora_alpha);
    json_float(o, "lora_dropout", info->lora_dropout);
    json_str(o, "megatron_config", NULL);
    json_str(o, "megatron_core", "megatron.core");
    json_str(o, "modules_to_save", NULL);
    json_str(o, "peft_type", "LORA");
    json_int(o, "r", info->r);
    put_groups(o, x, "rank_pattern", RANK_PATTERN);
    json_str(o, "revision", NULL);
    put_groups(o, x, "target_modules", TARGETS);
    json_str(o, "task_type", "CAUSAL_LM");
    json_bool(o, "use_dora", 0);
    json_bool(o, "use_rslora", info->use_rslora);
    json_close(o);
}

static qfw_status write_config(const adapter *x) {
    size_t n = 0;
    json_out *o = json_out_create(2);
    put_config(o, x);
    const char *text = json_out_text(o, &n);
    char *path = text ? path_join(x->folder, "adapter_config.json") : NULL;
    const qfw_status status = path ? file_write(path, text, n) : QFW_E_NOMEM;
    mem_free(path);
    json_out_destroy(o);
    return status;
}

qfw_status peft_write(
    const char *folder, const peft_info *info, store *s, const lora *loras, uint32_t n) {
    adapter x = {.folder = folder, .info = info, .store = s};
    qfw_status status = collect_groups(&x, loras, n);
    if (status == QFW_OK) {
        choose_names(&x);
        status = write_tensors(&x);
    }
    if (status == QFW_OK) status = write_config(&x);
    mem_free(x.groups);
    return status;
}
