/* option_text.c -- options as text: resolved.ini, and the help of a table. */
#include <stdio.h>
#include <string.h>

#include "base/error.h"
#include "base/mem.h"
#include "base/value.h"

/* Whether the value can stand in an INI: "" is the default of a number that has none, NULL that of
 * a key that was dropped. */
static int is_written(const qfw_option *o, const struct cfg_value *v) {
    if (!v->s) return 0;
    return *v->s || o->type == QFW_OPT_STR || o->type == QFW_OPT_PATH || o->type == QFW_OPT_LIST;
}

/* One section at `to`, or only its length when to is NULL. */
static size_t write_section(const qfw_cfg *c, char *to, size_t cap) {
    size_t n = (size_t)snprintf(to, cap, "[%s]\n", c->section);
    for (uint64_t o = 0; o < c->n; o++) {
        const char *value = c->values[o].s;
        if (!is_written(&c->options[o], &c->values[o])) continue;
        /* After a blank, a ';' would start a comment. */
        n += (size_t)snprintf(to ? to + n : NULL, to ? cap - n : 0, "%s =%s%s\n", c->options[o].key,
            *value == ';' || !*value ? "" : " ", value);
    }
    return n + (size_t)snprintf(to ? to + n : NULL, to ? cap - n : 0, "\n");
}

char *option_resolved(const schema_section *sections, uint32_t n) {
    size_t bytes = 1, used = 0;
    for (uint32_t s = 0; s < n; s++)
        if (sections[s].cfg) bytes += write_section(sections[s].cfg, NULL, 0);
    char *text = mem_alloc(bytes, 1);
    for (uint32_t s = 0; text && s < n; s++)
        if (sections[s].cfg) used += write_section(sections[s].cfg, text + used, bytes - used);
    return text;
}

/* What a plugin says, with nothing in it that a terminal would act on. */
static void print_shown(FILE *out, const char *text) {
    char shown[4096];
    err_escape(shown, sizeof shown, text);
    fputs(shown, out);
}

static void print_option(FILE *out, const qfw_option *option) {
    static const char *const types[] = {
        "", "true|false", "integer", "number", "text", "path", "bytes", "", "list"};
    char allowed[256];
    value_allowed(option, allowed, sizeof allowed);
    const char *type = option->type <= QFW_OPT_LIST ? types[option->type] : "";
    fputs("  ", out);
    print_shown(out, option->key);
    if (option->flags & QFW_OPT_REQUIRED) {
        fputs("  (required)", out);
    } else if (option->dflt && *option->dflt) {
        fputs(" = ", out);
        print_shown(out, option->dflt);
    }
    fputs("\n      ", out);
    print_shown(out, option->help);
    fprintf(out, ".%s%s%s", *type || *allowed ? " " : "", type, *type && *allowed ? ", " : "");
    print_shown(out, allowed);
    fputs(*type || *allowed ? ".\n" : "\n", out);
}

void option_help(FILE *out, const char *section, const qfw_option *options, uint64_t n) {
    fputc('[', out);
    print_shown(out, section);
    fputs("]\n", out);
    for (uint64_t o = 0; o < n; o++) print_option(out, &options[o]);
}
