/* report_run.c -- a run's log and manifest, read as a stranger's: what is missing or broken leaves
 * a gap in the report and does not stop it.
 */
#include <math.h>
#include <string.h>

#include "base/error.h"
#include "base/mem.h"
#include "files/file.h"
#include "serve/report_parts.h"
#include "text/jsonl.h"

enum { MAX_MANIFEST = 16 << 20, MAX_POINTS = 1000000, MAX_LOG_LINE = 1 << 20 };

static const char *const keys[N_CURVES] = {
    [CURVE_LOSS] = "loss",
    [CURVE_EVAL_LOSS] = "eval_loss",
    [CURVE_RATE] = "learning_rate",
    [CURVE_MARGIN] = "rewards/margins",
};

static int is_number(const json_node *v) {
    const uint32_t kind = json_node_kind(v);
    return kind == QFW_DOC_INT || kind == QFW_DOC_REAL;
}

/* A step that was run twice, before and after a stop, counts as it was run last. */
static int add_point(curve *c, double step, double value) {
    while (c->n && c->step[c->n - 1] >= step) c->n--;
    if (c->n == MAX_POINTS) return 1;
    if (mem_grow(&c->step, &c->cap_steps, c->n + 1, sizeof *c->step)) return 0;
    if (mem_grow(&c->value, &c->cap_values, c->n + 1, sizeof *c->value)) return 0;
    c->step[c->n] = step;
    c->value[c->n++] = value;
    return 1;
}

static int add_line(run_record *r, const json_node *line) {
    const json_node *step = json_node_member(line, "step");
    if (!is_number(step)) return 1;
    for (uint32_t k = 0; k < N_CURVES; k++) {
        const json_node *value = json_node_member(line, keys[k]);
        if (!is_number(value)) continue;
        if (!add_point(&r->curves[k], json_node_f64(step), json_node_f64(value))) return 0;
    }
    return 1;
}

static int take_line(run_record *r, const char *text, size_t n) {
    qfw_doc *doc = NULL;
    const qfw_status status =
        json_parse(text, n, "trainer_log.jsonl", 0, "E_DATA_JSON", NULL, &doc);
    if (status == QFW_E_NOMEM) return 0;
    if (status != QFW_OK) {
        err_clear();
        r->n_bad++;
        return 1;
    }
    const int added = add_line(r, json_root(doc));
    json_destroy(doc);
    return added;
}

static int read_log(run_record *r, const char *path) {
    jsonl *lines = NULL;
    const char *text;
    size_t n;
    int room = 1;
    if (jsonl_open(path, MAX_LOG_LINE, &lines) == QFW_OK) {
        r->has_log = 1;
        while (room && jsonl_next(lines, &text, &n) == QFW_OK) room = take_line(r, text, n);
    }
    jsonl_close(lines);
    return room && err_status() != QFW_E_NOMEM;
}

qfw_status run_record_read(const char *folder, run_record *out) {
    const char *slash = strrchr(folder, '/');
    *out = (run_record){.folder = folder, .name = slash && slash[1] ? slash + 1 : folder};
    char *log = path_join(folder, "trainer_log.jsonl");
    char *manifest = path_join(folder, "manifest.json");
    int room = log && manifest && read_log(out, log);
    if (room) {
        err_clear();
        room = json_read(manifest, MAX_MANIFEST, NULL, &out->manifest) != QFW_E_NOMEM;
    }
    if (room) err_clear();
    mem_free(log);
    mem_free(manifest);
    if (room) return QFW_OK;
    run_record_free(out);
    return QFW_E_NOMEM;
}

void run_record_free(run_record *r) {
    for (uint32_t k = 0; k < N_CURVES; k++) {
        mem_free(r->curves[k].step);
        mem_free(r->curves[k].value);
    }
    json_destroy(r->manifest);
    *r = (run_record){.folder = NULL};
}
