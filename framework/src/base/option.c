/* option.c -- the INI against the schema: every problem in one run, each with its place and a
 * way out. */
#define _POSIX_C_SOURCE 200809L
#include "base/option.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/error.h"
#include "base/mem.h"
#include "base/value.h"

enum { MAX_FOLDER = 4096, MAX_PLACE = 512, MAX_KNOWN = 512 };

typedef struct checker {
    ini *i;
    schema_section *sections;
    uint32_t n;
    const char *const *others;
    uint32_t n_others;
    char folder[MAX_FOLDER]; /* absolute, of the INI */
    qfw_status status;       /* of the first problem */
} checker;

/* Names from other programs, with what they are called here; told only where the schema has it. */
static const struct {
    const char *foreign, *section, *key;
} aliases[] = {
    {"model_name_or_path", "model", "path"},
    {"model_name", "model", "path"},
    {"model_id", "model", "path"},
    {"pretrained_model_name_or_path", "model", "path"},
    {"base_model", "model", "path"},
    {"adapter_name_or_path", "adapter", "path"},
    {"dataset_name", "data", "train"},
    {"dataset", "data", "train"},
    {"train_file", "data", "train"},
    {"validation_file", "data", "eval"},
    {"eval_dataset", "data", "eval"},
    {"max_seq_length", "data", "max_length"},
    {"max_seq_len", "data", "max_length"},
    {"sequence_len", "data", "max_length"},
    {"model_max_length", "data", "max_length"},
    {"lora_r", "adapter", "r"},
    {"rank", "adapter", "r"},
    {"alpha", "adapter", "lora_alpha"},
    {"dropout", "adapter", "lora_dropout"},
    {"lora_target_modules", "adapter", "target_modules"},
    {"lr", "trainer", "learning_rate"},
    {"lr_scheduler", "trainer", "lr_scheduler_type"},
    {"epochs", "trainer", "num_train_epochs"},
    {"num_epochs", "trainer", "num_train_epochs"},
    {"batch_size", "trainer", "per_device_train_batch_size"},
    {"micro_batch_size", "trainer", "per_device_train_batch_size"},
    {"eval_batch_size", "trainer", "per_device_eval_batch_size"},
    {"evaluation_strategy", "trainer", "eval_strategy"},
    {"optim", "optimizer", "use"},
    {"optimizer", "optimizer", "use"},
    {"adam_eps", "optimizer", "adam_epsilon"},
};

static void note_problem(checker *c, qfw_status status) {
    if (c->status == QFW_OK) c->status = status;
}

static const schema_section *schema_find(const checker *c, const char *section) {
    for (uint32_t s = 0; s < c->n; s++)
        if (strcmp(c->sections[s].section, section) == 0) return &c->sections[s];
    return NULL;
}

static const qfw_option *option_find(const schema_section *s, const char *key) {
    for (uint64_t o = 0; s && o < s->n_options; o++)
        if (strcmp(s->options[o].key, key) == 0) return &s->options[o];
    return NULL;
}

/* The INI's folder, absolute without looking at the disk, so that resolved.ini means the same
 * elsewhere. */
static qfw_status find_folder(checker *c) {
    const char *path = c->i->path, *slash = strrchr(path, '/');
    const size_t n = slash ? (size_t)(slash - path) : 0;
    char here[MAX_FOLDER] = "";
    if (*path != '/' && !getcwd(here, sizeof here))
        return err_fail("E_NOINPUT", QFW_E_IO, "the working folder cannot be found");
    const int length = snprintf(c->folder, sizeof c->folder, "%s%s%.*s", here,
        n > 0 && *path != '/' ? "/" : "", (int)n, path);
    if (length < 0 || (size_t)length >= sizeof c->folder)
        return err_fail("E_INI_LIMIT", QFW_E_CONFIG, "%.200s...: a folder of more than %d bytes",
            c->folder, MAX_FOLDER - 1);
    return QFW_OK;
}

