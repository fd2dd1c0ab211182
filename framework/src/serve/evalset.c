/* evalset.c -- see evalset.h. */
#include "serve/evalset.h"

#include <string.h>

#include "base/error.h"
#include "base/mem.h"
#include "files/json.h"
#include "text/jsonl.h"

/* What a row is read against. */
typedef struct rules {
    const char *const *skills;
    uint32_t n_skills;
    scale scale;
} rules;

void evalset_close(evalset *e) {
    if (!e) return;
    for (size_t i = 0; i < e->n_rows; i++) {
        mem_free((void *)e->rows[i].id);
        mem_free((void *)e->rows[i].text);
        for (uint32_t k = 0; k < MAX_SKILLS; k++) mem_free((void *)e->rows[i].evidence[k]);
    }
    mem_free(e->rows);
    mem_free((void *)e->path);
    mem_free(e);
}

/* The place "/<key>/<skill>" of a row. */
static qfw_status refuse_at(
    const qfw_doc *d, const char *key, const char *skill, const char *text) {
    char ptr[160];
    snprintf(ptr, sizeof ptr, "/%s/%.100s", key, skill);
    return json_doc_api.fail(d, ptr, QFW_E_DATA, text);
}

static qfw_status refuse(const qfw_doc *d, const char *skill, const char *text) {
    return refuse_at(d, "expected", skill, text);
}

/* The number of a skill that the rubric has. */
static qfw_status find_skill(
    const qfw_doc *d, const rules *r, const char *key, const char *skill, uint32_t *out) {
    char text[200];
    for (*out = 0; *out < r->n_skills; ++*out)
        if (!strcmp(r->skills[*out], skill)) return QFW_OK;
    const char *near = err_nearest(skill, r->skills, r->n_skills);
    snprintf(text, sizeof text, "E_DATA_FIELD: not one of the rubric's skills%s%.80s%s",
        near ? "; did you mean \"" : "", near ? near : "", near ? "\"?" : "");
    return refuse_at(d, key, skill, text);
}

static qfw_status read_level(
    const qfw_doc *d, const rules *r, const char *skill, const json_node *v, int32_t *out) {
    const int64_t low = r->scale.low, high = low + (int64_t)r->scale.n_levels - 1;
    const int64_t value = json_node_i64(v);
    char text[96];
    *out = (int32_t)value;
    if (json_node_kind(v) == QFW_DOC_INT && value >= low && value <= high) return QFW_OK;
    snprintf(text, sizeof text,
        "E_DATA_FIELD: wanted a whole number of %lld to %lld, or two: [lowest, highest]",
        (long long)low, (long long)high);
    return refuse(d, skill, text);
}

static qfw_status read_expected(
    const qfw_doc *d, const rules *r, const json_member *m, evalset_row *row) {
    uint32_t i = 0;
    int32_t low = 0, high = 0;
    QFW_TRY(find_skill(d, r, "expected", m->key, &i));
    const int is_pair = json_node_kind(m->value) == QFW_DOC_ARRAY && json_node_count(m->value) == 2;
    QFW_TRY(read_level(d, r, m->key, is_pair ? json_node_item(m->value, 0) : m->value, &low));
    QFW_TRY(read_level(d, r, m->key, is_pair ? json_node_item(m->value, 1) : m->value, &high));
    if (low > high) return refuse(d, m->key, "E_DATA_FIELD: the lowest score is above the highest");
    row->expected[i].low = low;
    row->expected[i].high = high;
    row->expected[i].given = 1;
    return QFW_OK;
}

static qfw_status read_evidence(
    const qfw_doc *d, const rules *r, const json_member *m, evalset_row *row) {
    const char *words = json_node_str(m->value);
    uint32_t i = 0;
    QFW_TRY(find_skill(d, r, "evidence", m->key, &i));
    if (!words || !*words || !strstr(row->text, words))
        return refuse_at(
            d, "evidence", m->key, "E_DATA_FIELD: wanted words that stand in /text as they are");
    row->evidence[i] = mem_strdup(words);
    return row->evidence[i] ? QFW_OK : QFW_E_NOMEM;
}

