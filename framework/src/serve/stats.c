/* stats.c -- see stats.h. */
#include "serve/stats.h"

#include <math.h>

share stats_share(uint64_t hits, uint64_t n) {
    const double z = 1.959963984540054; /* the normal's 97.5 % point */
    share s = {hits, n, (double)NAN, (double)NAN, (double)NAN};
    if (!n) return s;
    const double count = (double)n, p = (double)hits / count, zz = z * z / count;
    const double middle = (p + zz / 2) / (1 + zz);
    const double half = z / (1 + zz) * sqrt(p * (1 - p) / count + zz / (4 * count));
    s.value = p;
    s.low = hits ? middle - half : 0;
    s.high = hits < n ? middle + half : 1;
    return s;
}

double stats_binomial(uint64_t k, uint64_t n) {
    const uint64_t least = k < n - k ? k : n - k;
    const double count = (double)n;
    double tail = 0;
    if (!n) return 1;
    for (uint64_t i = 0; i <= least; i++) { /* from the smallest term on */
        const double x = (double)i;
        tail += exp(lgamma(count + 1) - lgamma(x + 1) - lgamma(count - x + 1) - count * log(2));
    }
    return 2 * tail < 1 ? 2 * tail : 1;
}

double stats_kappa(const uint32_t *a, const uint32_t *b, size_t n, uint32_t n_levels) {
    double seen = 0, chance = 0;
    for (size_t i = 0; i < n; i++) {
        const double d = (double)a[i] - (double)b[i];
        seen += d * d;
    }
    for (uint32_t x = 0; x < n_levels; x++) {
        double of_a = 0;
        for (size_t i = 0; i < n; i++) of_a += a[i] == x;
        for (size_t i = 0; i < n && of_a > 0; i++) {
            const double d = (double)x - (double)b[i];
            chance += of_a * d * d;
        }
    }
    return chance > 0 ? 1 - seen * (double)n / chance : (double)NAN;
}

void stats_holm(double *p, size_t m) {
    double floor = 0;
    uint8_t done[64] = {0};
    for (size_t k = 0; k < m && m <= sizeof done; k++) {
        size_t least = m;
        for (size_t i = 0; i < m; i++)
            if (!done[i] && (least == m || p[i] < p[least])) least = i;
        const double scaled = p[least] * (double)(m - k);
        if (scaled > floor) floor = scaled < 1 ? scaled : 1;
        p[least] = floor;
        done[least] = 1;
    }
}
