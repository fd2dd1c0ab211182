/* evaluate_task.c -- each adapter is a run of its own, so that adapters of any shape are compared
 * and no more than one model is in memory.
 */
#include "serve/evaluate_task.h"

#include <string.h>

#include "base/error.h"
#include "base/log.h"
#include "base/mem.h"
#include "files/file.h"
#include "serve/evaluation_print.h"
#include "serve/generate_task.h"
#include "serve/report.h"
#include "serve/sensitivity.h"
#include "serve/set_scorer.h"
#include "train/outputs.h"

const qfw_option evaluate_options[N_EVALUATE_OPTIONS] = {
    QFW_OPTION(QFW_OPT_PATH, "set", "", 0, 0, NULL,
        "JSONL with id, text and expected scores; task = evaluate needs it"),
    QFW_OPTION(QFW_OPT_LIST, "adapters", "", 0, 0, NULL,
        "folders, and base for none; empty: what [adapter] says"),
    QFW_OPTION(QFW_OPT_LIST, "compare_with", "", 0, 0, NULL,
        "evaluation.json files of the same set, to be compared, too"),
    QFW_OPTION(QFW_OPT_LIST, "wordings", "", 0, 0, NULL,
        "prompt files: how far scores move with the words of the question"),
    QFW_OPTION(QFW_OPT_INT, "evidence_rows", "0", 0, 1e9, NULL,
        "rows that are scored without and with twice their evidence, too"),
    QFW_OPTION(QFW_OPT_FLOAT, "good", "0.8", 0, 1, NULL, "share in range from which on it is good"),
    QFW_OPTION(QFW_OPT_FLOAT, "fair", "0.6", 0, 1, NULL, "and fair; below: poor"),
    QFW_OPTION(QFW_OPT_INT, "examples", "1", 0, 1e6, NULL, "documents shown score by score"),
    QFW_OPTION(QFW_OPT_BOOL, "report", "true", 0, 0, NULL, "write output_dir/report.html"),
    QFW_OPTION(QFW_OPT_LIST, "runs", "", 0, 0, NULL,
        "output folders of training, for its curves; empty: the adapters'"),
};

enum { MAX_SCORERS = 8, MAX_WORDINGS = 16, MAX_RUNS = 64 };

/* What the task holds. */
typedef struct evaluating {
    run *r;
    FILE *out;
    evaluation *list[2 * MAX_SCORERS];
    uint32_t n;
} evaluating;

/* --- one adapter --- */

/* The prompts of [evaluate] wordings, read. */
static qfw_status read_wordings(const run *r, char *prompts[MAX_WORDINGS], uint32_t *n) {
    const qfw_cfg *c = run_cfg(r, SECTION_EVALUATE);
    *n = 0;
    for (const char *at = cfg_text(c, "wordings"); *at;) {
        char path[4096];
        size_t bytes = 0;
        const size_t len = strcspn(at, ",");
        snprintf(path, sizeof path, "%.*s", (int)len, at);
        at += len + (at[len] == ',');
        if (*n == MAX_WORDINGS)
            return cfg_problem(r->ini, c, "wordings", "more than %d", MAX_WORDINGS);
        QFW_TRY(file_read(path, 1 << 20, &prompts[*n], &bytes));
        while (bytes && prompts[*n][bytes - 1] == '\n') prompts[*n][--bytes] = 0;
        ++*n;
    }
    return QFW_OK;
}

static qfw_status probe_set(const set_scorer *k, evaluation *result, FILE *out) {
    const qfw_cfg *c = run_cfg(k->r, SECTION_EVALUATE);
    const sensitivity_in in = {&k->o, k->e, k->set, result};
    char *prompts[MAX_WORDINGS] = {NULL};
    uint32_t n = 0;
    qfw_status status = read_wordings(k->r, prompts, &n);
    if (status == QFW_OK && n) status = sensitivity_wordings(&in, (const char *const *)prompts, n);
    for (uint32_t i = 0; i < MAX_WORDINGS; i++) mem_free(prompts[i]);
    const int64_t rows = cfg_int(c, "evidence_rows");
    if (status == QFW_OK && rows) status = sensitivity_evidence(&in, (uint32_t)rows);
    if (status == QFW_OK) evaluation_print_sensitivity(result, out);
    return status;
}

