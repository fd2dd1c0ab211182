/* peft_read.c -- an adapter out of a PEFT folder, whoever wrote it.
 *
 * Nothing is guessed: a tensor under another name, a rank that the config does not say, or an
 * option that changes what PEFT computes is an error. Loading a part in silence would train another
 * adapter than the one in the folder.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/mem.h"
#include "export/peft.h"
#include "files/file.h"
#include "files/json.h"
#include "files/safetensors.h"

enum { MAX_CONFIG_BYTES = 16 << 20, MAX_RANK = 1 << 20 };

typedef struct entry {
    peft_module pub;
    char *name;
    const st_tensor *a, *b;
} entry;

struct peft {
    st_file *file;
    qfw_doc *config;
    entry *entries;
    size_t n, cap;
    double r, alpha, dropout;
    int64_t use_rslora;
};

/* --- adapter_config.json --- */

/* Whether a member is there and says more than null, false, "none" or nothing. */
static int says_something(const json_node *v) {
    switch (json_node_kind(v)) {
    case QFW_DOC_ABSENT:
    case QFW_DOC_NULL: return 0;
    case QFW_DOC_STRING: return strcmp(json_node_str(v), "none") != 0;
    case QFW_DOC_ARRAY:
    case QFW_DOC_OBJECT: return json_node_count(v) > 0;
    default: return 1;
    }
}

/* Options under which the folder's tensors are not all there is to the function. */
static qfw_status refuse_options(const peft *p) {
    static const char *const options[] = {"bias", "fan_in_fan_out", "use_dora", "lora_bias",
        "modules_to_save", "layer_replication", "alora_invocation_tokens", "arrow_config",
        "kasa_config", "monteclora_config", "target_parameters", "trainable_token_indices",
        "use_bdlora", "use_qalora", "velora_config"};
    const json_node *root = json_root(p->config);
    char ptr[64];
    for (size_t i = 0; i < sizeof options / sizeof *options; i++) {
        int64_t on = 1;
        snprintf(ptr, sizeof ptr, "/%s", options[i]);
        if (!says_something(json_node_member(root, options[i]))) continue;
        if (json_doc_api.kind(p->config, ptr) == QFW_DOC_BOOL)
            QFW_TRY(json_doc_api.i64(p->config, ptr, &on));
        if (on)
            return json_doc_api.fail(p->config, ptr, QFW_E_UNSUPPORTED,
                "E_CFG_UNSUPPORTED: set, wanted plain LoRA: false, null or \"none\"");
    }
    /* PiSSA, OLoRA, CorDA and LoftQ change the base weights, too; others only draw other starts. */
    static const char *const harmless[] = {"gaussian", "eva", "orthogonal", "lora_ga"};
    const char *init = json_node_str(json_node_member(root, "init_lora_weights"));
    for (size_t i = 0; init && i < sizeof harmless / sizeof *harmless; i++)
        if (!strcmp(init, harmless[i])) init = NULL;
    if (!init) return QFW_OK;
    return json_doc_api.fail(p->config, "/init_lora_weights", QFW_E_UNSUPPORTED,
        "E_CFG_UNSUPPORTED: an initialisation that changes the base weights; hint: let PEFT "
        "convert "
        "the adapter to plain LoRA");
}

/* A number in lo..hi; `dflt` where the key is absent or null. */
static qfw_status read_number(
    const peft *p, const char *ptr, double lo, double hi, double dflt, double *out) {
    const uint32_t kind = json_doc_api.kind(p->config, ptr);
    char text[96];
    *out = dflt;
    if (kind == QFW_DOC_ABSENT || kind == QFW_DOC_NULL) return QFW_OK;
    QFW_TRY(json_doc_api.f64(p->config, ptr, out));
    if (*out >= lo && *out <= hi) return QFW_OK;
    snprintf(text, sizeof text, "E_CFG_RANGE: %g, wanted %g..%g", *out, lo, hi);
    return json_doc_api.fail(p->config, ptr, QFW_E_DATA, text);
}

/* Patterns are objects from module to number. PEFT takes keys as regular expressions: here they are
 * names. */
