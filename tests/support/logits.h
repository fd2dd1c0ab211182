/* logits.h -- two rows of tokens as one batch, and their logits against a fixture's at a few
 * positions. */
#ifndef SUPPORT_LOGITS_H
#define SUPPORT_LOGITS_H

#include "lab.h"

enum { MAX_POSITIONS = 16, MAX_TOKENS = 256 };

typedef struct logits_case {
    int64_t n_tokens, n_positions;
    int64_t position[MAX_POSITIONS];
    int32_t token[2][MAX_TOKENS];
} logits_case;

/* From the lists at ptr of a fixture: two rows of tokens of one length; the positions. */
void logits_tokens(const qfw_doc *d, const char *ptr, logits_case *c);
void logits_positions(const qfw_doc *d, const char *ptr, logits_case *c);
/* rows.jsonl of the lab, every token trained. */
void logits_rows(const lab *l, const logits_case *c);
/* The open run's logits of both rows, [2, n_tokens, V]; free(). Its data must be logits_rows'. */
float *logits_run(lab *l, const logits_case *c);
/* lab_relative of `all` at the positions against tensor `name` of a file below tests/golden. */
double logits_against(
    const lab *l, const logits_case *c, const float *all, const char *file, const char *name);

#endif
