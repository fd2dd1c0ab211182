/* peft_read.c -- an adapter out of a PEFT folder, whoever wrote it. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/mem.h"
#include "export/peft.h"
#include "files/file.h"
#include "files/json.h"
#include "files/safetensors.h"

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
    double dropout;
};

/* The module of "[base_model.model.]<module>.lora_A[.<adapter>].weight", mem_free; NULL: another
 * name. *which: 'A' or 'B'. */
static char *module_of(const char *name, char *which) {
    static const char prefix[] = "base_model.model.";
    const char *mark = strstr(name, ".lora_");
    if (!mark || (mark[6] != 'A' && mark[6] != 'B') || mark[7] != '.') return NULL;
    const char *rest = mark + 8, *dot = strchr(rest, '.');
    if (strcmp(rest, "weight") && !(dot && !strcmp(dot, ".weight"))) return NULL;
    *which = mark[6];
    if (!strncmp(name, prefix, sizeof prefix - 1)) name += sizeof prefix - 1;
    return mem_printf("%.*s", (int)(mark - name), name);
}

static entry *find_entry(peft *p, const char *module) {
    for (size_t i = 0; i < p->n; i++)
        if (!strcmp(p->entries[i].name, module)) return &p->entries[i];
    return NULL;
}

/* Sort the file's tensors into modules; what is no LoRA tensor is an error. */
static qfw_status collect(peft *p) {
    for (uint32_t i = 0; i < st_count(p->file); i++) {
        const st_tensor *t = st_at(p->file, i);
        char which = 0, *module = module_of(t->name, &which);
        if (!module) {
            (void)err_also("E_MODEL_EXTRA", QFW_E_DATA,
                "%s: %s: not a LoRA tensor, wanted names like base_model.model.*.lora_A.weight",
                t->file, t->name);
            continue;
        }
        entry *e = find_entry(p, module);
        if (!e) {
            if (mem_grow(&p->entries, &p->cap, p->n + 1, sizeof *p->entries)) return QFW_E_NOMEM;
            e = &p->entries[p->n++];
            *e = (entry){.name = module};
        } else {
            mem_free(module);
        }
        *(which == 'A' ? &e->a : &e->b) = t;
    }
    return err_status();
}

static double config_number(const peft *p, const char *ptr, double dflt, qfw_status *status) {
    double value = dflt;
    const uint32_t kind = json_doc_api.kind(p->config, ptr);
    if (*status == QFW_OK && kind != QFW_DOC_ABSENT && kind != QFW_DOC_NULL)
        *status = json_doc_api.f64(p->config, ptr, &value);
    return value;
}

/* A pattern's value for a module: PEFT takes the first key that matches as (.*\.)?(key)$; keys here
 * are names. */
static double pattern_number(const peft *p, const char *pattern, const char *module, double dflt) {
    const char *key;
    for (uint64_t i = 0; (key = json_doc_api.key(p->config, pattern, i)) != NULL; i++) {
        const size_t n = strlen(key), m = strlen(module);
        const int ends =
            n <= m && !strcmp(module + m - n, key) && (n == m || module[m - n - 1] == '.');
        char ptr[512];
        double value;
        snprintf(ptr, sizeof ptr, "%s/%s", pattern, key);
        if (ends && json_doc_api.f64(p->config, ptr, &value) == QFW_OK) return value;
    }
    return dflt;
}

