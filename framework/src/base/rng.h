/* rng.h -- random numbers that need no state to save: Philox for everything qfw draws itself,
 * torch's mt19937 for the order of rows (so that it equals torch's), and FNV-1a to turn names into
 * keys. */
#ifndef BASE_RNG_H
#define BASE_RNG_H

#include <stddef.h>
#include <stdint.h>

/* Philox4x32-10 (Salmon et al., SC11). */
void philox4x32(const uint32_t counter[4], const uint32_t key[2], uint32_t out[4]);
/* Uniform in [0,1) with 24 bits, and standard normal (Box-Muller in double), at place i of the
 * stream named by (seed, name): value i depends on nothing else. */
float rng_uniform(uint64_t seed, const char *name, uint64_t i);
float rng_normal(uint64_t seed, const char *name, uint64_t i);

uint32_t fnv1a32(const char *text);
uint64_t fnv1a64(const char *text);

/* torch.randperm(n, generator=torch.Generator().manual_seed(seed)) on a CPU, n < 2^31. */
void torch_randperm(uint64_t seed, uint32_t n, uint32_t *out);

#endif
