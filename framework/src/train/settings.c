/* settings.c -- the INI read and checked, and the plugins that it names opened.
 *
 * Everything that can be checked without reading data or weights is checked here, in one pass, so
 * that a person sees all problems of an INI in one run.
 */
#define _XOPEN_SOURCE 700
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/error.h"
#include "base/log.h"
#include "base/mem.h"
#include "plugin/host.h"
#include "plugin/loader.h"
#include "train/run.h"

#define COUNT(table) (sizeof(table) / sizeof((table)[0]))

/* What [section] use says, before the schema is complete: the INI's value or the table's
 * default. */
static const char *use_of(const run *r, uint32_t section) {
    const ini_entry *e = ini_find(r->ini, core_schema[section].section, "use");
    if (e) return e->value;
    const schema_section *s = &core_schema[section];
    for (uint64_t i = 0; i < s->n_options; i++)
        if (!strcmp(s->options[i].key, "use")) return s->options[i].dflt;
    return "";
}

/* A place for a component's own options: section "<kind>.<name>". */
static void add_own_section(run *r, uint32_t section, const qfw_component *c) {
    char *name = r->section_names[section];
    snprintf(name, sizeof r->section_names[section], "%s.%s", plugin_kind_name(c->kind), c->name);
    r->sections[section] = (schema_section){name, c->options, c->n_options, NULL};
}

/* The INI's folder, without links, so that resolved.ini means the same elsewhere. */
static qfw_status find_folder(const run *r, char *folder) {
    char path[PATH_MAX];
    const char *slash = strrchr(r->ini->path, '/');
    const int n = slash ? (int)(slash - r->ini->path) : 0;
    snprintf(path, sizeof path, "%.*s%s", n, r->ini->path, n ? "" : slash ? "/" : ".");
    if (realpath(path, folder)) return QFW_OK;
    return err_fail("E_NOINPUT", QFW_E_IO, "%s: its folder cannot be found", r->ini->path);
}

/* The words of an entry that are files or folders (what has a '/'; or all) are relative to the INI,
 * as paths are: make them absolute. `between` is what stands between words: "" or ",". */
static qfw_status make_absolute(run *r, ini_entry *e, const char *between, int all) {
    char folder[PATH_MAX], made[4097] = "", place[512];
    size_t used = 0;
    QFW_TRY(find_folder(r, folder));
    for (const char *at = e->value + strspn(e->value, " \t"); *at && used < sizeof made;) {
        const size_t n = strcspn(at, between);
        size_t kept = n;
        while (kept && (at[kept - 1] == ' ' || at[kept - 1] == '\t')) kept--;
        const int is_base = kept == 4 && !memcmp(at, "base", 4); /* no adapter, no folder */
        const int is_relative = kept && *at != '/' && !is_base && (all || memchr(at, '/', kept));
        used += (size_t)snprintf(made + used, sizeof made - used, "%s%s%s%.*s", used ? between : "",
            is_relative ? folder : "", is_relative ? "/" : "", (int)kept, at);
        at += n + (at[n] != 0);
        at += strspn(at, " \t");
    }
    if (used >= sizeof made)
        return err_fail("E_INI_LIMIT", QFW_E_CONFIG, "%s: its paths are too long from the root",
            ini_place(r->ini, e, 1, place, sizeof place));
    const char *value = mem_strdup(made);
    if (!value) return QFW_E_NOMEM;
    mem_free((void *)e->value);
    e->value = value;
    return QFW_OK;
}

static qfw_status open_component(run *r, uint32_t kind, uint32_t section, uint32_t own,
    const plugin **file, const qfw_component **out) {
    ini_entry *e = ini_find(r->ini, core_schema[section].section, "use");
    if (e) QFW_TRY(make_absolute(r, e, "", 0));
    qfw_status status = plugin_open(plugin_kind_name(kind), use_of(r, section), file, out);
    if (status != QFW_OK) {
        char place[512];
        if (e) err_prefix("%s", ini_place(r->ini, e, 1, place, sizeof place));
        return status;
    }
    add_own_section(r, own, *out);
    return QFW_OK;
}

/* One candidate of `use = auto`. */
typedef struct candidate {
    const plugin *file;
    const qfw_component *component;
    qfw_device_info info;
} candidate;