/* The value of one option: the INI's, else the default. -1 when there is no memory. */
static int fill_value(checker *c, qfw_cfg *cfg, uint64_t at) {
    const qfw_option *o = &cfg->options[at];
    struct cfg_value *v = &cfg->values[at];
    ini_entry *entry = ini_find(c->i, cfg->section, o->key);
    char why[MAX_PLACE], place[MAX_PLACE];
    int good = 0;
    if (entry) {
        entry->used = 1;
        v->set = 1;
        v->entry = entry;
        good = value_parse(o, entry->value, c->folder, 0, v, why, sizeof why);
        if (good == 0)
            note_problem(
                c, err_also(strstr(why, "allowed: ") ? "E_INI_RANGE" : "E_INI_TYPE", QFW_E_CONFIG,
                       "%s: %s.%s: found %s", ini_place_named(c->i, entry, place, sizeof place),
                       cfg->section, o->key, why));
    } else if (o->flags & QFW_OPT_REQUIRED && !c->i->damaged)
        note_problem(
            c, err_also("E_INI_MISSING", QFW_E_CONFIG, "%s: %s.%s: missing, wanted %s (%s)",
                   c->i->path, cfg->section, o->key, value_type(o), o->help));
    if (good != 0) return good < 0 ? -1 : 0;
    good = value_parse(o, o->dflt ? o->dflt : "", c->folder, 1, v, why, sizeof why);
    if (good == 0) {
        note_problem(c, err_also("E_OPTION", QFW_E_INTERNAL,
                            "%s.%s: its default is %s; hint: this is "
                            "a fault of the plugin's option table",
                            cfg->section, o->key, why));
        v->s = mem_strdup("");
        if (!v->s) good = -1;
    }
    return good < 0 ? -1 : 0;
}

static int fill_section(checker *c, schema_section *s) {
    qfw_cfg *cfg = s->cfg = mem_alloc(1, sizeof *cfg);
    if (!cfg) return -1;
    cfg->section = s->section;
    cfg->options = s->options;
    cfg->values = mem_alloc(s->n_options, sizeof *cfg->values);
    if (!cfg->values) return -1;
    cfg->n = s->n_options;
    for (uint64_t o = 0; o < s->n_options; o++)
        if (fill_value(c, cfg, o)) return -1;
    return 0;
}

/* The nearest key to `key` among those of one section; NULL: none is near. */
static const char *nearest_key(const schema_section *s, const char *key) {
    const char *keys[MAX_KNOWN];
    uint32_t n = 0;
    for (uint64_t o = 0; o < s->n_options && n < MAX_KNOWN; o++) keys[n++] = s->options[o].key;
    return err_nearest(key, keys, n);
}

/* What a person may have meant by an unknown key, into hint. */
static void suggest_key(
    const checker *c, const schema_section *s, const char *key, char *hint, size_t cap) {
    const char *there = NULL, *meant = NULL;
    for (size_t a = 0; a < sizeof aliases / sizeof *aliases && !meant; a++) {
        if (strcmp(aliases[a].foreign, key) != 0) continue;
        if (!option_find(schema_find(c, aliases[a].section), aliases[a].key)) continue;
        meant = aliases[a].key;
        there = aliases[a].section;
    }
    for (uint32_t o = 0; o < c->n && !meant; o++)
        if (option_find(&c->sections[o], key)) {
            snprintf(hint, cap, "; it belongs to [%s]", c->sections[o].section);
            return;
        }
    if (!meant) {
        meant = nearest_key(s, key);
        there = s->section;
    }
    for (uint32_t o = 0; o < c->n && !meant; o++) {
        meant = nearest_key(&c->sections[o], key);
        there = c->sections[o].section;
    }
    if (!meant)
        snprintf(hint, cap, "; hint: `qfw help` lists the keys of [%s]", s->section);
    else if (strcmp(there, s->section) == 0)
        snprintf(hint, cap, "; did you mean '%s'?", meant);
    else
        snprintf(hint, cap, "; did you mean '%s' in [%s]?", meant, there);
}

static void check_unknown_keys(checker *c) {
    char place[MAX_PLACE], hint[MAX_PLACE];
    for (size_t e = 0; e < c->i->n; e++) {
        const ini_entry *entry = &c->i->entries[e];
        const schema_section *s = schema_find(c, entry->section);
        if (entry->used || !s) continue;
        suggest_key(c, s, entry->key, hint, sizeof hint);
        note_problem(c,
            err_also("E_INI_UNKNOWN", QFW_E_CONFIG, "%s: key '%s' is unknown in [%s]%s",
                ini_place(c->i, entry, 0, place, sizeof place), entry->key, entry->section, hint));
    }
}

