/* tile.c -- the one inner loop of all matrix products, and what feeds it, for each instruction set.
 *
 * A tile of y stays in registers while k is walked: for every step a value of each row of a is
 * broadcast against up to 64 neighbours of a row of b. Each value of y is one chain of fused
 * multiply-adds, whatever the tile, the neighbours or the instruction set: the choice of it changes
 * the speed and not the bits.
 */
#include <math.h>
#include <string.h>

#include "cpu.h"

#if defined(__clang__)
#    define UNROLL _Pragma("unroll")
#else
#    define UNROLL _Pragma("GCC unroll 8")
#endif

enum { ROWS = 6 };

/* One tile: ROWS rows of a and y, or fewer, and as many columns as its function takes. */
typedef struct tile {
    const float *a, *b, *from; /* from NULL: nothing is added */
    float *y;
    int64_t row, step, ldb, ldfrom, ldy, k, cols;
    float alpha;
} tile;
typedef void tile_fn(const tile *t);

/* The tile of rows row .. and columns col .. of a product. */
static tile tile_at(const cpu_product *p, int64_t row, int64_t col, int64_t cols) {
    return (tile){.a = p->a + row * p->row,
        .b = p->b + col,
        .from = p->from ? p->from + row * p->ldfrom + col : NULL,
        .y = p->y + row * p->ldy + col,
        .row = p->row,
        .step = p->step,
        .ldb = p->ldb,
        .ldfrom = p->ldfrom,
        .ldy = p->ldy,
        .k = p->k,
        .cols = cols,
        .alpha = p->alpha};
}

/* --- any machine: fmaf is an instruction but on the oldest x86 --- */

static void generic_tile(const tile *t) {
    enum { WIDTH = 16 };
    float sum[WIDTH] = {0};
    for (int64_t i = 0; i < t->k; i++) {
        const float a = t->a[i * t->step], *b = t->b + i * t->ldb;
        if (t->cols == WIDTH)
            for (int c = 0; c < WIDTH; c++) sum[c] = fmaf(a, b[c], sum[c]);
        else
            for (int c = 0; c < t->cols; c++) sum[c] = fmaf(a, b[c], sum[c]);
    }
    for (int c = 0; c < t->cols; c++)
        t->y[c] = t->from ? t->from[c] + t->alpha * sum[c] : t->alpha * sum[c];
}

static void generic_product(const cpu_product *p) {
    for (int64_t row = 0; row < p->m; row++)
        for (int64_t col = 0; col < p->n; col += 16) {
            const tile t = tile_at(p, row, col, cpu_min(16, p->n - col));
            generic_tile(&t);
        }
}

static void generic_decode(
    const uint8_t *codes, int64_t n, const float *table, float scale, float *out) {
    for (int64_t i = 0; i < n; i += 2, codes++) {
        out[i] = table[*codes >> 4] * scale;
        out[i + 1] = table[*codes & 15] * scale;
    }
}

static void generic_turn(
    const float *const *rows, int64_t n, int64_t steps, float *to, int64_t ld) {
    for (int64_t s = 0; s < steps; s++, to += ld)
        for (int64_t i = 0; i < n; i++) to[i] = rows[i][s];
}

#ifdef CPU_X86

#    include <immintrin.h>

/* A checked access for each value would cost hundreds of times the product: the sums would live in
 * memory. Bounds are those of the callers, whose own accesses are checked. */
#    define UNCHECKED     __attribute__((no_sanitize("address", "undefined")))
#    define ALWAYS_INLINE static inline __attribute__((always_inline)) UNCHECKED

/* --- AVX2 and FMA: 6 rows of 16 columns --- */

#    define AVX2 __attribute__((target("avx2,fma")))

