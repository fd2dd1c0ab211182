/* settings.c -- the core's own sections of the INI, and the plugins that it names.
 *
 * Section and key names are those of the Hugging Face stack, defaults too unless the help says
 * otherwise. Everything that can be checked without reading data or weights is checked here, in one
 * pass, so that a person sees all problems of an INI in one run.
 */
#define _XOPEN_SOURCE 700
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/log.h"
#include "base/mem.h"
#include "plugin/host.h"
#include "plugin/loader.h"
#include "train/run.h"

#define COUNT(table) (sizeof(table) / sizeof((table)[0]))
#define MILLION      1e6

static const qfw_option run_options[] = {
    QFW_OPTION(QFW_OPT_ENUM, "task", "train", 0, 0, "train", "what to do"),
    QFW_OPTION_FLAGS(QFW_OPT_PATH, QFW_OPT_REQUIRED, "output_dir", NULL, 0, 0, NULL,
        "where everything is written"),
    QFW_OPTION(QFW_OPT_BOOL, "overwrite_output_dir", "false", 0, 0, NULL,
        "start over in an output_dir that holds a run"),
    QFW_OPTION(QFW_OPT_INT, "seed", "42", 0, 4294967295.0, NULL,
        "of the order of rows, dropout, and fresh weights"),
    QFW_OPTION(QFW_OPT_INT, "threads", "0", 0, QFW_MAX_WORKERS, NULL, "0: all cores"),
    QFW_OPTION(QFW_OPT_BYTES, "max_memory", "auto", 0, 0, NULL,
        "the plan must fit into it; auto: what is free"),
    QFW_OPTION(QFW_OPT_STR, "resume_from_checkpoint", "none", 0, 0, NULL,
        "none, auto (the newest that verifies), or a folder"),
};
static const qfw_option backend_options[] = {
    QFW_OPTION(QFW_OPT_STR, "use", "auto", 0, 0, NULL, "auto, a backend's name, or a file"),
    QFW_OPTION(QFW_OPT_ENUM, "fallback", "warn", 0, 0, "allow|warn|error",
        "what happens to ops that the backend lacks"),
};
static const qfw_option model_options[] = {
    QFW_OPTION(QFW_OPT_STR, "use", "phi3", 0, 0, NULL, "a model plugin's name or file"),
    QFW_OPTION_FLAGS(
        QFW_OPT_PATH, QFW_OPT_REQUIRED, "path", NULL, 0, 0, NULL, "a Hugging Face model folder"),
    QFW_OPTION(QFW_OPT_ENUM, "init", "pretrained", 0, 0, "pretrained|random",
        "random: fresh weights, only config and tokenizer are read"),
    QFW_OPTION(QFW_OPT_BOOL, "load_in_4bit", "false", 0, 0, NULL, "quantise the linears at load"),
    QFW_OPTION(QFW_OPT_ENUM, "bnb_4bit_quant_type", "fp4", 0, 0, "fp4|nf4", "the 4-bit code"),
    QFW_OPTION(
        QFW_OPT_BOOL, "bnb_4bit_use_double_quant", "false", 0, 0, NULL, "quantise the scales too"),
    QFW_OPTION(QFW_OPT_ENUM, "bnb_4bit_compute_dtype", "float32", 0, 0, "float32|bfloat16|float16",
        "dtype of the dequantised weights (float32 alone so far)"),
    QFW_OPTION(QFW_OPT_ENUM, "nested_codes", "nearest", 0, 0, "nearest|cpu_table",
        "double quantisation's rounding: exact, or bitsandbytes' table on a CPU"),
};
static const qfw_option adapter_options[] = {
    QFW_OPTION(QFW_OPT_ENUM, "use", "lora", 0, 0, "lora|none", "none: train all weights"),
    QFW_OPTION(QFW_OPT_PATH, "path", "", 0, 0, NULL, "start from this PEFT folder"),
    QFW_OPTION(QFW_OPT_INT, "r", "8", 1, 4096, NULL, "rank"),
    QFW_OPTION(QFW_OPT_FLOAT, "lora_alpha", "8", 1e-6, MILLION, NULL, "scale is lora_alpha / r"),
    QFW_OPTION(QFW_OPT_FLOAT, "lora_dropout", "0", 0, 0.99, NULL, "on the adapter's input"),
    QFW_OPTION(QFW_OPT_BOOL, "use_rslora", "false", 0, 0, NULL, "scale is lora_alpha / sqrt(r)"),
    QFW_OPTION(QFW_OPT_LIST, "target_modules", "all-linear", 0, 0, NULL,
        "q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj, fused names, or "
        "all-linear"),
};
static const qfw_option data_options[] = {
    QFW_OPTION_FLAGS(
        QFW_OPT_PATH, QFW_OPT_REQUIRED, "train", NULL, 0, 0, NULL, "JSONL, one row a line"),
    QFW_OPTION(QFW_OPT_PATH, "eval", "", 0, 0, NULL, "JSONL; with eval_strategy"),
    QFW_OPTION(QFW_OPT_INT, "max_length", "1024", 2, 1 << 24, NULL, "tokens a sequence"),
    QFW_OPTION(QFW_OPT_ENUM, "overlong", "error", 0, 0, "error|truncate|drop",
        "what happens to longer rows; truncation keeps the EOS"),
    QFW_OPTION(QFW_OPT_ENUM, "untrained", "error", 0, 0, "error|drop",
        "what happens to rows in which no token is trained"),
    QFW_OPTION(QFW_OPT_BOOL, "packing", "false", 0, 0, NULL, "true is not supported yet"),
    QFW_OPTION(QFW_OPT_ENUM, "train_sampling_strategy", "random", 0, 0, "random|sequential",
        "random: torch's permutation, anew each epoch"),
    QFW_OPTION(QFW_OPT_ENUM, "chat_template", "auto", 0, 0, "auto|phi3-mini|phi3-medium",
        "auto: by the tokenizer's own template"),
    QFW_OPTION(QFW_OPT_ENUM, "system_turn", "error", 0, 0, "error|fold",
        "a system turn where the template has none: refused, or put into the user turn"),
    QFW_OPTION(QFW_OPT_BOOL, "special_tokens_in_content", "false", 0, 0, NULL,
        "special tokens typed inside a message's content count as such"),
    QFW_OPTION(QFW_OPT_BYTES, "max_line", "16MiB", 0, 0, NULL, "longest line of a data file"),
    QFW_OPTION(QFW_OPT_STR, "source", "", 0, 0, NULL, "provenance, for the manifest"),
    QFW_OPTION(QFW_OPT_STR, "generator", "", 0, 0, NULL, "provenance, for the manifest"),
    QFW_OPTION(QFW_OPT_STR, "licence", "", 0, 0, NULL, "provenance, for the manifest"),
    QFW_OPTION(QFW_OPT_STR, "notes", "", 0, 0, NULL, "provenance, for the manifest"),
};
static const qfw_option trainer_options[] = {
    QFW_OPTION(QFW_OPT_STR, "use", "sft", 0, 0, NULL, "a trainer plugin's name or file"),
    QFW_OPTION_FLAGS(
        QFW_OPT_FLOAT, QFW_OPT_LO_OPEN, "num_train_epochs", "3", 0, 1e6, NULL, "may be a fraction"),
    QFW_OPTION(QFW_OPT_INT, "max_steps", "-1", -1, 1e12, NULL, "updates; -1: by epochs"),
    QFW_OPTION(QFW_OPT_INT, "per_device_train_batch_size", "8", 1, 65536, NULL, "rows a pass"),
    QFW_OPTION(QFW_OPT_INT, "per_device_eval_batch_size", "8", 1, 65536, NULL, "rows a pass"),
    QFW_OPTION(QFW_OPT_INT, "gradient_accumulation_steps", "1", 1, 65536, NULL, "passes an update"),
    QFW_OPTION(QFW_OPT_ENUM, "gradient_checkpointing", "auto", 0, 0,
        "auto|full|selective|none|true|false",
        "full (true): keep layer inputs only; none (false): keep all; auto is full so far"),
    QFW_OPTION(QFW_OPT_FLOAT, "learning_rate", "2e-5", 0, 1e3, NULL, "at its peak"),
    QFW_OPTION(QFW_OPT_ENUM, "lr_scheduler_type", "linear", 0, 0,
        "linear|cosine|constant|constant_with_warmup", "as in transformers"),
    QFW_OPTION(QFW_OPT_INT, "warmup_steps", "0", 0, 1e12, NULL, "updates"),
    QFW_OPTION(QFW_OPT_FLOAT, "max_grad_norm", "1", 0, 1e12, NULL, "0: no clipping"),
    QFW_OPTION(QFW_OPT_BOOL, "bf16", "false", 0, 0, NULL, "true is not supported yet"),
    QFW_OPTION(QFW_OPT_BOOL, "fp16", "false", 0, 0, NULL, "true is not supported yet"),
    QFW_OPTION(QFW_OPT_INT, "logging_steps", "10", 1, 1e12, NULL, "updates"),
    QFW_OPTION(QFW_OPT_ENUM, "eval_strategy", "no", 0, 0, "no|steps", "steps: every eval_steps"),
    QFW_OPTION(QFW_OPT_BOOL, "eval_on_start", "false", 0, 0, NULL,
        "evaluate before the first update, too"),
    QFW_OPTION(QFW_OPT_INT, "eval_steps", "0", 0, 1e12, NULL, "0: as logging_steps"),
    QFW_OPTION(QFW_OPT_ENUM, "save_strategy", "steps", 0, 0, "no|steps", "periodic checkpoints"),
    QFW_OPTION(QFW_OPT_INT, "save_steps", "500", 1, 1e12, NULL, "updates"),
    QFW_OPTION(QFW_OPT_INT, "save_total_limit", "0", 0, 1e6, NULL,
        "newest checkpoints kept (at least 2); 0: all"),
    QFW_OPTION(QFW_OPT_ENUM, "report_to", "none", 0, 0, "none|tensorboard",
        "tensorboard is not supported yet"),
};
static const qfw_option optimizer_options[] = {
    QFW_OPTION(QFW_OPT_STR, "use", "adamw", 0, 0, NULL, "adamw, or an optimizer plugin"),
    QFW_OPTION(QFW_OPT_FLOAT, "weight_decay", "0", 0, 1e3, NULL, "decoupled; not on norms"),
    QFW_OPTION(QFW_OPT_FLOAT, "adam_beta1", "0.9", 0, 0.9999999, NULL, "of the mean"),
    QFW_OPTION(QFW_OPT_FLOAT, "adam_beta2", "0.999", 0, 0.9999999, NULL, "of the square"),
    QFW_OPTION(QFW_OPT_FLOAT, "adam_epsilon", "1e-8", 0, 1, NULL, "beside the root"),
};
static const qfw_option export_options[] = {
    QFW_OPTION(QFW_OPT_ENUM, "merged", "none", 0, 0, "none|requant|dequant|base16",
        "merged weights (none alone so far)"),
    QFW_OPTION(QFW_OPT_BOOL, "gguf", "false", 0, 0, NULL, "true is not supported yet"),
};
static const qfw_option plugins_options[] = {
    QFW_OPTION(QFW_OPT_LIST, "path", "", 0, 0, NULL, "folders searched for plugins"),
    QFW_OPTION(QFW_OPT_LIST, "load", "", 0, 0, NULL, "plugin files opened besides those named"),
};

