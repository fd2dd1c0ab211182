/* score_task.h -- the task `score`: documents in, scores.jsonl and scores.csv out. */
#ifndef SERVE_SCORE_TASK_H
#define SERVE_SCORE_TASK_H

#include "serve/score.h"

qfw_status score_task(run *r, FILE *out);

/* What [score], [data] and the model say; the rubric is the caller's. After run_open_model. */
score_opts score_settings(const run *r, const rubric *rub);
/* Slots for that. */
engine_opts score_engine(const score_opts *o);

#endif
