/* evaluation.c -- rows kept, counted and compared. */
#include "serve/evaluation.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/mem.h"

/* --- life --- */

void evaluation_destroy(evaluation *e) {
    if (!e) return;
    for (size_t i = 0; i < e->n_rows; i++) {
        mem_free((void *)e->rows[i].document);
        mem_free((void *)e->rows[i].text);
        mem_free((void *)e->rows[i].reason);
    }
    for (uint32_t i = 0; i < e->n_skills; i++) mem_free((void *)e->skills[i]);
    mem_free((void *)e->name);
    mem_free((void *)e->set);
    mem_free((void *)e->adapter);
    mem_free(e->rows);
    mem_free(e);
}

qfw_status evaluation_create(const char *name, const char *set, const char *adapter,
    const char *const *skills, uint32_t n_skills, scale s, evaluation **out) {
    evaluation *e = *out = mem_alloc(1, sizeof *e);
    if (!e) return QFW_E_NOMEM;
    e->name = mem_strdup(name);
    e->set = mem_strdup(set);
    e->adapter = mem_strdup(adapter);
    e->scale = s;
    int whole = e->name && e->set && e->adapter;
    for (uint32_t i = 0; i < n_skills && whole; i++) {
        e->skills[i] = mem_strdup(skills[i]);
        whole = e->skills[i] != NULL;
        e->n_skills += (uint32_t)whole;
    }
    if (whole) return QFW_OK;
    evaluation_destroy(e);
    *out = NULL;
    return QFW_E_NOMEM;
}

qfw_status evaluation_rename(evaluation *e, const char *name) {
    char *copy = mem_strdup(name);
    if (!copy) return QFW_E_NOMEM;
    mem_free((void *)(uintptr_t)e->name);
    e->name = copy;
    return QFW_OK;
}

qfw_status evaluation_add(evaluation *e, const judged *row) {
    if (mem_grow(&e->rows, &e->cap_rows, e->n_rows + 1, sizeof *e->rows)) return QFW_E_NOMEM;
    judged *r = &e->rows[e->n_rows];
    *r = *row;
    r->document = mem_strdup(row->document);
    r->text = mem_strdup(row->text);
    r->reason = mem_strdup(row->reason);
    e->n_rows++;
    return r->document && r->text && r->reason ? QFW_OK : QFW_E_NOMEM;
}

/* --- numbers --- */

int32_t judged_right(const judged *r) {
    return r->score < r->low ? r->low : r->score > r->high ? r->high : r->score;
}

static int is_of(const evaluation *e, const judged *r, uint32_t skill) {
    return skill == e->n_skills || r->skill == skill;
}

static double agreement(const evaluation *e, uint32_t skill) {
    uint32_t *level = mem_alloc(2 * e->n_rows + 1, sizeof *level), *right = level + e->n_rows;
    size_t n = 0;
    if (!level) return (double)NAN;
    for (size_t i = 0; i < e->n_rows; i++) {
        const judged *r = &e->rows[i];
        if (!is_of(e, r, skill) || r->abstained) continue;
        level[n] = (uint32_t)(r->score - e->scale.low);
        right[n++] = (uint32_t)(judged_right(r) - e->scale.low);
    }
    const double kappa = n ? stats_kappa(level, right, n, e->scale.n_levels) : (double)NAN;
    mem_free(level);
    return kappa;
}

void evaluation_calibration(
    const evaluation *e, uint32_t skill, calibration_bin bins[CALIBRATION_BINS]) {
    uint64_t hits[CALIBRATION_BINS] = {0}, n[CALIBRATION_BINS] = {0};
    double sum[CALIBRATION_BINS] = {0};
    for (size_t i = 0; i < e->n_rows; i++) {
        const judged *r = &e->rows[i];
        if (!is_of(e, r, skill) || r->abstained) continue;
        int bin = (int)(r->confidence * CALIBRATION_BINS);
        if (bin >= CALIBRATION_BINS) bin = CALIBRATION_BINS - 1;
        n[bin]++;
        hits[bin] += judged_right(r) == r->score;
        sum[bin] += r->confidence;
    }
    for (int b = 0; b < CALIBRATION_BINS; b++)
        bins[b] = (calibration_bin){(double)b / CALIBRATION_BINS, (b + 1.0) / CALIBRATION_BINS,
            n[b] ? sum[b] / (double)n[b] : (double)NAN, stats_share(hits[b], n[b])};
}

static double calibration_error(const evaluation *e, uint32_t skill, uint64_t n) {
    calibration_bin bins[CALIBRATION_BINS];
    double error = 0;
    evaluation_calibration(e, skill, bins);
    for (int b = 0; b < CALIBRATION_BINS; b++)
        if (bins[b].right.n)
            error += (double)bins[b].right.n * fabs(bins[b].confidence - bins[b].right.value);
    return error / (double)n;
}

skill_metrics evaluation_metrics(const evaluation *e, uint32_t skill) {
    skill_metrics m = {.abstained = 0};
    uint64_t hits = 0;
    double distance = 0, signed_distance = 0, brier = 0;
    for (size_t i = 0; i < e->n_rows; i++) {
        const judged *r = &e->rows[i];
        if (!is_of(e, r, skill)) continue;
        if (r->abstained) {
            m.abstained++;
            continue;
        }
        const int32_t off = r->score - judged_right(r);
        m.n++;
        hits += !off;
        m.over += off > 0;
        m.under += off < 0;
        distance += abs(off);
        signed_distance += off;
        brier += (r->confidence - !off) * (r->confidence - !off);
    }
    const double n = (double)m.n;
    m.in_range = stats_share(hits, m.n);
    m.sign_p = stats_binomial(m.over, m.over + m.under);
    m.mae = distance / n;
    m.bias = signed_distance / n;
    m.brier = brier / n;
    m.kappa = agreement(e, skill);
    m.calibration_err = calibration_error(e, skill, m.n);
    return m;
}

/* --- two scorers --- */

static qfw_status differ(const evaluation *a, const evaluation *b, const char *what) {
    return err_fail("E_DATA_SETS", QFW_E_DATA,
        "%s and %s cannot be compared: %s; hint: evaluate both on one set with one rubric", a->name,
        b->name, what);
}

/* Rows are compared in order: both come from one set. */
qfw_status evaluation_compare(
    const evaluation *first, const evaluation *second, uint32_t skill, comparison *out) {
    *out = (comparison){.n = 0};
    if (first->n_rows != second->n_rows || first->n_skills != second->n_skills)
        return differ(first, second, "they hold other numbers of rows or skills");
    for (size_t i = 0; i < first->n_rows; i++) {
        const judged *a = &first->rows[i], *b = &second->rows[i];
        if (strcmp(a->document, b->document) || a->low != b->low || a->high != b->high ||
            strcmp(first->skills[a->skill], second->skills[b->skill]))
            return differ(first, second, "they hold other documents, skills or expected scores");
        if (!is_of(first, a, skill) || a->abstained || b->abstained) continue;
        const int hit_a = judged_right(a) == a->score, hit_b = judged_right(b) == b->score;
        out->n++;
        out->both += (uint64_t)(hit_a && hit_b);
        out->first_only += (uint64_t)(hit_a && !hit_b);
        out->second_only += (uint64_t)(!hit_a && hit_b);
        out->neither += (uint64_t)(!hit_a && !hit_b);
    }
    out->p = stats_binomial(out->first_only, out->first_only + out->second_only);
    out->first = stats_share(out->both + out->first_only, out->n);
    out->second = stats_share(out->both + out->second_only, out->n);
    return QFW_OK;
}