#define SECTION(name, table)                                                                       \
    { name, table, COUNT(table), NULL }
const schema_section core_schema[CORE_SECTIONS] = {
    [SECTION_RUN] = SECTION("run", run_options),
    [SECTION_BACKEND] = SECTION("backend", backend_options),
    [SECTION_MODEL] = SECTION("model", model_options),
    [SECTION_ADAPTER] = SECTION("adapter", adapter_options),
    [SECTION_DATA] = SECTION("data", data_options),
    [SECTION_TRAINER] = SECTION("trainer", trainer_options),
    [SECTION_OPTIMIZER] = SECTION("optimizer", optimizer_options),
    [SECTION_EXPORT] = SECTION("export", export_options),
    [SECTION_PLUGINS] = SECTION("plugins", plugins_options),
};

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
        const int is_relative = kept && *at != '/' && (all || memchr(at, '/', kept));
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
    for (uint32_t i = 0; plugin_list(i, &facts) == QFW_OK; i++) {
        candidate c = {NULL, NULL, {.size = sizeof c.info}};
        if (strcmp(facts.kind, "backend")) continue;
        if (facts.problem[0] ||
            plugin_open("backend", facts.path, &c.file, &c.component) != QFW_OK) {
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
            log_line(QFW_LOG_INFO, "backend %s: not used: %s ranks before %s",
                loser->component->name, wins ? c.info.name : best.info.name, loser->info.name);
        if (wins) best = c;
    }
    err_clear();
    if (!best.component)
        return err_fail("E_PLUG_NOTFOUND", QFW_E_UNSUPPORTED,
            "backend: none can be used here; hint: `qfw plugin list` says why");
    r->backend = best.component;
    r->backend_file = best.file;
    add_own_section(r, SECTION_BACKEND_OWN, best.component);
    return name_backend(r);
}

