/* documents.c -- see documents.h. Only the names of a folder's files are kept, to sort them. */
#define _POSIX_C_SOURCE 200809L
#include "serve/documents.h"

#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/mem.h"
#include "base/rng.h"
#include "files/file.h"
#include "files/json.h"
#include "text/jsonl.h"
#include "text/unicode.h"

enum { USUAL_MAX_BYTES = 16 << 20, MAX_DEPTH = 64, MAX_VALUES = 8000000 };

struct documents {
    documents_opts o;
    jsonl *rows;  /* NULL: a folder */
    qfw_doc *row; /* what the last document_in points into */
    char **names, *text;
    size_t n_names, cap, next;
    char id[32];
    /* Of the rows so far, by a hash table: what their ids are, and where. */
    struct seen {
        uint64_t hash, line; /* line 0: an empty slot */
    } * seen;
    size_t n_seen, n_slots;
};

/* --- a folder --- */

static int compare_names(const void *a, const void *b) {
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static qfw_status add_name(documents *d, const char *name) {
    char *path = path_join(d->o.path, name);
    if (!path) return QFW_E_NOMEM;
    const int wanted = *name != '.' && file_exists(path);
    mem_free(path);
    if (!wanted) return QFW_OK;
    if (mem_grow(&d->names, &d->cap, d->n_names + 1, sizeof *d->names)) return QFW_E_NOMEM;
    char *copy = d->names[d->n_names] = mem_strdup(name);
    if (!copy) return QFW_E_NOMEM;
    d->n_names++;
    return QFW_OK;
}

static qfw_status open_folder(documents *d) {
    qfw_status status = QFW_OK;
    DIR *folder = opendir(d->o.path);
    if (!folder) return err_fail("E_NOINPUT", QFW_E_IO, "%s: %s", d->o.path, strerror(errno));
    for (const struct dirent *e; status == QFW_OK && (e = readdir(folder)) != NULL;)
        status = add_name(d, e->d_name);
    closedir(folder);
    if (status != QFW_OK) return status;
    if (d->n_names == 0)
        return err_fail("E_DATA_EMPTY", QFW_E_DATA, "%s: a folder without a file", d->o.path);
    qsort(d->names, d->n_names, sizeof *d->names, compare_names);
    return QFW_OK;
}

/* Text and nothing else; *n without a byte order mark, which is skipped. */
static qfw_status check_text(const char *path, const char **text, size_t *n) {
    const char *nul = memchr(*text, 0, *n);
    const size_t good = utf8_check(*text, *n), bad = nul ? (size_t)(nul - *text) : good;
    uint64_t line = 1;
    if (good < *n || nul) {
        const size_t at = bad < good ? bad : good;
        for (size_t i = 0; i < at; i++) line += (*text)[i] == '\n';
        return err_fail("E_DATA_UTF8", QFW_E_DATA,
            "%s:%" PRIu64 ": byte %zu is %s, wanted UTF-8 text; hint: iconv -f <its encoding> -t "
            "UTF-8",
            path, line, at, (*text)[at] ? "not UTF-8" : "a NUL");
    }
    if (*n >= 3 && !memcmp(*text, "\xef\xbb\xbf", 3)) {
        *text += 3;
        *n -= 3;
    }
    return QFW_OK;
}

static qfw_status next_file(documents *d, document_in *out) {
    mem_free(d->text);
    d->text = NULL;
    if (d->next == d->n_names) return QFW_E_END;
    *out = (document_in){.id = d->names[d->next++]};
    char *path = path_join(d->o.path, out->id);
    if (!path) return QFW_E_NOMEM;
    qfw_status status = file_read(path, d->o.max_bytes, &d->text, &out->n);
    out->text = d->text;
    if (status == QFW_OK) status = check_text(path, &out->text, &out->n);
    mem_free(path);
    return status;
}

/* --- a JSONL file --- */

static qfw_status fail_row(
    const documents *d, uint64_t line, const char *key, const char *found, const char *wanted) {
    return err_fail("E_DATA_FIELD", QFW_E_DATA, "%s:%" PRIu64 ": '%s': %s, wanted %s", d->o.path,
        line, key, found, wanted);
}

static struct seen *slot_of(const documents *d, uint64_t hash) {
    size_t i = (size_t)hash & (d->n_slots - 1);
    while (d->seen[i].line && d->seen[i].hash != hash) i = (i + 1) & (d->n_slots - 1);
    return &d->seen[i];
}

static qfw_status make_room(documents *d) {
    struct seen *old = d->seen;
    const size_t n = d->n_slots;
    if (2 * d->n_seen < n) return QFW_OK;
    d->n_slots = n ? 2 * n : 64;
    d->seen = mem_alloc(d->n_slots, sizeof *d->seen);
    if (!d->seen) {
        d->seen = old;
        d->n_slots = n;
        return QFW_E_NOMEM;
    }
    for (size_t i = 0; i < n; i++)
        if (old[i].line) *slot_of(d, old[i].hash) = old[i];
    mem_free(old);
    return QFW_OK;
}

/* Scores go by the id: each is one row's. */
static qfw_status note_id(documents *d, const char *id, uint64_t line) {
    QFW_TRY(make_room(d));
    const uint64_t hash = fnv1a64(id);
    struct seen *s = slot_of(d, hash);
    if (s->line)
        return err_fail("E_DATA_FIELD", QFW_E_DATA,
            "%s:%" PRIu64 ": '%s': '%.80s' is the id of line %" PRIu64
            ", too; hint: [score] id_field",
            d->o.path, line, d->o.id_field, id, s->line);
    *s = (struct seen){hash, line};
    d->n_seen++;
    return QFW_OK;
}

static qfw_status read_row(documents *d, uint64_t line, document_in *out) {
    const json_node *row = json_root(d->row), *id = json_node_member(row, d->o.id_field);
    const json_node *text = json_node_member(row, d->o.text_field);
    if (json_node_kind(row) != QFW_DOC_OBJECT)
        return fail_row(d, line, d->o.text_field, "the row is a list", "an object, {...}");
    if (json_node_kind(text) != QFW_DOC_STRING)
        return fail_row(d, line, d->o.text_field, text ? "no text" : "missing",
            "the document; hint: [score] text_field");
    snprintf(d->id, sizeof d->id, "%" PRIu64, line);
    *out = (document_in){d->id, json_node_str(text), strlen(json_node_str(text)), line};
    switch (json_node_kind(id)) {
    case QFW_DOC_ABSENT: break;
    case QFW_DOC_STRING: out->id = json_node_str(id); break;
    case QFW_DOC_INT: snprintf(d->id, sizeof d->id, "%" PRId64, json_node_i64(id)); break;
    default: return fail_row(d, line, d->o.id_field, "neither text nor a whole number", "one");
    }
    return note_id(d, out->id, line);
}

static int is_blank(const char *text, size_t n) {
    while (n > 0 && (text[n - 1] == ' ' || text[n - 1] == '\t')) n--;
    return n == 0;
}

static qfw_status next_row(documents *d, document_in *out) {
    static const json_limits limits = {.max_depth = MAX_DEPTH, .max_values = MAX_VALUES};
    const char *text;
    size_t n;
    json_destroy(d->row);
    d->row = NULL;
    do {
        const qfw_status status = jsonl_next(d->rows, &text, &n);
        if (status == QFW_E_END && !d->n_seen)
            return err_fail("E_DATA_EMPTY", QFW_E_DATA, "%s: a file without a row", d->o.path);
        QFW_TRY(status);
    } while (is_blank(text, n));
    const uint64_t line = jsonl_line(d->rows);
    const json_source from = {
        .file = d->o.path, .line = line, .name = "E_DATA_JSON", .limit_name = "E_DATA_LIMIT"};
    QFW_TRY(json_parse_from(text, n, &from, &limits, &d->row));
    return read_row(d, line, out);
}

/* --- either --- */

qfw_status documents_open(const documents_opts *o, documents **out) {
    documents *d = mem_alloc(1, sizeof *d);
    *out = NULL;
    if (!d) return QFW_E_NOMEM;
    d->o = *o;
    if (d->o.max_bytes == 0) d->o.max_bytes = USUAL_MAX_BYTES;
    const qfw_status status =
        dir_exists(o->path) ? open_folder(d) : jsonl_open(o->path, d->o.max_bytes, &d->rows);
    if (status != QFW_OK) {
        documents_close(d);
        return status;
    }
    *out = d;
    return QFW_OK;
}

qfw_status documents_next(documents *d, document_in *out) {
    return d->rows ? next_row(d, out) : next_file(d, out);
}

void documents_close(documents *d) {
    if (!d) return;
    jsonl_close(d->rows);
    json_destroy(d->row);
    for (size_t i = 0; i < d->n_names; i++) mem_free(d->names[i]);
    mem_free(d->names);
    mem_free(d->seen);
    mem_free(d->text);
    mem_free(d);
}
