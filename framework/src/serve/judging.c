/* judging.c -- the set of [evaluate] scored while the weights are trained (train/judge.h): the same
 * questions as in the task evaluate, but for reasons, which nothing depends on here.
 */
#include "serve/judging.h"

#include <string.h>

#include "base/error.h"
#include "base/mem.h"
#include "serve/set_scorer.h"

enum { OVERALL = 4 };
static const char *const overall[OVERALL] = {"in_range", "mae", "kappa", "brier"};

typedef struct judging {
    set_scorer set;
    char names[MAX_SKILLS][80]; /* "in_range/<skill>" */
} judging;

static void judging_close(void *j) {
    judging *k = j;
    if (!k) return;
    set_scorer_close(&k->set);
    mem_free(k);
}

static qfw_status judging_plan(run *r, void **out) {
    judging *k = mem_alloc(1, sizeof *k);
    *out = NULL;
    if (!k) return QFW_E_NOMEM;
    qfw_status status = set_scorer_open(r, &k->set);
    if (status == QFW_OK) status = set_scorer_plan(&k->set);
    if (status != QFW_OK) {
        judging_close(k);
        return status;
    }
    k->set.o.skip_reasons = 1;
    for (uint32_t i = 0; i < rubric_skills(k->set.rubric); i++)
        snprintf(k->names[i], sizeof k->names[i], "in_range/%s", rubric_skill(k->set.rubric, i));
    *out = k;
    return QFW_OK;
}

static plan_need judging_need(void *j) { return engine_need(((judging *)j)->set.e); }

static const char *judging_name(void *j, uint32_t i) {
    const judging *k = j;
    if (i < OVERALL) return overall[i];
    return i - OVERALL < rubric_skills(k->set.rubric) ? k->names[i - OVERALL] : NULL;
}

static uint32_t judging_plans(void *j, const plan **out, uint32_t cap) {
    return engine_plans(((judging *)j)->set.e, out, cap);
}

static qfw_status judging_alloc(void *j) { return engine_alloc(((judging *)j)->set.e); }

static qfw_status judging_judge(void *j, eval_values *out) {
    judging *k = j;
    evaluation *e = NULL;
    QFW_TRY(set_scorer_run(&k->set, "now", &e));
    const uint32_t n = rubric_skills(k->set.rubric);
    const skill_metrics all = evaluation_metrics(e, n);
    const double values[OVERALL] = {all.in_range.value, all.mae, all.kappa, all.brier};
    for (int i = 0; i < OVERALL; i++) eval_values_add(out, overall[i], values[i]);
    for (uint32_t i = 0; i < n; i++)
        eval_values_add(out, k->names[i], evaluation_metrics(e, i).in_range.value);
    evaluation_destroy(e);
    return QFW_OK;
}

const judge scoring_judge = {
    .plan = judging_plan,
    .need = judging_need,
    .name = judging_name,
    .plans = judging_plans,
    .alloc = judging_alloc,
    .judge = judging_judge,
    .close = judging_close,
};
