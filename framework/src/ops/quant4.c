/* quant4.c -- packs and unpacks 4-bit weights with the bits that bitsandbytes gives.
 *
 * Every product, sum and rounding below is in fp32 and in this order because those are the bits of
 * a published checkpoint; a "better" formula makes other codes.
 */
#define _POSIX_C_SOURCE 200809L
#include "ops/quant4.h"

#include "base/error.h"
#include "base/parallel.h"
#include "ops/ref.h"

#include <float.h>
#include <inttypes.h>
#include <math.h>
#include <pthread.h>

/* A 4-bit code: its values, and the codes in ascending order of their values. The sign bit of FP4's
 * zero (codes 0 and 8) is part of the order: just above zero lies code 8. */
typedef struct code4 {
    float value[16];
    uint8_t ascending[16];
} code4;

static const code4 nf4 = {
    {-1.0f, -0.6961928009986877f, -0.5250730514526367f, -0.39491748809814453f,
        -0.28444138169288635f, -0.18477343022823334f, -0.09105003625154495f, 0.0f,
        0.07958029955625534f, 0.16093020141124725f, 0.24611230194568634f, 0.33791524171829224f,
        0.44070982933044434f, 0.5626170039176941f, 0.7229568362236023f, 1.0f},
    {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15},
};

static const code4 fp4 = {
    {0.0f, 0.0625f / 12, 8.0f / 12, 1.0f, 4.0f / 12, 0.5f, 2.0f / 12, 0.25f, 0.0f, -0.0625f / 12,
        -8.0f / 12, -1.0f, -4.0f / 12, -0.5f, -2.0f / 12, -0.25f},
    {11, 10, 13, 12, 15, 14, 9, 0, 8, 1, 6, 7, 4, 5, 2, 3},
};

static const code4 *code_of(uint32_t type) { return type == QFW_FP4 ? &fp4 : &nf4; }

const float *quant4_codebook(uint32_t type) { return code_of(type)->value; }

uint64_t quant4_code_bytes(int64_t n) { return ((uint64_t)n + 1) / 2; }

int64_t quant4_blocks(int64_t n, uint32_t block) { return (n + block - 1) / (int64_t)block; }

/* --- 4-bit encoding --- */

enum { MAX_SPANS = 64 };

typedef struct encode_job {
    const code4 *code;
    float threshold[15]; /* fp32 midpoints of ascending neighbours */
    const float *w;
    int64_t n, block, n_blocks, span; /* span: blocks that one item packs */
    uint8_t *codes;
    float *absmax;
    int64_t bad[MAX_SPANS]; /* per item the index of its first value that is not finite, or -1 */
} encode_job;

/* The number of thresholds below x is the place among ascending values: a search of four steps. */
static uint32_t encode_one(const encode_job *j, float x) {
    const float *const t = j->threshold;
    uint32_t at = 0;
    if (x > t[7]) at = 8;
    if (x > t[at + 3]) at += 4;
    if (x > t[at + 1]) at += 2;
    if (x > t[at]) at += 1;
    return j->code->ascending[at];
}

/* The greatest magnitude in w[0..n-1]; *bad is the first index that is not finite, else -1. */
static float greatest(const float *w, int64_t n, int64_t *bad) {
    float max = 0;
    *bad = -1;
    for (int64_t i = 0; i < n; i++) {
        const float size = fabsf(w[i]);
        if (!(size <= FLT_MAX)) {
            *bad = i;
            return 0;
        }
        if (size > max) max = size;
    }
    return max;
}

static void encode_block(encode_job *j, int64_t first, int64_t n, float absmax) {
    const float *const w = j->w + first;
    uint8_t *const codes = j->codes + first / 2;
    /* 1e-38 keeps a block of zeros from 0 / 0. A full block is multiplied by the reciprocal, a
     * short last one divided. */
    const float scale = absmax > 1e-38f ? absmax : 1e-38f, reciprocal = 1.0f / scale;
    const int full = n == j->block;
    for (int64_t i = 0; i < n; i += 2) {
        const float low = i + 1 < n ? w[i + 1] : 0.0f;
        const uint32_t a = encode_one(j, full ? w[i] * reciprocal : w[i] / scale);
        const uint32_t b = encode_one(j, full ? low * reciprocal : low / scale);
        codes[i / 2] = (uint8_t)(a << 4 | b);
    }
}

static void encode_span(void *arg, uint32_t item, uint32_t worker) {
    encode_job *const j = arg;
    const int64_t first = (int64_t)item * j->span;
    const int64_t end = first + j->span < j->n_blocks ? first + j->span : j->n_blocks;
    (void)worker;
    j->bad[item] = -1;
    for (int64_t b = first; b < end; b++) {
        const int64_t at = b * j->block, n = j->n - at < j->block ? j->n - at : j->block;
        int64_t bad;
        const float absmax = greatest(j->w + at, n, &bad);
        if (bad >= 0) {
            j->bad[item] = at + bad;
            return;
        }
        j->absmax[b] = absmax;
        encode_block(j, at, n, absmax);
    }
}

