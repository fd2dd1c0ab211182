/* suite_setup.h -- how the cases of the suite make their operands.
 */
#ifndef OPS_SUITE_SETUP_H
#define OPS_SUITE_SETUP_H

#include "ops/suite.h"

/* How float inputs lie: dense; with a gap after each row; with a gap after each value. */
enum { LAYOUT_DENSE = 0, LAYOUT_WIDE = 1, LAYOUT_SPREAD = 2 };
/* What random floats are: in (-1, 1); all 0; in (-8, 8). */
enum { DATA_RANDOM = 0, DATA_ZERO = 1, DATA_LARGE = 2 };

enum { SUITE_BLOCKS = 32, SUITE_GUARD = 256 /* bytes before and after a payload */ };

typedef struct suite_setup {
    uint32_t code, dtype, layout, data; /* dtype: of the floats */
    uint64_t seed;
    suite_block blocks[SUITE_BLOCKS];
    uint32_t n_blocks;
    uint32_t n_in, n_out, param_bytes;
    uint8_t have[QFW_MAX_IN], want[QFW_MAX_OUT];
    qfw_tensor in[QFW_MAX_IN];
    qfw_quant quant;
    double params[16]; /* the params struct's bytes */
} suite_setup;

/* One case: builds inputs, params and want from its six numbers. */
typedef struct suite_case {
    uint32_t code;
    const char *name;
    qfw_status (*build)(suite_setup *s, const int64_t *d);
    int64_t d[6];
} suite_case;
extern const suite_case suite_nn_cases[], suite_prim_cases[];
extern const uint32_t suite_nn_count, suite_prim_count;

void setup_free(suite_setup *s);
/* A dense tensor in a block of its own between sentinels, its payload 0. */
qfw_status setup_tensor(suite_setup *s, const op_shape *shape, uint32_t usage, qfw_tensor *out);

/* Set input i. Floats take the setup's dtype, layout and data. */
qfw_status setup_random(suite_setup *s, uint32_t i, int64_t dim0, int64_t dim1);
qfw_status setup_random_1d(suite_setup *s, uint32_t i, int64_t dim0);
/* Floats in (low, high), whatever the setup's data. rank 1 or 2. */
qfw_status setup_between(
    suite_setup *s, uint32_t i, uint32_t rank, int64_t dim0, int64_t dim1, double low, double high);
/* Integers low .. high, at random; rank 1 or 2. */
qfw_status setup_ints(suite_setup *s, uint32_t i, uint32_t rank, int64_t dim0, int64_t dim1,
    int32_t low, int32_t high);
qfw_status setup_int_values(
    suite_setup *s, uint32_t i, int64_t dim0, int64_t dim1, const int32_t *values);
/* A weight packed as `type`, blocks of 64, with nested scales or without. */
qfw_status setup_packed(
    suite_setup *s, uint32_t i, uint32_t type, int64_t M, int64_t K, int nested);
/* What output `out` of op `code` is for these inputs of the setup (from[k]: number of an input, -1:
 * none), run by the reference with the setup's params. */
qfw_status setup_result(suite_setup *s, uint32_t i, uint32_t code, uint32_t n_from, const int *from,
    uint32_t param_bytes, uint32_t out);
void setup_params(suite_setup *s, const void *params, uint32_t bytes);
void setup_want(suite_setup *s, uint32_t n_out, uint32_t bits); /* bit o: output o */

#endif
