/* html.h -- the little that a page written by hand needs. */
#ifndef SERVE_HTML_H
#define SERVE_HTML_H

#include <stdint.h>
#include <stdio.h>

/* Any text, as HTML or XML shows it: & < > " ' as entities, control characters (but for line feed
 * and tab) and bytes that are no UTF-8 as U+FFFD. Never closes an element or an attribute. */
void html_text(FILE *out, const char *text);

/* A number with `digits` after the point; an en dash where there is none. The minus is a minus. */
void html_number(FILE *out, double value, int digits);
void html_count(
    FILE *out, int64_t n);        /* 1234567 as 1 234 567, in narrow spaces that do not break */
void html_p(FILE *out, double p); /* "0.0123" or "&lt; 0.0001", of a test */

#endif
