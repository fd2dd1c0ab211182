/* score_out.c -- see score_out.h. */
#define _POSIX_C_SOURCE 200809L
#include "serve/score_out.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/error.h"
#include "base/log.h"
#include "base/mem.h"
#include "files/file.h"
#include "files/json.h"
#include "text/jsonl.h"
#include "text/unicode.h"

enum { MAX_LINE = 1 << 30, SETTINGS_SHOWN = 16 };

struct score_out {
    score_out_opts o;
    char *jsonl_path, *csv_path;
    uint64_t *done; /* of each document that was there already, what tells it from others */
    size_t n_done, cap_done;
    FILE *f;
};

/* 16 hex digits of a text's SHA-256. */
static void digest_text(const char *text, size_t n, char hex[65]) {
    sha256 s;
    sha256_init(&s);
    sha256_add(&s, text, n);
    sha256_hex(&s, hex);
    hex[16] = 0;
}

static uint64_t identity(const char *id, const char *text_hex) {
    char hex[65];
    sha256 s;
    sha256_init(&s);
    sha256_add(&s, id, strlen(id) + 1);
    sha256_add(&s, text_hex, strlen(text_hex));
    sha256_hex(&s, hex);
    hex[16] = 0;
    return strtoull(hex, NULL, 16);
}

int score_out_is(const score_out *o, uint64_t i, const char *id, const char *text, size_t n) {
    char hex[65];
    digest_text(text, n, hex);
    return i < o->n_done && o->done[i] == identity(id, hex);
}

/* --- scores.jsonl --- */

static void put_levels(json_out *o, const reading *r, uint32_t n) {
    json_open(o, "p", '[');
    for (uint32_t i = 0; i < n; i++) json_float(o, NULL, r->p[i]);
    json_close(o);
}

static void put_skill(json_out *o, const scored *d, const rubric *r, uint32_t skill) {
    const skill_score *k = &d->skills[skill];
    const uint32_t n_levels = rubric_scale(r).n_levels;
    json_open(o, NULL, '{');
    json_str(o, "skill", rubric_skill(r, skill));
    json_int(o, "score", k->score);
    json_float(o, "expected", k->of.expected);
    json_float(o, "confidence", k->confidence);
    json_bool(o, "abstained", (int)k->abstained);
    json_float(o, "mass", k->of.mass);
    put_levels(o, &k->of, n_levels);
    json_str(o, "reason", k->reason);
    json_int(o, "chunk", (int64_t)k->chunk);
    json_open(o, "evidence", '[');
    for (size_t i = 0; i < d->n_chunks; i++) {
        const reading *e = &d->evidence[i * d->n_skills + skill];
        json_open(o, NULL, '{');
        json_float(o, "expected", e->expected);
        json_float(o, "mass", e->mass);
        put_levels(o, e, n_levels);
        json_close(o);
    }
    json_close(o);
    json_close(o);
}

static void put_document(json_out *o, const scored *d, const score_out_opts *of) {
    const scale s = rubric_scale(of->rubric);
    char hex[65];
    digest_text(d->text, d->n, hex);
    json_open(o, NULL, '{');
    json_str(o, "id", d->id);
    json_int(o, "line", (int64_t)d->line);
    json_str(o, "text_sha256", hex);
    json_str(o, "settings", of->settings);
    json_open(o, "scale", '[');
    json_int(o, NULL, s.low);
    json_int(o, NULL, s.low + (int32_t)s.n_levels - 1);
    json_close(o);
    json_int(o, "bytes", (int64_t)d->n);
    json_open(o, "chunks", '[');
    for (size_t i = 0; i < d->n_chunks; i++) {
        json_open(o, NULL, '[');
        json_int(o, NULL, (int64_t)d->chunks[i].from);
        json_int(o, NULL, (int64_t)d->chunks[i].to);
        json_close(o);
    }
    json_close(o);
    json_open(o, "skills", '[');
    for (uint32_t i = 0; i < d->n_skills; i++) put_skill(o, d, of->rubric, i);
    json_close(o);
    json_close(o);
}

