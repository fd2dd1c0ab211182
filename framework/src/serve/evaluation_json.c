/* evaluation_json.c -- evaluation.json, written and read back to the same bits. */
#include <string.h>

#include "base/error.h"
#include "base/mem.h"
#include "files/file.h"
#include "files/json.h"
#include "serve/evaluation.h"

enum { MAX_BYTES = 1 << 30, PTR_BYTES = 64 };

/* --- writing --- */

static void say_row(const evaluation *e, const judged *r, json_out *o) {
    json_open(o, NULL, '{');
    json_str(o, "document", r->document);
    json_str(o, "skill", e->skills[r->skill]);
    json_open(o, "expected", '[');
    json_int(o, NULL, r->low);
    json_int(o, NULL, r->high);
    json_close(o);
    json_int(o, "score", r->score);
    json_float(o, "mean", r->expected);
    json_float(o, "confidence", r->confidence);
    json_bool(o, "abstained", (int)r->abstained);
    json_open(o, "p", '[');
    for (uint32_t i = 0; i < e->scale.n_levels; i++) json_float(o, NULL, r->p[i]);
    json_close(o);
    json_str(o, "reason", r->reason);
    json_str(o, "text", r->text);
    json_close(o);
}

static void say_share(json_out *o, const char *key, const share *s) {
    json_open(o, key, '{');
    json_int(o, "hits", (int64_t)s->hits);
    json_int(o, "n", (int64_t)s->n);
    json_float(o, "value", s->value);
    json_float(o, "low", s->low);
    json_float(o, "high", s->high);
    json_close(o);
}

/* For other programs; reading takes the rows and the sensitivity alone. */
static void say_metrics(const evaluation *e, uint32_t skill, json_out *o) {
    const skill_metrics m = evaluation_metrics(e, skill);
    json_open(o, skill < e->n_skills ? e->skills[skill] : "all skills", '{');
    say_share(o, "in_range", &m.in_range);
    json_int(o, "abstained", (int64_t)m.abstained);
    json_int(o, "over", (int64_t)m.over);
    json_int(o, "under", (int64_t)m.under);
    json_float(o, "sign_p", m.sign_p);
    json_float(o, "mae", m.mae);
    json_float(o, "bias", m.bias);
    json_float(o, "kappa", m.kappa);
    json_float(o, "brier", m.brier);
    json_float(o, "calibration_error", m.calibration_err);
    json_close(o);
}

/* One object a skill, in the order of /skills; what was not probed is not there. */
static void say_sensitivity(const evaluation *e, json_out *o) {
    json_open(o, "sensitivity", '{');
    json_int(o, "wordings", e->n_wordings);
    json_int(o, "evidence_rows", e->evidence_rows);
    json_open(o, "skills", '[');
    for (uint32_t k = 0; k < e->n_skills; k++) {
        const skill_movement *m = &e->movement[k];
        json_open(o, NULL, '{');
        json_str(o, "skill", e->skills[k]);
        say_share(o, "moved", &m->moved);
        json_float(o, "spread", m->spread);
        json_int(o, "with_evidence", (int64_t)m->n_evidence);
        json_float(o, "as_it_is", m->as_it_is);
        json_float(o, "without", m->without);
        json_float(o, "twice", m->twice);
        json_close(o);
    }
    json_close(o);
    json_close(o);
}

static void say_all(const evaluation *e, json_out *o) {
    json_open(o, NULL, '{');
    json_str(o, "name", e->name);
    json_str(o, "set", e->set);
    json_str(o, "adapter", e->adapter);
    json_int(o, "lowest", e->scale.low);
    json_int(o, "levels", e->scale.n_levels);
    json_open(o, "skills", '[');
    for (uint32_t i = 0; i < e->n_skills; i++) json_str(o, NULL, e->skills[i]);
    json_close(o);
    json_open(o, "metrics", '{');
    for (uint32_t i = 0; i <= e->n_skills; i++) say_metrics(e, i, o);
    json_close(o);
    if (e->n_wordings || e->evidence_rows) say_sensitivity(e, o);
    json_open(o, "rows", '[');
    for (size_t i = 0; i < e->n_rows; i++) say_row(e, &e->rows[i], o);
    json_close(o);
    json_close(o);
}

