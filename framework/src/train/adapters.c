/* adapters.c -- which weights get a LoRA: target_modules against the modules and slices of the
 * model.
 *
 * A slice target (q_proj inside qkv_proj) has its own A, B, name and dropout mask on its rows; a
 * fused name is one LoRA on the whole weight. A target that matches nothing is an error: training
 * less than was asked for must never be silent.
 */
#include <math.h>
#include <string.h>

#include "base/error.h"
#include "base/mem.h"
#include "base/rng.h"
#include "export/peft.h"
#include "train/run.h"

/* Whether `name` is one of the comma-separated words of `list`. */
static int is_listed(const char *list, const char *name) {
    const size_t n = strlen(name);
    for (const char *at = list; *at;) {
        const size_t word = strcspn(at, ",");
        if (word == n && !strncmp(at, name, n)) return 1;
        at += word + (at[word] == ',');
    }
    return 0;
}

/* "model.layers.0.self_attn.q_proj": the weight's own path with its last part replaced. */
static char *module_path(const char *param, const char *leaf) {
    const size_t n = strlen(param) - strlen(".weight");
    size_t parent = n;
    while (parent > 0 && param[parent - 1] != '.') parent--;
    return mem_printf("%.*s%s", (int)parent, param, leaf);
}

static qfw_status add_lora(
    run *r, size_t *cap, const model_weight *w, const char *leaf, int64_t row0, int64_t rows) {
    const qfw_cfg *a = run_cfg(r, SECTION_ADAPTER);
    const int64_t rank = cfg_int(a, "r");
    const double alpha = cfg_real(a, "lora_alpha");
    if (mem_grow(&r->loras, cap, r->n_loras + 1, sizeof *r->loras)) return QFW_E_NOMEM;
    lora *l = &r->loras[r->n_loras];
    *l = (lora){.param = w->desc.name,
        .module = module_path(w->desc.name, leaf),
        .row0 = row0,
        .rows = rows,
        .which = QFW_ADAPTER_POLICY,
        .scale = (float)(alpha / (cfg_int(a, "use_rslora") ? sqrt((double)rank) : (double)rank)),
        .dropout = (float)cfg_real(a, "lora_dropout")};
    if (!l->module) return QFW_E_NOMEM;
    r->n_loras++;
    const int64_t dim_a[2] = {rank, w->desc.dim[1]}, dim_b[2] = {rows, rank};
    char name[256];
    snprintf(name, sizeof name, "%s.lora_A.weight", l->module);
    QFW_TRY(store_add(r->store, name, QFW_MEM_RUN, QFW_F32, 2, dim_a, 0, 0, &l->a));
    snprintf(name, sizeof name, "%s.lora_B.weight", l->module);
    return store_add(r->store, name, QFW_MEM_RUN, QFW_F32, 2, dim_b, 0, 0, &l->b);
}

/* The LoRAs of one weight: the fused module if it is named, else each slice that is. */
static qfw_status add_weight_loras(
    run *r, size_t *cap, const model_weight *w, const char *targets) {
    const qfw_param_desc *d = &w->desc;
    const int all = is_listed(targets, "all-linear");
    if (!d->module || d->role == QFW_ROLE_HEAD) return QFW_OK;
    const int fused = all || is_listed(targets, d->module);
    if (fused) QFW_TRY(add_lora(r, cap, w, d->module, 0, d->dim[0]));
    for (uint32_t s = 0; s < d->n_slices; s++) {
        if (!is_listed(targets, d->slices[s].name)) continue;
        if (fused)
            return cfg_problem(r->ini, run_cfg(r, SECTION_ADAPTER), "target_modules",
                "%s and %s, which holds it: name one of them", d->slices[s].name, d->module);
        QFW_TRY(add_lora(r, cap, w, d->slices[s].name, d->slices[s].row0, d->slices[s].rows));
    }
    return QFW_OK;
}

static int target_exists(const run *r, const char *name) {
    if (!strcmp(name, "all-linear")) return 1;
    for (uint32_t i = 0; i < r->n_weights; i++) {
        const qfw_param_desc *d = &r->weights[i].desc;
        if (!d->module) continue;
        if (!strcmp(d->module, name)) return 1;
        for (uint32_t s = 0; s < d->n_slices; s++)
            if (!strcmp(d->slices[s].name, name)) return 1;
    }
    return 0;
}

/* Every name in target_modules is one of the model's. */
static qfw_status check_targets(const run *r, const char *targets) {
    enum { MAX_NAMES = 64 };
    const char *known[MAX_NAMES];
    uint32_t n = 0;
    for (uint32_t i = 0; i < r->n_weights && n + 8 < MAX_NAMES; i++) {
        const qfw_param_desc *d = &r->weights[i].desc;
        if (!d->module || strstr(d->name, "layers.0.") == NULL) continue;
        known[n++] = d->module;
        for (uint32_t s = 0; s < d->n_slices && n < MAX_NAMES; s++) known[n++] = d->slices[s].name;
    }
    for (const char *at = targets; *at;) {
        char word[128];
        const size_t len = strcspn(at, ",");
        snprintf(word, sizeof word, "%.*s", (int)len, at);
        at += len + (at[len] == ',');
        if (target_exists(r, word)) continue;
        const char *near = err_nearest(word, known, n);
        (void)cfg_problem(r->ini, run_cfg(r, SECTION_ADAPTER), "target_modules",
            "\"%s\" matches no module of model %s%s%s%s", word, r->model_component->name,
            near ? "; did you mean \"" : "", near ? near : "", near ? "\"?" : "");
    }
    return err_status();
}

qfw_status adapters_declare(run *r) {
    const char *targets = cfg_text(run_cfg(r, SECTION_ADAPTER), "target_modules");
    size_t cap = 0;
    if (strcmp(cfg_text(run_cfg(r, SECTION_ADAPTER), "use"), "lora")) return QFW_OK;
    QFW_TRY(check_targets(r, targets));
    for (uint32_t i = 0; i < r->n_weights; i++)
        QFW_TRY(add_weight_loras(r, &cap, &r->weights[i], targets));
    if (!r->n_loras)
        return cfg_problem(r->ini, run_cfg(r, SECTION_ADAPTER), "target_modules",
            "matches no module of model %s", r->model_component->name);
    return QFW_OK;
}

/* A ~ U(-1/sqrt(in), 1/sqrt(in)), by name; B stays zero: at first the adapter changes nothing. */
static qfw_status init_fresh(run *r, const lora *l) {
    const int64_t n = qfw_tensor_count(&l->a->t);
    const float bound = (float)(1 / sqrt((double)l->a->t.dim[1]));
    float *a = mem_alloc((size_t)n, sizeof *a);
    if (!a) return QFW_E_NOMEM;
    for (int64_t i = 0; i < n; i++)
        a[i] = (2 * rng_uniform(r->seed, l->a->name, (uint64_t)i) - 1) * bound;
    const qfw_status status = store_write(r->store, l->a, a);
    mem_free(a);
    return status;
}

qfw_status adapters_init(run *r) {
    const char *path = cfg_text(run_cfg(r, SECTION_ADAPTER), "path");
    if (*path) return peft_load(path, r->store, r->loras, r->n_loras);
    for (uint32_t i = 0; i < r->n_loras; i++) QFW_TRY(init_fresh(r, &r->loras[i]));
    return QFW_OK;
}
