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
#include "base/log.h"
#include "base/mem.h"
#include "base/rng.h"
#include "export/peft.h"
#include "train/reference.h"

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

/* One LoRA with its entries; `leaf` replaces the last part of the weight's path. */
typedef struct shape {
    const char *leaf;
    int64_t row0, rows, rank;
    double scale, dropout;
} shape;

static qfw_status add_lora(run *r, size_t *cap, const model_weight *w, const shape *s) {
    char name[256];
    if (mem_grow(&r->loras, cap, r->n_loras + 1, sizeof *r->loras)) return QFW_E_NOMEM;
    lora *l = &r->loras[r->n_loras];
    *l = (lora){.param = w->desc.name,
        .module = module_path(w->desc.name, s->leaf),
        .row0 = s->row0,
        .rows = s->rows,
        .which = QFW_ADAPTER_POLICY,
        .scale = (float)s->scale,
        .dropout = (float)s->dropout};
    if (!l->module) return QFW_E_NOMEM;
    r->n_loras++;
    const int64_t dim_a[2] = {s->rank, w->desc.dim[1]}, dim_b[2] = {s->rows, s->rank};
    snprintf(name, sizeof name, "%s.lora_A.weight", l->module);
    QFW_TRY(store_add(r->store, name, QFW_MEM_RUN, QFW_F32, 2, dim_a, 0, 0, &l->a));
    snprintf(name, sizeof name, "%s.lora_B.weight", l->module);
    return store_add(r->store, name, QFW_MEM_RUN, QFW_F32, 2, dim_b, 0, 0, &l->b);
}

/* What the INI's keys say for a module or slice of `rows` rows. */
static shape asked_shape(const run *r, const char *leaf, int64_t row0, int64_t rows) {
    const qfw_cfg *a = run_cfg(r, SECTION_ADAPTER);
    const double rank = (double)cfg_int(a, "r"), alpha = cfg_real(a, "lora_alpha");
    return (shape){leaf, row0, rows, cfg_int(a, "r"),
        alpha / (cfg_int(a, "use_rslora") ? sqrt(rank) : rank), cfg_real(a, "lora_dropout")};
}