/* "[trainer.dpo]" in a run whose trainer is another. */
static void explain_other(checker *c, const char *place, const char *section) {
    char kind[64], used[160] = "";
    const char *dot = strchr(section, '.'), *name = dot ? dot + 1 : section;
    snprintf(kind, sizeof kind, "%.*s", (int)(name - section - (dot ? 1 : 0)), section);
    const schema_section *s = schema_find(c, kind);
    for (uint64_t o = 0; s && s->cfg && o < s->cfg->n; o++)
        if (strcmp(s->options[o].key, "use") == 0)
            snprintf(used, sizeof used, ", but [%s] use = %.64s", kind, s->cfg->values[o].s);
    note_problem(c, err_also("E_INI_UNUSED", QFW_E_CONFIG,
                        "%s: [%s] belongs to %s '%s'%s; hint: take the section out, or use that %s",
                        place, section, *kind ? kind : "plugin", name,
                        *used ? used : ", which this run does not use", *kind ? kind : "plugin"));
}

static void check_unknown_sections(checker *c) {
    const char *known[MAX_KNOWN];
    uint32_t n_known = 0;
    for (uint32_t s = 0; s < c->n && n_known < MAX_KNOWN; s++)
        if (*c->sections[s].section) known[n_known++] = c->sections[s].section;
    for (size_t s = 0; s < c->i->n_sections; s++) {
        const char *name = c->i->sections[s].name;
        char place[MAX_PLACE];
        int other = 0;
        c->i->sections[s].used |= schema_find(c, name) != NULL;
        if (c->i->sections[s].used) continue;
        snprintf(place, sizeof place, "%s:%u:1", c->i->path, c->i->sections[s].line);
        if (c->i->sections[s].line == 0) snprintf(place, sizeof place, "--set %s", name);
        for (uint32_t o = 0; o < c->n_others; o++) other |= strcmp(c->others[o], name) == 0;
        if (other) {
            explain_other(c, place, name);
            continue;
        }
        const char *near = err_nearest(name, known, n_known);
        note_problem(
            c, err_also("E_INI_UNKNOWN", QFW_E_CONFIG, "%s: section [%s] is unknown%s%s%s", place,
                   name, near ? "; did you mean [" : "", near ? near : "", near ? "]?" : ""));
    }
}

qfw_status option_check(
    ini *i, schema_section *sections, uint32_t n, const char *const *others, uint32_t n_others) {
    checker c = {.i = i, .sections = sections, .n = n, .others = others, .n_others = n_others};
    for (uint32_t s = 0; s < n; s++) sections[s].cfg = NULL;
    QFW_TRY(find_folder(&c));
    for (uint32_t s = 0; s < n; s++)
        if (*sections[s].section && fill_section(&c, &sections[s])) {
            option_free(sections, n);
            return QFW_E_NOMEM;
        }
    check_unknown_sections(&c);
    check_unknown_keys(&c);
    return c.status;
}

void option_free(schema_section *sections, uint32_t n) {
    for (uint32_t s = 0; s < n; s++) {
        qfw_cfg *cfg = sections[s].cfg;
        for (uint64_t o = 0; cfg && o < cfg->n; o++) mem_free((void *)cfg->values[o].s);
        if (cfg) mem_free(cfg->values);
        mem_free(cfg);
        sections[s].cfg = NULL;
    }
}

static const struct cfg_value *cfg_find(const qfw_cfg *c, const char *key, uint32_t *type) {
    for (uint64_t o = 0; c && o < c->n; o++)
        if (strcmp(c->options[o].key, key) == 0) {
            *type = c->options[o].type;
            return &c->values[o];
        }
    return NULL;
}

/* The value of `key` when its type is one of the bits of `types`; else a fault of the caller. */
static qfw_status cfg_get(
    const qfw_cfg *c, const char *key, uint32_t types, const struct cfg_value **out) {
    uint32_t type = 0;
    *out = cfg_find(c, key, &type);
    if (*out && types >> type & 1) return QFW_OK;
    return err_fail("E_OPTION", QFW_E_INVALID, "%s.%s: %s; hint: this is a fault of the component",
        c ? c->section : "", key,
        *out ? "read as another type than the one declared" : "read but not declared");
}

