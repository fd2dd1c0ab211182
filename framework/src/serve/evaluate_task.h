/* evaluate_task.h -- the task `evaluate`: a set with expected scores, one or several adapters, and
 * what they are worth. docs/evaluation.md says how to read the tables.
 */
#ifndef SERVE_EVALUATE_TASK_H
#define SERVE_EVALUATE_TASK_H

#include "serve/evalset.h"
#include "serve/evaluation.h"
#include "serve/score.h"

enum { N_EVALUATE_OPTIONS = 10 };
extern const qfw_option evaluate_options[N_EVALUATE_OPTIONS]; /* [evaluate] */

/* Score [evaluate] set with every adapter of [evaluate] adapters, one after another; write
 * evaluation-<name>.json for each, and report.html; print a table each and the comparison. */
qfw_status evaluate_task(run *r, FILE *out);

#endif
