/* evaluation_print.c -- see evaluation_print.h. Tables fit 100 columns. */
#include "serve/evaluation_print.h"

#include <math.h>
#include <string.h>

#include "base/error.h"

enum { NAME_COLUMNS = 16, MAX_PAIRS = 28 };
static const double significant = 0.05;

const char *evaluation_verdict(double in_range, const verdict_bands *bands) {
    return in_range >= bands->good ? "good" : in_range >= bands->fair ? "fair" : "poor";
}

/* A stranger's name, cut to a column, with nothing in it that a terminal would act on. */
static const char *name_of(const char *text, char out[NAME_COLUMNS * 4 + 1]) {
    char cut[NAME_COLUMNS + 1];
    snprintf(cut, sizeof cut, "%s", text);
    err_escape(out, NAME_COLUMNS * 4 + 1, cut);
    return out;
}

static const char *range_of(const judged *r, char out[32]) {
    if (r->low == r->high)
        snprintf(out, 32, "%d", r->low);
    else
        snprintf(out, 32, "%d-%d", r->low, r->high);
    return out;
}

static const char *row_verdict(const judged *r) {
    if (r->abstained) return "abstained";
    return r->score > r->high ? "over" : r->score < r->low ? "under" : "in range";
}

void evaluation_print_document(
    const evaluation *e, const char *document, const verdict_bands *bands, FILE *out) {
    char name[NAME_COLUMNS * 4 + 1], range[32];
    uint64_t hits = 0, n = 0;
    fprintf(out, "  %-16s %9s %9s   %s\n", "skill", "predicted", "expected", "verdict");
    for (size_t i = 0; i < e->n_rows; i++) {
        const judged *r = &e->rows[i];
        if (strcmp(r->document, document)) continue;
        n += !r->abstained;
        hits += !r->abstained && judged_right(r) == r->score;
        fprintf(out, "  %-16s %9d %9s   %s\n", name_of(e->skills[r->skill], name), r->score,
            range_of(r, range), row_verdict(r));
    }
    const share s = stats_share(hits, n);
    if (!n) {
        fprintf(out, "  no score: it abstained from all\n");
        return;
    }
    fprintf(out, "  %llu of %llu in range (%.0f %%, 95 %% interval %.0f - %.0f %%): %s\n",
        (unsigned long long)hits, (unsigned long long)n, 100 * s.value, 100 * s.low, 100 * s.high,
        evaluation_verdict(s.value, bands));
}

/* "0.123", or "-" where there is no number. */
static const char *number(double value, int digits, char out[32]) {
    if (isnan(value))
        snprintf(out, 32, "-");
    else
        snprintf(out, 32, "%.*f", digits, value);
    return out;
}

static const char *p_value(double p, char out[32]) {
    if (p < 0.0001)
        snprintf(out, 32, "<.0001");
    else
        snprintf(out, 32, "%.4f", p);
    return out;
}

/* " 54.0 (48.1- 60.0)", or "-" where nothing was answered. */
static const char *interval(const share *s, char out[64]) {
    if (s->n)
        snprintf(out, 64, "%5.1f (%4.1f-%5.1f)", 100 * s->value, 100 * s->low, 100 * s->high);
    else
        snprintf(out, 64, "%5s", "-");
    return out;
}

static void print_metrics(const char *title, const skill_metrics *m, FILE *out) {
    char mae[32], kappa[32], p[32], brier[32], error[32], range[64];
    fprintf(out, "  %-16s %6llu  %-18s %6s %6s %6llu %6llu %7s %6s %6s\n", title,
        (unsigned long long)m->n, interval(&m->in_range, range), number(m->mae, 2, mae),
        number(m->kappa, 2, kappa), (unsigned long long)m->over, (unsigned long long)m->under,
        p_value(m->sign_p, p), number(m->brier, 3, brier), number(m->calibration_err, 3, error));
}

void evaluation_print(const evaluation *e, const verdict_bands *bands, FILE *out) {
    char name[NAME_COLUMNS * 4 + 1];
    const skill_metrics all = evaluation_metrics(e, e->n_skills);
    fprintf(out, "\n%s on %s\n", e->name, e->set);
    fprintf(out, "  %-16s %6s  %-18s %6s %6s %6s %6s %7s %6s %6s\n", "skill", "rows",
        "in range, % (95 %)", "mae", "kappa", "over", "under", "sign p", "brier", "cal.");
    for (uint32_t i = 0; i < e->n_skills; i++) {
        const skill_metrics m = evaluation_metrics(e, i);
        if (m.n || m.abstained) print_metrics(name_of(e->skills[i], name), &m, out);
    }
    print_metrics("all", &all, out);
    fprintf(
        out, "  verdict: %s", all.n ? evaluation_verdict(all.in_range.value, bands) : "no scores");
    if (all.abstained)
        fprintf(out, "; abstained from %llu more", (unsigned long long)all.abstained);
    fprintf(out, "\n");
}