static void check_entry(const peft *p, entry *e, double r, double alpha, int rslora) {
    if (!e->a || !e->b) {
        const st_tensor *there = e->a ? e->a : e->b;
        (void)err_also("E_MODEL_MISSING", QFW_E_DATA, "%s: %s has lora_%c but no lora_%c",
            there->file, e->name, e->a ? 'A' : 'B', e->a ? 'B' : 'A');
        return;
    }
    const double rank = pattern_number(p, "/rank_pattern", e->name, r);
    alpha = pattern_number(p, "/alpha_pattern", e->name, alpha);
    if (e->a->rank != 2 || e->b->rank != 2 || e->a->dim[0] != e->b->dim[1] ||
        (double)e->a->dim[0] != rank) {
        (void)err_also("E_MODEL_SHAPE", QFW_E_DATA,
            "%s: %s: A is [%lld,%lld], B is [%lld,%lld], wanted rank %g as adapter_config.json "
            "says",
            e->a->file, e->name, (long long)e->a->dim[0], (long long)e->a->dim[1],
            (long long)e->b->dim[0], (long long)e->b->dim[1], rank);
        return;
    }
    e->pub = (peft_module){
        e->name, e->a->dim[0], e->a->dim[1], e->b->dim[0], alpha / (rslora ? sqrt(rank) : rank)};
}

static qfw_status read_config(peft *p, double *r, double *alpha, int *rslora) {
    qfw_status status = QFW_OK;
    const char *type = "LORA";
    *r = config_number(p, "/r", 8, &status);
    *alpha = config_number(p, "/lora_alpha", 8, &status);
    p->dropout = config_number(p, "/lora_dropout", 0, &status);
    if (status == QFW_OK && json_doc_api.kind(p->config, "/peft_type") == QFW_DOC_STRING)
        status = json_doc_api.str(p->config, "/peft_type", &type);
    if (status != QFW_OK) return status;
    if (strcmp(type, "LORA"))
        return json_doc_api.fail(
            p->config, "/peft_type", QFW_E_UNSUPPORTED, "E_MODEL_ADAPTER: wanted LORA");
    int64_t dora = 0, flag = 0;
    if (json_doc_api.kind(p->config, "/use_dora") == QFW_DOC_BOOL)
        QFW_TRY(json_doc_api.i64(p->config, "/use_dora", &dora));
    if (dora)
        return json_doc_api.fail(p->config, "/use_dora", QFW_E_UNSUPPORTED,
            "E_MODEL_ADAPTER: true, wanted false: DoRA is not supported");
    if (json_doc_api.kind(p->config, "/use_rslora") == QFW_DOC_BOOL)
        QFW_TRY(json_doc_api.i64(p->config, "/use_rslora", &flag));
    *rslora = (int)flag;
    return QFW_OK;
}

static qfw_status open_files(peft *p, const char *folder) {
    char *config = path_join(folder, "adapter_config.json");
    char *tensors = path_join(folder, "adapter_model.safetensors");
    qfw_status status =
        config && tensors ? json_read(config, 16 << 20, NULL, &p->config) : QFW_E_NOMEM;
    if (status == QFW_OK) status = st_open(tensors, &p->file);
    mem_free(config);
    mem_free(tensors);
    return status;
}

qfw_status peft_open(const char *folder, peft **out) {
    double r = 0, alpha = 0;
    int rslora = 0;
    peft *p = *out = mem_alloc(1, sizeof *p);
    if (!p) return QFW_E_NOMEM;
    qfw_status status = open_files(p, folder);
    if (status == QFW_OK) status = read_config(p, &r, &alpha, &rslora);
    if (status == QFW_OK) {
        err_clear();
        status = collect(p);
    }
    for (size_t i = 0; status == QFW_OK && i < p->n; i++)
        check_entry(p, &p->entries[i], r, alpha, rslora);
    if (status == QFW_OK) status = err_status();
    if (status == QFW_OK && !p->n)
        status = err_fail("E_MODEL_MISSING", QFW_E_DATA, "%s: the adapter has no tensors", folder);
    if (status == QFW_OK) return status;
    peft_close(p);
    *out = NULL;
    return status;
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
double peft_dropout(const peft *p) { return p->dropout; }

qfw_status peft_read(peft *p, uint32_t i, float *a, float *b) {
    const entry *e = &p->entries[i];
    QFW_TRY(st_read_f32(p->file, e->a, 0, e->a->dim[0], a));
    return st_read_f32(p->file, e->b, 0, e->b->dim[0], b);
}
