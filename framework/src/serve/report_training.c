/* report_training.c -- what training says of itself: curves, data, memory. */
#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "serve/html.h"
#include "serve/plot.h"
#include "serve/report_parts.h"

enum { WIDTH = 360, HEIGHT = 250 };

/* --- curves --- */

static const char *text_of(const json_node *object, const char *key) {
    const char *text = json_node_str(json_node_member(object, key));
    return text ? text : "";
}

static plot_series series_of(const run_record *r, uint32_t which, uint32_t ink) {
    const curve *c = &r->curves[which];
    return (plot_series){.x = c->step, .y = c->value, .n = c->n, .ink = ink, .line = 1};
}

/* "12 points; from 2.51 at step 100 to 0.756 at step 600." */
static void describe(const run_record *r, uint32_t which, char *out, size_t cap) {
    const curve *c = &r->curves[which];
    snprintf(out, cap, "%zu points, from %.3g at step %.0f to %.3g at step %.0f.", c->n,
        c->value[0], c->step[0], c->value[c->n - 1], c->step[c->n - 1]);
}

static qfw_status put_plot(const plot *p, const char *caption, FILE *out) {
    char *svg = NULL;
    QFW_TRY(plot_svg(p, &svg));
    fprintf(out, "<figure>\n%s<figcaption>%s</figcaption>\n</figure>\n", svg, caption);
    mem_free(svg);
    return QFW_OK;
}

static qfw_status put_loss(const run_record *r, uint32_t index, FILE *out) {
    plot_series series[2];
    char id[32], title[160], desc[256], more[200];
    uint32_t n = 0;
    if (r->curves[CURVE_LOSS].n) {
        series[n++] = series_of(r, CURVE_LOSS, 0);
        describe(r, CURVE_LOSS, desc, sizeof desc);
    }
    if (r->curves[CURVE_EVAL_LOSS].n) {
        series[n++] = series_of(r, CURVE_EVAL_LOSS, 1);
        describe(r, CURVE_EVAL_LOSS, more, sizeof more);
        if (n == 1) snprintf(desc, sizeof desc, "Evaluation: %s", more);
    }
    if (!n) return QFW_OK;
    snprintf(id, sizeof id, "loss-%u", index);
    snprintf(title, sizeof title, "Loss of %.120s", r->name);
    const plot p = {.id = id,
        .title = title,
        .desc = desc,
        .x_name = "step",
        .y_name = "loss",
        .series = series,
        .n_series = n,
        .width = WIDTH,
        .height = HEIGHT};
    return put_plot(&p,
        r->curves[CURVE_EVAL_LOSS].n ? "Loss: <span class=\"key i2\">training</span>, "
                                       "<span class=\"key i3\">evaluation</span>"
                                     : "Loss, training",
        out);
}

static qfw_status put_one(const run_record *r, uint32_t which, uint32_t index, const char *name,
    const char *caption, FILE *out) {
    char id[32], title[160], desc[256];
    if (!r->curves[which].n) return QFW_OK;
    const plot_series series = series_of(r, which, 2);
    describe(r, which, desc, sizeof desc);
    snprintf(id, sizeof id, "curve-%u-%u", which, index);
    snprintf(title, sizeof title, "%s of %.120s", caption, r->name);
    const plot p = {.id = id,
        .title = title,
        .desc = desc,
        .x_name = "step",
        .y_name = name,
        .series = &series,
        .n_series = 1,
        .width = WIDTH,
        .height = HEIGHT};
    return put_plot(&p, caption, out);
}

static void put_gaps(const run_record *r, FILE *out) {
    if (!r->has_log) fputs("<p class=\"note\">There is no trainer_log.jsonl to read.</p>\n", out);
    if (r->n_bad)
        fprintf(out, "<p class=\"note\">%llu line%s of trainer_log.jsonl could not be read.</p>\n",
            (unsigned long long)r->n_bad, r->n_bad == 1 ? "" : "s");
}

qfw_status report_curves(const run_record *runs, uint32_t n, FILE *out) {
    if (!n) fputs("<p class=\"note\">No run was given.</p>\n", out);
    for (uint32_t i = 0; i < n; i++) {
        fputs("<h3>", out);
        html_text(out, runs[i].name);
        fputs("</h3>\n<p class=\"path\">", out);
        html_text(out, runs[i].folder);
        fputs("</p>\n", out);
        put_gaps(&runs[i], out);
        fputs("<div class=\"plots\">\n", out);
        QFW_TRY(put_loss(&runs[i], i, out));
        QFW_TRY(put_one(&runs[i], CURVE_RATE, i, "learning rate", "Learning rate", out));
        QFW_TRY(put_one(
            &runs[i], CURVE_MARGIN, i, "margin", "Reward margin, chosen over rejected", out));
        fputs("</div>\n", out);
    }
    return QFW_OK;
}

/* --- data --- */

static void put_count(const json_node *object, const char *key, FILE *out) {
    const json_node *v = json_node_member(object, key);
    fputs("<td>", out);
    if (json_node_kind(v) == QFW_DOC_INT)
        html_count(out, json_node_i64(v));
    else
        html_number(out, (double)NAN, 0);
    fputs("</td>", out);
}

