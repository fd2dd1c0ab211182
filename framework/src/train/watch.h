/* watch.h -- what a run is warned of: numbers that are finite, and yet hint at a run gone wrong.
 * Kept in this process only, for it changes nothing. */
#ifndef TRAIN_WATCH_H
#define TRAIN_WATCH_H

#include <stdint.h>

enum { WATCH_NORMS = 32, WATCH_FEWEST = 8, WATCH_FACTOR = 100, WATCH_SAME = 50 };

typedef struct watch {
    double norms[WATCH_NORMS]; /* of the last steps, the oldest is overwritten */
    uint64_t n_norms;
    double loss;
    uint64_t n_same; /* steps in a row with that loss */
} watch;

/* Whether the norm is over WATCH_FACTOR times the mean of the last ones, which *mean becomes; then
 * it counts among them. */
int watch_norm(watch *w, double norm, double *mean);
/* Whether this is the WATCH_SAME-th step in a row with the same loss. */
int watch_loss(watch *w, double loss);

#endif