qfw_status score_out_add(score_out *o, const scored *d) {
    size_t n = 0;
    qfw_status status = QFW_OK;
    json_out *line = json_out_create(0);
    put_document(line, d, &o->o);
    const char *text = json_out_text(line, &n);
    if (!text)
        status = err_status();
    else if (fwrite(text, 1, n, o->f) != n || fputc('\n', o->f) == EOF || fflush(o->f))
        status = err_fail("E_IO_WRITE", QFW_E_IO, "%s: cannot be written", o->jsonl_path);
    json_out_destroy(line);
    return status;
}

/* --- reading it again --- */

typedef qfw_status (*row_fn)(void *arg, const json_node *row, uint64_t line);

/* Every complete line; *bytes: of them. A last line without its end is what a kill left. */
static qfw_status each_row(const char *path, row_fn fn, void *arg, uint64_t *bytes) {
    const char *text;
    uint64_t size = 0;
    size_t n = 0;
    jsonl *f = NULL;
    *bytes = 0;
    const int fd = file_open(path, "E_NOINPUT", &size);
    if (fd < 0) return err_status();
    close(fd);
    QFW_TRY(jsonl_open(path, MAX_LINE, &f));
    qfw_status status = QFW_OK;
    while (status == QFW_OK && (status = jsonl_next(f, &text, &n)) == QFW_OK) {
        qfw_doc *row = NULL;
        if (*bytes + n + 1 > size) continue;
        status = json_parse(text, n, path, jsonl_line(f), "E_DATA_JSON", NULL, &row);
        if (status == QFW_OK) status = fn(arg, json_root(row), jsonl_line(f));
        json_destroy(row);
        *bytes += n + 1;
    }
    jsonl_close(f);
    return status == QFW_E_END ? QFW_OK : status;
}

static const char *text_of(const json_node *row, const char *key) {
    const char *text = json_node_str(json_node_member(row, key));
    return text ? text : "";
}

typedef struct resuming {
    score_out *o;
    uint64_t n;
} resuming;

static qfw_status take_row(void *arg, const json_node *row, uint64_t line) {
    resuming *r = arg;
    score_out *o = r->o;
    if (strcmp(text_of(row, "settings"), o->o.settings))
        return err_fail("E_OUT_RESUME", QFW_E_CONFIG,
            "%s:%" PRIu64 ": scored under other settings ('%.*s', now '%.*s'): model, adapter, "
            "rubric, input, or how documents are cut; hint: resolved.ini beside it has them; "
            "another output_dir, or --set run.overwrite_output_dir=true",
            o->jsonl_path, line, SETTINGS_SHOWN, text_of(row, "settings"), SETTINGS_SHOWN,
            o->o.settings);
    if (mem_grow(&o->done, &o->cap_done, o->n_done + 1, sizeof *o->done)) return QFW_E_NOMEM;
    o->done[o->n_done++] = identity(text_of(row, "id"), text_of(row, "text_sha256"));
    r->n++;
    return QFW_OK;
}

static qfw_status cut_back(score_out *o, uint64_t *n_done) {
    resuming r = {o, 0};
    uint64_t bytes = 0;
    if (!file_exists(o->jsonl_path)) return QFW_OK;
    QFW_TRY(each_row(o->jsonl_path, take_row, &r, &bytes));
    if (truncate(o->jsonl_path, (off_t)bytes))
        return err_fail("E_IO_WRITE", QFW_E_IO, "%s: cannot be cut back", o->jsonl_path);
    *n_done = r.n;
    return QFW_OK;
}

/* --- scores.csv --- */

/* Sums over documents, by skill. */
typedef struct skill_sums {
    uint64_t n, abstained, level[MAX_LEVELS];
    double score, expected, mass;
} skill_sums;

typedef struct csv {
    const score_out *o;
    file_out *f;
    skill_sums sums[MAX_SKILLS];
    char *line;
    size_t n, cap;
} csv;

static qfw_status put(csv *c, const char *text, size_t n) {
    if (mem_grow(&c->line, &c->cap, c->n + n + 1, 1)) return QFW_E_NOMEM;
    memcpy(c->line + c->n, text, n);
    c->n += n;
    return QFW_OK;
}

