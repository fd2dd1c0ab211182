/* plot.c -- see plot.h; the one file that knows GNU libplot.
 *
 * libplot's SVG is a document of its own, with fixed colours and fonts. What is kept of it are the
 * shapes, one per line; each ink is drawn in a colour that stands for it and is replaced then.
 */
#define _POSIX_C_SOURCE 200809L
#include "serve/plot.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/mem.h"
#include "serve/html.h"

#include <plot.h> /* after stdio.h, which it needs */

enum { LEFT = 52, RIGHT = 14, TOP = 26, BOTTOM = 40, TEXT_SIZE = 12, MAX_TICKS = 12 };
static const char stand_in[] = "#0a00"; /* and the ink in two hex digits */
/* Inks of text that is centred at its place, or ends there: libplot would measure it in a font that
 * the page may not have. */
enum { INK_MIDDLE = 0x80, INK_END };

/* What is drawn: the axes' ends, and the plotter, whose y goes up. */
typedef struct drawing {
    const plot *p;
    plPlotter *to;
    double x_low, x_high, y_low, y_high;
} drawing;

/* --- from numbers to places --- */

static double x_at(const drawing *d, double x) {
    const double width = (double)d->p->width - LEFT - RIGHT;
    return LEFT + width * (x - d->x_low) / (d->x_high - d->x_low);
}

static double y_at(const drawing *d, double y) {
    const double height = (double)d->p->height - TOP - BOTTOM;
    return BOTTOM + height * (y - d->y_low) / (d->y_high - d->y_low);
}

static void widen(double value, double *low, double *high) {
    if (!isfinite(value)) return;
    if (value < *low) *low = value;
    if (value > *high) *high = value;
}

/* Ends that are given, or that the points span; never the same twice. */
static void settle(double given_low, double given_high, double *low, double *high) {
    if (given_low < given_high) {
        *low = given_low;
        *high = given_high;
    } else if (*low > *high) {
        *low = 0;
        *high = 1;
    } else if (!(*low < *high)) {
        const double room = *low != 0 ? fabs(*low) / 2 : 0.5;
        *low -= room;
        *high += room;
    }
}

static void find_ends(drawing *d) {
    const plot *p = d->p;
    d->x_low = d->y_low = HUGE_VAL;
    d->x_high = d->y_high = -HUGE_VAL;
    for (uint32_t k = 0; k < p->n_series; k++) {
        const plot_series *s = &p->series[k];
        for (size_t i = 0; i < s->n; i++) {
            widen(s->x[i], &d->x_low, &d->x_high);
            widen(s->y[i], &d->y_low, &d->y_high);
            if (s->low) widen(s->low[i], &d->y_low, &d->y_high);
            if (s->high) widen(s->high[i], &d->y_low, &d->y_high);
        }
    }
    settle(p->x_low, p->x_high, &d->x_low, &d->x_high);
    settle(p->y_low, p->y_high, &d->y_low, &d->y_high);
}

/* 1, 2 or 5 times a power of ten, so that few steps span the range. */
static double tick_step(double low, double high, int wanted) {
    const double raw = (high - low) / wanted, power = pow(10, floor(log10(raw)));
    const double lead = raw / power;
    return power * (lead <= 1 ? 1 : lead <= 2 ? 2 : lead <= 5 ? 5 : 10);
}

/* --- drawing --- */

static void use_ink(drawing *d, uint32_t ink, double width) {
    char colour[16];
    snprintf(colour, sizeof colour, "%s%02x", stand_in, (unsigned)ink);
    pl_colorname_r(d->to, colour);
    pl_flinewidth_r(d->to, width);
}

static void put_text(drawing *d, double x, double y, uint32_t ink, char up, const char *text) {
    use_ink(d, ink, 1);
    pl_fmove_r(d->to, x, y);
    pl_alabel_r(d->to, 'l', up, text);
}

static void tick_text(double value, double step, char out[32]) {
    const double small = fabs(value) < step / 1e6 ? 0 : value;
    snprintf(out, 32, fabs(small) >= 1e5 || (small != 0 && step < 1e-3) ? "%.3g" : "%.6g", small);
}