qfw_status quant4_encode(
    uint32_t type, const float *w, int64_t n, uint32_t block, uint8_t *codes, float *absmax) {
    if ((type != QFW_NF4 && type != QFW_FP4) || n < 0 || block == 0 || block % 2 != 0)
        return err_fail("E_QUANT4_ARG", QFW_E_INVALID,
            "quant4: %s in blocks of %u of %" PRId64 " values, wanted nf4 or fp4 in even blocks",
            qfw_dtype_name(type), block, n);
    encode_job j = {.code = code_of(type), .w = w, .n = n, .block = block, .codes = codes};
    for (int i = 0; i < 15; i++)
        j.threshold[i] =
            (j.code->value[j.code->ascending[i]] + j.code->value[j.code->ascending[i + 1]]) / 2;
    j.absmax = absmax;
    j.n_blocks = quant4_blocks(n, block);
    j.span = (j.n_blocks + MAX_SPANS - 1) / MAX_SPANS;
    if (j.n_blocks == 0) return QFW_OK;
    const uint32_t spans = (uint32_t)((j.n_blocks + j.span - 1) / j.span);
    parallel_for(spans, encode_span, &j);
    for (uint32_t i = 0; i < spans; i++)
        if (j.bad[i] >= 0)
            return err_fail("E_ST_NONFINITE", QFW_E_DATA,
                "value %" PRId64 " is %g, only finite values can be packed to 4 bits", j.bad[i],
                (double)w[j.bad[i]]);
    return QFW_OK;
}

/* --- the dynamic map --- */

/* Boundary k of linspace(0.1, 1, n) as torch computes it: from the nearer end, fused. */
static float linspace(int k, int n) {
    const float step = (1.0f - 0.1f) / (float)(n - 1);
    return k < n / 2 ? fmaf(step, (float)k, 0.1f) : fmaf(-step, (float)(n - 1 - k), 1.0f);
}

typedef struct map8 {
    float value[256];
    float middle[255]; /* between neighbours, fp32 */
} map8;

static map8 dynamic;
static float unsigned_map[256];
static pthread_once_t dynamic_once = PTHREAD_ONCE_INIT;

/* In each decade of 7 the middles of `first` steps, then of twice as many; returns how many. */
static int fill_decades(int first, float *value) {
    static const float power[7] = {1e-6f, 1e-5f, 1e-4f, 1e-3f, 1e-2f, 1e-1f, 1.0f};
    int made = 0;
    for (int i = 0; i < 7; i++) {
        const int n = (first << i) + 1;
        for (int k = 0; k + 1 < n; k++)
            value[made++] = power[i] * ((linspace(k, n) + linspace(k + 1, n)) / 2);
    }
    return made;
}

static void make_dynamic(void) {
    map8 *const m = &dynamic;
    const int n = fill_decades(1, m->value + 128); /* 127 is zero itself */
    for (int i = 0; i < n; i++) m->value[126 - i] = -m->value[128 + i];
    unsigned_map[1 + fill_decades(2, unsigned_map + 1)] = 1.0f;
    m->value[127] = 0.0f;
    m->value[255] = 1.0f;
    for (int i = 0; i < 255; i++) m->middle[i] = (m->value[i] + m->value[i + 1]) * 0.5f;
}

static const map8 *dynamic_map(void) {
    (void)pthread_once(&dynamic_once, make_dynamic);
    return &dynamic;
}

const float *quant8_map(void) { return dynamic_map()->value; }

const float *quant8_unsigned_map(void) {
    (void)dynamic_map();
    return unsigned_map;
}

/* --- nested scales --- */

/* How many midpoints lie below x: the code nearest to x, and of two equally near the lower. */
static uint32_t midpoints_below(const map8 *m, float x) {
    uint32_t low = 0, high = 255;
    while (low < high) {
        const uint32_t at = (low + high) / 2;
        if (m->middle[at] < x)
            low = at + 1;
        else
            high = at;
    }
    return low;
}

/* The GPU's binary search ends on an even code and leaves it only for one that is nearer: a tie
 * stays with the even code. */
static uint32_t nearest8(const map8 *m, float x) {
    const uint32_t low = midpoints_below(m, x);
    return low % 2 == 1 && low < 255 && m->middle[low] == x ? low + 1 : low;
}

/* The CPU path looks x up in a table of 65536 entries, entry i being the code of -1 + 2i/65535. */
static uint32_t tabled8(const map8 *m, float x) {
    const float in_range = x < -1.0f ? -1.0f : x > 1.0f ? 1.0f : x;
    const uint32_t i = (uint32_t)((in_range + 1.0f) * 0.5f * 65535.0f + 0.5f);
    return midpoints_below(m, -1.0f + 2.0f * (float)i / 65535.0f);
}

enum { LANES = 8, STRANDS = 4, LEVELS = 4 };

/* Add up `rows` rows of `width` (at most LANES * STRANDS) values, column by column, as torch does:
 * sums of 2^power rows, of as many of those sums, and so on for four levels. */