static qfw_status run_set(
    run *r, set_scorer *k, const char *name, FILE *plan_to, evaluation **out) {
    QFW_TRY(run_open_model(r));
    QFW_TRY(set_scorer_open(r, k));
    QFW_TRY(run_open_device(r));
    QFW_TRY(set_scorer_plan(k));
    QFW_TRY(serve_plan(r, k->e, plan_to));
    if (r->flags.plan_only || r->flags.dry_run) return QFW_OK;
    QFW_TRY(serve_load(r, k->e));
    return set_scorer_run(k, name, out);
}

/* --- all of them --- */

/* The last part of a folder's name. */
static const char *short_name(const char *folder) {
    const char *slash = strrchr(folder, '/');
    return slash && slash[1] ? slash + 1 : folder;
}

/* The run of the command line with another adapter; "base": none. */
static qfw_status start_with(const run *r, const char *adapter, run **out) {
    const int is_base = !strcmp(adapter, "base");
    char *path = mem_printf("adapter.path=%s", is_base ? "" : adapter);
    const char **set = mem_alloc(r->flags.n_set + 1, sizeof *set);
    qfw_status status = path && set ? QFW_OK : QFW_E_NOMEM;
    if (status == QFW_OK) {
        run_flags flags = r->flags;
        for (uint32_t i = 0; i < flags.n_set; i++) set[i] = flags.set[i];
        set[flags.n_set++] = path;
        flags.set = set;
        status = run_start(&flags, out);
        if (status == QFW_OK) (*out)->flags = r->flags;
    }
    mem_free(set);
    mem_free(path);
    return status;
}

static qfw_status evaluate_one(evaluating *v, const char *adapter) {
    set_scorer k = {.r = NULL};
    run *r = NULL;
    evaluation *result = NULL;
    FILE *nowhere = v->n ? fopen("/dev/null", "w") : NULL; /* one plan is enough */
    FILE *plan_to = nowhere ? nowhere : v->out;
    qfw_status status = start_with(v->r, adapter, &r);
    if (status == QFW_OK)
        status = run_set(r, &k, *adapter ? short_name(adapter) : "base", plan_to, &result);
    if (status == QFW_OK && result) status = probe_set(&k, result, v->out);
    if (nowhere) fclose(nowhere);
    if (result) v->list[v->n++] = result;
    set_scorer_close(&k);
    run_close(r);
    return status;
}

static qfw_status write_one(const evaluating *v, const evaluation *e) {
    const char *folder = cfg_text(run_cfg(v->r, SECTION_RUN), "output_dir");
    char *path = mem_printf("%s/evaluation-%s.json", folder, e->name);
    const qfw_status status = path ? evaluation_write(e, path) : QFW_E_NOMEM;
    mem_free(path);
    return status;
}

/* Each word of a list to `take`. */
static qfw_status each_word(
    evaluating *v, const char *list, qfw_status (*take)(evaluating *v, const char *word)) {
    for (const char *at = list; *at;) {
        char word[4096];
        const size_t n = strcspn(at, ",");
        snprintf(word, sizeof word, "%.*s", (int)n, at);
        at += n + (at[n] == ',');
        if (v->n == 2 * MAX_SCORERS || (take == evaluate_one && v->n == MAX_SCORERS))
            return cfg_problem(v->r->ini, run_cfg(v->r, SECTION_EVALUATE), "adapters",
                "more than %d at a time", MAX_SCORERS);
        QFW_TRY(take(v, word));
    }
    return QFW_OK;
}

static qfw_status read_one(evaluating *v, const char *path) {
    return evaluation_read(path, &v->list[v->n]) == QFW_OK ? (v->n++, QFW_OK) : QFW_E_DATA;
}

static verdict_bands bands_of(const run *r) {
    const qfw_cfg *c = run_cfg(r, SECTION_EVALUATE);
    return (verdict_bands){cfg_real(c, "good"), cfg_real(c, "fair")};
}

