/* finite.c -- see finite.h. */
#include "base/finite.h"

#include <string.h>

#include "qfw/tensor.h"

enum { EXPONENT_F32 = 0x7f800000, EXPONENT_BF16 = 0x7f80, EXPONENT_F16 = 0x7c00 };

int finite_f32(float v) {
    uint32_t bits;
    memcpy(&bits, &v, sizeof bits);
    return (bits & EXPONENT_F32) != EXPONENT_F32;
}

int finite_f64(double v) {
    const uint64_t exponent = (uint64_t)0x7ff << 52;
    uint64_t bits;
    memcpy(&bits, &v, sizeof bits);
    return (bits & exponent) != exponent;
}

uint64_t finite_all(const void *values, uint32_t dtype, uint64_t n) {
    const char *at = values;
    const uint16_t mask = dtype == QFW_BF16 ? EXPONENT_BF16 : EXPONENT_F16;
    const uint64_t is_half = dtype == QFW_BF16 || dtype == QFW_F16;
    if (dtype != QFW_F32 && !is_half) return n;
    for (uint64_t i = 0; i < n; i++) {
        uint32_t wide = 0;
        uint16_t half = 0;
        if (is_half)
            memcpy(&half, at + 2 * i, sizeof half);
        else
            memcpy(&wide, at + 4 * i, sizeof wide);
        if (is_half ? (half & mask) == mask : (wide & EXPONENT_F32) == EXPONENT_F32) return i;
    }
    return n;
}