static void sum_columns(const float *x, int64_t rows, int64_t width, float *sum) {
    float acc[LEVELS][LANES * STRANDS] = {{0}};
    int64_t log2 = 1; /* ceiling, and 1 for few rows */
    while (((int64_t)1 << log2) < rows) log2++;
    const int64_t power = log2 / LEVELS > 4 ? log2 / LEVELS : 4, step = (int64_t)1 << power;
    for (int64_t r = 0; r < rows;) {
        const int64_t end = r + step <= rows ? r + step : rows;
        const int whole = end == r + step;
        for (; r < end; r++)
            for (int64_t c = 0; c < width; c++) acc[0][c] += x[r * width + c];
        for (int level = 1; whole && level < LEVELS; level++) {
            for (int64_t c = 0; c < width; c++) {
                acc[level][c] += acc[level - 1][c];
                acc[level - 1][c] = 0;
            }
            if (r & ((step - 1) << (level * power))) break;
        }
    }
    for (int64_t c = 0; c < width; c++) {
        sum[c] = acc[0][c];
        for (int level = 1; level < LEVELS; level++) sum[c] += acc[level][c];
    }
}

/* torch.mean of fp32 values on one CPU thread, to the last bit: vectors of eight lanes in four
 * strands, then what is left of whole vectors, then the strands, the tail and the lanes. */
static float torch_mean(const float *x, int64_t n) {
    const int64_t lanes = n >= LANES ? LANES : 1, vectors = n / lanes, rows = vectors / STRANDS;
    float strand[LANES * STRANDS], sum = 0;
    sum_columns(x, rows, lanes * STRANDS, strand);
    for (int64_t v = rows * STRANDS; v < vectors; v++)
        for (int64_t k = 0; k < lanes; k++) strand[k] += x[v * lanes + k];
    for (int64_t s = 1; s < STRANDS; s++)
        for (int64_t k = 0; k < lanes; k++) strand[k] += strand[s * lanes + k];
    for (int64_t i = vectors * lanes; i < n; i++) sum += x[i];
    for (int64_t k = 0; k < lanes; k++) sum += strand[k];
    return sum / (float)n;
}

qfw_status quant8_nest(
    const float *absmax, int64_t n, uint32_t rule, uint8_t *codes, float *nested, float *offset) {
    enum { BLOCK = 256 };
    const map8 *const m = dynamic_map();
    if (n < 0 || rule > QUANT8_CPU_TABLE)
        return err_fail("E_QUANT4_ARG", QFW_E_INVALID,
            "quant8: %" PRId64 " scales by rule %u, wanted rule 0 (nearest) or 1 (table)", n, rule);
    *offset = n ? torch_mean(absmax, n) : 0;
    for (int64_t first = 0; first < n; first += BLOCK) {
        const int64_t end = first + BLOCK < n ? first + BLOCK : n;
        float max = 0;
        for (int64_t i = first; i < end; i++) max = fmaxf(max, fabsf(absmax[i] - *offset));
        const float reciprocal = max > 0 ? 1.0f / max : 0;
        nested[first / BLOCK] = max;
        for (int64_t i = first; i < end; i++) {
            const float d = absmax[i] - *offset;
            codes[i] = (uint8_t)(rule == QUANT8_NEAREST ? nearest8(m, d * reciprocal)
                                                        : tabled8(m, max > 0 ? d / max : 0));
        }
    }
    return QFW_OK;
}

/* --- decoding --- */

static const void *bytes_at(const qfw_mem *mem, uint64_t offset) {
    return (const char *)mem + offset;
}

static float scale_of(const qfw_quant *q, int64_t block) {
    const float *const absmax = bytes_at(q->absmax_mem, q->absmax_offset);
    if (q->nested_block == 0) return absmax[block];
    const uint8_t *const code = bytes_at(q->absmax_mem, q->absmax_offset);
    const float *const nested = bytes_at(q->nested_mem, q->nested_offset);
    const float *const map = bytes_at(q->map_mem, q->map_offset);
    const float product = map[code[block]] * nested[block / q->nested_block];
    return product + (float)q->offset;
}

void quant4_decode(const qfw_tensor *t, int64_t first, int64_t count, float *out) {
    const float *const value = quant4_codebook(t->dtype);
    const uint8_t *const codes = bytes_at(t->mem, t->offset);
    const int64_t block = t->quant->block, end = first + count;
    for (int64_t i = first; i < end;) {
        const int64_t b = i / block, stop = (b + 1) * block < end ? (b + 1) * block : end;
        const float scale = scale_of(t->quant, b);
        float scaled[16];
        for (int k = 0; k < 16; k++)
            scaled[k] = (float)ref_round((double)(value[k] * scale), t->quant->compute);
        for (; i < stop; i++) {
            const uint32_t pair = codes[i / 2];
            *out++ = scaled[i % 2 == 0 ? pair >> 4 : pair & 15];
        }
    }
}
