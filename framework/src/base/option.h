/* option.h -- option tables against the INI: types, ranges, defaults, unknown keys, help.
 *
 * A schema is a list of (section, table). option_check reads the whole INI against it and reports
 * every problem in one run: unknown sections and keys with the nearest known one, wrong types,
 * values out of range.
 */
#ifndef BASE_OPTION_H
#define BASE_OPTION_H

#include "base/ini.h"
#include "qfw/host.h"

/* The values of one section, typed. What plugins see as qfw_cfg; the core reads it the same way. */
struct qfw_cfg {
    const char *section;
    const qfw_option *options;
    uint64_t n;
    struct cfg_value {
        int64_t i;
        double f;
        const char *s;
        uint32_t set;
        const ini_entry *entry;
    } * values;
};

typedef struct schema_section {
    const char *section; /* "trainer", "trainer.sft" */
    const qfw_option *options;
    uint64_t n_options;
    qfw_cfg *cfg; /* filled by option_check */
} schema_section;

/* Every problem err_also'ed. Each section gets its cfg, also when there are
 * problems: a key whose value is bad then answers its default, so that the caller may look for
 * contradictions in the same run. option_free in any case. After QFW_E_NOMEM there are no cfgs.
 * Paths are resolved against the INI's folder. Sections named "" are skipped. The cfgs point
 * into the schema and the INI.
 *
 * Sections that are known but belong to plugins that this run does not use may be listed with
 * options NULL in `others`, to tell "belongs to trainer dpo, but [trainer] use = sft" from a
 * typo. */
qfw_status option_check(
    ini *i, schema_section *sections, uint32_t n, const char *const *others, uint32_t n_others);
void option_free(schema_section *sections, uint32_t n);

qfw_status cfg_i64(const qfw_cfg *c, const char *key, int64_t *out);
qfw_status cfg_f64(const qfw_cfg *c, const char *key, double *out);
qfw_status cfg_str(const qfw_cfg *c, const char *key, const char **out);
/* The same for keys that the core knows to be declared: 0 or "" for one that is not. */
int64_t cfg_int(const qfw_cfg *c, const char *key);
double cfg_real(const qfw_cfg *c, const char *key);
const char *cfg_text(const qfw_cfg *c, const char *key);
int cfg_is_set(const qfw_cfg *c, const char *key); /* the INI or --set says it */
/* A declared key's value becomes `text`, of its type but in any range: what the run settled on.
 * What cfg_text gave for it before is gone. */
qfw_status cfg_replace(qfw_cfg *c, const char *key, const char *text);
/* The key is no part of this run: resolved.ini leaves it out. What cfg_text gave for it before is
 * gone. */
void cfg_drop(qfw_cfg *c, const char *key);
/* err_also a problem at the key's place: "sft.ini:12:8: trainer.max_steps: ...". */
QFW_PRINTF(4, 5)
qfw_status cfg_problem(const ini *i, const qfw_cfg *c, const char *key, const char *fmt, ...);
/* A text with its escapes resolved: \n, \t, \s (a blank) and \\; mem_free. */
qfw_status cfg_unescaped(const ini *i, const qfw_cfg *c, const char *key, char **out);
/* Parse one number as options do: C locale, whole text, finite, in range of its type. */
qfw_status option_parse_i64(const char *text, int64_t *out);
qfw_status option_parse_f64(const char *text, double *out);
/* All sections as an INI that gives the same run: resolved.ini. mem_free. */
char *option_resolved(const schema_section *sections, uint32_t n);
/* The keys of one table as help text (name, type, range, default, help) to `out`. */
void option_help(FILE *out, const char *section, const qfw_option *options, uint64_t n);

#endif