enum {
    WHOLE_TYPES = 1u << QFW_OPT_BOOL | 1u << QFW_OPT_INT | 1u << QFW_OPT_BYTES,
    REAL_TYPES = 1u << QFW_OPT_FLOAT,
    TEXT_TYPES = 1u << QFW_OPT_STR | 1u << QFW_OPT_PATH | 1u << QFW_OPT_ENUM | 1u << QFW_OPT_LIST,
};

qfw_status cfg_i64(const qfw_cfg *c, const char *key, int64_t *out) {
    const struct cfg_value *v;
    *out = 0;
    QFW_TRY(cfg_get(c, key, WHOLE_TYPES, &v));
    *out = v->i;
    return QFW_OK;
}

qfw_status cfg_f64(const qfw_cfg *c, const char *key, double *out) {
    const struct cfg_value *v;
    *out = 0.0;
    QFW_TRY(cfg_get(c, key, REAL_TYPES, &v));
    *out = v->f;
    return QFW_OK;
}

qfw_status cfg_str(const qfw_cfg *c, const char *key, const char **out) {
    const struct cfg_value *v;
    *out = NULL;
    QFW_TRY(cfg_get(c, key, TEXT_TYPES, &v));
    *out = v->s;
    return QFW_OK;
}

int64_t cfg_int(const qfw_cfg *c, const char *key) {
    uint32_t type;
    const struct cfg_value *v = cfg_find(c, key, &type);
    return v ? v->i : 0;
}

double cfg_real(const qfw_cfg *c, const char *key) {
    uint32_t type;
    const struct cfg_value *v = cfg_find(c, key, &type);
    return v ? v->f : 0.0;
}

const char *cfg_text(const qfw_cfg *c, const char *key) {
    uint32_t type;
    const struct cfg_value *v = cfg_find(c, key, &type);
    return v ? v->s : "";
}

int cfg_is_set(const qfw_cfg *c, const char *key) {
    uint32_t type;
    const struct cfg_value *v = cfg_find(c, key, &type);
    return v && v->set;
}

qfw_status cfg_replace(qfw_cfg *c, const char *key, const char *text) {
    char why[256];
    uint64_t o = 0;
    while (o < c->n && strcmp(c->options[o].key, key) != 0) o++;
    struct cfg_value made = {.s = NULL};
    const int good =
        o < c->n ? value_parse(&c->options[o], text, "/", 1, &made, why, sizeof why) : 0;
    if (good < 0) return QFW_E_NOMEM;
    if (!good)
        return err_fail(
            "E_INTERNAL", QFW_E_INTERNAL, "%s.%s cannot become '%s'", c->section, key, text);
    struct cfg_value *v = &c->values[o];
    mem_free((void *)v->s);
    v->i = made.i;
    v->f = made.f;
    v->s = made.s;
    return QFW_OK;
}

void cfg_drop(qfw_cfg *c, const char *key) {
    for (uint64_t o = 0; o < c->n; o++) {
        if (strcmp(c->options[o].key, key) != 0) continue;
        mem_free((void *)c->values[o].s);
        c->values[o].s = NULL;
    }
}

qfw_status cfg_problem(const ini *i, const qfw_cfg *c, const char *key, const char *fmt, ...) {
    char text[MAX_PLACE], place[MAX_PLACE];
    uint32_t type;
    const struct cfg_value *v = cfg_find(c, key, &type);
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    snprintf(place, sizeof place, "%s", i->path);
    if (v && v->entry) ini_place_named(i, v->entry, place, sizeof place);
    return err_also("E_INI_VALUE", QFW_E_CONFIG, "%s: %s.%s: %s", place, c->section, key, text);
}

qfw_status cfg_unescaped(const ini *i, const qfw_cfg *c, const char *key, char **out) {
    static const char names[] = "nts\\", meant[] = "\n\t \\";
    char *to = *out = mem_strdup(cfg_text(c, key));
    if (!to) return QFW_E_NOMEM;
    for (const char *at = to; *at; at++) {
        if (*at != '\\') {
            *to++ = *at;
            continue;
        }
        const char *known = *++at ? strchr(names, *at) : NULL;
        if (!known) {
            const qfw_status status = cfg_problem(i, c, key,
                "found a backslash before '%.1s', wanted \\n, \\t, \\s (a blank) or \\\\", at);
            mem_free(*out);
            *out = NULL;
            return status;
        }
        *to++ = meant[known - names];
    }
    *to = 0;
    return QFW_OK;
}