static qfw_status open_plugins(run *r) {
    QFW_TRY(open_component(
        r, QFW_KIND_MODEL, SECTION_MODEL, SECTION_MODEL_OWN, &r->model_file, &r->model_component));
    QFW_TRY(open_component(r, QFW_KIND_TRAINER, SECTION_TRAINER, SECTION_TRAINER_OWN,
        &r->trainer_file, &r->trainer_component));
    if (!strcmp(use_of(r, SECTION_OPTIMIZER), adamw_component.name)) {
        r->optimizer_component = &adamw_component; /* its keys stand in [optimizer] itself */
    } else {
        QFW_TRY(open_component(r, QFW_KIND_OPTIMIZER, SECTION_OPTIMIZER, SECTION_OPTIMIZER_OWN,
            &r->optimizer_file, &r->optimizer_component));
    }
    if (!strcmp(use_of(r, SECTION_BACKEND), "auto")) return pick_backend(r);
    return open_component(
        r, QFW_KIND_BACKEND, SECTION_BACKEND, SECTION_BACKEND_OWN, &r->backend_file, &r->backend);
}

/* Each word of [plugins] `key`, a list of files or folders, goes to `take`. */
static qfw_status each_plugin_path(run *r, const char *key, qfw_status (*take)(const char *path)) {
    ini_entry *e = ini_find(r->ini, "plugins", key);
    char path[PATH_MAX], place[512];
    if (!e) return QFW_OK;
    QFW_TRY(make_absolute(r, e, ",", 1));
    for (const char *at = e->value; *at;) {
        const size_t n = strcspn(at, ",");
        snprintf(path, sizeof path, "%.*s", (int)n, at);
        const qfw_status status = take(path);
        if (status != QFW_OK) {
            err_prefix("%s", ini_place(r->ini, e, 1, place, sizeof place));
            return status;
        }
        at += n + (at[n] == ',');
    }
    return QFW_OK;
}