/* Lanes below n. */
AVX2 static __m256i mask8(int64_t n) {
    return _mm256_cmpgt_epi32(
        _mm256_set1_epi32((int)(n > 8 ? 8 : n)), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}

AVX2 ALWAYS_INLINE void tile_avx2(const int rows, const tile *t) {
    const __m256i low = mask8(t->cols), high = mask8(t->cols - 8);
    __m256 s[ROWS][2];
    const float *a = t->a, *b = t->b;
    UNROLL for (int r = 0; r < rows; r++) s[r][0] = s[r][1] = _mm256_setzero_ps();
    for (int64_t i = 0; i < t->k; i++, a += t->step, b += t->ldb) {
        const __m256 v0 = _mm256_maskload_ps(b, low), v1 = _mm256_maskload_ps(b + 8, high);
        UNROLL for (int r = 0; r < rows; r++) {
            const __m256 x = _mm256_broadcast_ss(a + r * t->row);
            s[r][0] = _mm256_fmadd_ps(x, v0, s[r][0]);
            s[r][1] = _mm256_fmadd_ps(x, v1, s[r][1]);
        }
    }
    const __m256 alpha = _mm256_set1_ps(t->alpha);
    UNROLL for (int r = 0; r < rows; r++) {
        float *y = t->y + r * t->ldy;
        __m256 v0 = _mm256_mul_ps(alpha, s[r][0]), v1 = _mm256_mul_ps(alpha, s[r][1]);
        if (t->from) {
            const float *from = t->from + r * t->ldfrom;
            v0 = _mm256_add_ps(_mm256_maskload_ps(from, low), v0);
            v1 = _mm256_add_ps(_mm256_maskload_ps(from + 8, high), v1);
        }
        _mm256_maskstore_ps(y, low, v0);
        _mm256_maskstore_ps(y + 8, high, v1);
    }
}

#    define TILE_AVX2(rows)                                                                        \
        AVX2 UNCHECKED static void avx2_##rows(const tile *t) { tile_avx2(rows, t); }
TILE_AVX2(1)
TILE_AVX2(2)
TILE_AVX2(3)
TILE_AVX2(4)
TILE_AVX2(5)
TILE_AVX2(6)

static void avx2_product(const cpu_product *p) {
    static tile_fn *const tiles[ROWS] = {avx2_1, avx2_2, avx2_3, avx2_4, avx2_5, avx2_6};
    for (int64_t col = 0; col < p->n; col += 16)
        for (int64_t row = 0; row < p->m; row += ROWS) {
            const tile t = tile_at(p, row, col, cpu_min(16, p->n - col));
            tiles[cpu_min(ROWS, p->m - row) - 1](&t);
        }
}

/* Eight bytes are sixteen codes; a table of sixteen is two registers. */
AVX2 static void avx2_decode(
    const uint8_t *codes, int64_t n, const float *table, float scale, float *out) {
    const __m256 low = _mm256_mul_ps(_mm256_loadu_ps(table), _mm256_set1_ps(scale));
    const __m256 high = _mm256_mul_ps(_mm256_loadu_ps(table + 8), _mm256_set1_ps(scale));
    for (int64_t i = 0; i < n; i += 16, codes += 8) {
        const __m256i bytes = _mm256_cvtepu8_epi32(_mm_loadl_epi64((const void *)codes));
        const __m256i even = _mm256_srli_epi32(bytes, 4);
        const __m256 a = _mm256_blendv_ps(_mm256_permutevar8x32_ps(low, even),
            _mm256_permutevar8x32_ps(high, even), _mm256_castsi256_ps(_mm256_slli_epi32(even, 28)));
        const __m256 b = _mm256_blendv_ps(_mm256_permutevar8x32_ps(low, bytes),
            _mm256_permutevar8x32_ps(high, bytes),
            _mm256_castsi256_ps(_mm256_slli_epi32(bytes, 28)));
        const __m256 x = _mm256_unpacklo_ps(a, b), y = _mm256_unpackhi_ps(a, b);
        _mm256_storeu_ps(out + i, _mm256_permute2f128_ps(x, y, 0x20));
        _mm256_storeu_ps(out + i + 8, _mm256_permute2f128_ps(x, y, 0x31));
    }
}

/* Eight values of eight rows. */
AVX2 UNCHECKED static void turn_8(const float *const *rows, int64_t at, float *to, int64_t ld) {
    __m256 r[8], t[8];
    UNROLL for (int i = 0; i < 8; i++) r[i] = _mm256_loadu_ps(rows[i] + at);
    UNROLL for (int i = 0; i < 8; i += 2) {
        t[i] = _mm256_unpacklo_ps(r[i], r[i + 1]);
        t[i + 1] = _mm256_unpackhi_ps(r[i], r[i + 1]);
    }
    UNROLL for (int i = 0; i < 8; i += 4) {
        r[i] = _mm256_shuffle_ps(t[i], t[i + 2], 0x44);
        r[i + 1] = _mm256_shuffle_ps(t[i], t[i + 2], 0xee);
        r[i + 2] = _mm256_shuffle_ps(t[i + 1], t[i + 3], 0x44);
        r[i + 3] = _mm256_shuffle_ps(t[i + 1], t[i + 3], 0xee);
    }
    UNROLL for (int i = 0; i < 4; i++) {
        _mm256_storeu_ps(to + i * ld, _mm256_permute2f128_ps(r[i], r[i + 4], 0x20));
        _mm256_storeu_ps(to + (i + 4) * ld, _mm256_permute2f128_ps(r[i], r[i + 4], 0x31));
    }
}

AVX2 static void avx2_turn(
    const float *const *rows, int64_t n, int64_t steps, float *to, int64_t ld) {
    if (n % 8 || steps % 8) {
        generic_turn(rows, n, steps, to, ld);
        return;
    }
    for (int64_t s = 0; s < steps; s += 8)
        for (int64_t i = 0; i < n; i += 8) turn_8(rows + i, s, to + s * ld + i, ld);
}

/* --- AVX-512: 6 rows of 16 to 64 columns --- */

#    define AVX512 __attribute__((target("avx512f")))

AVX512 ALWAYS_INLINE void tile_avx512(const int rows, const int vecs, const tile *t) {
    const int64_t last = t->cols - 16 * (vecs - 1);
    const __mmask16 mask = (__mmask16)((1u << last) - 1);
    __m512 s[ROWS][4];
    const float *a = t->a, *b = t->b;
    UNROLL for (int r = 0; r < rows; r++) UNROLL for (int c = 0; c < vecs; c++) s[r][c] =
        _mm512_setzero_ps();
    for (int64_t i = 0; i < t->k; i++, a += t->step, b += t->ldb) {
        __m512 v[4];
        UNROLL for (int c = 0; c < vecs - 1; c++) v[c] = _mm512_loadu_ps(b + 16 * c);
        v[vecs - 1] = _mm512_maskz_loadu_ps(mask, b + 16 * (vecs - 1));
        UNROLL for (int r = 0; r < rows; r++) {
            const __m512 x = _mm512_set1_ps(a[r * t->row]);
            UNROLL for (int c = 0; c < vecs; c++) s[r][c] = _mm512_fmadd_ps(x, v[c], s[r][c]);
        }
    }
    const __m512 alpha = _mm512_set1_ps(t->alpha);
    UNROLL for (int r = 0; r < rows; r++) {
        UNROLL for (int c = 0; c < vecs; c++) {
            const __mmask16 m = c == vecs - 1 ? mask : (__mmask16)0xffff;
            __m512 v = _mm512_mul_ps(alpha, s[r][c]);
            if (t->from)
                v = _mm512_add_ps(_mm512_maskz_loadu_ps(m, t->from + r * t->ldfrom + 16 * c), v);
            _mm512_mask_storeu_ps(t->y + r * t->ldy + 16 * c, m, v);
        }
    }
}

#    define TILE_AVX512(rows, vecs)                                                                \
        AVX512 UNCHECKED static void avx512_##rows##_##vecs(const tile *t) {                       \
            tile_avx512(rows, vecs, t);                                                            \
        }
