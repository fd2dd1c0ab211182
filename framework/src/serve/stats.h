/* stats.h -- the statistics of an evaluation: shares with intervals, exact tests, agreement,
 * calibration. All in double; NaN where there is nothing to say.
 */
#ifndef SERVE_STATS_H
#define SERVE_STATS_H

#include <stddef.h>
#include <stdint.h>

/* A share with its 95 % Wilson score interval (Wilson, 1927). n 0: all NaN. */
typedef struct share {
    uint64_t hits, n;
    double value, low, high;
} share;
share stats_share(uint64_t hits, uint64_t n);

/* Two-sided exact test of k out of n at probability 1/2: the sign test; McNemar's with the two
 * discordant counts (min(b, c), b + c). 1 where n is 0. */
double stats_binomial(uint64_t k, uint64_t n);

/* Cohen's kappa with quadratic weights (Cohen, 1968) of n pairs of levels below n_levels; NaN
 * where both raters know one level only. */
double stats_kappa(const uint32_t *a, const uint32_t *b, size_t n, uint32_t n_levels);

/* Holm's step-down correction (Holm, 1979) of m p-values, in place. */
void stats_holm(double *p, size_t m);

#endif