/* Values that mean something in this field but that this build cannot do yet: refused by name. */
static void refuse_unsupported(const run *r) {
    static const struct {
        uint32_t section;
        const char *key, *value, *instead;
    } later[] = {
        {SECTION_TRAINER, "bf16", "true", "false: fp32"},
        {SECTION_TRAINER, "fp16", "true", "false: fp32"},
        {SECTION_TRAINER, "gradient_checkpointing", "selective", "full or none"},
        {SECTION_TRAINER, "report_to", "tensorboard", "none; trainer_log.jsonl is always written"},
        {SECTION_MODEL, "bnb_4bit_compute_dtype", "bfloat16", "float32"},
        {SECTION_MODEL, "bnb_4bit_compute_dtype", "float16", "float32"},
        {SECTION_DATA, "packing", "true", "false: batches have no padding in any case"},
        {SECTION_EXPORT, "merged", "requant", "none"},
        {SECTION_EXPORT, "merged", "dequant", "none"},
        {SECTION_EXPORT, "merged", "base16", "none"},
        {SECTION_EXPORT, "gguf", "true", "false"},
    };
    for (size_t i = 0; i < COUNT(later); i++) {
        const qfw_cfg *c = run_cfg(r, later[i].section);
        const ini_entry *e = ini_find(r->ini, c->section, later[i].key);
        if (e && !strcmp(e->value, later[i].value))
            (void)cfg_problem(r->ini, c, later[i].key, "%s is not supported yet, wanted %s",
                e->value, later[i].instead);
    }
}

