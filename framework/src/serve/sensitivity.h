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
    evaluation *plain; /* of the set under that rubric; takes what is found */
} sensitivity_in;

/* Score the set under each of the prompts, too: `moved` and `spread` of every skill, over the
 * rubric's own wording and these. */
qfw_status sensitivity_wordings(const sensitivity_in *in, const char *const *prompts, uint32_t n);
/* The first n rows with evidence: the mean expected score of a skill as it is, without the words
 * that speak for it, and with them said twice. */
qfw_status sensitivity_evidence(const sensitivity_in *in, uint32_t n);

#endif
