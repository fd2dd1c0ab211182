/* set_scorer.h -- the set of [evaluate] and a model that scores it by the rubric. */
#ifndef SERVE_SET_SCORER_H
#define SERVE_SET_SCORER_H

#include "serve/evalset.h"
#include "serve/score.h"

typedef struct set_scorer {
    run *r;
    rubric *rubric;
    score_opts o;
    evalset *set;
    engine *e;
} set_scorer;

/* Rubric and set, read and checked; after run_open_model. */
qfw_status set_scorer_open(run *r, set_scorer *k);
/* The graphs; after run_open_device. Memory is the caller's to take (engine_alloc). */
qfw_status set_scorer_plan(set_scorer *k);
/* Score it with the weights as they are. */
qfw_status set_scorer_run(set_scorer *k, const char *name, evaluation **out);
void set_scorer_close(set_scorer *k); /* leaves the run */

#endif
