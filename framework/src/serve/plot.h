/* plot.h -- curves and points as one SVG element that goes into a page.
 *
 * The drawing is GNU libplot's; ticks and names are ours. Nothing in it has a colour of its own:
 * every shape says fill or stroke "currentColor" and has a class k0, k1, ... of its ink, for the
 * page's style to colour. Text stays text, in the page's font.
 */
#ifndef SERVE_PLOT_H
#define SERVE_PLOT_H

#include <stddef.h>
#include <stdint.h>

#include "qfw/status.h"

/* Inks: the axes' text, the grid, then one for each series. */
enum { PLOT_TEXT, PLOT_GRID, PLOT_INK, PLOT_INKS = 8 };

typedef struct plot_series {
    const double *x, *y;      /* points that are not finite are left out */
    const double *low, *high; /* an interval about each y; NULL: none */
    size_t n;
    uint32_t ink;  /* 0 ..: class k<PLOT_INK + ink % PLOT_INKS> */
    uint32_t line; /* 1: joined; 0: marks alone */
} plot_series;

typedef struct plot {
    const char *id;              /* of the SVG's title and desc: letters, digits, "-" */
    const char *title, *desc;    /* for who does not see it; any text */
    const char *x_name, *y_name; /* of the axes: ASCII */
    const plot_series *series;
    uint32_t n_series;
    double x_low, x_high, y_low, y_high; /* the axes' ends; low == high: what the points span */
    uint32_t diagonal;                   /* 1: a line from corner to corner */
    uint32_t width, height;              /* of the viewBox; the page decides what it shows */
} plot;

/* "<svg ...>...</svg>" (mem_free), the same bytes for the same plot. */
qfw_status plot_svg(const plot *p, char **out);

#endif