static int is_better(const candidate *a, const candidate *b) {
    static const uint32_t rank[] = {0, 1, 2, 3, 0}; /* by QFW_DEVICE_*: cpu < igpu < gpu */
    const uint32_t ra = rank[a->info.type % 5], rb = rank[b->info.type % 5];
    if (ra != rb) return ra > rb;
    if (a->info.free_bytes != b->info.free_bytes) return a->info.free_bytes > b->info.free_bytes;
    return a->info.priority > b->info.priority;
}

/* What is_better looked at last. */
static const char *why_before(const candidate *a, const candidate *b) {
    if (a->info.type != b->info.type) return "the kind of its device";
    return a->info.free_bytes != b->info.free_bytes ? "its free memory" : "its priority";
}

/* What auto came to, so that resolved.ini says it. */
static qfw_status name_backend(run *r) {
    char text[160];
    snprintf(text, sizeof text, "backend.use=%s", r->backend->name);
    return ini_set(r->ini, text);
}

/* The best device that any backend on the search list offers; says why each other one lost. */
static qfw_status pick_backend(run *r) {
    candidate best = {NULL, NULL, {0}};
    plugin_facts facts;
    qfw_status listed;
    for (uint32_t i = 0; (listed = plugin_list(i, &facts)) == QFW_OK; i++) {
        candidate c = {NULL, NULL, {.size = sizeof c.info}};
        if (strcmp(facts.kind, "backend")) continue;
        if (facts.problem[0] ||
            plugin_open("backend", facts.path, &c.file, &c.component) != QFW_OK) {
            if (err_status() == QFW_E_NOMEM) return QFW_E_NOMEM;
            log_line(QFW_LOG_INFO, "backend %s: not used: %s", facts.name,
                facts.problem[0] ? facts.problem : err_text(0));
            continue;
        }
        const qfw_backend *be = (const qfw_backend *)c.component->iface;
        if (be->device_info(r->host, 0, &c.info) != QFW_OK) {
            log_line(QFW_LOG_INFO, "backend %s: not used: no device", facts.name);
            continue;
        }
        const int wins = !best.component || is_better(&c, &best);
        const candidate *loser = wins ? &best : &c;
        if (best.component)
            log_line(QFW_LOG_INFO, "backend %s: not used: backend %s ranks before it, by %s",
                loser->component->name, (wins ? &c : &best)->component->name,
                why_before(&c, &best));
        if (wins) best = c;
    }
    if (listed != QFW_E_END) return listed;
    err_clear();
    if (!best.component)
        return err_fail("E_PLUG_NOTFOUND", QFW_E_UNSUPPORTED,
            "backend: none can be used here; hint: `qfw plugin list` says why");
    r->backend = best.component;
    r->backend_file = best.file;
    add_own_section(r, SECTION_BACKEND_OWN, best.component);
    return name_backend(r);
}

/* Nothing can be said about the keys of a plugin that could not be opened. */
static void excuse_sections(const run *r, uint32_t kind) {
    const char *name = plugin_kind_name(kind);
    const size_t n = strlen(name);
    for (size_t i = 0; i < r->ini->n_sections; i++)
        if (!strncmp(r->ini->sections[i].name, name, n) && r->ini->sections[i].name[n] == '.')
            r->ini->sections[i].used = 1;
}

/* Whatever is wrong with one plugin, the rest of the INI is looked at, too. */
static void try_component(run *r, uint32_t kind, uint32_t section, uint32_t own,
    const plugin **file, const qfw_component **out) {
    err_hold();
    const int picks = kind == QFW_KIND_BACKEND && !strcmp(use_of(r, section), "auto");
    if ((picks ? pick_backend(r) : open_component(r, kind, section, own, file, out)) == QFW_OK)
        err_clear();
    else
        excuse_sections(r, kind);
    err_join();
}

static void open_plugins(run *r) {
    try_component(
        r, QFW_KIND_MODEL, SECTION_MODEL, SECTION_MODEL_OWN, &r->model_file, &r->model_component);
    try_component(r, QFW_KIND_TRAINER, SECTION_TRAINER, SECTION_TRAINER_OWN, &r->trainer_file,
        &r->trainer_component);
    r->optimizer_component = optimizer_by_name(use_of(r, SECTION_OPTIMIZER));
    if (!r->optimizer_component)
        try_component(r, QFW_KIND_OPTIMIZER, SECTION_OPTIMIZER, SECTION_OPTIMIZER_OWN,
            &r->optimizer_file, &r->optimizer_component);
    try_component(
        r, QFW_KIND_BACKEND, SECTION_BACKEND, SECTION_BACKEND_OWN, &r->backend_file, &r->backend);
}

