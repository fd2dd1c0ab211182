/* set_scorer.c -- see set_scorer.h. */
#include "serve/set_scorer.h"

#include <string.h>

#include "base/error.h"
#include "base/log.h"
#include "serve/score_task.h"

enum { TEXT_SHOWN = 2000 };

/* One go over the set. */
typedef struct go {
    set_scorer *k;
    evaluation *result;
    size_t n_done;
} go;

static qfw_status take_document(void *arg, const scored *d) {
    go *g = arg;
    const evalset *set = g->k->set;
    const evalset_row *row = &set->rows[g->n_done++];
    char text[TEXT_SHOWN + 8], status[64];
    snprintf(text, sizeof text, "%.*s%s", TEXT_SHOWN, row->text,
        strlen(row->text) > TEXT_SHOWN ? " ..." : "");
    for (uint32_t i = 0; i < d->n_skills; i++) {
        const skill_score *s = &d->skills[i];
        if (!row->expected[i].given) continue;
        judged j = {.document = row->id,
            .text = text,
            .reason = s->reason ? s->reason : "",
            .skill = i,
            .abstained = s->abstained,
            .low = row->expected[i].low,
            .high = row->expected[i].high,
            .score = s->score,
            .expected = s->of.expected,
            .confidence = s->confidence};
        memcpy(j.p, s->of.p, sizeof j.p);
        QFW_TRY(evaluation_add(g->result, &j));
    }
    snprintf(
        status, sizeof status, "%s: %zu of %zu documents", g->result->name, g->n_done, set->n_rows);
    log_status(status);
    return QFW_OK;
}

static void list_skills(const set_scorer *k, const char *skills[MAX_SKILLS]) {
    for (uint32_t i = 0; i < rubric_skills(k->rubric); i++) skills[i] = rubric_skill(k->rubric, i);
}

qfw_status set_scorer_open(run *r, set_scorer *k) {
    const char *skills[MAX_SKILLS];
    *k = (set_scorer){.r = r};
    QFW_TRY(rubric_read(r->ini, run_cfg(r, SECTION_RUBRIC), r->tok, r->chat, &k->rubric));
    list_skills(k, skills);
    k->o = score_settings(r, k->rubric);
    return evalset_read(cfg_text(run_cfg(r, SECTION_EVALUATE), "set"),
        (uint64_t)cfg_int(run_cfg(r, SECTION_DATA), "max_line"), skills, rubric_skills(k->rubric),
        rubric_scale(k->rubric), &k->set);
}

qfw_status set_scorer_plan(set_scorer *k) {
    const engine_opts eo = score_engine(&k->o);
    return engine_plan(k->r, &eo, &k->e);
}

static qfw_status score_all(go *g) {
    const evalset *set = g->k->set;
    scorer *s = NULL;
    engine_forget(g->k->e);
    qfw_status status = scorer_create(&g->k->o, g->k->e, take_document, g, &s);
    for (size_t i = 0; status == QFW_OK && i < set->n_rows; i++) {
        const evalset_row *row = &set->rows[i];
        status = scorer_add(s, row->id, row->line, row->text, strlen(row->text));
    }
    if (status == QFW_OK) status = scorer_finish(s);
    scorer_destroy(s);
    log_status(NULL);
    if (status != QFW_E_CANCELLED) return status;
    return err_fail("E_SIGNAL", QFW_E_CANCELLED,
        "stopped by a signal; nothing was written; hint: the same command begins anew");
}

qfw_status set_scorer_run(set_scorer *k, const char *name, evaluation **out) {
    const char *skills[MAX_SKILLS];
    go g = {.k = k};
    *out = NULL;
    list_skills(k, skills);
    QFW_TRY(evaluation_create(name, k->set->path, cfg_text(run_cfg(k->r, SECTION_ADAPTER), "path"),
        skills, rubric_skills(k->rubric), rubric_scale(k->rubric), &g.result));
    const qfw_status status = score_all(&g);
    if (status == QFW_OK)
        *out = g.result;
    else
        evaluation_destroy(g.result);
    return status;
}

void set_scorer_close(set_scorer *k) {
    engine_destroy(k->e);
    evalset_close(k->set);
    rubric_destroy(k->rubric);
    *k = (set_scorer){.r = k->r};
}
