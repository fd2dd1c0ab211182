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

enum { NAME_BYTES = 224, MAX_SCORERS = 8, MAX_WORDINGS = 16, MAX_RUNS = 64 };

/* What the task holds. */
typedef struct evaluating {
    run *r;
    FILE *out;
    evaluation *list[2 * MAX_SCORERS], *others[MAX_SCORERS]; /* others: of compare_with */
    uint32_t n, n_others;
    int only_checks; /* everything but scoring */
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

/* Each of the wordings makes a rubric. */
static qfw_status check_wordings(const set_scorer *k) {
    char *prompts[MAX_WORDINGS] = {NULL};
    uint32_t n = 0;
    qfw_status status = read_wordings(k->r, prompts, &n);
    for (uint32_t i = 0; status == QFW_OK && i < n; i++) {
        rubric_opts o = *rubric_says(k->rubric);
        rubric *r = NULL;
        o.prompt = prompts[i];
        o.ini = NULL;
        status = rubric_create(&o, &r);
        rubric_destroy(r);
        if (status != QFW_OK) err_prefix("[evaluate] wordings, file %u", i + 1);
    }
    for (uint32_t i = 0; i < MAX_WORDINGS; i++) mem_free(prompts[i]);
    return status;
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

/* Whether an evaluation has the rows of this set, in its order. */
static int is_of_set(const evaluation *e, const set_scorer *k) {
    size_t at = 0;
    for (size_t i = 0; i < k->set->n_rows; i++)
        for (uint32_t s = 0; s < rubric_skills(k->rubric); s++) {
            const evalset_row *row = &k->set->rows[i];
            if (!row->expected[s].given) continue;
            const judged *j = at < e->n_rows ? &e->rows[at++] : NULL;
            if (!j || strcmp(j->document, row->id) || j->low != row->expected[s].low ||
                j->high != row->expected[s].high ||
                strcmp(e->skills[j->skill], rubric_skill(k->rubric, s)))
                return 0;
        }
    return at == e->n_rows;
}

static qfw_status check_others(const evaluating *v, const set_scorer *k) {
    for (uint32_t i = 0; i < v->n_others; i++)
        if (!is_of_set(v->others[i], k))
            return cfg_problem(v->r->ini, run_cfg(v->r, SECTION_EVALUATE), "compare_with",
                "the evaluation of %s was not made with the rows of %s and this rubric",
                v->others[i]->name, k->set->path);
    return QFW_OK;
}

static qfw_status run_set(
    const evaluating *v, run *r, set_scorer *k, const char *name, FILE *plan_to, evaluation **out) {
    QFW_TRY(run_open_model(r));
    QFW_TRY(set_scorer_open(r, k));
    QFW_TRY(check_wordings(k));
    QFW_TRY(check_others(v, k));
    QFW_TRY(run_open_device(r));
    QFW_TRY(set_scorer_plan(k));
    QFW_TRY(serve_plan(r, k->e, plan_to));
    if (v->only_checks) return QFW_OK;
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

/* A name that no other scorer here has: "dpo", then "dpo-2". */
static void unique_name(const evaluating *v, const char *wanted, char name[NAME_BYTES]) {
    int taken = 1;
    snprintf(name, NAME_BYTES, "%.200s", wanted);
    for (unsigned k = 2; taken; k++) {
        taken = 0;
        for (uint32_t i = 0; i < v->n; i++) taken |= !strcmp(v->list[i]->name, name);
        if (taken) snprintf(name, NAME_BYTES, "%.200s-%u", wanted, k);
    }
}

static qfw_status evaluate_one(evaluating *v, const char *adapter) {
    set_scorer k = {.r = NULL};
    run *r = NULL;
    evaluation *result = NULL;
    const int told = v->n || (v->only_checks && !v->r->flags.plan_only && !v->r->flags.dry_run);
    FILE *nowhere = told ? fopen("/dev/null", "w") : NULL; /* one plan is enough */
    FILE *plan_to = nowhere ? nowhere : v->out;
    char name[NAME_BYTES];
    unique_name(v, *adapter ? short_name(adapter) : "base", name);
    qfw_status status = start_with(v->r, adapter, &r);
    if (status == QFW_OK) status = run_set(v, r, &k, name, plan_to, &result);
    if (status != QFW_OK && *cfg_text(run_cfg(v->r, SECTION_EVALUATE), "adapters"))
        err_prefix("[evaluate] adapters, %s", adapter);
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
    if (v->n_others == MAX_SCORERS)
        return cfg_problem(v->r->ini, run_cfg(v->r, SECTION_EVALUATE), "compare_with",
            "more than %d", MAX_SCORERS);
    QFW_TRY(evaluation_read(path, &v->others[v->n_others]));
    v->n_others++;
    return QFW_OK;
}

/* Those of compare_with, after the others and under names of their own. */
static qfw_status add_others(evaluating *v) {
    for (uint32_t i = 0; i < v->n_others; i++) {
        char name[NAME_BYTES];
        unique_name(v, v->others[i]->name, name);
        QFW_TRY(evaluation_rename(v->others[i], name));
        v->list[v->n++] = v->others[i];
        v->others[i] = NULL;
    }
    return QFW_OK;
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
    if (cfg_real(c, "good") < cfg_real(c, "fair"))
        return cfg_problem(r->ini, c, "good", "%g, wanted at least fair, %g", cfg_real(c, "good"),
            cfg_real(c, "fair"));
    if (!r->flags.plan_only)
        QFW_TRY(r->flags.dry_run ? output_check(r, &evaluate_output)
                                 : output_claim(r, &evaluate_output));
    /* What can be wrong with the last is told before the first is scored. */
    QFW_TRY(each_word(v, cfg_text(c, "compare_with"), read_one));
    const int stops = r->flags.plan_only || r->flags.dry_run;
    v->only_checks = 1;
    if (stops && !*adapters)
        QFW_TRY(evaluate_one(v, cfg_text(run_cfg(r, SECTION_ADAPTER), "path")));
    else
        QFW_TRY(each_word(v, adapters, evaluate_one));
    if (stops) return QFW_OK;
    v->only_checks = 0;
    if (*adapters)
        QFW_TRY(each_word(v, adapters, evaluate_one));
    else
        QFW_TRY(evaluate_one(v, cfg_text(run_cfg(r, SECTION_ADAPTER), "path")));
    QFW_TRY(add_others(v));
    return conclude(v);
}

qfw_status evaluate_task(run *r, FILE *out) {
    evaluating v = {.r = r, .out = out};
    const qfw_status status = evaluate_all(&v);
    for (uint32_t i = 0; i < v.n; i++) evaluation_destroy(v.list[i]);
    for (uint32_t i = 0; i < v.n_others; i++) evaluation_destroy(v.others[i]);
    return status;
}
