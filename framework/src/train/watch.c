/* watch.c -- see watch.h. */
#include "train/watch.h"

int watch_norm(watch *w, double norm, double *mean) {
    const uint64_t n = w->n_norms < WATCH_NORMS ? w->n_norms : WATCH_NORMS;
    *mean = 0;
    for (uint64_t i = 0; i < n; i++) *mean += w->norms[i] / (double)n;
    w->norms[w->n_norms++ % WATCH_NORMS] = norm;
    return n >= WATCH_FEWEST && *mean > 0 && norm > WATCH_FACTOR * *mean;
}

int watch_loss(watch *w, double loss) {
    const int same = w->n_same > 0 && !(loss < w->loss) && !(loss > w->loss);
    w->n_same = same ? w->n_same + 1 : 1;
    w->loss = loss;
    return w->n_same == WATCH_SAME;
}
