/* report_sensitivity.c -- what scores rest on: how far they move with the words of the question,
 * and with the evidence.
 */
#include <math.h>

#include "serve/html.h"
#include "serve/report_parts.h"

static void open_table(const evaluation *e, const char *label, const char *heads, FILE *out) {
    fprintf(out, "<div class=\"wide\" tabindex=\"0\" role=\"region\" aria-label=\"%s of ", label);
    html_text(out, e->name);
    fprintf(out,
        "\"><table>\n<thead><tr><th scope=\"col\">skill</th><th scope=\"col\">rows</th>%s"
        "</tr></thead>\n<tbody>\n",
        heads);
}

static void open_row(const char *skill, uint64_t n, FILE *out) {
    fputs("<tr><th scope=\"row\">", out);
    html_text(out, skill);
    fputs("</th><td>", out);
    html_count(out, (int64_t)n);
    fputs("</td><td>", out);
}

static void put_wordings(const evaluation *e, FILE *out) {
    fprintf(out, "<h4>Under %u wordings of the question</h4>\n", e->n_wordings);
    open_table(e, "Wordings",
        "<th scope=\"col\">spread</th><th scope=\"col\">score moves (95&nbsp;%)</th>", out);
    for (uint32_t k = 0; k < e->n_skills; k++) {
        const skill_movement *m = &e->movement[k];
        if (!m->moved.n) continue;
        open_row(e->skills[k], m->moved.n, out);
        html_number(out, m->spread, 2);
        fputs("</td><td class=\"share\">", out);
        report_share(&m->moved, out);
        fputs("</td></tr>\n", out);
    }
    fputs("</tbody></table></div>\n", out);
}

/* "</td><td>1.25 (-0.75)": the mean and its distance from the text as it is. */
static void put_changed(double mean, double as_it_is, FILE *out) {
    fputs("</td><td>", out);
    html_number(out, mean, 2);
    const double change = round(100 * (mean - as_it_is)) / 100 + 0.0; /* never -0.00 */
    fputs(change > 0 ? " <small>(+" : " <small>(", out);
    html_number(out, change, 2);
    fputs(")</small>", out);
}

static int has_evidence(const evaluation *e) {
    for (uint32_t k = 0; k < e->n_skills; k++)
        if (e->movement[k].n_evidence) return 1;
    return 0;
}

static void put_evidence(const evaluation *e, FILE *out) {
    fputs("<h4>With the evidence changed</h4>\n", out);
    if (!has_evidence(e)) {
        fputs("<p class=\"note\">No row of the set names evidence.</p>\n", out);
        return;
    }
    open_table(e, "Evidence",
        "<th scope=\"col\">as it is</th><th scope=\"col\">without</th><th scope=\"col\">twice</th>",
        out);
    for (uint32_t k = 0; k < e->n_skills; k++) {
        const skill_movement *m = &e->movement[k];
        if (!m->n_evidence) continue;
        open_row(e->skills[k], m->n_evidence, out);
        html_number(out, m->as_it_is, 2);
        put_changed(m->without, m->as_it_is, out);
        put_changed(m->twice, m->as_it_is, out);
        fputs("</td></tr>\n", out);
    }
    fputs("</tbody></table></div>\n", out);
}

void report_sensitivity(const evaluation *const *list, uint32_t n, FILE *out) {
    int any = 0;
    for (uint32_t i = n; i-- > 0;) {
        const evaluation *e = list[i];
        if (!e->n_wordings && !e->evidence_rows) continue;
        any = 1;
        fputs("<h3>", out);
        html_text(out, e->name);
        fputs("</h3>\n<div class=\"pair\">\n", out);
        if (e->n_wordings) {
            fputs("<div>\n", out);
            put_wordings(e, out);
            fputs("</div>\n", out);
        }
        if (e->evidence_rows) {
            fputs("<div>\n", out);
            put_evidence(e, out);
            fputs("</div>\n", out);
        }
        fputs("</div>\n", out);
    }
    if (any)
        fputs("<p class=\"note\">Spread, in levels: from the lowest to the highest expected score "
              "over all "
              "wordings, mean over documents. Score moves: the share of documents whose score is "
              "not the same under every wording; its Wilson interval; lower is better. Evidence: "
              "the mean expected score of the text as it is, without the words that speak for the "
              "skill, and with them said twice: a scorer that rests on them falls without them and "
              "does not rise by repetition.</p>\n",
            out);
    else
        fputs("<p class=\"note\">Not probed: [evaluate] wordings and evidence_rows are not set.</p>"
              "\n",
            out);
}
