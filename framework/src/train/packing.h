/* packing.h -- which rows of [data] train are taken together: one by one, or packed. */
#ifndef TRAIN_PACKING_H
#define TRAIN_PACKING_H

#include "train/run.h"

/* Unit u is the rows row[first[u]] .. row[first[u + 1] - 1] of the set: what a batch, an epoch and
 * its order count. */
struct packing {
    uint32_t n, n_rows;
    uint32_t most;         /* rows of a unit at most */
    uint32_t *first, *row; /* [n + 1], [n_rows] */
};

/* [data] packing = false: each row is a unit. true: units of at most max_length tokens, by best fit
 * in the order of decreasing length, which is TRL's packing "bfd" over the whole set. A trainer
 * whose rows are several sequences has none. */
qfw_status packing_create(const run *r, dataset *d, packing **out);
void packing_destroy(packing *p); /* NULL is ignored */
/* Examples that a batch of n units has at most. */
uint32_t packing_examples(const packing *p, uint32_t n);
/* A line for a person, where rows are packed. */
void packing_print(const run *r, FILE *out);
/* Rows of the n longest units of d, NULL: of its examples. No batch of n has more. */
qfw_status packing_longest(const run *r, const packing *p, dataset *d, uint32_t n, uint64_t *rows);

#endif