/* A text, quoted where it must be. What a spreadsheet would run as a formula gets a ' in front. */
static qfw_status put_text(csv *c, const char *text) {
    const int quoted = text[strcspn(text, ",\"\r\n")] != 0;
    if (c->n > 0) QFW_TRY(put(c, ",", 1));
    if (quoted) QFW_TRY(put(c, "\"", 1));
    if (*text && strchr("=+-@\t\r\n", *text)) QFW_TRY(put(c, "'", 1));
    for (; *text; text++) {
        if (*text == '"') QFW_TRY(put(c, "\"", 1));
        QFW_TRY(put(c, text, 1));
    }
    return quoted ? put(c, "\"", 1) : QFW_OK;
}

QFW_PRINTF(2, 3) static qfw_status put_value(csv *c, const char *fmt, ...) {
    char text[64];
    va_list args;
    va_start(args, fmt);
    const int n = vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    return put(c, text, (size_t)n);
}

static qfw_status end_line(csv *c) {
    QFW_TRY(put(c, "\r\n", 2));
    const qfw_status status = file_out_write(c->f, c->line, c->n);
    c->n = 0;
    return status;
}

static qfw_status put_head(csv *c) {
    static const char *const names[] = {
        "id", "skill", "score", "expected", "confidence", "abstained", "mass"};
    const scale s = rubric_scale(c->o->o.rubric);
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) QFW_TRY(put_text(c, names[i]));
    for (uint32_t i = 0; i < s.n_levels; i++) QFW_TRY(put_value(c, ",p%d", (int)s.low + (int)i));
    QFW_TRY(put_value(c, ",chunks,chunk,from,to,reason"));
    return end_line(c);
}

static qfw_status put_row(csv *c, const json_node *row, const json_node *k) {
    const json_node *chunks = json_node_member(row, "chunks"), *p = json_node_member(k, "p");
    const int64_t decided = json_node_i64(json_node_member(k, "chunk"));
    const json_node *span = json_node_item(chunks, (uint64_t)decided);
    QFW_TRY(put_text(c, text_of(row, "id")));
    QFW_TRY(put_text(c, text_of(k, "skill")));
    QFW_TRY(put_value(c, ",%" PRId64, json_node_i64(json_node_member(k, "score"))));
    QFW_TRY(put_value(c, ",%.6f", json_node_f64(json_node_member(k, "expected"))));
    QFW_TRY(put_value(c, ",%.6f", json_node_f64(json_node_member(k, "confidence"))));
    QFW_TRY(put_value(c, ",%d", json_node_true(json_node_member(k, "abstained"))));
    QFW_TRY(put_value(c, ",%.6f", json_node_f64(json_node_member(k, "mass"))));
    for (uint64_t i = 0; i < json_node_count(p); i++)
        QFW_TRY(put_value(c, ",%.6f", json_node_f64(json_node_item(p, i))));
    QFW_TRY(put_value(c, ",%" PRIu64 ",%" PRId64, json_node_count(chunks), decided));
    for (uint64_t i = 0; i < 2; i++)
        QFW_TRY(put_value(c, ",%" PRId64, json_node_i64(json_node_item(span, i))));
    QFW_TRY(put_text(c, text_of(k, "reason")));
    return end_line(c);
}

static void add_sums(skill_sums *s, const json_node *k, scale levels) {
    const int64_t score = json_node_i64(json_node_member(k, "score")), i = score - levels.low;
    s->n++;
    s->mass += json_node_f64(json_node_member(k, "mass"));
    if (json_node_true(json_node_member(k, "abstained"))) {
        s->abstained++;
        return;
    }
    if (i >= 0 && i < levels.n_levels) s->level[i]++;
    s->score += (double)score;
    s->expected += json_node_f64(json_node_member(k, "expected"));
}

static qfw_status put_rows(void *arg, const json_node *row, uint64_t line) {
    csv *c = arg;
    const json_node *skills = json_node_member(row, "skills");
    (void)line;
    for (uint64_t i = 0; i < json_node_count(skills) && i < MAX_SKILLS; i++) {
        const json_node *k = json_node_item(skills, i);
        QFW_TRY(put_row(c, row, k));
        add_sums(&c->sums[i], k, rubric_scale(c->o->o.rubric));
    }
    return QFW_OK;
}