static qfw_status read_row(const qfw_doc *d, const rules *r, evalset_row *row) {
    const json_node *expected = json_node_member(json_root(d), "expected");
    const char *id = NULL, *text = NULL;
    if (json_doc_api.kind(d, "/id") != QFW_DOC_ABSENT) QFW_TRY(json_doc_api.str(d, "/id", &id));
    QFW_TRY(json_doc_api.str(d, "/text", &text));
    row->id = id ? mem_strdup(id) : mem_printf("%llu", (unsigned long long)row->line);
    row->text = mem_strdup(text);
    if (!row->id || !row->text) return QFW_E_NOMEM;
    if (json_node_kind(expected) != QFW_DOC_OBJECT || !json_node_count(expected))
        return json_doc_api.fail(d, "/expected", QFW_E_DATA,
            "E_DATA_FIELD: wanted an object, a score or [lowest, highest] for each skill");
    for (json_member m = json_first(expected); m.key; m = json_next(expected, m))
        QFW_TRY(read_expected(d, r, &m, row));
    const json_node *evidence = json_node_member(json_root(d), "evidence");
    for (json_member m = json_first(evidence); m.key; m = json_next(evidence, m))
        QFW_TRY(read_evidence(d, r, &m, row));
    return QFW_OK;
}

static int is_double(const evalset *e, const char *id) {
    for (size_t i = 0; i + 1 < e->n_rows; i++)
        if (!strcmp(e->rows[i].id, id)) return 1;
    return 0;
}

static qfw_status read_line(evalset *e, const rules *r, const char *text, size_t n, uint64_t line) {
    qfw_doc *d = NULL;
    QFW_TRY(json_parse(text, n, e->path, line, "E_DATA_JSON", NULL, &d));
    qfw_status status =
        mem_grow(&e->rows, &e->cap_rows, e->n_rows + 1, sizeof *e->rows) ? QFW_E_NOMEM : QFW_OK;
    if (status == QFW_OK) {
        evalset_row *row = &e->rows[e->n_rows++];
        row->line = line;
        status = read_row(d, r, row);
        if (status == QFW_OK && is_double(e, row->id))
            status = json_doc_api.fail(
                d, "/id", QFW_E_DATA, "E_DATA_FIELD: another row has the same id");
    }
    json_destroy(d);
    return status;
}

static qfw_status read_lines(evalset *e, const rules *r, uint64_t max_line) {
    jsonl *file = NULL;
    const char *text;
    size_t n;
    QFW_TRY(jsonl_open(e->path, max_line, &file));
    qfw_status status = QFW_OK;
    while (status == QFW_OK && (status = jsonl_next(file, &text, &n)) == QFW_OK)
        if (n && strspn(text, " \t") < n) status = read_line(e, r, text, n, jsonl_line(file));
    if (status == QFW_E_END) {
        jsonl_sha256(file, e->sha256);
        status = e->n_rows
                     ? QFW_OK
                     : err_fail("E_DATA_EMPTY", QFW_E_DATA, "%s: no rows to evaluate on", e->path);
    }
    jsonl_close(file);
    return status;
}

qfw_status evalset_read(const char *path, uint64_t max_line, const char *const *skills,
    uint32_t n_skills, scale s, evalset **out) {
    const rules r = {skills, n_skills, s};
    evalset *e = mem_alloc(1, sizeof *e);
    *out = NULL;
    if (!e) return QFW_E_NOMEM;
    e->path = mem_strdup(path);
    const qfw_status status = e->path ? read_lines(e, &r, max_line) : QFW_E_NOMEM;
    if (status == QFW_OK)
        *out = e;
    else
        evalset_close(e);
    return status;
}
