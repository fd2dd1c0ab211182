/* matrix.c -- the matrices of a product as they are stored, read as fp32 a few values at a time:
 * fp32, 16 bits, or bitsandbytes' 4 bits, whose decoded values are its own.
 */
#include "cpu.h"

static const float nf4_code[16] = {-1.0f, -0.6961928009986877f, -0.5250730514526367f,
    -0.39491748809814453f, -0.28444138169288635f, -0.18477343022823334f, -0.09105003625154495f,
    0.0f, 0.07958029955625534f, 0.16093020141124725f, 0.24611230194568634f, 0.33791524171829224f,
    0.44070982933044434f, 0.5626170039176941f, 0.7229568362236023f, 1.0f};
static const float fp4_code[16] = {0.0f, 0.0052083334885537624f, 0.6666666865348816f, 1.0f,
    0.3333333432674408f, 0.5f, 0.1666666716337204f, 0.25f, -0.0f, -0.0052083334885537624f,
    -0.6666666865348816f, -1.0f, -0.3333333432674408f, -0.5f, -0.1666666716337204f, -0.25f};

static uint32_t log2_of(uint32_t power) {
    uint32_t bits = 0;
    while (power >> bits > 1) bits++;
    return bits;
}

cpu_matrix cpu_matrix_of(const qfw_tensor *t) {
    const qfw_quant *q = t->quant;
    cpu_matrix m = {.dtype = t->dtype,
        .data = (const char *)t->mem->data + t->offset,
        .ld = q ? t->dim[1] : t->stride[0]};
    if (!q) return m;
    m.code = t->dtype == QFW_NF4 ? nf4_code : fp4_code;
    m.absmax = (const char *)q->absmax_mem->data + q->absmax_offset;
    m.offset = (float)q->offset;
    m.block_bits = log2_of(q->block);
    m.compute = q->compute;
    if (q->nested_block) {
        m.nested_bits = log2_of(q->nested_block);
        m.nested =
            (const float *)(const void *)((const char *)q->nested_mem->data + q->nested_offset);
        m.map = (const float *)(const void *)((const char *)q->map_mem->data + q->map_offset);
    }
    return m;
}

/* --- 4 bits --- */

static float scale_of(const cpu_matrix *w, int64_t block) {
    if (!w->nested) return ((const float *)w->absmax)[block];
    const float product =
        w->map[((const uint8_t *)w->absmax)[block]] * w->nested[block >> w->nested_bits];
    return product + w->offset; /* two roundings, never one */
}

/* `n` values of one block from flat place `at` on: table[code] * scale. */
static void decode_run(const cpu_isa *isa, const uint8_t *data, int64_t at, int64_t n,
    const float *table, float scale, float *out) {
    int64_t i = 0;
    if (at & 1 && n) out[i++] = table[data[at / 2] & 15] * scale;
    const uint8_t *codes = data + (at + i) / 2;
    const int64_t many = (n - i) / 16 * 16;
    isa->decode(codes, many, table, scale, out + i);
    for (i += many, codes += many / 2; i + 2 <= n; i += 2, codes++) {
        out[i] = table[*codes >> 4] * scale;
        out[i + 1] = table[*codes & 15] * scale;
    }
    if (i < n) out[i] = table[*codes >> 4] * scale;
}

static void decode(
    const cpu_isa *isa, const cpu_matrix *w, int64_t row, int64_t col, int64_t n, float *out) {
    const uint8_t *data = (const uint8_t *)w->data;
    int64_t at = row * w->ld + col;
    const int64_t past = at + n;
    while (at < past) {
        const int64_t block = (int64_t)((uint64_t)at >> w->block_bits);
        const int64_t run = cpu_min(past, (block + 1) << w->block_bits) - at;
        const float scale = scale_of(w, block);
        if (w->compute == QFW_BF16 || w->compute == QFW_F16) {
            float table[16]; /* rounded already; times 1 it stays what it is */
            for (int i = 0; i < 16; i++) table[i] = cpu_round(w->code[i] * scale, w->compute);
            decode_run(isa, data, at, run, table, 1, out);
        } else {
            decode_run(isa, data, at, run, w->code, scale, out);
        }
        out += run;
        at += run;
    }
}

/* Rows far apart are brought nearer before they are read. */
void cpu_prefetch(const cpu_matrix *m, int64_t row, int64_t col) {
    const int64_t at = row * m->ld + col;
    __builtin_prefetch(m->data + (m->code ? at / 2 : m->dtype == QFW_F32 ? at * 4 : at * 2));
}

const float *cpu_values(
    const cpu_isa *isa, const cpu_matrix *m, int64_t row, int64_t col, int64_t n, float *buffer) {
    if (m->dtype == QFW_F32) return (const float *)(const void *)m->data + row * m->ld + col;
    if (m->code)
        decode(isa, m, row, col, n, buffer);
    else
        cpu_widen((const uint16_t *)(const void *)m->data + row * m->ld + col, m->dtype, buffer, n);
    return buffer;
}
