/* neftune.h -- uniform noise on the embeddings of training (Jain et al., NEFTune, 2023):
 * +- alpha / sqrt(tokens of the sequence * width). transformers takes the padded length instead.
 */
#ifndef TRAIN_NEFTUNE_H
#define TRAIN_NEFTUNE_H

#include "train/batch.h"

double neftune_alpha(const run *r); /* 0: none */
/* noise [n_rows, width], keyed by row_key as dropout is: the same however rows are batched; zero
 * past the batch's tokens. */
void neftune_fill(const run *r, const batch *b, int64_t n_rows, int64_t width, float *noise);

#endif