/* The first documents, score by score. */
static void print_examples(const evaluating *v, const evaluation *e) {
    const verdict_bands bands = bands_of(v->r);
    int64_t left = cfg_int(run_cfg(v->r, SECTION_EVALUATE), "examples");
    const char *last = NULL;
    for (size_t i = 0; i < e->n_rows && left > 0; i++) {
        char name[128];
        if (last && !strcmp(last, e->rows[i].document)) continue;
        last = e->rows[i].document;
        err_escape(name, sizeof name, last);
        fprintf(v->out, "\nDocument '%s', %s\n", name, e->name);
        evaluation_print_document(e, last, &bands, v->out);
        left--;
    }
}

/* The folders of `list`, which is cut up, or else of the adapters, each once. */
static uint32_t run_folders(const evaluating *v, char *list, const char *out[MAX_RUNS]) {
    uint32_t n = 0;
    for (char *at = list; *at && n < MAX_RUNS;) {
        char *end = at + strcspn(at, ",");
        out[n++] = at;
        at = end + (*end == ',');
        *end = 0;
    }
    for (uint32_t i = 0; !*list && i < v->n && n < MAX_RUNS; i++) {
        const char *folder = v->list[i]->adapter;
        int is_new = *folder != 0;
        for (uint32_t k = 0; k < n; k++) is_new = is_new && strcmp(out[k], folder) != 0;
        if (is_new) out[n++] = folder;
    }
    return n;
}

static qfw_status write_report(const evaluating *v, const char *folder) {
    const char *folders[MAX_RUNS];
    char *list = mem_strdup(cfg_text(run_cfg(v->r, SECTION_EVALUATE), "runs"));
    char *path = path_join(folder, "report.html");
    qfw_status status = list && path ? QFW_OK : QFW_E_NOMEM;
    if (status == QFW_OK) {
        const report_input in = {.run_folders = folders,
            .n_runs = run_folders(v, list, folders),
            .evaluations = (const evaluation *const *)v->list,
            .n_evaluations = v->n};
        status = report_write(&in, path);
    }
    if (status == QFW_OK) fprintf(v->out, "\n  report: %s\n", path);
    mem_free(list);
    mem_free(path);
    return status;
}

static qfw_status conclude(evaluating *v) {
    const verdict_bands bands = bands_of(v->r);
    const char *folder = cfg_text(run_cfg(v->r, SECTION_RUN), "output_dir");
    for (uint32_t i = 0; i < v->n; i++) {
        print_examples(v, v->list[i]);
        evaluation_print(v->list[i], &bands, v->out);
    }
    for (uint32_t i = 0; i < v->n; i++) QFW_TRY(write_one(v, v->list[i]));
    if (v->n > 1)
        QFW_TRY(evaluation_print_comparison((const evaluation *const *)v->list, v->n, v->out));
    if (cfg_int(run_cfg(v->r, SECTION_EVALUATE), "report")) QFW_TRY(write_report(v, folder));
    QFW_TRY(outputs_resolved(v->r, folder));
    fprintf(v->out, "\n  written to %s\n", folder);
    return QFW_OK;
}

static const output_mark output_marks[] = {{"evaluation-*", "an evaluation", 1},
    {"trainer_log.jsonl", "a training run", 0}, {NULL, NULL, 0}};
static const output_kind evaluate_output = {output_marks, 0, 0};

static qfw_status evaluate_all(evaluating *v) {
    run *r = v->r;
    const qfw_cfg *c = run_cfg(r, SECTION_EVALUATE);
    const char *adapters = cfg_text(c, "adapters");
    if (!r->flags.plan_only)
        QFW_TRY(r->flags.dry_run ? output_check(r, &evaluate_output)
                                 : output_claim(r, &evaluate_output));
    if (*adapters)
        QFW_TRY(each_word(v, adapters, evaluate_one));
    else
        QFW_TRY(evaluate_one(v, cfg_text(run_cfg(r, SECTION_ADAPTER), "path")));
    if (r->flags.plan_only || r->flags.dry_run) return QFW_OK;
    QFW_TRY(each_word(v, cfg_text(c, "compare_with"), read_one));
    return conclude(v);
}

qfw_status evaluate_task(run *r, FILE *out) {
    evaluating v = {.r = r, .out = out};
    const qfw_status status = evaluate_all(&v);
    for (uint32_t i = 0; i < v.n; i++) evaluation_destroy(v.list[i]);
    return status;
}
