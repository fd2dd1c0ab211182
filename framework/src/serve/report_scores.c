/* report_scores.c -- the result in a sentence, and the table of each scorer, skill by skill. */
#include <math.h>
#include <string.h>

#include "base/error.h"
#include "serve/html.h"
#include "serve/report_parts.h"

static const double significant = 0.05;

void report_percent(double value, FILE *out) {
    html_number(out, 100 * value, 1);
    if (!isnan(value)) fputs("&nbsp;%", out);
}

void report_share(const share *s, FILE *out) {
    report_percent(s->value, out);
    if (!s->n) return;
    fprintf(out,
        " <small>(%.1f&ndash;%.1f)</small> <span class=\"interval\" aria-hidden=\"true\">"
        "<span style=\"left:%.1f%%;width:%.1f%%\"></span><b style=\"left:%.1f%%\"></b></span>",
        100 * s->low, 100 * s->high, 100 * s->low, 100 * (s->high - s->low), 100 * s->value);
}

/* --- the sentence --- */

static void say_share(const evaluation *e, const share *s, FILE *out) {
    fputs("<strong>", out);
    html_text(out, e->name);
    if (!s->n) {
        fputs("</strong> abstained from all scores", out);
        return;
    }
    fputs("</strong> puts <strong>", out);
    report_percent(s->value, out);
    fputs("</strong> of ", out);
    html_count(out, (int64_t)s->n);
    fprintf(out, " scores in range (95&nbsp;%% interval %.1f to %.1f&nbsp;%%)", 100 * s->low,
        100 * s->high);
}

/* "better than sft (54.0 %, p = 0.0003)" */
static void say_against(const evaluation *other, const comparison *c, double p, FILE *out) {
    if (p >= significant)
        fputs("not shown to differ from <strong>", out);
    else
        fputs(
            c->second.value > c->first.value ? "better than <strong>" : "worse than <strong>", out);
    html_text(out, other->name);
    fputs("</strong> (", out);
    report_percent(c->first.value, out);
    fputs(p < 0.0001 ? ", p&nbsp;" : ", p&nbsp;=&nbsp;", out);
    html_p(out, p);
    fputs(")", out);
}

/* The latest scorer, and against those before it, as the table of comparisons has them. */
static void say_scorers(const evaluation *const *list, uint32_t n, FILE *out) {
    const evaluation *last = list[n - 1];
    const share s = evaluation_metrics(last, last->n_skills).in_range;
    comparison c[MAX_REPORT_PAIRS];
    double p[MAX_REPORT_PAIRS];
    say_share(last, &s, out);
    const int alike = n > 1 && report_pairs(list, n, c, p) == QFW_OK;
    err_clear();
    for (uint32_t a = n - 1; alike && a-- > 0;) {
        const uint32_t k = a * n - a * (a + 1) / 2 + (n - a - 2); /* the pair (a, n - 1) */
        fputs(a == n - 2 ? "; it is " : a ? ", " : " and ", out);
        say_against(list[a], &c[k], p[k], out);
    }
    fputs(".", out);
}

static void say_run(const run_record *r, FILE *out) {
    const curve *c = &r->curves[CURVE_LOSS];
    html_text(out, r->name);
    if (c->n)
        fprintf(out, ": the training loss went from %.3g at step %.0f to %.3g at step %.0f.",
            c->value[0], c->step[0], c->value[c->n - 1], c->step[c->n - 1]);
    else
        fputs(": no loss was logged.", out);
}

void report_sentence(const report_input *in, const run_record *runs, FILE *out) {
    if (in->n_evaluations)
        say_scorers(in->evaluations, in->n_evaluations, out);
    else if (in->n_runs)
        say_run(&runs[in->n_runs - 1], out);
    else
        fputs("There is nothing to report.", out);
}

/* --- the table --- */

static void put_cell(double value, int digits, FILE *out) {
    fputs("<td>", out);
    html_number(out, value, digits);
    fputs("</td>", out);
}

static void put_row(const char *name, const skill_metrics *m, FILE *out) {
    fputs("<tr><th scope=\"row\">", out);
    html_text(out, name);
    fputs("</th><td>", out);
    html_count(out, (int64_t)m->n);
    fputs("</td><td class=\"share\">", out);
    report_share(&m->in_range, out);
    fputs("</td>", out);
    put_cell(m->mae, 2, out);
    put_cell(m->kappa, 2, out);
    fprintf(out, "<td>%llu</td><td>%llu</td><td>", (unsigned long long)m->over,
        (unsigned long long)m->under);
    if (m->sign_p < significant) fputs("<strong>", out);
    html_p(out, m->sign_p);
    if (m->sign_p < significant) fputs("</strong>", out);
    fputs("</td>", out);
    put_cell(m->brier, 3, out);
    put_cell(m->calibration_err, 3, out);
    fputs("<td>", out);
    html_count(out, (int64_t)m->abstained);
    fputs("</td></tr>\n", out);
}

static void put_scorer(const evaluation *e, FILE *out) {
    const skill_metrics all = evaluation_metrics(e, e->n_skills);
    fputs("<h3>", out);
    html_text(out, e->name);
    fputs("</h3>\n<p class=\"path\">", out);
    html_text(out, *e->adapter ? e->adapter : "no adapter");
    fputs(" on ", out);
    html_text(out, e->set);
    fputs("</p>\n<div class=\"wide\" tabindex=\"0\" role=\"region\" aria-label=\"Scores of ", out);
    html_text(out, e->name);
    fputs("\"><table>\n<thead><tr><th scope=\"col\">skill</th><th scope=\"col\">rows</th>"
          "<th scope=\"col\">in range (95&nbsp;%)</th><th scope=\"col\">MAE</th>"
          "<th scope=\"col\">kappa</th><th scope=\"col\">over</th><th scope=\"col\">under</th>"
          "<th scope=\"col\">sign p</th><th scope=\"col\">Brier</th>"
          "<th scope=\"col\">calibration error</th><th scope=\"col\">abstained</th></tr></thead>\n"
          "<tbody>\n",
        out);
    for (uint32_t k = 0; k < e->n_skills; k++) {
        const skill_metrics m = evaluation_metrics(e, k);
        if (m.n || m.abstained) put_row(e->skills[k], &m, out);
    }
    fputs("</tbody>\n<tfoot>\n", out);
    put_row("all", &all, out);
    fputs("</tfoot></table></div>\n", out);
}

void report_skills(const evaluation *const *list, uint32_t n, FILE *out) {
    if (!n) {
        fputs("<p class=\"note\">No evaluation was given.</p>\n", out);
        return;
    }
    for (uint32_t i = n; i-- > 0;) put_scorer(list[i], out);
    fputs("<p class=\"note\">In range: the score lies within the expected range; its Wilson "
          "interval. MAE: mean distance to the nearest right score. Kappa: Cohen&#39;s, quadratic "
          "weights. Sign p: exact test that over and under are equally likely, not corrected; "
          "below 0.05 in bold. Brier and calibration error tell whether the confidence is "
          "honest, lower is better: a scorer that is mostly wrong and knows it has them low, too. "
          "Rows that abstained are counted apart.</p>\n",
        out);
}
