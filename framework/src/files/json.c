/* json.c -- strict JSON: the only file that knows jansson.
 *
 * jansson refuses duplicate keys, bad UTF-8, NUL, comments, numbers out of range, and says where.
 * It spends up to 18 times the text on its tree, so limits are checked on the raw bytes before.
 */
#define _POSIX_C_SOURCE 200809L
#include "files/json.h"

#include <jansson.h>
#include <limits.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/mem.h"
#include "files/arena.h"
#include "files/file.h"
#include "files/json_scan.h"

/* jansson walks to the i-th member of an object: larger ones get a list of their keys. */
enum { SMALL_OBJECT = 16, NAME_BYTES = 32, SHOWN_BYTES = 60 };

typedef struct big_object {
    const json_t *object;
    size_t first; /* of its keys in qfw_doc.keys */
} big_object;

struct qfw_doc {
    json_t *root; /* in `memory`, and goes with it */
    arena *memory;
    char *file;
    uint64_t line;
    big_object *bigs;
    const char **keys;
    size_t n_bigs, cap_bigs, n_keys, cap_keys;
};

/* --- memory --- */

/* The parse that this thread is in: where its memory comes from, and how it is left without any. */
typedef struct parse {
    arena *memory;
    jmp_buf no_memory;
} parse;

static _Thread_local parse *current;

static void *alloc_for_jansson(size_t bytes) {
    if (!current) return mem_alloc(1, bytes);
    void *p = arena_take(current->memory, bytes);
    if (!p) longjmp(current->no_memory, 1);
    return p;
}

static void free_for_jansson(void *p) {
    if (current)
        arena_return(current->memory, p);
    else
        mem_free(p);
}

static void set_alloc(void) { json_set_alloc_funcs(alloc_for_jansson, free_for_jansson); }

/* The tree of a text, in *memory, which is to be destroyed in its place; both NULL where there is
 * none: *error tells why, unless *no_memory, which is recorded as the thread's error. */
static json_t *load(
    const char *text, size_t n, size_t flags, arena **memory, int *no_memory, json_error_t *error) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    json_t *volatile root = NULL;
    parse here = {.memory = arena_create()};
    *memory = here.memory;
    *no_memory = !here.memory;
    if (!here.memory) return NULL;
    pthread_once(&once, set_alloc);
    current = &here;
    if (!setjmp(here.no_memory))
        root = json_loadb(text, n, flags, error);
    else
        *no_memory = 1;
    current = NULL;
    if (root) return root;
    arena_destroy(here.memory);
    *memory = NULL;
    return NULL;
}

/* --- messages about the text --- */

/* "file:7:3: " and "(byte 120)" around what is wrong at text[at]. */
static qfw_status fail_at(
    const json_source *from, const char *name, const char *text, size_t at, const char *what) {
    uint64_t line, column;
    json_locate(text, at, &line, &column);
    return err_fail(name ? name : from->name, QFW_E_DATA, "%s:%llu:%llu: %s (byte %llu%s)",
        from->file, (unsigned long long)(from->line ? from->line : line),
        (unsigned long long)column, what, (unsigned long long)(from->byte + at),
        from->line ? " of the line" : "");
}

static int same_key(const char *text, json_key a, json_key b) {
    if (a.n == b.n && !memcmp(text + a.at, text + b.at, a.n)) return 1;
    if (!memchr(text + a.at, '\\', a.n) && !memchr(text + b.at, '\\', b.n)) return 0;
    arena *of_left, *of_right;
    int no_memory;
    const json_t *left = load(text + a.at, a.n, JSON_DECODE_ANY, &of_left, &no_memory, NULL);
    const json_t *right = load(text + b.at, b.n, JSON_DECODE_ANY, &of_right, &no_memory, NULL);
    const int same = left && right && json_equal(left, right);
    arena_destroy(of_left);
    arena_destroy(of_right);
    return same;
}

/* jansson stopped just past the second of two equal keys: tell where the first stands, too. */
static qfw_status fail_duplicate(const json_source *from, const char *text, size_t end) {
    char what[256];
    json_key second, key = {0, 0};
    size_t at;
    uint64_t line, column;
    json_scan_open(text, end, &at, &second);
    at++;
    while (json_scan_key(text, end, &at, &key) && !same_key(text, key, second)) continue;
    json_locate(text, key.at, &line, &column);
    snprintf(what, sizeof what, "key %.*s stands twice, first at %llu:%llu",
        (int)(second.n < SHOWN_BYTES ? second.n : SHOWN_BYTES), text + second.at,
        (unsigned long long)(from->line ? from->line : line), (unsigned long long)column);
    return fail_at(from, from->duplicate_name, text, second.at, what);
}