void evaluation_print_sensitivity(const evaluation *e, FILE *out) {
    char name[NAME_COLUMNS * 4 + 1];
    if (e->n_wordings)
        fprintf(out, "\n%s under %u wordings of the question\n  %-16s %10s %14s\n", e->name,
            e->n_wordings, "skill", "spread", "score moves");
    for (uint32_t k = 0; k < e->n_skills; k++) {
        const skill_movement *m = &e->movement[k];
        if (m->moved.n)
            fprintf(out, "  %-16s %10.2f %12.1f %%  (%.1f - %.1f)\n", name_of(e->skills[k], name),
                m->spread, 100 * m->moved.value, 100 * m->moved.low, 100 * m->moved.high);
    }
    if (e->evidence_rows)
        fprintf(out,
            "\n%s with the evidence changed: mean expected score\n  %-16s %6s %10s %10s %10s\n",
            e->name, "skill", "rows", "as it is", "without", "twice");
    for (uint32_t k = 0; k < e->n_skills; k++) {
        const skill_movement *m = &e->movement[k];
        if (m->n_evidence)
            fprintf(out, "  %-16s %6llu %10.2f %10.2f %10.2f\n", name_of(e->skills[k], name),
                (unsigned long long)m->n_evidence, m->as_it_is, m->without, m->twice);
    }
}

/* --- comparison --- */

typedef struct pair {
    uint32_t first, second;
    comparison c;
} pair;

static void print_pair(const evaluation *const *list, const pair *x, double p, FILE *out) {
    const evaluation *a = list[x->first], *b = list[x->second];
    const int better = x->c.second.value > x->c.first.value;
    char text[32];
    if (!x->c.n) {
        fprintf(out, "  %s and %s: there is no score that both gave\n", b->name, a->name);
        return;
    }
    if (p < significant)
        fprintf(out,
            "  %s is %s than %s: %.1f %% against %.1f %%, p %s%s (%llu rows right in one "
            "alone, %llu in the other)\n",
            b->name, better ? "better" : "worse", a->name, 100 * x->c.second.value,
            100 * x->c.first.value, p < 0.0001 ? "" : "= ", p_value(p, text),
            (unsigned long long)x->c.second_only, (unsigned long long)x->c.first_only);
    else
        fprintf(out,
            "  no difference is shown between %s and %s: %.1f %% against %.1f %%, p = %s\n",
            b->name, a->name, 100 * x->c.second.value, 100 * x->c.first.value, p_value(p, text));
    if (x->c.n < a->n_rows)
        fprintf(out, "    (of the %llu scores that both gave)\n", (unsigned long long)x->c.n);
}

/* Skill by skill, from one evaluation to the next. */
static qfw_status print_skills(const evaluation *a, const evaluation *b, FILE *out) {
    char name[NAME_COLUMNS * 4 + 1], text[32];
    comparison c[MAX_SKILLS];
    double p[MAX_SKILLS];
    for (uint32_t k = 0; k < a->n_skills; k++) {
        QFW_TRY(evaluation_compare(a, b, k, &c[k]));
        p[k] = c[k].p;
    }
    stats_holm(p, a->n_skills);
    fprintf(out, "  from %s to %s:\n", a->name, b->name);
    for (uint32_t k = 0; k < a->n_skills; k++) {
        if (!c[k].n) continue;
        const double change = 100 * (c[k].second.value - c[k].first.value);
        fprintf(out, "    %-16s %5.1f %% -> %5.1f %%  (%+5.1f), p %s%s%s\n",
            name_of(a->skills[k], name), 100 * c[k].first.value, 100 * c[k].second.value, change,
            p[k] < 0.0001 ? "" : "= ", p_value(p[k], text),
            p[k] >= significant ? ""
            : change > 0        ? ", better"
                                : ", worse");
    }
    return QFW_OK;
}

qfw_status evaluation_print_comparison(const evaluation *const *list, uint32_t n, FILE *out) {
    pair pairs[MAX_PAIRS];
    double p[MAX_PAIRS];
    uint32_t n_pairs = 0;
    for (uint32_t a = 0; a < n; a++)
        for (uint32_t b = a + 1; b < n && n_pairs < MAX_PAIRS; b++) {
            pair *x = &pairs[n_pairs];
            *x = (pair){.first = a, .second = b};
            QFW_TRY(evaluation_compare(list[a], list[b], list[a]->n_skills, &x->c));
            p[n_pairs++] = x->c.p;
        }
    stats_holm(p, n_pairs);
    fprintf(out, "\nComparison on %s\n  %-16s", list[0]->set, "in range, %");
    for (uint32_t i = 0; i < n; i++) fprintf(out, " %20s", list[i]->name);
    fprintf(out, "\n");
    for (uint32_t k = 0; k <= list[0]->n_skills; k++) {
        char name[NAME_COLUMNS * 4 + 1];
        fprintf(out, "  %-16s", k < list[0]->n_skills ? name_of(list[0]->skills[k], name) : "all");
        for (uint32_t i = 0; i < n; i++) {
            const share s = evaluation_metrics(list[i], k).in_range;
            if (s.n)
                fprintf(out, "  %5.1f (%4.1f - %5.1f)", 100 * s.value, 100 * s.low, 100 * s.high);
            else
                fprintf(out, "  %5s %14s", "-", "");
        }
        fprintf(out, "\n");
    }
    for (uint32_t i = 0; i < n_pairs; i++) print_pair(list, &pairs[i], p[i], out);
    for (uint32_t i = 0; i + 1 < n; i++) QFW_TRY(print_skills(list[i], list[i + 1], out));
    fprintf(out, "  (McNemar's exact test; p after Holm, over the pairs and over the skills)\n");
    return QFW_OK;
}