static void draw_x_axis(drawing *d) {
    const double step = tick_step(d->x_low, d->x_high, 6);
    const double first = ceil(d->x_low / step - 1e-9);
    for (int i = 0; i < MAX_TICKS; i++) {
        const double value = (first + i) * step, x = x_at(d, value);
        char text[32];
        if (value > d->x_high + step * 1e-9) break;
        tick_text(value, step, text);
        use_ink(d, PLOT_TEXT, 1);
        pl_fline_r(d->to, x, BOTTOM, x, BOTTOM - 4);
        put_text(d, x, BOTTOM - 7, INK_MIDDLE, 't', text);
    }
    use_ink(d, PLOT_TEXT, 1);
    pl_fline_r(d->to, LEFT, BOTTOM, (double)d->p->width - RIGHT, BOTTOM);
    put_text(d, (double)d->p->width - RIGHT, 4, INK_END, 'x', d->p->x_name);
}

static void draw_y_axis(drawing *d) {
    const double step = tick_step(d->y_low, d->y_high, 5);
    const double first = ceil(d->y_low / step - 1e-9);
    for (int i = 0; i < MAX_TICKS; i++) {
        const double value = (first + i) * step, y = y_at(d, value);
        char text[32];
        if (value > d->y_high + step * 1e-9) break;
        tick_text(value, step, text);
        use_ink(d, PLOT_GRID, 1);
        pl_fline_r(d->to, LEFT, y, (double)d->p->width - RIGHT, y);
        put_text(d, LEFT - 7, y, INK_END, 'c', text);
    }
    put_text(d, 4, (double)d->p->height - 12, PLOT_TEXT, 'x', d->p->y_name);
}

static void draw_line(drawing *d, const plot_series *s) {
    int down = 0;
    for (size_t i = 0; i < s->n; i++) {
        if (!isfinite(s->x[i]) || !isfinite(s->y[i])) continue;
        (down ? pl_fcont_r : pl_fmove_r)(d->to, x_at(d, s->x[i]), y_at(d, s->y[i]));
        down = 1;
    }
    pl_endpath_r(d->to);
}

static void draw_marks(drawing *d, const plot_series *s) {
    for (size_t i = 0; i < s->n; i++) {
        if (!isfinite(s->x[i]) || !isfinite(s->y[i])) continue;
        const double x = x_at(d, s->x[i]);
        if (s->low && s->high) pl_fline_r(d->to, x, y_at(d, s->low[i]), x, y_at(d, s->high[i]));
        pl_filltype_r(d->to, 1);
        pl_fcircle_r(d->to, x, y_at(d, s->y[i]), 3);
        pl_filltype_r(d->to, 0);
    }
}

static void draw(drawing *d) {
    const plot *p = d->p;
    pl_fspace_r(d->to, 0, 0, p->width, p->height);
    pl_ffontsize_r(d->to, TEXT_SIZE);
    draw_y_axis(d);
    draw_x_axis(d);
    if (p->diagonal) {
        use_ink(d, PLOT_TEXT, 1);
        pl_linemod_r(d->to, "shortdashed");
        pl_fline_r(
            d->to, x_at(d, d->x_low), y_at(d, d->y_low), x_at(d, d->x_high), y_at(d, d->y_high));
        pl_linemod_r(d->to, "solid");
    }
    pl_joinmod_r(d->to, "round");
    for (uint32_t k = 0; k < p->n_series; k++) {
        const plot_series *s = &p->series[k];
        use_ink(d, PLOT_INK + s->ink % PLOT_INKS, 1.75);
        if (s->line) draw_line(d, s);
        if (!s->line || s->n == 1) draw_marks(d, s);
    }
}

/* --- from libplot's document to an element of a page --- */

