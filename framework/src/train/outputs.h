/* outputs.h -- what a run leaves in a folder: weights as others read them, settings, provenance. */
#ifndef TRAIN_OUTPUTS_H
#define TRAIN_OUTPUTS_H

#include "train/progress.h"

/* The adapter in PEFT's layout, or, for full training, the model; with tokenizer and config
 * files. */
qfw_status outputs_weights(run *r, const char *folder);
qfw_status outputs_resolved(const run *r, const char *folder); /* resolved.ini */
/* manifest.json of the run: what went in (data, base, config, plugins, with hashes) and what came
 * out. */
qfw_status outputs_manifest(const run *r, const char *folder, const progress *p);

/* MANIFEST.json of a checkpoint: its files with sizes and hashes, written last. */
qfw_status manifest_write_all(const char *folder);
/* Every listed file is there with its size and hash; E_CKPT_*. */
qfw_status manifest_verify(const char *folder);

#endif