/* Each word of [plugins] `key`, a list of files or folders, goes to `take`. */
static qfw_status each_plugin_path(run *r, const char *key, qfw_status (*take)(const char *path)) {
    ini_entry *e = ini_find(r->ini, "plugins", key);
    char path[PATH_MAX], place[512];
    if (!e) return QFW_OK;
    QFW_TRY(make_absolute(r, e, ",", 1));
    err_hold();
    for (const char *at = e->value; *at;) {
        const size_t n = strcspn(at, ",");
        snprintf(path, sizeof path, "%.*s", (int)n, at);
        const qfw_status status = take(path);
        if (status != QFW_OK) {
            err_prefix("%s", ini_place(r->ini, e, 1, place, sizeof place));
            err_join();
            return status;
        }
        at += n + (at[n] == ',');
    }
    err_clear();
    err_join();
    return QFW_OK;
}

/* The built-in optimizer's keys mean nothing to another one. */
static void check_optimizer_keys(const run *r) {
    static const char *const keys[] = {"weight_decay", "adam_beta1", "adam_beta2", "adam_epsilon"};
    qfw_cfg *c = r->sections[SECTION_OPTIMIZER].cfg;
    if (!r->optimizer_component || !r->optimizer_file) return;
    for (size_t i = 0; i < COUNT(keys); i++) {
        if (cfg_is_set(c, keys[i]))
            (void)cfg_problem(r->ini, c, keys[i],
                "a key of adamw, but [optimizer] use = %s; its own keys stand in [optimizer.%s]",
                r->optimizer_component->name, r->optimizer_component->name);
        cfg_drop(c, keys[i]);
    }
}

/* The file that the task reads is named. */
static void check_task_input(const run *r) {
    static const struct {
        const char *task;
        uint32_t section;
        const char *key;
    } inputs[] = {{"train", SECTION_DATA, "train"}, {"generate", SECTION_GENERATE, "input"},
        {"score", SECTION_SCORE, "input"}, {"evaluate", SECTION_EVALUATE, "set"},
        {"pairs", SECTION_PAIRS, "set"}, {"export", SECTION_ADAPTER, "path"}};
    const char *task = cfg_text(run_cfg(r, SECTION_RUN), "task");
    const int bare = !strcmp(cfg_text(run_cfg(r, SECTION_ADAPTER), "use"), "none");
    for (size_t i = 0; i < COUNT(inputs); i++)
        if (!r->ini->damaged && !strcmp(task, inputs[i].task) &&
            !(bare && inputs[i].section == SECTION_ADAPTER) &&
            !*cfg_text(run_cfg(r, inputs[i].section), inputs[i].key))
            (void)cfg_problem(r->ini, run_cfg(r, inputs[i].section), inputs[i].key,
                "missing, and task = %s needs it", task);
}

int settings_exports(const run *r) {
    const qfw_cfg *c = run_cfg(r, SECTION_EXPORT);
    return strcmp(cfg_text(c, "merged"), "none") || strcmp(cfg_text(c, "gguf"), "none") ||
           cfg_int(c, "gguf_adapter");
}

/* The task export is told what to make. */
static void check_export(const run *r) {
    const qfw_cfg *c = run_cfg(r, SECTION_EXPORT);
    const int is_task = !strcmp(cfg_text(run_cfg(r, SECTION_RUN), "task"), "export");
    if (is_task && !settings_exports(r))
        (void)cfg_problem(r->ini, c, "merged",
            "none, and task = export makes nothing then; hint: merged, gguf or gguf_adapter");
    if (!strcmp(cfg_text(c, "merged"), "requant") && strcmp(cfg_text(c, "gguf"), "none"))
        (void)cfg_problem(r->ini, c, "gguf",
            "%s beside merged = requant, whose codes GGUF does not have; wanted base16 or dequant",
            cfg_text(c, "gguf"));
}

