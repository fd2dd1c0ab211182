/* outputs.h -- what a run leaves in a folder: weights as others read them, settings, provenance. */
#ifndef TRAIN_OUTPUTS_H
#define TRAIN_OUTPUTS_H

#include "train/progress.h"

/* What in output_dir must not be overwritten by accident. */
typedef struct output_mark {
    const char *pattern; /* a file that holds something; "name*": any that begins so */
    const char *what;    /* "a run" */
    int is_own;          /* of this task */
} output_mark;
typedef struct output_kind {
    const output_mark *marks; /* up to a pattern NULL; checkpoints are a run, too */
    int resumes;              /* the task can go on with its own */
    int writes_weights;       /* so that it must not be where the weights are read from */
} output_kind;
/* output_dir could be made, or is there and holds nothing that this run would not go on with;
 * E_OUT_*. Nothing is written. */
qfw_status output_check(const run *r, const output_kind *k);
/* Make it and keep other runs out of it (E_OUT_LOCKED) until run_close; what a killed run left half
 * done is gone. */
qfw_status output_claim(run *r, const output_kind *k);
/* For run_close: a folder that was new and is empty is removed. */
void output_release(run *r);
/* Whether it holds all that a run leaves: manifest.json comes last, and goes when a run begins. */
int output_is_whole(const run *r);
qfw_status output_begin(const run *r);

/* The adapter in PEFT's layout, or, for full training, the model; with tokenizer and config
 * files. */
qfw_status outputs_weights(run *r, const char *folder);
qfw_status outputs_resolved(const run *r, const char *folder); /* resolved.ini */
/* README.md, the model card, from the finished trainer_log.jsonl; one that qfw did not write stays
 * as it is. */
qfw_status outputs_card(const run *r, const char *folder, const progress *p);
int outputs_has_card(const run *r); /* output_dir holds one, and qfw wrote it */
/* manifest.json of the run: what went in (data, base, config, plugins, with hashes) and what came
 * out. */
qfw_status outputs_manifest(const run *r, const char *folder, const progress *p);

/* MANIFEST.json of a checkpoint: its files with sizes and hashes, written last. */
qfw_status manifest_write_all(const char *folder);
/* Every listed file is there with its size and hash; E_CKPT_*. */
qfw_status manifest_verify(const char *folder);

#endif
