/* curve.h -- the steps of a run, read back from trainer_log.jsonl. */
#ifndef SUPPORT_CURVE_H
#define SUPPORT_CURVE_H

#include "lab.h"

enum { MAX_STEPS = 64 };

typedef struct curve {
    double loss[MAX_STEPS], grad_norm[MAX_STEPS], learning_rate[MAX_STEPS], epoch[MAX_STEPS];
    double num_tokens[MAX_STEPS];
    int n;
} curve;

/* From out/trainer_log.jsonl of the lab's folder. */
void curve_read(const lab *l, curve *c);
/* Make out/ and train to the end; the log is then there. */
void curve_train(lab *l, curve *c);

#endif
