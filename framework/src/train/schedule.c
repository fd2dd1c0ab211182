/* schedule.c -- learning rate schedules, in transformers' order of operations: the factors are
 * bit-equal. */
#include <math.h>
#include <string.h>

#include "train/run.h"

double schedule_factor(const char *type, uint64_t s, uint64_t warmup, uint64_t total) {
    const double pi = 3.14159265358979323846;
    if (!strcmp(type, "constant"))
        return 1; /* warmup_steps has no part in it, as in transformers */
    if (s < warmup) return (double)s / (double)warmup;
    if (!strcmp(type, "constant_with_warmup")) return 1;
    const double span = total > warmup ? (double)(total - warmup) : 1;
    double factor;
    if (!strcmp(type, "cosine"))
        factor = 0.5 * (1.0 + cos(pi * 0.5 * 2.0 * ((double)(s - warmup) / span)));
    else
        factor = ((double)total - (double)s) / span; /* linear */
    return factor > 0 ? factor : 0;
}
