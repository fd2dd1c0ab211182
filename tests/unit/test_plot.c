/* test_plot.c -- a plot is one well-formed SVG element in the page's own colours and font, puts its
 * points where the axes say, and is the same bytes each time.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "../support/markup.h"
#include "base/mem.h"
#include "serve/plot.h"

#include <cmocka.h>

static const double x[4] = {0, 50, 75, 100}, y[4] = {0, 0.5, (double)NAN, 1};
static const double low[4] = {0, 0.25, 0, 1}, high[4] = {0, 0.75, 0, 1};

static char *drawn(const plot_series *s, uint32_t n, const char *title) {
    const plot p = {.id = "a",
        .title = title,
        .desc = "a line",
        .x_name = "step",
        .y_name = "loss",
        .series = s,
        .n_series = n,
        .y_low = 0,
        .y_high = 1,
        .diagonal = 1,
        .width = 466, /* 400 between the axes' ends */
        .height = 266};
    char *svg = NULL;
    assert_int_equal(plot_svg(&p, &svg), QFW_OK);
    return svg;
}

static void points_stand_where_the_axes_say(void **state) {
    (void)state;
    const plot_series s = {.x = x, .y = y, .n = 4, .line = 1};
    char *svg = drawn(&s, 1, "t");
    assert_non_null(strstr(svg, "<polyline class=\"k2\" points=\"52,40 252,140 452,240 \""));
    assert_non_null(strstr(svg, ">loss</text>"));
    assert_non_null(strstr(svg, ">0.6</text>"));
    assert_non_null(strstr(svg, ">80</text>"));
    assert_null(strstr(svg, ">120</text>"));
    mem_free(svg);
}

static void intervals_are_drawn(void **state) {
    (void)state;
    const plot_series s = {.x = x, .y = y, .low = low, .high = high, .n = 4, .ink = 1};
    char *svg = drawn(&s, 1, "t");
    assert_non_null(strstr(svg, "<line class=\"k3\" x1=\"252\" y1=\"90\" x2=\"252\" y2=\"190\""));
    assert_non_null(strstr(svg, "<circle class=\"k3\" cx=\"252\" cy=\"140\""));
    assert_null(strstr(svg, "nan"));
    mem_free(svg);
}

static void colours_and_fonts_are_the_page_s(void **state) {
    (void)state;
    const plot_series s = {.x = x, .y = y, .n = 4, .line = 1};
    char *svg = drawn(&s, 1, "<script>&\"");
    assert_int_equal(strncmp(svg, "<svg ", 5), 0);
    assert_null(markup_problem(svg, 1));
    assert_null(markup_loads(svg));
    assert_null(strstr(svg, "\"#"));
    assert_null(strstr(svg, "font-family"));
    assert_non_null(strstr(svg, "<title id=\"a-title\">&lt;script&gt;&amp;&quot;</title>"));
    mem_free(svg);
}

static void same_bytes_twice(void **state) {
    (void)state;
    const plot_series s = {.x = x, .y = y, .n = 4, .line = 1};
    char *first = drawn(&s, 1, "t"), *second = drawn(&s, 1, "t");
    assert_string_equal(first, second);
    mem_free(first);
    mem_free(second);
}

static void nothing_and_one_point_are_fine(void **state) {
    (void)state;
    const plot_series one = {.x = x, .y = y, .n = 1, .line = 1};
    char *none = drawn(NULL, 0, "t"), *single = drawn(&one, 1, "t");
    assert_null(markup_problem(none, 1));
    assert_null(strstr(none, "nan"));
    assert_non_null(strstr(single, "<circle class=\"k2\""));
    assert_null(strstr(single, "inf"));
    mem_free(none);
    mem_free(single);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(points_stand_where_the_axes_say),
        cmocka_unit_test(intervals_are_drawn),
        cmocka_unit_test(colours_and_fonts_are_the_page_s),
        cmocka_unit_test(same_bytes_twice),
        cmocka_unit_test(nothing_and_one_point_are_fine),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