static qfw_status fail_syntax(
    const json_source *from, const char *text, size_t n, const json_error_t *e) {
    char what[JSON_ERROR_TEXT_LENGTH + 8];
    const size_t end = e->position < 0 ? 0 : (size_t)e->position < n ? (size_t)e->position : n;
    if (json_error_code(e) == json_error_duplicate_key) return fail_duplicate(from, text, end);
    const int is_nul = json_error_code(e) == json_error_null_character;
    snprintf(what, sizeof what, "%s", is_nul ? "\\u0000 is not allowed in a text" : e->text);
    const int ahead = json_error_code(e) == json_error_invalid_utf8; /* else just past the token */
    return fail_at(from, from->name, text, end && !ahead ? end - 1 : end, what);
}

/* What jansson is not asked about: size, marks, nesting. */
static qfw_status check_text(
    const char *text, size_t n, const json_source *from, const json_limits *limits) {
    static const json_limits usual = {.max_depth = 64, .max_values = 20000000};
    char what[128];
    const char *which = NULL;
    size_t at = 0;
    uint64_t limit = 0;
    if (n >= INT_MAX) /* jansson counts bytes in an int */
        return err_fail(from->limit_name ? from->limit_name : from->name, QFW_E_DATA,
            "%s: %zu bytes of JSON, at most %d", from->file, n, INT_MAX);
    if (n >= 3 && !memcmp(text, "\xef\xbb\xbf", 3))
        return fail_at(from, from->name, text, 0, "a byte order mark, wanted plain UTF-8");
    if (json_scan(text, n, limits ? limits : &usual, &at, &which, &limit)) return QFW_OK;
    snprintf(what, sizeof what, "more than %llu %s", (unsigned long long)limit, which);
    return fail_at(from, from->limit_name, text, at, what);
}

/* --- parsing --- */

/* List the keys of each object that has many. */
static int index_keys(qfw_doc *d, json_t *v) {
    json_t *child;
    const char *key;
    size_t i;
    if (json_is_object(v) && json_object_size(v) > SMALL_OBJECT) {
        if (mem_grow(&d->bigs, &d->cap_bigs, d->n_bigs + 1, sizeof *d->bigs) ||
            mem_grow(&d->keys, &d->cap_keys, d->n_keys + json_object_size(v), sizeof *d->keys))
            return -1;
        d->bigs[d->n_bigs++] = (big_object){v, d->n_keys};
        json_object_foreach(v, key, child) d->keys[d->n_keys++] = key;
    }
    json_object_foreach(v, key, child) if (index_keys(d, child)) return -1;
    json_array_foreach(v, i, child) if (index_keys(d, child)) return -1;
    return 0;
}

static int compare_objects(const void *a, const void *b) {
    const uintptr_t x = (uintptr_t)((const big_object *)a)->object;
    const uintptr_t y = (uintptr_t)((const big_object *)b)->object;
    return (x > y) - (x < y);
}

qfw_status json_parse_from(
    const char *text, size_t n, const json_source *from, const json_limits *limits, qfw_doc **out) {
    json_error_t error = {.position = 0};
    *out = NULL;
    QFW_TRY(check_text(text, n, from, limits));
    qfw_doc *d = mem_alloc(1, sizeof *d);
    if (!d) return QFW_E_NOMEM;
    d->line = from->line;
    d->file = mem_strdup(from->file);
    qfw_status status = d->file ? QFW_OK : QFW_E_NOMEM;
    if (status == QFW_OK) {
        int no_memory = 0;
        d->root = load(text, n, JSON_REJECT_DUPLICATES, &d->memory, &no_memory, &error);
        if (no_memory) {
            err_prefix("%s", from->file);
            status = QFW_E_NOMEM;
        } else if (!d->root) {
            status = fail_syntax(from, text, n, &error);
        }
    }
    if (status == QFW_OK && index_keys(d, d->root)) status = QFW_E_NOMEM;
    if (status != QFW_OK) {
        json_destroy(d);
        return status;
    }
    if (d->n_bigs) qsort(d->bigs, d->n_bigs, sizeof *d->bigs, compare_objects);
    *out = d;
    return QFW_OK;
}

qfw_status json_parse(const char *text, size_t n, const char *file, uint64_t line, const char *name,
    const json_limits *limits, qfw_doc **out) {
    const json_source from = {.file = file, .line = line, .name = name};
    return json_parse_from(text, n, &from, limits, out);
}