/* The built-in optimizer's keys mean nothing to another one. */
static void check_optimizer_keys(const run *r) {
    static const char *const keys[] = {"weight_decay", "adam_beta1", "adam_beta2", "adam_epsilon"};
    const qfw_cfg *c = run_cfg(r, SECTION_OPTIMIZER);
    for (size_t i = 0; r->optimizer_component != &adamw_component && i < COUNT(keys); i++)
        if (cfg_is_set(c, keys[i]))
            (void)cfg_problem(r->ini, c, keys[i],
                "a key of adamw, but [optimizer] use = %s; its own keys stand in [optimizer.%s]",
                r->optimizer_component->name, r->optimizer_component->name);
}

/* Keys that contradict each other. */
static void check_together(const run *r) {
    const qfw_cfg *trainer = run_cfg(r, SECTION_TRAINER), *data = run_cfg(r, SECTION_DATA);
    const qfw_cfg *adapter = run_cfg(r, SECTION_ADAPTER), *model = run_cfg(r, SECTION_MODEL);
    if (!strcmp(cfg_text(trainer, "eval_strategy"), "steps") && !*cfg_text(data, "eval"))
        (void)cfg_problem(r->ini, trainer, "eval_strategy", "steps, but [data] eval names no file");
    check_optimizer_keys(r);
    if (cfg_int(trainer, "max_steps") == 0)
        (void)cfg_problem(r->ini, trainer, "max_steps", "0, wanted -1 (by epochs) or at least 1");
    if (strcmp(cfg_text(adapter, "use"), "none")) return;
    if (cfg_int(model, "load_in_4bit"))
        (void)cfg_problem(r->ini, model, "load_in_4bit",
            "true with [adapter] use = none: packed weights cannot be trained");
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

qfw_status settings_read(run *r) {
    enum { MAX_OTHERS = 64 };
    const char *others[MAX_OTHERS];
    QFW_TRY(ini_read(r->flags.ini_path, &r->ini));
    for (uint32_t i = 0; i < r->flags.n_set; i++) QFW_TRY(ini_set(r->ini, r->flags.set[i]));
    if (r->flags.resume) QFW_TRY(ini_set(r->ini, "run.resume_from_checkpoint=auto"));
    memcpy(r->sections, core_schema, sizeof core_schema);
    QFW_TRY(each_plugin_path(r, "path", plugin_search_add));
    QFW_TRY(each_plugin_path(r, "load", plugin_load));
    QFW_TRY(open_plugins(r));
    for (uint32_t s = 0; s < MAX_SECTIONS; s++)
        if (!r->sections[s].section)
            r->sections[s] = (schema_section){"", NULL, 0, NULL}; /* an unused place */
    const uint32_t n_others = other_sections(r, others, MAX_OTHERS);
    const qfw_status status = option_check(r->ini, r->sections, MAX_SECTIONS, others, n_others);
    if (status == QFW_OK || run_cfg(r, SECTION_PLUGINS)) {
        refuse_unsupported(r);
        check_together(r);
    }
    return err_status();
}
