/* reference.h -- the frozen policy that a preference loss measures against.
 *
 * It is the adapter that [adapter] path names, or the base model where the adapter is fresh, on the
 * same base weights. Either every pass runs it beside the policy; or, with the trainer's key
 * precompute_ref_log_probs, its log-probabilities are computed once, before the first step, by the
 * policy itself, and kept in a file that the next run with the same model, adapter and rows reads.
 */
#ifndef TRAIN_REFERENCE_H
#define TRAIN_REFERENCE_H

#include "train/graphs.h"

/* Whether the trainer needs a reference whose log-probabilities are kept. */
int reference_is_stored(const run *r);
/* Host memory that they take. */
uint64_t reference_bytes(const run *r);
/* With the weights that the run starts from, before a checkpoint is taken up: the hash of the
 * adapter (graphs.reference_sha256), and what is kept, read or computed. */
qfw_status reference_prepare(run *r);
/* Of the trained tokens of sequence `seq` of e, one after another; NULL: nothing is kept. */
const float *reference_logps(const run *r, const qfw_example *e, uint32_t seq);
char *reference_path(const run *r); /* of the file; mem_free */
void reference_free(reference_rows *rows);

/* ref_cache.c: the file. The key is a hash over everything that its numbers depend on. */
qfw_status ref_cache_key(const run *r, char key[65]);
/* Fill r->graphs->reference from the file. *found = 0: there is none, it is another run's, or it is
 * damaged; the log says which. */
qfw_status ref_cache_read(const run *r, const char *path, const char *key, int *found);
qfw_status ref_cache_write(const run *r, const char *path, const char *key);

#endif
