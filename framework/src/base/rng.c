/* rng.c -- Philox4x32-10, FNV-1a, and torch's mt19937 for permutations. */
#define _POSIX_C_SOURCE 200809L
#include "base/rng.h"

#include <math.h>

void philox4x32(const uint32_t counter[4], const uint32_t key[2], uint32_t out[4]) {
    uint32_t c0 = counter[0], c1 = counter[1], c2 = counter[2], c3 = counter[3];
    uint32_t k0 = key[0], k1 = key[1];
    for (int round = 0; round < 10; round++) {
        const uint64_t p0 = (uint64_t)0xD2511F53u * c0, p1 = (uint64_t)0xCD9E8D57u * c2;
        c0 = (uint32_t)(p1 >> 32) ^ c1 ^ k0;
        c2 = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
        c1 = (uint32_t)p1;
        c3 = (uint32_t)p0;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    out[0] = c0;
    out[1] = c1;
    out[2] = c2;
    out[3] = c3;
}

/* The four words at place i of the stream (seed, name): the seed is the key, and the name's hash
 * the upper half of the counter. */
static void rng_words(uint64_t seed, const char *name, uint64_t i, uint32_t out[4]) {
    const uint64_t hash = fnv1a64(name);
    const uint32_t key[2] = {(uint32_t)seed, (uint32_t)(seed >> 32)};
    const uint32_t counter[4] = {
        (uint32_t)i, (uint32_t)(i >> 32), (uint32_t)hash, (uint32_t)(hash >> 32)};
    philox4x32(counter, key, out);
}

float rng_uniform(uint64_t seed, const char *name, uint64_t i) {
    uint32_t word[4];
    rng_words(seed, name, i, word);
    return (float)(word[0] >> 8) * 0x1p-24f;
}

float rng_normal(uint64_t seed, const char *name, uint64_t i) {
    const double two_pi = 6.283185307179586;
    uint32_t word[4];
    rng_words(seed, name, i, word);
    const uint64_t a = ((uint64_t)word[0] << 32 | word[1]) >> 11;
    const uint64_t b = ((uint64_t)word[2] << 32 | word[3]) >> 11;
    const double radius = sqrt(-2.0 * log(((double)a + 1.0) * 0x1p-53)); /* log of (0, 1] */
    return (float)(radius * cos(two_pi * ((double)b * 0x1p-53)));
}

uint32_t fnv1a32(const char *text) {
    uint32_t hash = 0x811C9DC5u;
    for (; *text; text++) hash = (hash ^ (unsigned char)*text) * 0x01000193u;
    return hash;
}

uint64_t fnv1a64(const char *text) {
    uint64_t hash = 0xCBF29CE484222325u;
    for (; *text; text++) hash = (hash ^ (unsigned char)*text) * 0x100000001B3u;
    return hash;
}

/* mt19937 as Matsumoto and Nishimura give it. */
enum { MT_N = 624, MT_M = 397 };

typedef struct mt19937 {
    uint32_t state[MT_N], at;
} mt19937;

static void mt_seed(mt19937 *mt, uint32_t seed) {
    mt->state[0] = seed;
    for (uint32_t i = 1; i < MT_N; i++) {
        const uint32_t last = mt->state[i - 1];
        mt->state[i] = 1812433253u * (last ^ (last >> 30)) + i;
    }
    mt->at = MT_N;
}

static void mt_refill(mt19937 *mt) {
    uint32_t *s = mt->state;
    for (uint32_t i = 0; i < MT_N; i++) {
        const uint32_t y = (s[i] & 0x80000000u) | (s[(i + 1) % MT_N] & 0x7FFFFFFFu);
        s[i] = s[(i + MT_M) % MT_N] ^ (y >> 1) ^ (y & 1 ? 0x9908B0DFu : 0);
    }
    mt->at = 0;
}

static uint32_t mt_next(mt19937 *mt) {
    if (mt->at == MT_N) mt_refill(mt);
    uint32_t y = mt->state[mt->at++];
    y ^= y >> 11;
    y ^= (y << 7) & 0x9D2C5680u;
    y ^= (y << 15) & 0xEFC60000u;
    return y ^ (y >> 18);
}

void torch_randperm(uint64_t seed, uint32_t n, uint32_t *out) {
    mt19937 mt;
    mt_seed(&mt, (uint32_t)seed); /* torch too keeps the low half only */
    for (uint32_t i = 0; i < n; i++) out[i] = i;
    for (uint32_t i = 0; i + 1 < n; i++) {
        const uint32_t j = i + mt_next(&mt) % (n - i);
        const uint32_t taken = out[j];
        out[j] = out[i];
        out[i] = taken;
    }
}
