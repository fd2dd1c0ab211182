/* texts.c -- see texts.h. */
#define _POSIX_C_SOURCE 200809L
#include "texts.h"

#include <stdlib.h>

#include "base/error.h"
#include "base/mem.h"
#include "files/file.h"
#include "test.h"

void must(qfw_status status) {
    if (status != QFW_OK) fail_msg("%s", err_text(0));
}

static const char *source(void) {
    const char *folder = getenv("QFW_SOURCE");
    return folder ? folder : ".";
}

const char *golden_path(const char *name) {
    static char path[4][600];
    static unsigned next;
    char *p = path[next++ % 4];
    snprintf(p, sizeof path[0], "%s/tests/golden/tokenizer/%s", source(), name);
    return p;
}

const char *shared_tokenizer(const char *name) {
    static char path[2][600];
    static unsigned next;
    char *p = path[next++ % 2], file[700];
    const char *data = getenv("QFW_SHARED_DATA");
    if (data)
        snprintf(p, sizeof path[0], "%s/tokenizers/%s", data, name);
    else
        snprintf(p, sizeof path[0], "%s/../shared/data/tokenizers/%s", source(), name);
    snprintf(file, sizeof file, "%s/tokenizer.json", p);
    return file_exists(file) ? p : NULL;
}

qfw_doc *golden_json(const char *name) {
    qfw_doc *doc = NULL;
    must(json_read(golden_path(name), 64 << 20, NULL, &doc));
    return doc;
}

/* The strict reader refuses NUL: it travels as U+F8FF. */
static void read_line(test_lines *l, char *text, size_t n) {
    static const char nul[] = "\\u0000", stand_in[] = "\xef\xa3\xbf";
    qfw_doc *doc = NULL;
    char *wrapped = calloc(n + 3, 1);
    assert_non_null(wrapped);
    int with_nul = 0;
    wrapped[0] = '[';
    memcpy(wrapped + 1, text, n);
    wrapped[n + 1] = ']';
    for (char *at; (at = strstr(wrapped, nul)) != NULL; with_nul = 1) memcpy(at, "\\uF8FF", 6);
    must(json_parse(wrapped, n + 2, "lines.jsonl", l->n + 1, "E_DATA_JSON", NULL, &doc));
    const char *value = json_node_str(json_node_item(json_root(doc), 0));
    assert_non_null(value);
    char *copy = l->line[l->n] = strdup(value);
    size_t used = 0;
    for (size_t i = 0; value[i]; used++) {
        const int is_nul = with_nul && !strncmp(value + i, stand_in, 3);
        copy[used] = is_nul ? 0 : value[i];
        i += is_nul ? 3 : 1;
    }
    l->bytes[l->n++] = used;
    json_destroy(doc);
    free(wrapped);
}

test_lines *lines_read(void) {
    char *text = NULL;
    size_t n = 0, count = 0;
    must(file_read(golden_path("lines.jsonl"), 64 << 20, &text, &n));
    for (size_t i = 0; i < n; i++) count += text[i] == '\n';
    test_lines *l = calloc(1, sizeof *l);
    assert_non_null(l);
    l->line = calloc(count, sizeof *l->line);
    l->bytes = calloc(count, sizeof *l->bytes);
    for (char *from = text, *end; (end = strchr(from, '\n')) != NULL; from = end + 1)
        read_line(l, from, (size_t)(end - from));
    assert_int_equal(l->n, count);
    mem_free(text);
    return l;
}

void lines_free(test_lines *l) {
    for (size_t i = 0; i < l->n; i++) free(l->line[i]);
    free(l->line);
    free(l->bytes);
    free(l);
}

/* Of the last four texts, each in its own memory. */
static char *next_text(void) {
    static char text[4][8192];
    static unsigned next;
    char *p = text[next++ % 4];
    p[0] = 0;
    return p;
}

static size_t add_id(char *text, size_t used, long long id) {
    if (used + 24 > 8192) return used;
    return used + (size_t)snprintf(text + used, 24, "%s%lld", used ? " " : "", id);
}

const char *ids_text(const ids *v) {
    char *text = next_text();
    size_t used = 0;
    for (size_t i = 0; i < v->n; i++) used = add_id(text, used, v->id[i]);
    return text;
}

const char *node_ids_text(const json_node *list) {
    char *text = next_text();
    size_t used = 0;
    for (uint64_t i = 0; i < json_node_count(list); i++)
        used = add_id(text, used, json_node_i64(json_node_item(list, i)));
    return text;
}

void encodes(const tokenizer *t, const char *text, const char *wanted) {
    ids got = {0};
    must(tokenizer_encode(t, text, strlen(text), 1, &got));
    if (strcmp(ids_text(&got), wanted))
        fail_msg("\"%s\" gives %s, wanted %s", text, ids_text(&got), wanted);
    ids_free(&got);
}

/* --- many: digests of groups of lines --- */

typedef struct line_group {
    sha256 ids, decoded;
} line_group;

static void add_line(
    const tokenizer *t, const char *line, size_t n_line, const json_node *shown, line_group *g) {
    static const int32_t end = -1;
    char *text = NULL;
    size_t n = 0;
    ids got = {0};
    must(tokenizer_encode(t, line, n_line, 1, &got));
    if (shown && strcmp(ids_text(&got), node_ids_text(shown)))
        fail_msg("\"%s\" gives %s, wanted %s", line, ids_text(&got), node_ids_text(shown));
    must(tokenizer_decode(t, got.id, got.n, 0, &text, &n));
    sha256_add(&g->ids, got.id, got.n * sizeof *got.id);
    sha256_add(&g->ids, &end, sizeof end);
    sha256_add(&g->decoded, text, n);
    sha256_add(&g->decoded, "\xff", 1);
    mem_free(text);
    ids_free(&got);
}

static void check_digest(
    sha256 *s, const json_node *list, size_t i, size_t group, const char *what) {
    char hex[65];
    sha256_hex(s, hex);
    const char *wanted = json_node_str(json_node_item(list, i));
    if (!wanted || strcmp(hex, wanted))
        fail_msg("lines %zu to %zu: other %s", group * i, group * (i + 1) - 1, what);
}

void lines_match(const test_lines *l, const tokenizer *t, const json_node *record, size_t group) {
    const json_node *shown = json_node_member(record, "ids");
    assert_true(json_node_count(shown) >= 20);
    assert_true(l->n >= 5000 && l->n % group == 0);
    for (size_t i = 0; i < l->n / group; i++) {
        line_group g;
        char key[32];
        sha256_init(&g.ids);
        sha256_init(&g.decoded);
        for (size_t k = group * i; k < group * (i + 1); k++) {
            snprintf(key, sizeof key, "%zu", k);
            add_line(t, l->line[k], l->bytes[k], json_node_member(shown, key), &g);
        }
        check_digest(&g.ids, json_node_member(record, "ids_sha256"), i, group, "ids");
        check_digest(
            &g.decoded, json_node_member(record, "decoded_sha256"), i, group, "decoded text");
    }
}