/* The LoRAs of one weight: the fused module if it is named, else each slice that is. */
static qfw_status add_weight_loras(
    run *r, size_t *cap, const model_weight *w, const char *targets) {
    const qfw_param_desc *d = &w->desc;
    const int all = is_listed(targets, "all-linear");
    if (!d->module || d->role == QFW_ROLE_HEAD) return QFW_OK;
    const int fused = all || is_listed(targets, d->module);
    shape s = asked_shape(r, d->module, 0, d->dim[0]);
    if (fused) QFW_TRY(add_lora(r, cap, w, &s));
    for (uint32_t i = 0; i < d->n_slices; i++) {
        if (!is_listed(targets, d->slices[i].name)) continue;
        if (fused)
            return cfg_problem(r->ini, run_cfg(r, SECTION_ADAPTER), "target_modules",
                "%s and %s, which holds it: name one of them", d->slices[i].name, d->module);
        s = asked_shape(r, d->slices[i].name, d->slices[i].row0, d->slices[i].rows);
        QFW_TRY(add_lora(r, cap, w, &s));
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
static void add_word(char *list, size_t cap, const char *word) {
    const size_t n = strlen(list);
    snprintf(list + n, cap - n, "%s%s", n ? ", " : "", word);
}

static qfw_status check_targets(const run *r, const char *targets) {
    enum { MAX_NAMES = 64 };
    const char *known[MAX_NAMES] = {"all-linear"};
    char list[256] = "";
    uint32_t n = 1;
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
        for (uint32_t i = 0; !near && i < n; i++) add_word(list, sizeof list, known[i]);
        (void)cfg_problem(r->ini, run_cfg(r, SECTION_ADAPTER), "target_modules",
            "\"%s\" matches no module of model %s%s%s%s", word, r->model_component->name,
            near ? "; did you mean \"" : ", wanted of: ", near ? near : list, near ? "\"?" : "");
        *list = 0;
    }
    return err_status();
}

/* Whether `module` of a PEFT folder is weight w or one of its slices; then its rows. */
static int matches_weight(const model_weight *w, const char *module, int64_t *row0, int64_t *rows) {
    const qfw_param_desc *d = &w->desc;
    const size_t n = strlen(d->name) - strlen(".weight");
    *row0 = 0;
    *rows = d->dim[0];
    if (!d->module) return 0;
    if (strlen(module) == n && !strncmp(module, d->name, n)) return 1;
    for (uint32_t i = 0; i < d->n_slices; i++) {
        char *path = module_path(d->name, d->slices[i].name);
        const int same = path && !strcmp(path, module);
        mem_free(path);
        *row0 = d->slices[i].row0;
        *rows = d->slices[i].rows;
        if (same) return 1;
    }
    return 0;
}

static qfw_status declare_module(run *r, size_t *cap, const model_weight *w, const peft_module *m,
    int64_t row0, int64_t rows, double dropout) {
    const char *dot = strrchr(m->name, '.');
    const shape s = {dot ? dot + 1 : m->name, row0, rows, m->r, m->scale, dropout};
    if (m->out == rows && m->in == w->desc.dim[1]) return add_lora(r, cap, w, &s);
    return err_also("E_MODEL_SHAPE", QFW_E_DATA,
        "%s: %s adapts [%lld,%lld], the model has [%lld,%lld] there",
        cfg_text(run_cfg(r, SECTION_ADAPTER), "path"), m->name, (long long)m->out, (long long)m->in,
        (long long)rows, (long long)w->desc.dim[1]);
}

/* The modules of `p` that adapt weight w, marked in `used`. */
static void declare_weight(
    run *r, size_t *cap, const model_weight *w, const peft *p, double dropout, uint8_t *used) {
    int64_t row0, rows;
    for (uint32_t i = 0; i < peft_count(p); i++) {
        if (!matches_weight(w, peft_at(p, i)->name, &row0, &rows)) continue;
        used[i] = 1;
        (void)declare_module(r, cap, w, peft_at(p, i), row0, rows, dropout);
    }
}

/* --- what a folder decides, against what the INI says --- */

/* The last parts of its modules' names, each once, with commas between them. */
static void list_modules(const peft *p, char *text, size_t cap) {
    size_t n = 0;
    *text = 0;
    for (uint32_t i = 0; i < peft_count(p); i++) {
        const char *dot = strrchr(peft_at(p, i)->name, '.');
        const char *leaf = dot ? dot + 1 : peft_at(p, i)->name;
        if (is_listed(text, leaf) || n + strlen(leaf) + 2 > cap) continue;
        n += (size_t)snprintf(text + n, cap - n, "%s%s", n ? "," : "", leaf);
    }
}

/* Whether two lists of targets name the same modules. */
static int same_targets(const run *r, const char *asked, const char *found) {
    const int all = is_listed(asked, "all-linear");
    for (uint32_t i = 0; i < r->n_weights; i++) {
        const qfw_param_desc *d = &r->weights[i].desc;
        if (!d->module) continue;
        const int fused = (all && d->role != QFW_ROLE_HEAD) || is_listed(asked, d->module);
        if (fused != is_listed(found, d->module)) return 0;
        for (uint32_t s = 0; s < d->n_slices; s++)
            if (is_listed(asked, d->slices[s].name) != is_listed(found, d->slices[s].name))
                return 0;
    }
    return 1;
}

/* The folder's value becomes the run's, so that whoever reads resolved.ini or adapter_config.json
 * sees what was computed. That the INI says another is a mistake. */
static qfw_status settle(run *r, const char *key, int is_same, const char *found) {
    qfw_cfg *a = r->sections[SECTION_ADAPTER].cfg;
    if (is_same || !cfg_is_set(a, key)) return cfg_replace(a, key, found);
    return cfg_problem(r->ini, a, key,
        "%s, but the adapter in %s has %s; hint: leave the key out, the folder decides it",
        cfg_text(a, key), cfg_text(a, "path"), found);
}

/* The shortest text that is this number again. */
static const char *number_text(double value, char buf[32]) {
    double again;
    for (int digits = 6; digits <= 17; digits++) {
        snprintf(buf, 32, "%.*g", digits, value);
        if (option_parse_f64(buf, &again) == QFW_OK && again == value) break;
    }
    return buf;
}

static qfw_status settle_keys(run *r, const peft *p, double dropout) {
    const qfw_cfg *a = run_cfg(r, SECTION_ADAPTER);
    const peft_info info = peft_about(p);
    const int trains = !strcmp(cfg_text(run_cfg(r, SECTION_RUN), "task"), "train");
    char text[1024];
    snprintf(text, sizeof text, "%lld", (long long)info.r);
    (void)settle(r, "r", cfg_int(a, "r") == info.r, text);
    (void)settle(r, "lora_alpha", cfg_real(a, "lora_alpha") == info.lora_alpha,
        number_text(info.lora_alpha, text));
    (void)settle(r, "use_rslora", (cfg_int(a, "use_rslora") != 0) == info.use_rslora,
        info.use_rslora ? "true" : "false");
    (void)settle(r, "lora_dropout", 1, number_text(dropout, text));
    list_modules(p, text, sizeof text);
    if (cfg_is_set(a, "target_modules")) (void)check_targets(r, cfg_text(a, "target_modules"));
    /* What was trained apart is often fused in the folder: only training tells the two apart. */
    (void)settle(
        r, "target_modules", !trains || same_targets(r, cfg_text(a, "target_modules"), text), text);
    return err_status();
}

/* Slices that were trained apart stand fused in the folder, and go on as one matrix. */
static void say_ranks(const run *r, const peft *p, const char *folder) {
    const int trains = !strcmp(cfg_text(run_cfg(r, SECTION_RUN), "task"), "train");
    for (uint32_t i = 0; trains && i < peft_count(p); i++) {
        const peft_module *m = peft_at(p, i);
        if (m->r == peft_about(p).r) continue;
        const char *dot = strrchr(m->name, '.');
        log_line(QFW_LOG_INFO,
            "%s: %s has rank %lld, not %lld: slices that were trained apart go on as one matrix",
            folder, dot ? dot + 1 : m->name, (long long)m->r, (long long)peft_about(p).r);
        return;
    }
}

/* The adapter that a folder holds, as it is: ranks, scales and modules are the folder's. */
static qfw_status declare_from_folder(run *r, const char *folder) {
    const qfw_cfg *a = run_cfg(r, SECTION_ADAPTER);
    size_t cap = 0;
    peft *p = NULL;
    QFW_TRY(peft_open(folder, &p));
    uint8_t *used = mem_alloc(peft_count(p), 1);
    const double dropout =
        cfg_is_set(a, "lora_dropout") ? cfg_real(a, "lora_dropout") : peft_about(p).lora_dropout;
    err_clear();
    for (uint32_t i = 0; used && i < r->n_weights; i++)
        declare_weight(r, &cap, &r->weights[i], p, dropout, used);
    for (uint32_t i = 0; used && i < peft_count(p); i++)
        if (!used[i])
            (void)err_also("E_MODEL_EXTRA", QFW_E_DATA, "%s: %s: no such module in model %s",
                folder, peft_at(p, i)->name, r->model_component->name);
    qfw_status status = used ? err_status() : QFW_E_NOMEM;
    if (status == QFW_OK) status = settle_keys(r, p, dropout);
    if (status == QFW_OK) say_ranks(r, p, folder);
    mem_free(used);
    peft_close(p);
    return status;
}

qfw_status adapters_declare(run *r) {
    const char *targets = cfg_text(run_cfg(r, SECTION_ADAPTER), "target_modules");
    size_t cap = 0;
    const char *folder = cfg_text(run_cfg(r, SECTION_ADAPTER), "path");
    if (strcmp(cfg_text(run_cfg(r, SECTION_ADAPTER), "use"), "lora")) return QFW_OK;
    if (*folder) return declare_from_folder(r, folder);
    if (strcmp(cfg_text(run_cfg(r, SECTION_RUN), "task"), "train")) return QFW_OK;
    QFW_TRY(check_targets(r, targets));
    for (uint32_t i = 0; i < r->n_weights; i++)
        QFW_TRY(add_weight_loras(r, &cap, &r->weights[i], targets));
    if (!r->n_loras)
        return cfg_problem(r->ini, run_cfg(r, SECTION_ADAPTER), "target_modules",
            "matches no module of model %s", r->model_component->name);
    return QFW_OK;
}

static qfw_status copy_lora(run *r, uint32_t i) {
    const lora from = r->loras[i];
    lora *l = &r->loras[r->n_loras + i];
    char name[256];
    *l = from;
    l->which = QFW_ADAPTER_REFERENCE;
    l->dropout = 0;
    l->module = mem_strdup(from.module);
    if (!l->module) return QFW_E_NOMEM;
    r->n_reference_loras++;
    snprintf(name, sizeof name, "%s.reference_A.weight", from.module);
    QFW_TRY(store_add(r->store, name, QFW_MEM_FROZEN, QFW_F32, 2, from.a->t.dim, 0, 0, &l->a));
    snprintf(name, sizeof name, "%s.reference_B.weight", from.module);
    return store_add(r->store, name, QFW_MEM_FROZEN, QFW_F32, 2, from.b->t.dim, 0, 0, &l->b);
}

qfw_status adapters_declare_reference(run *r) {
    size_t cap = r->n_loras;
    if (!*cfg_text(run_cfg(r, SECTION_ADAPTER), "path") || reference_is_stored(r)) return QFW_OK;
    if (mem_grow(&r->loras, &cap, 2 * (size_t)r->n_loras, sizeof *r->loras)) return QFW_E_NOMEM;
    for (uint32_t i = 0; i < r->n_loras; i++) QFW_TRY(copy_lora(r, i));
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

static qfw_status init_from_module(run *r, peft *p, uint32_t i) {
    const peft_module *m = peft_at(p, i);
    const lora *l = r->loras;
    while (strcmp(l->module, m->name)) l++; /* declared from the same folder */
    float *a = mem_alloc((size_t)(m->r * m->in), sizeof *a);
    float *b = mem_alloc((size_t)(m->out * m->r), sizeof *b);
    qfw_status status = a && b ? peft_read(p, i, a, b) : QFW_E_NOMEM;
    for (uint32_t copy = 0; status == QFW_OK && copy <= (r->n_reference_loras ? 1 : 0); copy++) {
        status = store_write(r->store, l->a, a);
        if (status == QFW_OK) status = store_write(r->store, l->b, b);
        l += r->n_loras; /* its reference */
    }
    mem_free(a);
    mem_free(b);
    return status;
}

qfw_status adapters_init(run *r) {
    const char *folder = cfg_text(run_cfg(r, SECTION_ADAPTER), "path");
    peft *p = NULL;
    if (!r->n_loras || !*folder) {
        for (uint32_t i = 0; i < r->n_loras; i++) QFW_TRY(init_fresh(r, &r->loras[i]));
        return QFW_OK;
    }
    QFW_TRY(peft_open(folder, &p));
    qfw_status status = QFW_OK;
    for (uint32_t i = 0; status == QFW_OK && i < peft_count(p); i++)
        status = init_from_module(r, p, i);
    peft_close(p);
    return status;
}
