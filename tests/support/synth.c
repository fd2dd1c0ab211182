/* synth.c -- see synth.h. */
#include "synth.h"

#include <math.h>
#include <string.h>

#include "base/rng.h"

static uint64_t mix(uint64_t h, uint64_t i) {
    uint64_t z = h + (i + 1) * 0x9E3779B97F4A7C15u;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
}

uint64_t synth_word(const char *name, uint64_t i) { return mix(fnv1a64(name), i); }

void synth_fill(const char *name, double base, double scale, float *out, int64_t n) {
    const uint64_t h = fnv1a64(name);
    for (int64_t i = 0; i < n; i++) {
        const double u = (double)(mix(h, (uint64_t)i) >> 40);
        const double unit = (2.0 * u + 1.0 - 16777216.0) / 16777216.0;
        const double offset = scale * unit;
        out[i] = (float)(base + offset);
    }
}

void synth_tensor(const synth_rule *rules, const char *name, int64_t cols, float *out, int64_t n) {
    while (*rules->match && !strstr(name, rules->match)) rules++;
    const double scale = rules->scale < 0 ? 1.0 / sqrt((double)cols) : rules->scale;
    synth_fill(name, rules->base, scale, out, n);
}