qfw_status evaluation_write(const evaluation *e, const char *path) {
    json_out *o = json_out_create(1);
    size_t n = 0;
    say_all(e, o);
    const char *text = json_out_text(o, &n);
    const qfw_status status = text ? file_write(path, text, n) : QFW_E_NOMEM;
    json_out_destroy(o);
    return status;
}

/* --- reading --- */

/* One file as it is read; `ptr` is the row at hand. */
typedef struct reading_in {
    qfw_doc *d;
    evaluation *e;
    char ptr[PTR_BYTES];
} reading_in;

static const char *in_row(const reading_in *in, const char *key, char out[2 * PTR_BYTES]) {
    snprintf(out, 2 * PTR_BYTES, "%s/%s", in->ptr, key);
    return out;
}

static qfw_status text_at(const reading_in *in, const char *key, const char **out) {
    char ptr[2 * PTR_BYTES];
    return json_doc_api.str(in->d, in_row(in, key, ptr), out);
}

/* A whole number of low .. high. */
static qfw_status level_at(
    const reading_in *in, const char *key, int64_t low, int64_t high, int32_t *out) {
    char ptr[2 * PTR_BYTES], text[96];
    int64_t value = 0;
    QFW_TRY(json_doc_api.i64(in->d, in_row(in, key, ptr), &value));
    *out = (int32_t)value;
    if (value >= low && value <= high) return QFW_OK;
    snprintf(text, sizeof text, "%lld, wanted %lld to %lld", (long long)value, (long long)low,
        (long long)high);
    return json_doc_api.fail(in->d, ptr, QFW_E_DATA, text);
}

static qfw_status skill_at(const reading_in *in, uint32_t *out) {
    char ptr[2 * PTR_BYTES];
    const char *name = NULL;
    QFW_TRY(text_at(in, "skill", &name));
    for (*out = 0; *out < in->e->n_skills; ++*out)
        if (!strcmp(in->e->skills[*out], name)) return QFW_OK;
    return json_doc_api.fail(
        in->d, in_row(in, "skill", ptr), QFW_E_DATA, "a skill that is not in /skills");
}

static qfw_status read_row(const reading_in *in) {
    const scale s = in->e->scale;
    const int64_t top = s.low + (int64_t)s.n_levels - 1;
    char ptr[2 * PTR_BYTES], key[32];
    int32_t abstained = 0;
    judged r = {.abstained = 0};
    QFW_TRY(text_at(in, "document", &r.document));
    QFW_TRY(text_at(in, "text", &r.text));
    QFW_TRY(text_at(in, "reason", &r.reason));
    QFW_TRY(skill_at(in, &r.skill));
    QFW_TRY(level_at(in, "expected/0", s.low, top, &r.low));
    QFW_TRY(level_at(in, "expected/1", r.low, top, &r.high));
    QFW_TRY(level_at(in, "score", s.low, top, &r.score));
    QFW_TRY(json_doc_api.f64(in->d, in_row(in, "mean", ptr), &r.expected));
    QFW_TRY(json_doc_api.f64(in->d, in_row(in, "confidence", ptr), &r.confidence));
    QFW_TRY(level_at(in, "abstained", 0, 1, &abstained));
    r.abstained = (uint32_t)abstained;
    for (uint32_t k = 0; k < s.n_levels; k++) {
        snprintf(key, sizeof key, "p/%u", k);
        QFW_TRY(json_doc_api.f64(in->d, in_row(in, key, ptr), &r.p[k]));
    }
    return evaluation_add(in->e, &r);
}

