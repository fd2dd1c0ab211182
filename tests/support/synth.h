/* synth.h -- weights made from their names: the C side of the formula in tests/parity/README.md. */
#ifndef SUPPORT_SYNTH_H
#define SUPPORT_SYNTH_H

#include <stddef.h>
#include <stdint.h>

uint64_t synth_word(const char *name, uint64_t i);
/* n values of the tensor `name`, row-major. */
void synth_fill(const char *name, double base, double scale, float *out, int64_t n);

/* How a fixture's tensors are scaled: the entries of its list "synth", first match wins. A scale
 * below 0 stands for 1/sqrt(last dimension). */
typedef struct synth_rule {
    const char *match;
    double base, scale;
} synth_rule;
/* The tensor `name` with last dimension `cols` under the rules (ended by match ""). */
void synth_tensor(const synth_rule *rules, const char *name, int64_t cols, float *out, int64_t n);

#endif
