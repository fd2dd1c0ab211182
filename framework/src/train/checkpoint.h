/* checkpoint.h -- checkpoint-<step>/ folders: written aside, synced, renamed, verified by their
 * manifest. */
#ifndef TRAIN_CHECKPOINT_H
#define TRAIN_CHECKPOINT_H

#include "train/progress.h"

/* Write checkpoint-<p->step>; then, and only then, drop those of later steps, which are of a past
 * that was left, and the oldest beyond save_total_limit, but never the best that is kept. */
qfw_status checkpoint_save(run *r, const progress *p);
/* What a run that died between the two left to drop: for one that goes on after p->step. */
qfw_status checkpoint_prune(const run *r, const progress *p);
/* That of a step is no longer wanted. */
qfw_status checkpoint_drop(const run *r, uint64_t step);
/* A run that starts over in output_dir: what another one left there is dropped. */
qfw_status checkpoint_forget(const run *r);
/* What a killed run was writing there is removed. */
qfw_status checkpoint_sweep(const run *r);
/* Whether output_dir holds any. */
int checkpoint_exists(const run *r);

/* What resume_from_checkpoint asks for: the folder (mem_free), or NULL to start from the beginning.
 * With auto, checkpoints whose manifest does not verify are named and passed over. */
qfw_status checkpoint_find(const run *r, char **folder);
/* The run's place in `folder`, into *p. The INI must ask for the same training. */
qfw_status checkpoint_place(run *r, const char *folder, progress *p);
/* Its tensors into the store. */
qfw_status checkpoint_load(run *r, const char *folder);
/* Those of the best step, where that is not the last. */
qfw_status checkpoint_load_best(run *r, const progress *p);

#endif
