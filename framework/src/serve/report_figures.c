/* report_figures.c -- how far confidence can be believed, and which scores are taken for which. */
#include <math.h>

#include "base/mem.h"
#include "serve/html.h"
#include "serve/plot.h"
#include "serve/report_parts.h"

/* A heading for one scorer's figures. */
static void open_figures(const evaluation *e, const char *kind, FILE *out) {
    fputs("<h3>", out);
    html_text(out, e->name);
    fprintf(out, "</h3>\n<div class=\"%s\">\n", kind);
}

/* --- calibration --- */

/* The bins that hold something, as points with intervals. */
typedef struct reliability {
    double x[CALIBRATION_BINS], y[CALIBRATION_BINS], low[CALIBRATION_BINS], high[CALIBRATION_BINS];
    size_t n;
} reliability;

static reliability reliability_of(const evaluation *e, uint32_t skill) {
    calibration_bin bins[CALIBRATION_BINS];
    reliability r = {.n = 0};
    evaluation_calibration(e, skill, bins);
    for (uint32_t i = 0; i < CALIBRATION_BINS; i++) {
        if (!bins[i].right.n) continue;
        r.x[r.n] = bins[i].confidence;
        r.y[r.n] = bins[i].right.value;
        r.low[r.n] = bins[i].right.low;
        r.high[r.n++] = bins[i].right.high;
    }
    return r;
}

static qfw_status put_reliability(
    const evaluation *e, uint32_t index, uint32_t skill, const char *name, FILE *out) {
    const skill_metrics m = evaluation_metrics(e, skill);
    const reliability r = reliability_of(e, skill);
    const plot_series series = {
        .x = r.x, .y = r.y, .low = r.low, .high = r.high, .n = r.n, .ink = 0};
    char id[32], title[200], desc[200], *svg = NULL;
    if (!m.n) return QFW_OK;
    snprintf(id, sizeof id, "calibration-%u-%u", index, skill);
    snprintf(title, sizeof title, "Calibration of %.60s, %.60s", e->name, name);
    snprintf(desc, sizeof desc,
        "Share in range against confidence in %zu bins; %llu rows; calibration error %.3f.", r.n,
        (unsigned long long)m.n, m.calibration_err);
    const plot p = {.id = id,
        .title = title,
        .desc = desc,
        .x_name = "confidence",
        .y_name = "share in range",
        .series = &series,
        .n_series = 1,
        .x_low = 0,
        .x_high = 1,
        .y_low = 0,
        .y_high = 1,
        .diagonal = 1,
        .width = 280,
        .height = 260};
    QFW_TRY(plot_svg(&p, &svg));
    fprintf(out, "<figure>\n%s<figcaption><b>", svg);
    mem_free(svg);
    html_text(out, name);
    fputs("</b>, error ", out);
    html_number(out, m.calibration_err, 3);
    fputs("</figcaption>\n</figure>\n", out);
    return QFW_OK;
}

qfw_status report_calibration(const evaluation *const *list, uint32_t n, FILE *out) {
    if (!n) {
        fputs("<p class=\"note\">No evaluation was given.</p>\n", out);
        return QFW_OK;
    }
    fputs("<p class=\"note\">Each point is a tenth of the range of confidence: its mean, and the "
          "share that was in range, with its 95&nbsp;% Wilson interval. On the dashed line "
          "confidence "
          "can be taken at its word; below it, it promises too much.</p>\n",
        out);
    for (uint32_t i = n; i-- > 0;) {
        open_figures(list[i], "plots small", out);
        for (uint32_t k = 0; k < list[i]->n_skills; k++)
            QFW_TRY(put_reliability(list[i], i, k, list[i]->skills[k], out));
        QFW_TRY(put_reliability(list[i], i, list[i]->n_skills, "all skills", out));
        fputs("</div>\n", out);
    }
    return QFW_OK;
}

/* --- confusion --- */

typedef struct confusion {
    uint64_t cell[MAX_LEVELS][MAX_LEVELS]; /* [right][given] */
    uint64_t row[MAX_LEVELS], n;
} confusion;

static confusion count(const evaluation *e, uint32_t skill) {
    confusion c = {.n = 0};
    for (size_t i = 0; i < e->n_rows; i++) {
        const judged *r = &e->rows[i];
        const int32_t right = judged_right(r) - e->scale.low, given = r->score - e->scale.low;
        const int32_t end = (int32_t)e->scale.n_levels;
        if (r->skill != skill || r->abstained) continue;
        if (right < 0 || right >= end || given < 0 || given >= end) continue;
        c.cell[right][given]++;
        c.row[right]++;
        c.n++;
    }
    return c;
}

static void put_levels(const evaluation *e, const confusion *c, FILE *out) {
    for (uint32_t right = 0; right < e->scale.n_levels; right++) {
        fprintf(out, "<tr><th scope=\"row\">%d</th>", e->scale.low + (int32_t)right);
        for (uint32_t given = 0; given < e->scale.n_levels; given++) {
            const uint64_t k = c->cell[right][given];
            const char *kind = right == given ? "hit" : "miss";
            if (k)
                fprintf(out, "<td class=\"%s\" style=\"--h:%.2f\">%llu</td>", kind,
                    (double)k / (double)c->row[right], (unsigned long long)k);
            else
                fprintf(out, "<td class=\"%s none\">&middot;</td>", kind);
        }
        fputs("</tr>\n", out);
    }
}

static void put_confusion(const evaluation *e, uint32_t skill, FILE *out) {
    const confusion c = count(e, skill);
    if (!c.n) return;
    fputs("<div class=\"heat\" tabindex=\"0\" role=\"region\" aria-label=\"Confusion of ", out);
    html_text(out, e->skills[skill]);
    fputs("\"><table>\n<caption>", out);
    html_text(out, e->skills[skill]);
    fputs("</caption>\n<thead><tr><th scope=\"col\">right \\ given</th>", out);
    for (uint32_t k = 0; k < e->scale.n_levels; k++)
        fprintf(out, "<th scope=\"col\">%d</th>", e->scale.low + (int32_t)k);
    fputs("</tr></thead>\n<tbody>\n", out);
    put_levels(e, &c, out);
    fputs("</tbody></table></div>\n", out);
}

void report_confusion(const evaluation *const *list, uint32_t n, FILE *out) {
    if (!n) {
        fputs("<p class=\"note\">No evaluation was given.</p>\n", out);
        return;
    }
    fputs("<p class=\"note\">Rows: the score that would have been right, of a range the nearest to "
          "the one given. Columns: the score given. The deeper a cell, the larger its share of its "
          "row.</p>\n",
        out);
    for (uint32_t i = n; i-- > 0;) {
        open_figures(list[i], "heats", out);
        for (uint32_t k = 0; k < list[i]->n_skills; k++) put_confusion(list[i], k, out);
        fputs("</div>\n", out);
    }
}