static qfw_status read_head(reading_in *in) {
    const char *name = NULL, *set = NULL, *adapter = NULL, *skills[MAX_SKILLS];
    int32_t low = 0, levels = 0;
    char key[32];
    QFW_TRY(text_at(in, "name", &name));
    QFW_TRY(text_at(in, "set", &set));
    QFW_TRY(text_at(in, "adapter", &adapter));
    QFW_TRY(level_at(in, "lowest", -1000000, 1000000, &low));
    QFW_TRY(level_at(in, "levels", 1, MAX_LEVELS, &levels));
    const uint64_t n = json_doc_api.count(in->d, "/skills");
    if (n < 1 || n > MAX_SKILLS)
        return json_doc_api.fail(in->d, "/skills", QFW_E_DATA, "wanted 1 to 32 names");
    for (uint64_t i = 0; i < n; i++) {
        snprintf(key, sizeof key, "skills/%llu", (unsigned long long)i);
        QFW_TRY(text_at(in, key, &skills[i]));
    }
    return evaluation_create(
        name, set, adapter, skills, (uint32_t)n, (scale){low, (uint32_t)levels}, &in->e);
}

static qfw_status real_at(const reading_in *in, const char *key, double *out) {
    char ptr[2 * PTR_BYTES];
    return json_doc_api.f64(in->d, in_row(in, key, ptr), out);
}

static qfw_status read_movement(const reading_in *in, skill_movement *m) {
    int32_t hits = 0, n = 0, with_evidence = 0;
    QFW_TRY(level_at(in, "moved/n", 0, INT32_MAX, &n));
    QFW_TRY(level_at(in, "moved/hits", 0, n, &hits));
    QFW_TRY(real_at(in, "spread", &m->spread));
    QFW_TRY(level_at(in, "with_evidence", 0, INT32_MAX, &with_evidence));
    QFW_TRY(real_at(in, "as_it_is", &m->as_it_is));
    QFW_TRY(real_at(in, "without", &m->without));
    QFW_TRY(real_at(in, "twice", &m->twice));
    if (n) m->moved = stats_share((uint64_t)hits, (uint64_t)n);
    m->n_evidence = (uint64_t)with_evidence;
    return QFW_OK;
}

static qfw_status read_sensitivity(reading_in *in) {
    int32_t wordings = 0, rows = 0;
    if (!json_doc_api.count(in->d, "/sensitivity/skills")) return QFW_OK;
    snprintf(in->ptr, sizeof in->ptr, "/sensitivity");
    QFW_TRY(level_at(in, "wordings", 0, INT32_MAX, &wordings));
    QFW_TRY(level_at(in, "evidence_rows", 0, INT32_MAX, &rows));
    in->e->n_wordings = (uint32_t)wordings;
    in->e->evidence_rows = (uint32_t)rows;
    for (uint32_t k = 0; k < in->e->n_skills; k++) {
        snprintf(in->ptr, sizeof in->ptr, "/sensitivity/skills/%u", k);
        QFW_TRY(read_movement(in, &in->e->movement[k]));
    }
    return QFW_OK;
}

static qfw_status read_all(reading_in *in) {
    QFW_TRY(read_head(in));
    QFW_TRY(read_sensitivity(in));
    const uint64_t n = json_doc_api.count(in->d, "/rows");
    for (uint64_t i = 0; i < n; i++) {
        snprintf(in->ptr, sizeof in->ptr, "/rows/%llu", (unsigned long long)i);
        QFW_TRY(read_row(in));
    }
    return QFW_OK;
}

qfw_status evaluation_read(const char *path, evaluation **out) {
    reading_in in = {.d = NULL};
    *out = NULL;
    QFW_TRY(json_read(path, MAX_BYTES, NULL, &in.d));
    const qfw_status status = read_all(&in);
    json_destroy(in.d);
    if (status == QFW_OK)
        *out = in.e;
    else
        evaluation_destroy(in.e);
    return status;
}