#    define TILES_AVX512(rows)                                                                     \
        TILE_AVX512(rows, 1) TILE_AVX512(rows, 2) TILE_AVX512(rows, 3) TILE_AVX512(rows, 4)
#    define NAMES_AVX512(rows)                                                                     \
        { avx512_##rows##_1, avx512_##rows##_2, avx512_##rows##_3, avx512_##rows##_4 }
TILES_AVX512(1)
TILES_AVX512(2)
TILES_AVX512(3)
TILES_AVX512(4)
TILES_AVX512(5)
TILES_AVX512(6)

static void avx512_product(const cpu_product *p) {
    static tile_fn *const tiles[ROWS][4] = {NAMES_AVX512(1), NAMES_AVX512(2), NAMES_AVX512(3),
        NAMES_AVX512(4), NAMES_AVX512(5), NAMES_AVX512(6)};
    for (int64_t row = 0; row < p->m; row += ROWS)
        for (int64_t col = 0; col < p->n; col += 64) {
            const int64_t cols = cpu_min(64, p->n - col);
            const tile t = tile_at(p, row, col, cols);
            tiles[cpu_min(ROWS, p->m - row) - 1][(cols - 1) / 16](&t);
        }
}

/* A lookup takes the low four bits of a lane: its byte's high half, or all of it. */
AVX512 static void avx512_decode(
    const uint8_t *codes, int64_t n, const float *table, float scale, float *out) {
    const __m512 values = _mm512_mul_ps(_mm512_loadu_ps(table), _mm512_set1_ps(scale));
    for (int64_t i = 0; i < n; i += 16, codes += 8) {
        const __m512i bytes = _mm512_cvtepu8_epi64(_mm_loadl_epi64((const void *)codes));
        const __m512i both =
            _mm512_or_si512(_mm512_srli_epi64(bytes, 4), _mm512_slli_epi64(bytes, 32));
        _mm512_storeu_ps(out + i, _mm512_permutexvar_ps(both, values));
    }
}

#endif

/* --- the choice --- */

static const cpu_isa isas[] = {
#ifdef CPU_X86
    {"avx512", avx512_product, avx512_decode, avx2_turn},
    {"avx2", avx2_product, avx2_decode, avx2_turn},
#endif
    {"generic", generic_product, generic_decode, generic_turn},
};

static int can_run(const cpu_isa *isa) {
#ifdef CPU_X86
    const int avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    if (!strcmp(isa->name, "avx512")) return avx2 && __builtin_cpu_supports("avx512f");
    if (!strcmp(isa->name, "avx2")) return avx2;
#endif
    return isa->product == generic_product;
}

const cpu_isa *cpu_find_isa(const char *name) {
    for (size_t i = 0; i < sizeof isas / sizeof isas[0]; i++)
        if ((!strcmp(name, "auto") || !strcmp(name, isas[i].name)) && can_run(&isas[i]))
            return &isas[i];
    return NULL;
}
