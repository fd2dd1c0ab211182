/* quant4.h -- NF4 and FP4, and the nested 8-bit scales, bit for bit as bitsandbytes has them.
 * Host side: weights are packed once, when they are loaded. */
#ifndef OPS_QUANT4_H
#define OPS_QUANT4_H

#include "qfw/tensor.h"

/* Which nearest-code rule nested scales take: exact nearest (bitsandbytes on CUDA), or the
 * 65536-entry table of its CPU path, which fixtures made on a CPU hold. */
enum { QUANT8_NEAREST = 0, QUANT8_CPU_TABLE = 1 };

uint64_t quant4_code_bytes(int64_t n);            /* (n + 1) / 2 */
int64_t quant4_blocks(int64_t n, uint32_t block); /* ceil(n / block) */
/* Pack n floats: codes (quant4_code_bytes), absmax (quant4_blocks). type QFW_NF4 or QFW_FP4.
 * Refuses a value that is not finite: QFW_E_DATA with its flat index. A zero block gives absmax 0
 * and zero codes. */
qfw_status quant4_encode(
    uint32_t type, const float *w, int64_t n, uint32_t block, uint8_t *codes, float *absmax);
/* Nest n scales: codes [n], nested absmax [ceil(n/256)], *offset their fp32 mean, map
 * quant8_map(). */
qfw_status quant8_nest(
    const float *absmax, int64_t n, uint32_t rule, uint8_t *codes, float *nested, float *offset);
/* The 256 ascending values of bitsandbytes' dynamic maps: -1 .. 1, and 0 .. 1. */
const float *quant8_map(void);
const float *quant8_unsigned_map(void);
const float *quant4_codebook(uint32_t type); /* 16 values */
/* Values first .. first+count-1 of a packed weight (flat), as bitsandbytes decodes them to fp32.
 * The quant's mem are host addresses, as is t->mem. */
void quant4_decode(const qfw_tensor *t, int64_t first, int64_t count, float *out);

#endif
