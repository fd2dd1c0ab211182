/* html.c -- see html.h. */
#include "serve/html.h"

#include <math.h>

#include "base/error.h"

void html_text(FILE *out, const char *text) {
    while (*text) {
        const size_t n = err_printable(text);
        if (!n && *text != '\n' && *text != '\t')
            fputs("\xEF\xBF\xBD", out);
        else if (*text == '&')
            fputs("&amp;", out);
        else if (*text == '<')
            fputs("&lt;", out);
        else if (*text == '>')
            fputs("&gt;", out);
        else if (*text == '"')
            fputs("&quot;", out);
        else if (*text == '\'')
            fputs("&#39;", out);
        else
            fwrite(text, 1, n ? n : 1, out);
        text += n ? n : 1;
    }
}

void html_number(FILE *out, double value, int digits) {
    char text[64];
    snprintf(text, sizeof text, "%.*f", digits, fabs(value));
    int is_zero = 1;
    for (const char *c = text; *c; c++) is_zero = is_zero && (*c == '0' || *c == '.');
    if (isnan(value))
        fputs("\xE2\x80\x93", out);
    else
        fprintf(out, "%s%s", value < 0 && !is_zero ? "\xE2\x88\x92" : "", text);
}

void html_count(FILE *out, int64_t n) {
    char text[32];
    const int length = snprintf(text, sizeof text, "%lld", (long long)n);
    for (int i = 0; i < length; i++) {
        const int left = length - i;
        if (i && left % 3 == 0 && text[i - 1] != '-') fputs("\xE2\x80\xAF", out);
        fputc(text[i], out);
    }
}

void html_p(FILE *out, double p) {
    if (p < 0.0001)
        fputs("&lt;&nbsp;0.0001", out);
    else
        html_number(out, p, 4);
}
