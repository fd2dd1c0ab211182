/* normalize.c -- the normalizer of a tokenizer.json: Prepend, Replace, and Unicode's normal forms,
 * one after another. */
#include <string.h>

#include "base/error.h"
#include "base/mem.h"
#include "text/parts.h"
#include "text/unicode.h"

/* The first four are the forms of unicode.h. */
enum { NORM_PREPEND = UNICODE_NFKD + 1, NORM_REPLACE };
enum { MAX_STEPS = 16 };

static const char *const forms[] = {"NFC", "NFD", "NFKC", "NFKD"};

/* --- loading --- */

static norm_step *add_step(normalizer *z, int kind) {
    if (mem_grow(&z->step, &z->cap, z->n + 1, sizeof *z->step)) return NULL;
    norm_step *s = &z->step[z->n++];
    *s = (norm_step){.kind = kind};
    return s;
}

static qfw_status load_replace(const json_node *v, const char *file, normalizer *out) {
    const char *from = part_str(json_node_member(v, "pattern"), "String");
    const char *to = part_str(v, "content");
    if (!from || !*from || !to)
        return part_unsupported(file, "normalizer", "Replace whose pattern is not a String");
    norm_step *s = add_step(out, NORM_REPLACE);
    if (!s) return QFW_E_NOMEM;
    s->from = mem_strdup(from);
    s->to = mem_strdup(to);
    return s->from && s->to ? QFW_OK : QFW_E_NOMEM;
}

static qfw_status load_prepend(const json_node *v, const char *file, normalizer *out) {
    const char *text = part_str(v, "prepend");
    if (!text) return part_unsupported(file, "normalizer", "Prepend without its text");
    norm_step *s = add_step(out, NORM_PREPEND);
    if (!s) return QFW_E_NOMEM;
    s->to = mem_strdup(text);
    return s->to ? QFW_OK : QFW_E_NOMEM;
}

static qfw_status load_step(const json_node *v, const char *file, normalizer *out) {
    const char *type = part_type(v);
    if (out->n >= MAX_STEPS) return part_unsupported(file, "normalizer", "so many steps");
    if (!strcmp(type, "Replace")) return load_replace(v, file, out);
    if (!strcmp(type, "Prepend")) return load_prepend(v, file, out);
    for (int form = UNICODE_NFC; form <= UNICODE_NFKD; form++)
        if (!strcmp(type, forms[form])) return add_step(out, form) ? QFW_OK : QFW_E_NOMEM;
    return part_unsupported(file, "normalizer", type);
}

qfw_status normalizer_load(const json_node *v, const char *file, normalizer *out) {
    if (json_node_kind(v) <= QFW_DOC_NULL) return QFW_OK;
    if (strcmp(part_type(v), "Sequence")) return load_step(v, file, out);
    const json_node *list = json_node_member(v, "normalizers");
    for (uint64_t i = 0; i < json_node_count(list); i++)
        QFW_TRY(load_step(json_node_item(list, i), file, out));
    return QFW_OK;
}

void normalizer_free(normalizer *z) {
    for (size_t i = 0; i < z->n; i++) {
        mem_free(z->step[i].from);
        mem_free(z->step[i].to);
    }
    mem_free(z->step);
    *z = (normalizer){0};
}

/* --- running --- */

int text_replace(tagged_view in, const char *from, const char *to, tagged *out) {
    const size_t n_from = strlen(from), n_to = strlen(to);
    size_t taken = 0;
    for (size_t i = 0; i + n_from <= in.n;) {
        if (in.s[i] != from[0] || memcmp(in.s + i, from, n_from) != 0) {
            i++;
            continue;
        }
        if (tagged_copy(out, tagged_part(in, taken, i)) || tagged_add(out, to, n_to, in.tag[i]))
            return -1;
        taken = i += n_from;
    }
    return tagged_copy(out, tagged_part(in, taken, in.n));
}

static qfw_status run_step(const norm_step *s, tagged_view in, tagged *out) {
    int bad;
    if (s->kind < NORM_PREPEND) return unicode_normalize(in, s->kind, out);
    if (s->kind == NORM_REPLACE)
        bad = text_replace(in, s->from, s->to, out);
    else
        bad = tagged_add(out, s->to, strlen(s->to), in.tag[0]) || tagged_copy(out, in);
    return bad ? QFW_E_NOMEM : QFW_OK;
}

qfw_status normalizer_run(const normalizer *z, tagged *text, tagged *spare) {
    for (size_t i = 0; i < z->n && text->n > 0; i++) {
        spare->n = 0;
        QFW_TRY(run_step(&z->step[i], tagged_all(text), spare));
        const tagged swap = *text;
        *text = *spare;
        *spare = swap;
    }
    return QFW_OK;
}
