/* changes.c -- see changes.h. What stands in no table is forbidden. */
#include "train/changes.h"

#include <stdio.h>
#include <string.h>

#include "base/error.h"
#include "base/ini.h"
#include "base/log.h"
#include "base/mem.h"
#include "files/file.h"

/* "section.key", or "section.*" for all of a section. */
typedef struct known_change {
    const char *name;
    change_class class;
    const char *meaning;
} known_change;

static const char evaluates[] = "evaluations differ, the weights do not";
static const char ends[] = "the run may end at another step";

static const known_change known[] = {
    {"run.resume_from_checkpoint", CHANGE_OF_CALL, NULL},
    {"run.overwrite_output_dir", CHANGE_OF_CALL, NULL},
    {"run.output_dir", CHANGE_EXACT, NULL},
    {"run.threads", CHANGE_EXACT, NULL},
    {"run.max_memory", CHANGE_EXACT, NULL},
    {"trainer.gradient_checkpointing", CHANGE_EXACT, NULL},
    {"trainer.logging_steps", CHANGE_EXACT, NULL},
    {"trainer.report_to", CHANGE_EXACT, NULL},
    {"trainer.save_strategy", CHANGE_EXACT, NULL},
    {"trainer.save_steps", CHANGE_EXACT, NULL},
    {"trainer.save_total_limit", CHANGE_EXACT, NULL},
    {"data.train", CHANGE_EXACT, NULL}, /* what it holds is compared by its hash */
    {"data.source", CHANGE_EXACT, NULL},
    {"data.generator", CHANGE_EXACT, NULL},
    {"data.licence", CHANGE_EXACT, NULL},
    {"data.notes", CHANGE_EXACT, NULL},
    {"plugins.*", CHANGE_EXACT, NULL},
    {"export.*", CHANGE_EXACT, NULL},
    {"backend.fallback", CHANGE_EXACT, NULL},
    {"backend.use", CHANGE_COMPATIBLE, "another device rounds otherwise: close, not bit-equal"},
    {"data.eval", CHANGE_COMPATIBLE, evaluates},
    {"trainer.eval_strategy", CHANGE_COMPATIBLE, evaluates},
    {"trainer.eval_steps", CHANGE_COMPATIBLE, evaluates},
    {"trainer.per_device_eval_batch_size", CHANGE_COMPATIBLE, evaluates},
    {"trainer.early_stopping_patience", CHANGE_COMPATIBLE, ends},
    {"trainer.early_stopping_threshold", CHANGE_COMPATIBLE, ends},
};

static int is_named(const char *name, const char *pattern) {
    const size_t n = strcspn(pattern, "*");
    return pattern[n] ? !strncmp(name, pattern, n) : !strcmp(name, pattern);
}

change_class change_class_of(const char *section, const char *key, const char **meaning) {
    char name[160];
    *meaning = NULL;
    if (!strncmp(section, "trainer.", 8) && !strcmp(key, "ref_cache")) return CHANGE_EXACT;
    snprintf(name, sizeof name, "%s.%s", section, key);
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        if (!is_named(name, known[i].name)) continue;
        *meaning = known[i].meaning;
        return known[i].class;
    }
    return CHANGE_FORBIDDEN;
}

/* One key of this run whose value in the checkpoint's is `was`. */
static void tell(const char *path, const ini_entry *a, const char *was) {
    const char *meaning;
    switch (change_class_of(a->section, a->key, &meaning)) {
    case CHANGE_OF_CALL: break;
    case CHANGE_EXACT:
        log_line(QFW_LOG_INFO, "resume: %s.%s was \"%s\", now \"%s\": exact", a->section, a->key,
            was, a->value);
        break;
    case CHANGE_COMPATIBLE:
        log_line(QFW_LOG_INFO, "resume: %s.%s was \"%s\", now \"%s\": compatible: %s", a->section,
            a->key, was, a->value, meaning);
        break;
    case CHANGE_FORBIDDEN:
        (void)err_also("E_CONFIG_RESUME", QFW_E_CONFIG,
            "%s: %s.%s was \"%s\", now \"%s\": that is another run; hint: give it another "
            "output_dir, or set it back",
            path, a->section, a->key, was, a->value);
        break;
    }
}

qfw_status changes_check(const run *r, const char *folder) {
    ini *old = NULL, *now = NULL;
    char *path = path_join(folder, "resolved.ini");
    char *text = option_resolved(r->sections, MAX_SECTIONS);
    qfw_status status = path && text ? ini_read(path, &old) : QFW_E_NOMEM;
    if (status == QFW_OK) status = ini_parse_text(text, strlen(text), "this run", &now);
    if (status == QFW_OK) err_clear();
    for (size_t i = 0; status == QFW_OK && i < now->n; i++) {
        const ini_entry *a = &now->entries[i], *b = ini_find(old, a->section, a->key);
        if (!b || strcmp(a->value, b->value)) tell(path, a, b ? b->value : "");
    }
    if (status == QFW_OK) status = err_status();
    ini_destroy(old);
    ini_destroy(now);
    mem_free(path);
    mem_free(text);
    return status;
}
