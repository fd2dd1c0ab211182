/* dropout.c -- the mask of LoRA's dropout, counted and never stored (ops_prim.h, DROPOUT). */
#include "cpu.h"

/* Philox4x32-10 (Salmon et al., SC11). */
static void philox(const uint32_t counter[4], uint32_t k0, uint32_t k1, uint32_t out[4]) {
    uint32_t x0 = counter[0], x1 = counter[1], x2 = counter[2], x3 = counter[3];
    for (int round = 0; round < 10; round++) {
        const uint64_t a = (uint64_t)0xD2511F53u * x0, b = (uint64_t)0xCD9E8D57u * x2;
        x0 = (uint32_t)(b >> 32) ^ x1 ^ k0;
        x1 = (uint32_t)b;
        x2 = (uint32_t)(a >> 32) ^ x3 ^ k1;
        x3 = (uint32_t)a;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    out[0] = x0;
    out[1] = x1;
    out[2] = x2;
    out[3] = x3;
}

void cpu_drop_row(const float *x, float *y, int64_t first, int64_t n, const int32_t key[2], float p,
    uint32_t seed, uint32_t module_hash) {
    const float scale = 1.0f / (1.0f - p);
    const double limit = (double)p * 4294967296.0;
    for (int64_t j = 0; j < n; j += 4) {
        const uint32_t counter[4] = {
            (uint32_t)key[0], (uint32_t)key[1], (uint32_t)((first + j) / 4), 0};
        uint32_t word[4];
        philox(counter, seed, module_hash, word);
        for (int64_t i = j; i < cpu_min(j + 4, n); i++)
            y[i] = (double)word[i - j] >= limit ? x[i] * scale : 0.0f;
    }
}
