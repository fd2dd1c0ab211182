/* finite.h -- whether numbers are finite, by the bits of their exponents.
 *
 * Integers, not isfinite: a compiler that was told that no NaN exists (-Ofast, -ffast-math) would
 * take that test away.
 */
#ifndef BASE_FINITE_H
#define BASE_FINITE_H

#include <stdint.h>

int finite_f32(float v);
int finite_f64(double v);
/* The index of the first of n values that is not finite, n where all are. QFW_F32, QFW_BF16 and
 * QFW_F16 are looked at; values of another dtype are always finite. */
uint64_t finite_all(const void *values, uint32_t dtype, uint64_t n);

#endif