/* Files and folders that the run will read are there. */
static void check_there(const run *r) {
    static const struct {
        const char *task; /* NULL: any */
        uint32_t section;
        const char *key;
    } inputs[] = {{NULL, SECTION_MODEL, "path"}, {NULL, SECTION_ADAPTER, "path"},
        {"train", SECTION_DATA, "train"}, {"train", SECTION_DATA, "eval"},
        {"generate", SECTION_GENERATE, "input"}, {"score", SECTION_SCORE, "input"},
        {"evaluate", SECTION_EVALUATE, "set"}, {"pairs", SECTION_PAIRS, "set"}};
    const char *task = cfg_text(run_cfg(r, SECTION_RUN), "task");
    for (size_t i = 0; i < COUNT(inputs); i++) {
        const qfw_cfg *c = run_cfg(r, inputs[i].section);
        const char *path = cfg_text(c, inputs[i].key);
        const ini_entry *e = ini_find(r->ini, c->section, inputs[i].key);
        struct stat info;
        char place[512];
        if (!e || !*path || (inputs[i].task && strcmp(task, inputs[i].task))) continue;
        if (stat(path, &info))
            (void)err_also("E_NOINPUT", QFW_E_IO, "%s: %s.%s: %s: %s",
                ini_place_named(r->ini, e, place, sizeof place), c->section, inputs[i].key, path,
                strerror(errno));
    }
}

/* Evaluations have something to look at, and what looks at them has evaluations. */
static void check_evaluations(const run *r) {
    const qfw_cfg *trainer = run_cfg(r, SECTION_TRAINER);
    const int is_none = !strcmp(cfg_text(trainer, "eval_strategy"), "no");
    const int has_set = *cfg_text(run_cfg(r, SECTION_EVALUATE), "set") != 0;
    if (!is_none && !has_set && !*cfg_text(run_cfg(r, SECTION_DATA), "eval"))
        (void)cfg_problem(r->ini, trainer, "eval_strategy", "%s, but [data] eval names no file",
            cfg_text(trainer, "eval_strategy"));
    if (is_none && cfg_int(trainer, "load_best_model_at_end"))
        (void)cfg_problem(r->ini, trainer, "load_best_model_at_end",
            "true, but eval_strategy = no: nothing says which is the best");
    if (is_none && cfg_int(trainer, "early_stopping_patience"))
        (void)cfg_problem(r->ini, trainer, "early_stopping_patience",
            "%lld, but eval_strategy = no: nothing says that there is no gain",
            (long long)cfg_int(trainer, "early_stopping_patience"));
}

/* The run has one precision, and 4-bit weights are decoded to it, or to fp32. */
static void check_precision(const run *r) {
    const qfw_cfg *trainer = run_cfg(r, SECTION_TRAINER), *model = run_cfg(r, SECTION_MODEL);
    const char *decoded = cfg_text(model, "bnb_4bit_compute_dtype");
    const int bf16 = (int)cfg_int(trainer, "bf16"), fp16 = (int)cfg_int(trainer, "fp16");
    if (bf16 && fp16) (void)cfg_problem(r->ini, trainer, "fp16", "true beside bf16 = true");
    if ((!strcmp(decoded, "bfloat16") && !bf16) || (!strcmp(decoded, "float16") && !fp16))
        (void)cfg_problem(r->ini, model, "bnb_4bit_compute_dtype",
            "%s, but the run computes in %s; hint: [trainer] %s = true, or float32", decoded,
            bf16   ? "bf16"
            : fp16 ? "fp16"
                   : "fp32",
            *decoded == 'b' ? "bf16" : "fp16");
}