static void put_class(const char *hex, FILE *out) {
    const char digits[3] = {hex[0], hex[1], 0};
    const unsigned long ink = strtoul(digits, NULL, 16);
    if (ink < INK_MIDDLE)
        fprintf(out, "class=\"k%lu\" ", ink);
    else
        fprintf(out, "class=\"k%d\" text-anchor=\"%s\" ", PLOT_TEXT,
            ink == INK_MIDDLE ? "middle" : "end");
}

/* One shape: the stand-in colours become currentColor and a class, the font the page's. */
static void keep_shape(const char *line, FILE *out) {
    static const char font[] = " font-family=\"";
    const char *ink = strstr(line, stand_in);
    for (const char *c = line; *c;) {
        if (!strncmp(c, stand_in, sizeof stand_in - 1)) {
            fputs("currentColor", out);
            c += sizeof stand_in - 1 + 2;
        } else if (!strncmp(c, font, sizeof font - 1)) {
            c += sizeof font - 1;
            c += strcspn(c, "\"") + 1;
        } else {
            fputc(*c, out);
            if (*c++ == ' ' && ink) {
                put_class(ink + sizeof stand_in - 1, out);
                ink = NULL;
            }
        }
    }
    fputc('\n', out);
}

/* The lines between <g id="content" ...> and </g>. */
static int keep_shapes(char *svg, FILE *out) {
    char *at = strstr(svg, "<g id=\"content\"");
    char *end = at ? strstr(at, "\n</g>") : NULL, *rest = NULL;
    if (!end) return 0;
    *end = 0;
    at = strchr(at, '\n');
    for (char *line = at ? strtok_r(at, "\n", &rest) : NULL; line;
         line = strtok_r(NULL, "\n", &rest))
        keep_shape(line, out);
    return 1;
}

static int put_svg(const plot *p, char *svg, FILE *out) {
    fprintf(out,
        "<svg viewBox=\"0 0 %u %u\" role=\"img\" aria-labelledby=\"%s-title %s-desc\">\n"
        "<title id=\"%s-title\">",
        p->width, p->height, p->id, p->id, p->id);
    html_text(out, p->title);
    fprintf(out, "</title>\n<desc id=\"%s-desc\">", p->id);
    html_text(out, p->desc);
    fprintf(out, "</desc>\n<g transform=\"matrix(1 0 0 -1 0 %u)\" fill=\"none\">\n", p->height);
    const int kept = keep_shapes(svg, out);
    fputs("</g>\n</svg>\n", out);
    return kept;
}

/* libplot's document (free); NULL if it could not. */
static char *draw_document(drawing *d) {
    char *text = NULL, page[96];
    size_t n = 0;
    FILE *f = open_memstream(&text, &n);
    plPlotterParams *params = f ? pl_newplparams() : NULL;
    snprintf(page, sizeof page, "a,xsize=%uin,ysize=%uin", d->p->width, d->p->height);
    if (params) pl_setplparam(params, "PAGESIZE", page);
    d->to = params ? pl_newpl_r("svg", NULL, f, NULL, params) : NULL;
    int drawn = d->to && pl_openpl_r(d->to) >= 0;
    if (drawn) {
        draw(d);
        drawn = pl_closepl_r(d->to) >= 0;
    }
    if (d->to) pl_deletepl_r(d->to);
    if (params) pl_deleteplparams(params);
    if (f && fclose(f)) drawn = 0;
    if (drawn) return text;
    free(text);
    return NULL;
}

qfw_status plot_svg(const plot *p, char **out) {
    drawing d = {.p = p};
    char *element = NULL;
    size_t n = 0;
    *out = NULL;
    find_ends(&d);
    char *document = draw_document(&d);
    FILE *f = document ? open_memstream(&element, &n) : NULL;
    int done = f && put_svg(p, document, f);
    if (f && fclose(f)) done = 0;
    free(document);
    if (done) *out = mem_strdup(element);
    free(element);
    if (!done) return err_fail("E_PLOT", QFW_E_INTERNAL, "plot '%s': libplot drew nothing", p->id);
    return *out ? QFW_OK : QFW_E_NOMEM;
}
