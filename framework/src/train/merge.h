/* merge.h -- base and adapter as one plain model: W + scale * B A, a few rows at a time, in the
 * dtype that the base's file has. */
#ifndef TRAIN_MERGE_H
#define TRAIN_MERGE_H

#include "export/full.h"
#include "train/run.h"

enum {
    MERGE_BASE16,  /* W is the base's as it is on disk, however it was quantised for training */
    MERGE_DEQUANT, /* W is what the adapter was trained on: quantised and decoded again */
    MERGE_REQUANT, /* the sum of that quantised once more: a checkpoint of bitsandbytes */
};
/* Into a folder that is there, with config and tokenizer. The adapter's values are in the store;
 * r->files is opened and closed here. */
qfw_status merge_write(run *r, int mode, const char *folder);

/* Of a weight in that folder: what the base's file has; of codes, what the other tensors have. */
uint32_t merged_dtype(const run *r, const model_weight *w);
/* The merged rows, not yet rounded to that, go to `write`, with what it is to be told; MERGE_BASE16
 * and MERGE_DEQUANT. Without an adapter they are the base's. */
qfw_status merge_rows(
    run *r, int mode, qfw_status (*write)(void *arg, const full_rows *from), void *arg);

#endif