/* Keys that contradict each other. */
static void check_together(const run *r) {
    const qfw_cfg *trainer = run_cfg(r, SECTION_TRAINER);
    const qfw_cfg *adapter = run_cfg(r, SECTION_ADAPTER), *model = run_cfg(r, SECTION_MODEL);
    check_evaluations(r);
    check_optimizer_keys(r);
    check_task_input(r);
    check_there(r);
    check_export(r);
    check_precision(r);
    if (cfg_real(trainer, "warmup_ratio") > 0 && cfg_int(trainer, "warmup_steps"))
        (void)cfg_problem(
            r->ini, trainer, "warmup_ratio", "beside warmup_steps; hint: one of the two");
    if (!strcmp(cfg_text(trainer, "lr_scheduler_type"), "polynomial") &&
        cfg_real(trainer, "lr_end") >= cfg_real(trainer, "learning_rate"))
        (void)cfg_problem(r->ini, trainer, "lr_end", "%g, wanted below learning_rate, %g",
            cfg_real(trainer, "lr_end"), cfg_real(trainer, "learning_rate"));
    if (cfg_int(trainer, "max_steps") == 0)
        (void)cfg_problem(r->ini, trainer, "max_steps", "0, wanted -1 (by epochs) or at least 1");
    if (strcmp(cfg_text(adapter, "use"), "none")) return;
    if (cfg_int(model, "load_in_4bit") &&
        !strcmp(cfg_text(run_cfg(r, SECTION_RUN), "task"), "train"))
        (void)cfg_problem(r->ini, model, "load_in_4bit",
            "true with [adapter] use = none: packed weights cannot be trained");
    const double ratio = cfg_real(run_cfg(r, SECTION_OPTIMIZER), "loraplus_lr_ratio");
    if (ratio < 1 || ratio > 1)
        (void)cfg_problem(r->ini, run_cfg(r, SECTION_OPTIMIZER), "loraplus_lr_ratio",
            "%g, but [adapter] use = none: there are no B matrices", ratio);
    if (strcmp(cfg_text(run_cfg(r, SECTION_EXPORT), "merged"), "none"))
        (void)cfg_problem(r->ini, run_cfg(r, SECTION_EXPORT), "merged",
            "%s, but [adapter] use = none: there is nothing to merge",
            cfg_text(run_cfg(r, SECTION_EXPORT), "merged"));
    if (cfg_int(run_cfg(r, SECTION_EXPORT), "gguf_adapter"))
        (void)cfg_problem(
            r->ini, run_cfg(r, SECTION_EXPORT), "gguf_adapter", "true, but [adapter] use = none");
    if (*cfg_text(adapter, "path"))
        (void)cfg_problem(r->ini, adapter, "path", "a folder, but [adapter] use = none");
}

/* Sections of plugins that this run does not use, so that option_check can tell them from typos. */
static uint32_t other_sections(const run *r, const char **others, uint32_t cap) {
    uint32_t n = 0;
    for (size_t i = 0; i < r->ini->n_sections && n < cap; i++) {
        const char *name = r->ini->sections[i].name, *dot = strchr(name, '.');
        char kind[32];
        int used = 0;
        if (!dot || (size_t)(dot - name) >= sizeof kind) continue;
        memcpy(kind, name, (size_t)(dot - name));
        kind[dot - name] = 0;
        for (uint32_t s = CORE_SECTIONS; s < MAX_SECTIONS; s++)
            used |= r->sections[s].section && !strcmp(r->sections[s].section, name);
        if (!used && plugin_kind(kind)) others[n++] = name;
    }
    return n;
}

/* Lists of files and folders stand against the INI's folder, too. */
static qfw_status resolve_lists(run *r) {
    static const char *const keys[] = {"adapters", "compare_with", "wordings", "runs"};
    for (size_t i = 0; i < COUNT(keys); i++) {
        ini_entry *e = ini_find(r->ini, "evaluate", keys[i]);
        if (e) QFW_TRY(make_absolute(r, e, ",", 1));
    }
    return QFW_OK;
}

qfw_status settings_read(run *r) {
    enum { MAX_OTHERS = 64 };
    const char *others[MAX_OTHERS];
    QFW_TRY(ini_salvage(r->flags.ini_path, &r->ini));
    for (uint32_t i = 0; i < r->flags.n_set; i++) QFW_TRY(ini_set(r->ini, r->flags.set[i]));
    if (r->flags.resume) QFW_TRY(ini_set(r->ini, "run.resume_from_checkpoint=auto"));
    memcpy(r->sections, core_schema, sizeof core_schema);
    QFW_TRY(resolve_lists(r));
    (void)each_plugin_path(r, "path", plugin_search_add);
    (void)each_plugin_path(r, "load", plugin_load);
    open_plugins(r);
    for (uint32_t s = 0; s < MAX_SECTIONS; s++)
        if (!r->sections[s].section)
            r->sections[s] = (schema_section){"", NULL, 0, NULL}; /* an unused place */
    const uint32_t n_others = other_sections(r, others, MAX_OTHERS);
    const qfw_status status = option_check(r->ini, r->sections, MAX_SECTIONS, others, n_others);
    if (status == QFW_OK || run_cfg(r, SECTION_PLUGINS)) {
        check_together(r);
    }
    err_sort(r->ini->path);
    return err_status();
}