qfw_status json_read(
    const char *path, uint64_t max_bytes, const json_limits *limits, qfw_doc **out) {
    char *text = NULL;
    size_t n = 0;
    *out = NULL;
    QFW_TRY(file_read(path, max_bytes, &text, &n));
    const qfw_status status = json_parse(text, n, path, 0, "E_JSON", limits, out);
    mem_free(text);
    return status;
}

void json_destroy(qfw_doc *d) {
    if (!d) return;
    arena_destroy(d->memory);
    mem_free(d->file);
    mem_free(d->bigs);
    mem_free(d->keys);
    mem_free(d);
}

const char *json_file(const qfw_doc *d) { return d->file; }

/* --- nodes --- */

/* jansson's readers take const values but for its iterators, which do not write either. */
static json_t *jansson(const json_node *v) { return (json_t *)(uintptr_t)v; }
static const json_node *node(const json_t *v) { return (const json_node *)v; }

const json_node *json_root(const qfw_doc *d) { return node(d->root); }

uint32_t json_node_kind(const json_node *v) {
    if (!v) return QFW_DOC_ABSENT;
    switch (json_typeof(jansson(v))) {
    case JSON_OBJECT: return QFW_DOC_OBJECT;
    case JSON_ARRAY: return QFW_DOC_ARRAY;
    case JSON_STRING: return QFW_DOC_STRING;
    case JSON_INTEGER: return QFW_DOC_INT;
    case JSON_REAL: return QFW_DOC_REAL;
    case JSON_TRUE:
    case JSON_FALSE: return QFW_DOC_BOOL;
    default: return QFW_DOC_NULL;
    }
}

uint64_t json_node_count(const json_node *v) {
    return json_is_object(jansson(v)) ? json_object_size(jansson(v)) : json_array_size(jansson(v));
}

const json_node *json_node_item(const json_node *array, uint64_t i) {
    return node(json_array_get(jansson(array), i));
}

const json_node *json_node_member(const json_node *object, const char *key) {
    return node(json_object_get(jansson(object), key));
}

const char *json_node_str(const json_node *v) { return json_string_value(jansson(v)); }
int64_t json_node_i64(const json_node *v) { return json_integer_value(jansson(v)); }
int json_node_true(const json_node *v) { return json_is_true(jansson(v)); }
double json_node_f64(const json_node *v) { return json_number_value(jansson(v)); }

static json_member member_at(void *at) {
    if (!at) return (json_member){NULL, NULL, NULL};
    return (json_member){json_object_iter_key(at), node(json_object_iter_value(at)), at};
}

json_member json_first(const json_node *object) {
    return member_at(json_object_iter(jansson(object)));
}

json_member json_next(const json_node *object, json_member m) {
    return member_at(json_object_iter_next(jansson(object), m.at));
}

/* --- places: JSON pointers (RFC 6901) --- */

/* Item `text[0..n)` of an array: digits without a leading zero. */
static const json_t *array_item(const json_t *array, const char *text, size_t n) {
    size_t i = 0;
    if (n == 0 || n > 10 || (n > 1 && text[0] == '0')) return NULL;
    for (size_t k = 0; k < n; k++) {
        if (text[k] < '0' || text[k] > '9') return NULL;
        i = 10 * i + (size_t)(text[k] - '0');
    }
    return json_array_get(array, i);
}

/* A member whose name is written with ~0 for ~ and ~1 for /. */
static const json_t *escaped_member(const json_t *object, const char *text, size_t n) {
    char *name = mem_alloc(n + 1, 1);
    size_t used = 0;
    if (!name) return NULL;
    for (size_t i = 0; i < n; i++) {
        const int escape = text[i] == '~' && i + 1 < n;
        if (escape) i++;
        name[used++] = !escape ? text[i] : text[i] == '1' ? '/' : '~';
    }
    const json_t *found = json_object_getn(object, name, used);
    mem_free(name);
    return found;
}

static const json_t *find(const qfw_doc *d, const char *ptr) {
    const json_t *v = d->root;
    while (v && *ptr == '/') {
        const size_t n = strcspn(++ptr, "/");
        if (json_is_array(v))
            v = array_item(v, ptr, n);
        else if (memchr(ptr, '~', n))
            v = escaped_member(v, ptr, n);
        else
            v = json_object_getn(v, ptr, n);
        ptr += n;
    }
    return *ptr ? NULL : v;
}

/* --- qfw.doc/1 --- */

