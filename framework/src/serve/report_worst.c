/* report_worst.c -- the scores that lie furthest from right, with what was read and said. */
#include <math.h>
#include <stdlib.h>

#include "serve/html.h"
#include "serve/report_parts.h"

enum { LATEST_SHOWN = 8, EARLIER_SHOWN = 3 };

/* Further from right comes first, then the more confident, then the earlier row. */
static int is_worse(const evaluation *e, size_t a, size_t b) {
    const judged *x = &e->rows[a], *y = &e->rows[b];
    const int32_t far_x = abs(x->score - judged_right(x)), far_y = abs(y->score - judged_right(y));
    if (far_x != far_y) return far_x > far_y;
    if (x->confidence < y->confidence || x->confidence > y->confidence)
        return x->confidence > y->confidence;
    return a < b;
}

/* The worst row that is less bad than `after` (n_rows: any); n_rows when there is none. */
static size_t next_worst(const evaluation *e, size_t after) {
    size_t found = e->n_rows;
    for (size_t i = 0; i < e->n_rows; i++) {
        const judged *r = &e->rows[i];
        if (r->abstained || r->score == judged_right(r)) continue;
        if (after < e->n_rows && !is_worse(e, after, i)) continue;
        if (found == e->n_rows || is_worse(e, i, found)) found = i;
    }
    return found;
}

static void put_range(const judged *r, FILE *out) {
    if (r->low == r->high)
        fprintf(out, "%d", r->low);
    else
        fprintf(out, "%d&ndash;%d", r->low, r->high);
}

static void put_levels(const evaluation *e, const judged *r, FILE *out) {
    fputs("<ol class=\"levels\" aria-label=\"Probability of each score\">\n", out);
    for (uint32_t k = 0; k < e->scale.n_levels; k++) {
        const int32_t level = e->scale.low + (int32_t)k;
        const int right = level >= r->low && level <= r->high;
        fprintf(out,
            "<li class=\"%s%s\"><b>%d</b> <span class=\"bar\" aria-hidden=\"true\" "
            "style=\"width:%.1f%%\"></span> <span>%.0f&nbsp;%%</span></li>\n",
            right ? "right" : "wrong", level == r->score ? " given" : "", level, 60 * r->p[k],
            100 * r->p[k]);
    }
    fputs("</ol>\n", out);
}

static void put_case(const evaluation *e, const judged *r, FILE *out) {
    fputs("<article>\n<h4>", out);
    html_text(out, e->skills[r->skill]);
    fprintf(out, ": %d, expected ", r->score);
    put_range(r, out);
    fprintf(out, " <span class=\"bad\">%s</span></h4>\n<p class=\"path\">",
        r->score > r->high ? "&#9650; over" : "&#9660; under");
    html_text(out, r->document);
    fputs("; mean of the distribution ", out);
    html_number(out, r->expected, 2);
    fputs("</p>\n", out);
    put_levels(e, r, out);
    fputs("<p class=\"label\">Text</p>\n<blockquote>", out);
    html_text(out, *r->text ? r->text : "(not kept)");
    fputs("</blockquote>\n<p class=\"label\">Reason given</p>\n<blockquote>", out);
    html_text(out, *r->reason ? r->reason : "(none)");
    fputs("</blockquote>\n</article>\n", out);
}

void report_worst(const evaluation *const *list, uint32_t n, FILE *out) {
    if (!n) {
        fputs("<p class=\"note\">No evaluation was given.</p>\n", out);
        return;
    }
    fputs("<p class=\"note\">Furthest from right first, then the more confident. Marked levels are "
          "the "
          "ones expected.</p>\n",
        out);
    for (uint32_t i = n; i-- > 0;) {
        const int most = i + 1 == n ? LATEST_SHOWN : EARLIER_SHOWN;
        size_t row = list[i]->n_rows;
        fputs("<h3>", out);
        html_text(out, list[i]->name);
        fputs("</h3>\n<div class=\"cases\">\n", out);
        for (int k = 0; k < most; k++) {
            row = next_worst(list[i], row);
            if (row == list[i]->n_rows) break;
            put_case(list[i], &list[i]->rows[row], out);
        }
        if (row == list[i]->n_rows)
            fputs("<p class=\"note\">Nothing else is out of range.</p>\n", out);
        fputs("</div>\n", out);
    }
}
