/* test_quant4.c -- 4-bit packing against the published bits of bitsandbytes. */
#include "base/error.h"
#include "ops/quant4.h"
#include "ops/ref.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

static uint32_t bits_of(float f) {
    uint32_t bits;
    memcpy(&bits, &f, sizeof bits);
    return bits;
}

static float float_of(uint32_t bits) {
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

/* The code that x gets inside a block whose absmax is 1. */
static uint32_t code_of(uint32_t type, float x) {
    float w[64] = {x, -1.0f}, absmax;
    uint8_t codes[32];
    assert_int_equal(quant4_encode(type, w, 64, 64, codes, &absmax), QFW_OK);
    assert_true(absmax == 1.0f);
    return codes[0] >> 4;
}

static void test_nf4_codebook_and_thresholds(void **state) {
    static const uint32_t value[16] = {0xbf800000, 0xbf3239b1, 0xbf066b30, 0xbeca32a0, 0xbe91a24d,
        0xbe3d353f, 0xbdba7871, 0, 0x3da2faff, 0x3e24cae3, 0x3e7c04dd, 0x3ead033a, 0x3ee1a4b8,
        0x3f1007ab, 0x3f3913b3, 0x3f800000};
    static const uint32_t upper[15] = {0xbf591cd8, 0xbf1c5270, 0xbeeb8480, 0xbeadea76, 0xbe703cec,
        0xbe0d38bc, 0xbd3a7871, 0x3d22faff, 0x3df64862, 0x3e5067e0, 0x3e9582d4, 0x3ec753f9,
        0x3f006d04, 0x3f248daf, 0x3f5c89da};
    (void)state;
    for (uint32_t c = 0; c < 16; c++)
        assert_int_equal(bits_of(quant4_codebook(QFW_NF4)[c]), value[c]);
    for (uint32_t c = 0; c < 15; c++) {
        const float t = float_of(upper[c]);
        assert_int_equal(code_of(QFW_NF4, t), c);
        assert_int_equal(code_of(QFW_NF4, nextafterf(t, 2.0f)), c + 1);
    }
}

static void test_fp4_codes(void **state) {
    static const float magnitude[8] = {
        0, 0.0052083333f, 0.6666667f, 1, 0.3333333f, 0.5f, 0.1666667f, 0.25f};
    (void)state;
    for (uint32_t c = 0; c < 8; c++) {
        assert_float_equal(quant4_codebook(QFW_FP4)[c], magnitude[c], 5e-8f);
        assert_float_equal(quant4_codebook(QFW_FP4)[c + 8], -magnitude[c], 5e-8f);
        if (c == 0) continue;
        assert_int_equal(code_of(QFW_FP4, magnitude[c]), c);
        assert_int_equal(code_of(QFW_FP4, -magnitude[c]), c + 8);
    }
    assert_int_equal(code_of(QFW_FP4, 0.0f), 0);
    assert_int_equal(code_of(QFW_FP4, -0.001f), 0);
    assert_int_equal(code_of(QFW_FP4, 0.001f), 8); /* the sign convention of the CPU path */
    assert_int_equal(code_of(QFW_FP4, 0.0027f), 1);
    assert_int_equal(code_of(QFW_FP4, -0.0027f), 9);
}

/* 1/0.3 is not exact: a value at a threshold of 0.3 tells a reciprocal product from a division. */
static void test_full_blocks_multiply_by_the_reciprocal(void **state) {
    int differ = 0;
    (void)state;
    for (int i = 1; i < 4000; i++) {
        float w[64] = {0}, absmax[1];
        uint8_t codes[32];
        w[0] = 1.0f + (float)i / 4096.0f;
        w[1] = w[0] * float_of(0x3f5c89da);
        assert_int_equal(quant4_encode(QFW_NF4, w, 64, 64, codes, absmax), QFW_OK);
        const float product = w[1] * (1.0f / w[0]), quotient = w[1] / w[0];
        const float t = float_of(0x3f5c89da);
        assert_int_equal(codes[0] & 15, product > t ? 15 : 14);
        differ += (product > t) != (quotient > t);
    }
    assert_true(differ > 0);
}

static void test_blocks_of_zeros_and_odd_counts(void **state) {
    float w[129] = {0}, absmax[3];
    uint8_t codes[65];
    (void)state;
    w[128] = -2.0f;
    memset(codes, 0xee, sizeof codes);
    assert_int_equal(quant4_code_bytes(129), 65);
    assert_int_equal(quant4_blocks(129, 64), 3);
    assert_int_equal(quant4_encode(QFW_NF4, w, 129, 64, codes, absmax), QFW_OK);
    for (int i = 0; i < 64; i++) assert_int_equal(codes[i], 0x77);
    assert_int_equal(codes[64], 0x07);
    assert_true(absmax[0] == 0 && absmax[1] == 0 && absmax[2] == 2);
    assert_int_equal(quant4_encode(QFW_NF4, w, 0, 64, codes, absmax), QFW_OK);
}

static void test_refuses_what_is_not_finite(void **state) {
    float w[256] = {0}, absmax[4];
    uint8_t codes[128];
    (void)state;
    w[200] = NAN;
    w[130] = -INFINITY;
    assert_int_equal(quant4_encode(QFW_NF4, w, 256, 64, codes, absmax), QFW_E_DATA);
    assert_non_null(strstr(err_text(0), "value 130 is -inf"));
    assert_int_equal(quant4_encode(QFW_F32, w, 64, 64, codes, absmax), QFW_E_INVALID);
    assert_int_equal(quant4_encode(QFW_NF4, w, 64, 0, codes, absmax), QFW_E_INVALID);
    err_clear();
}

static void test_dynamic_map(void **state) {
    const float *const map = quant8_map();
    uint32_t crc = 0xffffffff;
    (void)state;
    for (int i = 1; i < 256; i++) assert_true(map[i] > map[i - 1]);
    assert_true(map[127] == 0 && map[255] == 1);
    for (int i = 0; i < 256; i++)
        for (int byte = 0; byte < 4; byte++) {
            crc ^= bits_of(map[i]) >> (8 * byte) & 0xff;
            for (int k = 0; k < 8; k++) crc = crc >> 1 ^ (crc & 1 ? 0xedb88320 : 0);
        }
    assert_int_equal(~crc, 0x1b137aeb);
}

static float random_scale(uint32_t *seed) {
    *seed = *seed * 1664525u + 1013904223u;
    return 0.01f + (float)(*seed >> 8) / 16777216.0f;
}

static void test_nested_scales_are_the_nearest(void **state) {
    enum { N = 700 };
    float absmax[N], nested[3], offset;
    uint8_t codes[N], tabled[N];
    uint32_t seed = 7, differ = 0;
    double sum = 0;
    (void)state;
    for (int i = 0; i < N; i++) sum += (double)(absmax[i] = random_scale(&seed));
    assert_int_equal(quant8_nest(absmax, N, QUANT8_NEAREST, codes, nested, &offset), QFW_OK);
    assert_float_equal(offset, (float)(sum / N), 1e-6f);
    for (int i = 0; i < N; i++) {
        const double x = (double)(absmax[i] - offset) / (double)nested[i / 256];
        const double got = fabs((double)quant8_map()[codes[i]] - x);
        for (int c = 0; c < 256; c++) assert_true(got <= fabs((double)quant8_map()[c] - x) + 1e-7);
    }
    assert_int_equal(quant8_nest(absmax, N, QUANT8_CPU_TABLE, tabled, nested, &offset), QFW_OK);
    for (int i = 0; i < N; i++) {
        assert_in_range(tabled[i] - codes[i] + 1, 0, 2);
        differ += tabled[i] != codes[i];
    }
    assert_true(differ < N / 50);
}

/* Half way between two codes the GPU's search stays with the even one. The mean of m, -m, 1 and -1
 * is 0. */
static void test_ties_of_nested_scales(void **state) {
    const float *const map = quant8_map();
    (void)state;
    for (int i = 0; i < 255; i++) {
        const float m = (map[i] + map[i + 1]) * 0.5f;
        const float absmax[4] = {m, -m, 1, -1};
        float nested[1], offset;
        uint8_t codes[4];
        assert_int_equal(quant8_nest(absmax, 4, QUANT8_NEAREST, codes, nested, &offset), QFW_OK);
        assert_true(offset == 0 && nested[0] == 1);
        assert_int_equal(codes[0], i % 2 ? i + 1 : i);
    }
}

/* Decoding any range of a nested weight gives codebook * (map * nested + offset), each rounded to
 * fp32. */
static void test_decode(void **state) {
    enum { M = 3, K = 96, N = M * K, BLOCKS = 5 };
    float w[N], absmax[BLOCKS], nested[1], offset, out[N], part[50], widened[K];
    uint8_t codes[N / 2], scales[BLOCKS];
    double row[K];
    uint32_t seed = 3;
    (void)state;
    for (int i = 0; i < N; i++) w[i] = random_scale(&seed) - 0.5f;
    assert_int_equal(quant4_encode(QFW_NF4, w, N, 64, codes, absmax), QFW_OK);
    assert_int_equal(quant8_nest(absmax, BLOCKS, QUANT8_NEAREST, scales, nested, &offset), QFW_OK);
    qfw_quant q = {.size = sizeof q, .block = 64, .nested_block = 256};
    q.absmax_mem = (qfw_mem *)(void *)scales;
    q.nested_mem = (qfw_mem *)(void *)nested;
    q.map_mem = (qfw_mem *)(uintptr_t)quant8_map();
    q.offset = (double)offset;
    const qfw_tensor t = {.size = sizeof t,
        .dtype = QFW_NF4,
        .rank = 2,
        .dim = {M, K, 1, 1},
        .stride = {K, 1, 1, 1},
        .mem = (qfw_mem *)(void *)codes,
        .quant = &q};
    quant4_decode(&t, 0, N, out);
    for (int i = 0; i < N; i++) {
        const float product = quant8_map()[scales[i / 64]] * nested[0], scale = product + offset;
        const uint32_t code = i % 2 == 0 ? codes[i / 2] >> 4 : codes[i / 2] & 15;
        assert_true(out[i] == quant4_codebook(QFW_NF4)[code] * scale);
        assert_float_equal(out[i], w[i], 0.16f * absmax[i / 64] + 0.01f);
    }
    quant4_decode(&t, 61, 50, part);
    assert_memory_equal(part, out + 61, sizeof part);
    ref_packed_row(&t, 2, row);
    for (int i = 0; i < K; i++) widened[i] = (float)row[i];
    assert_memory_equal(widened, out + 2 * K, sizeof widened);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_nf4_codebook_and_thresholds),
        cmocka_unit_test(test_fp4_codes),
        cmocka_unit_test(test_full_blocks_multiply_by_the_reciprocal),
        cmocka_unit_test(test_blocks_of_zeros_and_odd_counts),
        cmocka_unit_test(test_refuses_what_is_not_finite),
        cmocka_unit_test(test_dynamic_map),
        cmocka_unit_test(test_nested_scales_are_the_nearest),
        cmocka_unit_test(test_ties_of_nested_scales),
        cmocka_unit_test(test_decode),
    };
    return cmocka_run_group_tests_name("quant4", tests, NULL, NULL);
}