/* Keeps "E_CFG_RANGE: ..." under the name that the text gives itself, else under `name`. */
static qfw_status fail_named(
    const qfw_doc *d, const char *ptr, const char *name, qfw_status code, const char *text) {
    static _Thread_local char own_name[NAME_BYTES]; /* err_fail keeps no copy */
    const size_t n = strspn(text, "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_");
    char row[32] = "";
    if (n > 2 && n < NAME_BYTES && !strncmp(text, "E_", 2) && !strncmp(text + n, ": ", 2)) {
        snprintf(own_name, sizeof own_name, "%.*s", (int)n, text);
        name = own_name;
        text += n + 2;
    }
    if (d->line) snprintf(row, sizeof row, ":%llu", (unsigned long long)d->line);
    return err_fail(name, code, "%s%s: %s%s%s", d->file, row, ptr, *ptr ? ": " : "", text);
}

static qfw_status doc_fail(const qfw_doc *d, const char *ptr, qfw_status code, const char *text) {
    return fail_named(d, ptr, d->line ? "E_DATA_FIELD" : "E_JSON_VALUE", code, text);
}

static uint32_t doc_kind(const qfw_doc *d, const char *ptr) {
    return json_node_kind(node(find(d, ptr)));
}

static uint64_t doc_count(const qfw_doc *d, const char *ptr) {
    return json_node_count(node(find(d, ptr)));
}

static const char *doc_key(const qfw_doc *d, const char *ptr, uint64_t i) {
    const big_object wanted = {find(d, ptr), 0};
    if (i >= json_object_size(wanted.object)) return NULL;
    const big_object *big =
        d->n_bigs ? bsearch(&wanted, d->bigs, d->n_bigs, sizeof wanted, compare_objects) : NULL;
    if (big) return d->keys[big->first + i];
    json_member m = json_first(node(wanted.object));
    while (i-- > 0) m = json_next(node(wanted.object), m);
    return m.key;
}

/* "found a string "3072", wanted an integer". */
static qfw_status fail_type(
    const qfw_doc *d, const char *ptr, const json_t *v, const char *wanted) {
    static const char *const kinds[] = {"nothing", "null", "true or false", "the integer ",
        "the number ", "the string ", "an array", "an object"};
    const uint32_t kind = json_node_kind(node(v));
    char *value = NULL, text[160];
    if (kind >= QFW_DOC_INT && kind <= QFW_DOC_STRING)
        value = json_dumps(v, JSON_ENCODE_ANY | JSON_REAL_PRECISION(17));
    snprintf(text, sizeof text, "found %s%.*s, wanted %s", kinds[kind], SHOWN_BYTES,
        value ? value : "", wanted);
    mem_free(value);
    return fail_named(d, ptr, d->line ? "E_DATA_FIELD" : "E_JSON_TYPE", QFW_E_DATA, text);
}

static qfw_status doc_i64(const qfw_doc *d, const char *ptr, int64_t *out) {
    const json_t *v = find(d, ptr);
    *out = json_is_true(v) ? 1 : json_integer_value(v);
    return json_is_integer(v) || json_is_boolean(v) ? QFW_OK : fail_type(d, ptr, v, "an integer");
}

static qfw_status doc_f64(const qfw_doc *d, const char *ptr, double *out) {
    const json_t *v = find(d, ptr);
    *out = json_number_value(v);
    return json_is_number(v) ? QFW_OK : fail_type(d, ptr, v, "a number");
}

static qfw_status doc_str(const qfw_doc *d, const char *ptr, const char **out) {
    const json_t *v = find(d, ptr);
    *out = json_string_value(v);
    return *out ? QFW_OK : fail_type(d, ptr, v, "a string");
}

const qfw_doc_api json_doc_api = {
    .size = sizeof(qfw_doc_api),
    .kind = doc_kind,
    .count = doc_count,
    .key = doc_key,
    .i64 = doc_i64,
    .f64 = doc_f64,
    .str = doc_str,
    .fail = doc_fail,
};

char *json_replaced(const qfw_doc *d, const char *key, const char *value, size_t *n) {
    arena *memory = NULL;
    int no_memory;
    json_t *made = value ? load(value, strlen(value), 0, &memory, &no_memory, NULL) : NULL;
    json_t *copy = json_copy(d->root);
    char *text = NULL;
    int failed = !copy || (value && !made);
    if (!failed && json_object_get(copy, key)) failed = json_object_del(copy, key);
    if (!failed && made) failed = json_object_set(copy, key, made);
    if (!failed) text = json_dumps(copy, JSON_INDENT(2) | JSON_REAL_PRECISION(17));
    json_decref(copy);
    arena_destroy(memory);
    *n = text ? strlen(text) : 0;
    return text;
}