static qfw_status check_pattern(const peft *p, const char *name, double hi) {
    const json_node *pattern = json_node_member(json_root(p->config), name);
    char ptr[600], where[64];
    snprintf(where, sizeof where, "/%s", name);
    if (!says_something(pattern)) return QFW_OK;
    if (json_node_kind(pattern) != QFW_DOC_OBJECT)
        return json_doc_api.fail(
            p->config, where, QFW_E_DATA, "E_CFG_TYPE: wanted an object from module to number");
    for (json_member m = json_first(pattern); m.key; m = json_next(pattern, m)) {
        double value;
        snprintf(ptr, sizeof ptr, "%s/%.500s", where, m.key);
        if (m.key[strcspn(m.key, "\\^$|?*+()[]{}/~")])
            return json_doc_api.fail(p->config, ptr, QFW_E_UNSUPPORTED,
                "E_CFG_UNSUPPORTED: a regular expression, wanted a module's name or its end");
        QFW_TRY(read_number(p, ptr, 0, hi, 0, &value));
    }
    return QFW_OK;
}

static qfw_status read_config(peft *p) {
    const json_node *type = json_node_member(json_root(p->config), "peft_type");
    const char *text = type ? json_node_str(type) : "LORA";
    if (!text || strcmp(text, "LORA"))
        return json_doc_api.fail(p->config, "/peft_type", QFW_E_UNSUPPORTED,
            "E_CFG_UNSUPPORTED: another kind of adapter, wanted \"LORA\"");
    QFW_TRY(refuse_options(p));
    QFW_TRY(read_number(p, "/r", 1, MAX_RANK, 8, &p->r));
    QFW_TRY(read_number(p, "/lora_alpha", 0, 1e9, 8, &p->alpha));
    QFW_TRY(read_number(p, "/lora_dropout", 0, 1, 0, &p->dropout));
    QFW_TRY(check_pattern(p, "rank_pattern", MAX_RANK));
    QFW_TRY(check_pattern(p, "alpha_pattern", 1e9));
    const uint32_t rslora = json_doc_api.kind(p->config, "/use_rslora");
    if (rslora != QFW_DOC_ABSENT && rslora != QFW_DOC_NULL)
        QFW_TRY(json_doc_api.i64(p->config, "/use_rslora", &p->use_rslora));
    return QFW_OK;
}

/* The first key that is the module's name or its end after a dot, as PEFT looks it up. */
static double pattern_number(const peft *p, const char *name, const char *module, double dflt) {
    const json_node *pattern = json_node_member(json_root(p->config), name);
    for (json_member m = json_first(pattern); m.key; m = json_next(pattern, m)) {
        const size_t n = strlen(m.key), all = strlen(module);
        if (n > all || strcmp(module + all - n, m.key)) continue;
        if (n < all && module[all - n - 1] != '.') continue;
        return json_node_f64(m.value);
    }
    return dflt;
}

/* --- adapter_model.safetensors --- */

/* The module of "base_model.model.<module>.lora_<A or B>.weight" or "....default.weight",
 * mem_free; *which is 0 for another name. NULL: no memory, or another name. */
static char *module_of(const char *name, char *which) {
    static const char prefix[] = "base_model.model.";
    static const char *const ends[] = {
        ".lora_A.weight", ".lora_B.weight", ".lora_A.default.weight", ".lora_B.default.weight"};
    const size_t n = strlen(name), skip = sizeof prefix - 1;
    *which = 0;
    for (size_t i = 0; !strncmp(name, prefix, skip) && i < 4; i++) {
        const size_t n_end = strlen(ends[i]);
        if (n <= skip + n_end || strcmp(name + n - n_end, ends[i])) continue;
        *which = i % 2 ? 'B' : 'A';
        return mem_printf("%.*s", (int)(n - n_end - skip), name + skip);
    }
    return NULL;
}

/* Put a tensor to its module. Names are sorted, so a module's tensors follow each other. */
static qfw_status collect_tensor(peft *p, const st_tensor *t) {
    char which, *module = module_of(t->name, &which);
    if (!which)
        (void)err_also("E_MODEL_EXTRA", QFW_E_DATA,
            "%s: tensor \"%.150s\": no LoRA tensor, wanted base_model.model.<module>.lora_A.weight "
            "or lora_B",
            t->file, t->name);
    if (!which) return QFW_OK;
    if (!module || mem_grow(&p->entries, &p->cap, p->n + 1, sizeof *p->entries)) {
        mem_free(module);
        return QFW_E_NOMEM;
    }
    entry *e = p->n ? &p->entries[p->n - 1] : NULL;
    if (e && !strcmp(e->name, module)) {
        mem_free(module);
    } else {
        e = &p->entries[p->n++];
        e->name = module;
    }
    const st_tensor **place = which == 'A' ? &e->a : &e->b;
    if (*place)
        (void)err_also("E_MODEL_EXTRA", QFW_E_DATA, "%s: tensor \"%.150s\": the same as \"%.150s\"",
            t->file, t->name, (*place)->name);
    *place = t;
    return QFW_OK;
}

