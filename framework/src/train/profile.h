/* profile.h -- --profile: where the time of a run went, as a table and as a Chrome trace. */
#ifndef TRAIN_PROFILE_H
#define TRAIN_PROFILE_H

#include "train/progress.h"

/* The table to `out`, summed over all graphs; the trace to profile.json in output_dir. */
qfw_status profile_write(const run *r, const progress *p, FILE *out);

#endif
