/* evaluation_print.h -- evaluations as tables for a person. */
#ifndef SERVE_EVALUATION_PRINT_H
#define SERVE_EVALUATION_PRINT_H

#include "serve/evaluation.h"

/* From which share of scores in range on an evaluation is called good, and fair. */
typedef struct verdict_bands {
    double good, fair;
} verdict_bands;

/* "good", "fair" or "poor". */
const char *evaluation_verdict(double in_range, const verdict_bands *bands);

/* One document's rows: skill, score, expected, verdict; then the verdict on the whole. */
void evaluation_print_document(
    const evaluation *e, const char *document, const verdict_bands *bands, FILE *out);
/* One line a skill and one for all. */
void evaluation_print(const evaluation *e, const verdict_bands *bands, FILE *out);
/* All of them on one set: a column each, then a line a pair with McNemar's test, Holm's correction
 * over the pairs, and what it says. QFW_E_DATA where they do not hold the same rows. */
qfw_status evaluation_print_comparison(const evaluation *const *list, uint32_t n, FILE *out);
/* What its probes found; nothing where there were none. */
void evaluation_print_sensitivity(const evaluation *e, FILE *out);

#endif
