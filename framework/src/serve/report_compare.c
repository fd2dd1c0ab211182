/* report_compare.c -- scorers against each other on the same rows. */
#include <math.h>

#include "base/error.h"
#include "serve/html.h"
#include "serve/report_parts.h"

static const double significant = 0.05;

qfw_status report_pairs(
    const evaluation *const *list, uint32_t n, comparison *c, double p[MAX_REPORT_PAIRS]) {
    uint32_t k = 0;
    for (uint32_t a = 0; a < n; a++)
        for (uint32_t b = a + 1; b < n && k < MAX_REPORT_PAIRS; b++, k++) {
            comparison one;
            QFW_TRY(evaluation_compare(list[a], list[b], list[a]->n_skills, &one));
            if (c) c[k] = one;
            p[k] = one.p;
        }
    stats_holm(p, k);
    return QFW_OK;
}

static void put_verdict(const comparison *c, double p, FILE *out) {
    if (!c->n)
        fputs("<td class=\"words\">&ndash;</td>", out);
    else if (p >= significant)
        fputs("<td class=\"words\">no difference shown</td>", out);
    else if (c->second.value > c->first.value)
        fputs("<td class=\"words good\">&#9650; better</td>", out);
    else
        fputs("<td class=\"words bad\">&#9660; worse</td>", out);
}

/* first %, second %, change, rows right in one alone, p, verdict. */
static void put_numbers(const comparison *c, double p, FILE *out) {
    const double change = 100 * (c->second.value - c->first.value);
    fputs("<td>", out);
    report_percent(c->first.value, out);
    fputs("</td><td>", out);
    report_percent(c->second.value, out);
    fputs(change > 0 ? "</td><td>+" : "</td><td>", out);
    html_number(out, change, 1);
    fprintf(out, "</td><td>%llu</td><td>%llu</td><td>", (unsigned long long)c->first_only,
        (unsigned long long)c->second_only);
    html_p(out, p);
    fputs("</td>", out);
    put_verdict(c, p, out);
}

/* --- in range, scorer by scorer --- */

static void put_overview(const evaluation *const *list, uint32_t n, FILE *out) {
    fputs("<div class=\"wide\" tabindex=\"0\" role=\"region\" aria-label=\"In range\"><table>\n"
          "<thead><tr><th scope=\"col\">in range (95&nbsp;%)</th>",
        out);
    for (uint32_t i = 0; i < n; i++) {
        fputs("<th scope=\"col\">", out);
        html_text(out, list[i]->name);
        fputs("</th>", out);
    }
    fputs("</tr></thead>\n<tbody>\n", out);
    for (uint32_t k = 0; k <= list[0]->n_skills; k++) {
        const int is_all = k == list[0]->n_skills;
        fputs(is_all ? "</tbody>\n<tfoot>\n<tr><th scope=\"row\">" : "<tr><th scope=\"row\">", out);
        html_text(out, is_all ? "all" : list[0]->skills[k]);
        fputs("</th>", out);
        for (uint32_t i = 0; i < n; i++) {
            const share s = evaluation_metrics(list[i], k).in_range;
            fputs("<td class=\"share\">", out);
            report_share(&s, out);
            fputs("</td>", out);
        }
        fputs("</tr>\n", out);
    }
    fputs("</tfoot></table></div>\n", out);
}

/* --- pairs --- */

static void open_pairs(const char *what, FILE *out) {
    fprintf(out,
        "<div class=\"wide\" tabindex=\"0\" role=\"region\" aria-label=\"Comparison\"><table>\n"
        "<thead><tr><th scope=\"col\">%s</th><th scope=\"col\">before</th>"
        "<th scope=\"col\">after</th><th scope=\"col\">change</th>"
        "<th scope=\"col\">right before alone</th><th scope=\"col\">right after alone</th>"
        "<th scope=\"col\">p</th><th scope=\"col\" class=\"words\">verdict</th></tr></thead>\n"
        "<tbody>\n",
        what);
}

static void put_pairs(
    const evaluation *const *list, uint32_t n, const comparison *c, const double *p, FILE *out) {
    uint32_t k = 0;
    open_pairs("scorers", out);
    for (uint32_t a = 0; a < n; a++)
        for (uint32_t b = a + 1; b < n && k < MAX_REPORT_PAIRS; b++, k++) {
            fputs("<tr><th scope=\"row\">", out);
            html_text(out, list[a]->name);
            fputs(" &rarr; ", out);
            html_text(out, list[b]->name);
            fputs("</th>", out);
            put_numbers(&c[k], p[k], out);
            fputs("</tr>\n", out);
        }
    fputs("</tbody></table></div>\n", out);
}

static qfw_status put_skills(const evaluation *a, const evaluation *b, FILE *out) {
    comparison c[MAX_SKILLS];
    double p[MAX_SKILLS];
    for (uint32_t k = 0; k < a->n_skills; k++) {
        QFW_TRY(evaluation_compare(a, b, k, &c[k]));
        p[k] = c[k].p;
    }
    stats_holm(p, a->n_skills);
    fputs("<h3>From ", out);
    html_text(out, a->name);
    fputs(" to ", out);
    html_text(out, b->name);
    fputs("</h3>\n", out);
    open_pairs("skill", out);
    for (uint32_t k = 0; k < a->n_skills; k++) {
        if (!c[k].n) continue;
        fputs("<tr><th scope=\"row\">", out);
        html_text(out, a->skills[k]);
        fputs("</th>", out);
        put_numbers(&c[k], p[k], out);
        fputs("</tr>\n", out);
    }
    fputs("</tbody></table></div>\n", out);
    return QFW_OK;
}

qfw_status report_comparison(const evaluation *const *list, uint32_t n, FILE *out) {
    comparison c[MAX_REPORT_PAIRS];
    double p[MAX_REPORT_PAIRS];
    if (n < 2) {
        fputs("<p class=\"note\">A comparison needs two evaluations of the same set.</p>\n", out);
        return QFW_OK;
    }
    if (report_pairs(list, n, c, p) != QFW_OK) {
        err_clear();
        fputs(
            "<p class=\"note\">The evaluations do not hold the same rows: their numbers cannot be "
            "compared.</p>\n",
            out);
        return QFW_OK;
    }
    put_overview(list, n, out);
    put_pairs(list, n, c, p, out);
    for (uint32_t i = 0; i + 1 < n; i++) QFW_TRY(put_skills(list[i], list[i + 1], out));
    fputs(
        "<p class=\"note\">McNemar&#39;s exact test on rows that one scorer has right and the "
        "other has not; p after Holm, over the pairs and over the skills of each pair. Rows of one "
        "document are taken as independent.</p>\n",
        out);
    return QFW_OK;
}
