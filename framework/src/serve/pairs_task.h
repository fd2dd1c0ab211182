/* pairs_task.h -- the task `pairs`: preference pairs from the model's own answers about documents
 * whose scores are known.
 *
 * For each document and skill the model answers some times; what is chosen has a score in the
 * expected range, what is rejected one outside. Where the samples hold no such answer, one is made:
 * the right score, or a wrong one, with the reason that the model itself gives for it.
 */
#ifndef SERVE_PAIRS_TASK_H
#define SERVE_PAIRS_TASK_H

#include "train/run.h"

enum { N_PAIRS_OPTIONS = 4 };
extern const qfw_option pairs_options[N_PAIRS_OPTIONS]; /* [pairs] */

/* Write output_dir/pairs.jsonl: rows for trainer dpo, a line each, that a person can read and
 * correct; `provenance` in each says how it came about. */
qfw_status pairs_task(run *r, FILE *out);

#endif