static void check_entry(const peft *p, entry *e) {
    const st_tensor *there = e->a ? e->a : e->b, *a = e->a, *b = e->b;
    if (!a || !b) {
        (void)err_also("E_MODEL_MISSING", QFW_E_DATA, "%s: module \"%.150s\": lora_%c is missing",
            there->file, e->name, a ? 'B' : 'A');
        return;
    }
    const double r = pattern_number(p, "rank_pattern", e->name, p->r);
    const double alpha = pattern_number(p, "alpha_pattern", e->name, p->alpha);
    if (a->rank != 2 || b->rank != 2 || (double)a->dim[0] != r || (double)b->dim[1] != r ||
        a->bytes == 0 || b->bytes == 0) {
        (void)err_also("E_MODEL_SHAPE", QFW_E_DATA,
            "%s: module \"%.150s\": lora_A is [%lld, %lld], lora_B is [%lld, %lld], wanted "
            "[%g, in] and [out, %g] as adapter_config.json says",
            there->file, e->name, (long long)a->dim[0], (long long)a->dim[1], (long long)b->dim[0],
            (long long)b->dim[1], r, r);
        return;
    }
    e->pub = (peft_module){
        e->name, a->dim[0], a->dim[1], b->dim[0], alpha / (p->use_rslora ? sqrt(r) : r)};
}

static qfw_status collect(peft *p, const char *folder) {
    err_clear();
    for (uint32_t i = 0; i < st_count(p->file); i++) QFW_TRY(collect_tensor(p, st_at(p->file, i)));
    for (size_t i = 0; i < p->n; i++) check_entry(p, &p->entries[i]);
    if (p->n || err_count()) return err_status();
    return err_fail("E_MODEL_MISSING", QFW_E_DATA, "%s: the adapter has no tensors", folder);
}

/* --- the folder --- */

static qfw_status open_files(peft *p, const char *folder) {
    char *config = path_join(folder, "adapter_config.json");
    char *tensors = path_join(folder, "adapter_model.safetensors");
    qfw_status status = config && tensors ? QFW_OK : QFW_E_NOMEM;
    if (status == QFW_OK) status = json_read(config, MAX_CONFIG_BYTES, NULL, &p->config);
    if (status == QFW_OK) status = read_config(p);
    if (status == QFW_OK) status = st_open(tensors, &p->file);
    mem_free(config);
    mem_free(tensors);
    return status;
}

qfw_status peft_open(const char *folder, peft **out) {
    peft *p = mem_alloc(1, sizeof *p);
    *out = NULL;
    if (!p) return QFW_E_NOMEM;
    qfw_status status = open_files(p, folder);
    if (status == QFW_OK) status = collect(p, folder);
    if (status != QFW_OK) {
        peft_close(p);
        return status;
    }
    *out = p;
    return QFW_OK;
}

void peft_close(peft *p) {
    if (!p) return;
    for (size_t i = 0; i < p->n; i++) mem_free(p->entries[i].name);
    mem_free(p->entries);
    st_close(p->file);
    json_destroy(p->config);
    mem_free(p);
}

uint32_t peft_count(const peft *p) { return (uint32_t)p->n; }
const peft_module *peft_at(const peft *p, uint32_t i) { return &p->entries[i].pub; }

peft_info peft_about(const peft *p) {
    return (peft_info){.base_model = json_node_str(
                           json_node_member(json_root(p->config), "base_model_name_or_path")),
        .r = (int64_t)p->r,
        .lora_alpha = p->alpha,
        .lora_dropout = p->dropout,
        .use_rslora = p->use_rslora != 0};
}

qfw_status peft_read(peft *p, uint32_t i, float *a, float *b) {
    const entry *e = &p->entries[i];
    QFW_TRY(st_read_f32(p->file, e->a, 0, e->a->dim[0], a));
    return st_read_f32(p->file, e->b, 0, e->b->dim[0], b);
}
