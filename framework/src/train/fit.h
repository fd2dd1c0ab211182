/* fit.h -- the quickest plan that fits: what of the forward is kept for the backward, and in how
 * many passes a micro-batch is taken. */
#ifndef TRAIN_FIT_H
#define TRAIN_FIT_H

#include "train/plan_report.h"

/* Of a run: `recompute` is a RECOMPUTE_*; `passes` in how many a batch of the INI is taken, so that
 * batch_size and accumulation are of one of them; `length_cap` plans as if no row were longer,
 * 0: as they are. */

/* Plan the graphs, and the judge. As [trainer] gradient_checkpointing says; under auto the first of
 * none, selective and full whose plan fits, then full in as many passes a micro-batch as it takes
 * where the trainer's rows are independent. What does not fit either is planned all the same:
 * plan_check refuses it. */
qfw_status fit_plan(run *r);
/* A checkpoint was made with this many passes a micro-batch: so does the run that goes on from it,
 * since sums in another order have other bits. E_PLAN_MEMORY where that does not fit any more. */
qfw_status fit_passes(run *r, uint32_t passes);
/* plan_check; when it refuses, with the changes that would fit, each with what the plan then needs.
 * They are planned for that, so nothing of r's graphs may be in use after a refusal. */
qfw_status fit_check(run *r);
const char *fit_recompute_name(const run *r); /* "none", "selective", "full" */

#endif
