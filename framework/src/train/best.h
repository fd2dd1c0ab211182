/* best.h -- the best evaluation so far: which value decides, and when there is no hope of a better
 * one. As transformers has it: load_best_model_at_end, metric_for_best_model, early stopping.
 */
#ifndef TRAIN_BEST_H
#define TRAIN_BEST_H

#include "train/judge.h"

/* Whether the best weights are kept, and are the result of the run. */
int best_is_kept(const run *r);
/* The value that decides, as eval_values names it. */
const char *best_metric(const run *r);
/* That the run's evaluations will have it. After the graphs and the judge are planned. */
qfw_status best_check(const run *r);
/* Look at an evaluation of step p->step; 1: it is the best so far. */
int best_take(const run *r, progress *p, const eval_values *v);
/* Whether early_stopping_patience has run out. */
int best_is_over(const run *r, const progress *p);

#endif
