/* sensitivity.h -- how far scores move when the question is worded otherwise, and when the evidence
 * is taken away or doubled: what a score rests on.
 */
#ifndef SERVE_SENSITIVITY_H
#define SERVE_SENSITIVITY_H

#include "serve/evalset.h"
#include "serve/score.h"

/* One scorer on one set; all borrowed. */
typedef struct sensitivity_in {
    const score_opts *o; /* with the rubric as it is */
    engine *e;
    const evalset *set;
    const evaluation *plain; /* of the set under that rubric */
} sensitivity_in;

/* Score the set under each of the prompts, too, and print a line a skill: the spread of the
 * expected score over all wordings (mean over documents of highest - lowest), and the share of
 * documents whose score is not the same under all. */
qfw_status sensitivity_wordings(
    const sensitivity_in *in, const char *const *prompts, uint32_t n, FILE *out);
/* The first n rows with evidence: the mean expected score of a skill as it is, without the words
 * that speak for it, and with them said twice. */
qfw_status sensitivity_evidence(const sensitivity_in *in, uint64_t n, FILE *out);

#endif