static void put_set(const run_record *r, const char *key, FILE *out) {
    const json_node *data = json_node_member(json_root(r->manifest), "data");
    const json_node *set = json_node_member(data, key);
    if (json_node_kind(set) != QFW_DOC_OBJECT) return;
    fputs("<tr><th scope=\"row\">", out);
    html_text(out, r->name);
    fprintf(out, "</th><td class=\"words\">%s</td><td class=\"words path\">", key);
    html_text(out, text_of(set, "path"));
    fputs("</td>", out);
    put_count(set, "rows", out);
    put_count(set, "kept", out);
    put_count(set, "tokens", out);
    put_count(set, "trained", out);
    fprintf(out, "<td class=\"words path\">");
    html_text(out, text_of(set, "sha256"));
    fputs("</td></tr>\n", out);
}

static void put_origin(const run_record *r, FILE *out) {
    static const char *const what[] = {"source", "generator", "licence", "notes"};
    const json_node *data = json_node_member(json_root(r->manifest), "data");
    int some = 0;
    for (size_t i = 0; i < sizeof what / sizeof *what; i++) {
        const char *text = text_of(data, what[i]);
        if (!*text) continue;
        fputs(some++ ? "; " : "<li>", out);
        if (some == 1) {
            html_text(out, r->name);
            fputs(": ", out);
        }
        fprintf(out, "%s ", what[i]);
        html_text(out, text);
    }
    if (some) fputs("</li>\n", out);
}

void report_data(const run_record *runs, uint32_t n, FILE *out) {
    uint32_t some = 0;
    for (uint32_t i = 0; i < n; i++) some += runs[i].manifest != NULL;
    if (!some) {
        fputs("<p class=\"note\">No run has a manifest.json.</p>\n", out);
        return;
    }
    fputs("<div class=\"wide\" tabindex=\"0\" role=\"region\" aria-label=\"Data\"><table>\n"
          "<thead><tr><th scope=\"col\">run</th><th scope=\"col\" class=\"words\">use</th>"
          "<th scope=\"col\" class=\"words\">file</th><th scope=\"col\">rows</th>"
          "<th scope=\"col\">kept</th><th scope=\"col\">tokens</th><th scope=\"col\">trained</th>"
          "<th scope=\"col\" class=\"words\">SHA-256</th></tr></thead>\n<tbody>\n",
        out);
    for (uint32_t i = 0; i < n; i++) {
        if (!runs[i].manifest) continue;
        put_set(&runs[i], "train", out);
        put_set(&runs[i], "eval", out);
    }
    fputs("</tbody></table></div>\n<ul class=\"note\">\n<li>Kept: rows that are neither too "
          "long nor empty. Trained: tokens that the loss counts.</li>\n",
        out);
    for (uint32_t i = 0; i < n; i++)
        if (runs[i].manifest) put_origin(&runs[i], out);
    fputs("</ul>\n", out);
}

/* --- memory --- */

static void put_bytes(double bytes, FILE *out) {
    if (bytes >= 1024.0 * 1024 * 1024)
        fprintf(out, "%.2f GiB", bytes / (1024.0 * 1024 * 1024));
    else
        fprintf(out, "%.1f MiB", bytes / (1024.0 * 1024));
}

static void put_memory(const run_record *r, FILE *out) {
    const json_node *m = json_root(r->manifest);
    const double plan = (double)json_node_i64(json_node_member(m, "plan_bytes"));
    const double peak = (double)json_node_i64(json_node_member(m, "process_peak_bytes"));
    const double most = fmax(plan, peak);
    fputs("<tr><th scope=\"row\">", out);
    html_text(out, r->name);
    fputs("</th><td class=\"words\">", out);
    html_text(out, text_of(m, "device"));
    fputs("</td><td>", out);
    put_bytes(plan, out);
    fputs("</td><td>", out);
    if (peak > 0)
        put_bytes(peak, out);
    else
        html_number(out, (double)NAN, 0);
    fputs("</td><td>", out);
    html_number(out, peak > 0 && plan > 0 ? 100 * peak / plan : (double)NAN, 0);
    fputs(peak > 0 && plan > 0 ? "&nbsp;%</td>" : "</td>", out);
    fprintf(out,
        "<td class=\"bars\" aria-hidden=\"true\"><span class=\"bar i2\" "
        "style=\"width:%.1f%%\"></span><span class=\"bar i3\" style=\"width:%.1f%%\"></span>"
        "</td></tr>\n",
        most > 0 ? 100 * plan / most : 0, most > 0 ? 100 * peak / most : 0);
}

void report_memory(const run_record *runs, uint32_t n, FILE *out) {
    uint32_t some = 0;
    for (uint32_t i = 0; i < n; i++) some += runs[i].manifest != NULL;
    if (!some) {
        fputs("<p class=\"note\">No run has a manifest.json.</p>\n", out);
        return;
    }
    fputs("<div class=\"wide\" tabindex=\"0\" role=\"region\" aria-label=\"Memory\"><table>\n"
          "<thead><tr><th scope=\"col\">run</th><th scope=\"col\" class=\"words\">device</th>"
          "<th scope=\"col\"><span class=\"key i2\">plan</span></th>"
          "<th scope=\"col\"><span class=\"key i3\">measured peak</span></th>"
          "<th scope=\"col\">peak / plan</th><td></td></tr></thead>\n<tbody>\n",
        out);
    for (uint32_t i = 0; i < n; i++)
        if (runs[i].manifest) put_memory(&runs[i], out);
    fputs("</tbody></table></div>\n<p class=\"note\">The peak is the whole process's; it is not "
          "measured where the plan is a device's.</p>\n",
        out);
}
