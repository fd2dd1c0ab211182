/* sensitivity.c -- see sensitivity.h. */
#include "serve/sensitivity.h"

#include <string.h>

#include "base/error.h"
#include "base/log.h"
#include "base/mem.h"

/* The expected and the most probable score of every document and skill. */
typedef struct answers_of {
    double *expected; /* [n, MAX_SKILLS] */
    int32_t *score;
    size_t n, cap_expected, cap_score;
} answers_of;

static void answers_free(answers_of *a) {
    mem_free(a->expected);
    mem_free(a->score);
}

static qfw_status take(void *arg, const scored *d) {
    answers_of *a = arg;
    const size_t need = (a->n + 1) * MAX_SKILLS;
    if (mem_grow(&a->expected, &a->cap_expected, need, sizeof *a->expected) ||
        mem_grow(&a->score, &a->cap_score, need, sizeof *a->score))
        return QFW_E_NOMEM;
    for (uint32_t k = 0; k < d->n_skills; k++) {
        a->expected[a->n * MAX_SKILLS + k] = d->skills[k].of.expected;
        a->score[a->n * MAX_SKILLS + k] = d->skills[k].score;
    }
    a->n++;
    return QFW_OK;
}

/* --- wordings --- */

static qfw_status score_under(const sensitivity_in *in, const char *prompt, answers_of *a) {
    rubric_opts ro = *rubric_says(in->o->rubric);
    rubric *r = NULL;
    scorer *s = NULL;
    score_opts o = *in->o;
    ro.prompt = prompt;
    o.max_reason_tokens = 0;
    QFW_TRY(rubric_create(&ro, &r));
    o.rubric = r;
    qfw_status status = scorer_create(&o, in->e, take, a, &s);
    for (size_t i = 0; i < in->set->n_rows && status == QFW_OK; i++) {
        const evalset_row *row = &in->set->rows[i];
        status = scorer_add(s, row->id, row->line, row->text, strlen(row->text));
    }
    if (status == QFW_OK) status = scorer_finish(s);
    scorer_destroy(s);
    rubric_destroy(r);
    return status;
}

/* What the wordings say of one skill. */
static void note_spread(
    const sensitivity_in *in, const answers_of *all, uint32_t n, uint32_t skill) {
    double spread = 0;
    uint64_t moved = 0, count = 0;
    for (size_t i = 0; i < in->plain->n_rows; i++) {
        const judged *j = &in->plain->rows[i];
        double low = j->expected, high = j->expected;
        int same = 1;
        size_t at = 0;
        if (j->skill != skill) continue;
        while (strcmp(in->set->rows[at].id, j->document)) at++;
        for (uint32_t w = 0; w < n; w++) {
            const double x = all[w].expected[at * MAX_SKILLS + skill];
            low = x < low ? x : low;
            high = x > high ? x : high;
            same &= all[w].score[at * MAX_SKILLS + skill] == j->score;
        }
        spread += high - low;
        moved += (uint64_t)!same;
        count++;
    }
    if (!count) return;
    in->plain->movement[skill].moved = stats_share(moved, count);
    in->plain->movement[skill].spread = spread / (double)count;
}

qfw_status sensitivity_wordings(const sensitivity_in *in, const char *const *prompts, uint32_t n) {
    answers_of *all = mem_alloc(n, sizeof *all);
    qfw_status status = all ? QFW_OK : QFW_E_NOMEM;
    for (uint32_t w = 0; w < n && status == QFW_OK; w++) {
        char text[64];
        snprintf(text, sizeof text, "wording %u of %u", w + 1, n);
        log_status(text);
        status = score_under(in, prompts[w], &all[w]);
    }
    log_status(NULL);
    if (status == QFW_OK) {
        in->plain->n_wordings = n + 1;
        for (uint32_t k = 0; k < in->plain->n_skills; k++) note_spread(in, all, n, k);
    }
    for (uint32_t w = 0; all && w < n; w++) answers_free(&all[w]);
    mem_free(all);
    return status;
}

/* --- evidence --- */

enum { AS_IT_IS, WITHOUT, TWICE, VERSIONS };

/* The text without the words, or with the words said once more at its end; mem_free. */
static char *change(const evalset_row *row, uint32_t skill, int version) {
    const char *words = row->evidence[skill], *at = strstr(row->text, words);
    if (version == AS_IT_IS) return mem_strdup(row->text);
    if (version == TWICE) return mem_printf("%s %s.", row->text, words);
    return mem_printf("%.*s%s", (int)(at - row->text), row->text, at + strlen(words));
}

static qfw_status score_version(
    const sensitivity_in *in, uint32_t n, uint32_t skill, int version, answers_of *a) {
    score_opts o = *in->o;
    scorer *s = NULL;
    uint32_t taken = 0;
    o.max_reason_tokens = 0;
    qfw_status status = scorer_create(&o, in->e, take, a, &s);
    for (size_t i = 0; i < in->set->n_rows && taken < n && status == QFW_OK; i++) {
        const evalset_row *row = &in->set->rows[i];
        if (!row->evidence[skill]) continue;
        char *text = change(row, skill, version);
        status = text ? scorer_add(s, row->id, row->line, text, strlen(text)) : QFW_E_NOMEM;
        mem_free(text);
        taken++;
    }
    if (status == QFW_OK) status = scorer_finish(s);
    scorer_destroy(s);
    return status;
}

static double mean_of(const answers_of *a, uint32_t skill) {
    double sum = 0;
    for (size_t i = 0; i < a->n; i++) sum += a->expected[i * MAX_SKILLS + skill];
    return sum / (double)a->n;
}

static qfw_status one_skill(const sensitivity_in *in, uint32_t n, uint32_t skill) {
    answers_of a[VERSIONS] = {{0}};
    qfw_status status = QFW_OK;
    for (int v = 0; v < VERSIONS && status == QFW_OK; v++)
        status = score_version(in, n, skill, v, &a[v]);
    if (status == QFW_OK && a[AS_IT_IS].n) {
        skill_movement *m = &in->plain->movement[skill];
        m->n_evidence = a[AS_IT_IS].n;
        m->as_it_is = mean_of(&a[AS_IT_IS], skill);
        m->without = mean_of(&a[WITHOUT], skill);
        m->twice = mean_of(&a[TWICE], skill);
    }
    for (int v = 0; v < VERSIONS; v++) answers_free(&a[v]);
    return status;
}

qfw_status sensitivity_evidence(const sensitivity_in *in, uint32_t n) {
    for (uint32_t k = 0; k < in->plain->n_skills; k++) QFW_TRY(one_skill(in, n, k));
    in->plain->evidence_rows = n;
    return QFW_OK;
}