static size_t columns(const char *text) {
    size_t width = 0, n = strlen(text);
    for (size_t at = 0, k; at < n; at += k ? k : 1) {
        uint32_t c = 0;
        k = utf8_read(text + at, n - at, &c);
        width += (size_t)unicode_width(c);
    }
    return width;
}

static void print_table(const csv *c, FILE *out) {
    const rubric *r = c->o->o.rubric;
    const scale s = rubric_scale(r);
    size_t width = strlen("skill");
    for (uint32_t i = 0; i < rubric_skills(r); i++)
        if (columns(rubric_skill(r, i)) > width) width = columns(rubric_skill(r, i));
    fprintf(out, "\n  %-*s  documents  abstained  mean score  expected  ", (int)width, "skill");
    for (uint32_t i = 0; i < s.n_levels; i++) fprintf(out, "%7d", (int)s.low + (int)i);
    fprintf(out, "\n");
    for (uint32_t i = 0; i < rubric_skills(r); i++) {
        const skill_sums *k = &c->sums[i];
        const uint64_t n = k->n - k->abstained;
        const char *name = rubric_skill(r, i);
        fprintf(out, "  %s%*s  %9" PRIu64 "  %9" PRIu64, name, (int)(width - columns(name)), "",
            k->n, k->abstained);
        fprintf(out, "  %10.2f  %8.2f  ", n ? k->score / (double)n : 0.0,
            n ? k->expected / (double)n : 0.0);
        for (uint32_t l = 0; l < s.n_levels; l++) fprintf(out, "%7" PRIu64, k->level[l]);
        fprintf(out, "\n");
    }
}

/* Where the model would say something else than a score, its scores mean little. */
static void warn_of_mass(const csv *c) {
    double mass = 0, n = 0;
    for (uint32_t i = 0; i < MAX_SKILLS; i++) {
        mass += c->sums[i].mass;
        n += (double)c->sums[i].n;
    }
    if (n > 0 && mass < 0.5 * n)
        log_line(QFW_LOG_WARN,
            "the levels have %.1f %% of the model's probability where a score is to stand: it "
            "would "
            "say something else; hint: the words of [rubric] prompt and answer that it has learnt",
            100 * mass / n);
}

static qfw_status write_csv(csv *c) {
    uint64_t bytes = 0;
    QFW_TRY(file_out_open(c->o->csv_path, &c->f));
    qfw_status status = put_head(c);
    if (status == QFW_OK) status = each_row(c->o->jsonl_path, put_rows, c, &bytes);
    if (status == QFW_OK) return file_out_finish(c->f);
    file_out_abort(c->f);
    return status;
}

/* --- both --- */

qfw_status score_out_open(const score_out_opts *o, uint64_t *n_done, score_out **out) {
    score_out *s = mem_alloc(1, sizeof *s);
    *out = NULL;
    *n_done = 0;
    if (!s) return QFW_E_NOMEM;
    s->o = *o;
    s->jsonl_path = path_join(o->folder, "scores.jsonl");
    s->csv_path = path_join(o->folder, "scores.csv");
    qfw_status status = s->jsonl_path && s->csv_path ? QFW_OK : QFW_E_NOMEM;
    if (status == QFW_OK && o->resume) status = cut_back(s, n_done);
    if (status == QFW_OK && !(s->f = fopen(s->jsonl_path, o->resume ? "a" : "w")))
        status = err_fail("E_OUT_CREATE", QFW_E_IO, "%s: cannot be written", s->jsonl_path);
    if (status != QFW_OK) {
        score_out_close(s);
        return status;
    }
    *out = s;
    return QFW_OK;
}

qfw_status score_out_finish(score_out *o, FILE *table) {
    csv c = {.o = o};
    if (fflush(o->f) || fsync(fileno(o->f)))
        return err_fail("E_IO_WRITE", QFW_E_IO, "%s: cannot be written", o->jsonl_path);
    const qfw_status status = write_csv(&c);
    if (status == QFW_OK) {
        print_table(&c, table);
        warn_of_mass(&c);
    }
    mem_free(c.line);
    return status;
}

void score_out_close(score_out *o) {
    if (!o) return;
    if (o->f) fclose(o->f);
    mem_free(o->jsonl_path);
    mem_free(o->csv_path);
    mem_free(o->done);
    mem_free(o);
}
