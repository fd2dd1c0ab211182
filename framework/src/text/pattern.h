/* pattern.h -- regular expressions, as the tokenizers library reads them. */
#ifndef TEXT_PATTERN_H
#define TEXT_PATTERN_H

#include "qfw/status.h"

typedef struct pattern pattern;
typedef struct pattern_spans {
    struct pattern_span {
        size_t end; /* a span starts where the one before ends */
        int match;
    } * at;
    size_t n, cap;
} pattern_spans;

/* `literal`: the text itself instead of a regular expression. E_TOK_UNSUPPORTED for one that is not
 * known to mean the same here as in the tokenizers library. */
qfw_status pattern_compile(const char *text, int literal, const char *file, pattern **out);
void pattern_free(pattern *p);
/* Cut s[0..n) into matches and what lies between them. */
qfw_status pattern_split(const pattern *p, const char *s, size_t n, pattern_spans *out);

#endif
