/* test_quant8.c -- blocks of 8-bit codes with a scale each, and back. */
#include "../support/gradcheck.h"
#include "../support/test.h"

#include "ops/quant4.h"

#include <math.h>

static const int64_t map_dim = 256;

/* -1 .. 127/128 in equal steps: exact in fp32, so are their midpoints. */
static qfw_val even_map(eager *e) {
    double map[256];
    for (int i = 0; i < 256; i++) map[i] = (i - 128) / 128.0;
    return eager_values(e, QFW_F32, 1, &map_dim, map);
}

static op_call pack(qfw_val x, qfw_val map, const qfw_block8_params *p) {
    op_call c = {.code = QFW_OP_QUANT8, .n_in = 2, .n_out = 2, .want = {1, 1}, .params = p};
    c.param_bytes = sizeof *p;
    c.in[0] = x;
    c.in[1] = map;
    return c;
}

static op_call unpack(const qfw_val *packed, qfw_val map, const qfw_block8_params *p) {
    op_call c = {.code = QFW_OP_DEQUANT8, .n_in = 3, .n_out = 1, .want = {1}, .params = p};
    c.param_bytes = sizeof *p;
    c.in[0] = packed[0];
    c.in[1] = packed[1];
    c.in[2] = map;
    return c;
}

static void test_codes(void **state) {
    /* The block's greatest is 4; q = x / 4. An exact tie takes the upper. */
    static const double x[6] = {4, -4, 0, 2, 4.0 / 256, -4.0 / 256};
    static const double code[6] = {255, 0, 128, 192, 129, 128};
    const qfw_block8_params p = {sizeof p, 6};
    const int64_t n = 6;
    eager *const e = eager_create();
    const op_call c = pack(eager_values(e, QFW_F32, 1, &n, x), even_map(e), &p);
    qfw_val out[2];
    (void)state;
    call_run(e, &c, out);
    assert_memory_equal(eager_read(e, out[0]), code, sizeof code);
    assert_true(eager_read(e, out[1])[0] == 4);
    assert_int_equal(eager_shape(e, out[0]).dtype, QFW_U8);
    assert_int_equal(eager_shape(e, out[1]).dtype, QFW_F32);
    eager_destroy(e);
}

/* Against a search of the whole map, with the map that 8-bit optimizers use. */
static void test_nearest_of_the_dynamic_map(void **state) {
    enum { N = 1000, BLOCK = 64 };
    const qfw_block8_params p = {sizeof p, BLOCK};
    eager *const e = eager_create();
    double map[256];
    qfw_val out[2];
    (void)state;
    for (int i = 0; i < 256; i++) map[i] = (double)quant8_map()[i];
    const op_call c =
        pack(eager_random_1d(e, QFW_F32, N, 0, 3), eager_values(e, QFW_F32, 1, &map_dim, map), &p);
    call_run(e, &c, out);
    const double *const x = eager_read(e, c.in[0]), *const absmax = eager_read(e, out[1]);
    assert_int_equal(eager_shape(e, out[1]).dim[0], 16);
    for (int b = 0; b < 16; b++) {
        double most = 0;
        for (int i = b * BLOCK; i < (b + 1) * BLOCK && i < N; i++) most = fmax(most, fabs(x[i]));
        assert_true(absmax[b] == most);
    }
    for (int i = 0; i < N; i++) {
        const double q = (double)(float)(x[i] / absmax[i / BLOCK]);
        int best = 0;
        for (int k = 1; k < 256; k++)
            if (fabs(q - map[k]) <= fabs(q - map[best])) best = k;
        assert_true(eager_read(e, out[0])[i] == best);
    }
    eager_destroy(e);
}

static void test_there_and_back(void **state) {
    const qfw_block8_params p = {sizeof p, 7};
    eager *const e = eager_create();
    const qfw_val map = even_map(e);
    const op_call c = pack(eager_random_1d(e, QFW_F32, 100, 0, 5), map, &p);
    qfw_val out[2], x;
    (void)state;
    call_run(e, &c, out);
    const op_call d = unpack(out, map, &p);
    call_run(e, &d, &x);
    assert_int_equal(eager_shape(e, x).dtype, QFW_F32);
    for (int i = 0; i < 100; i++) {
        const double absmax = eager_read(e, out[1])[i / 7], code = eager_read(e, out[0])[i];
        const double was = eager_read(e, c.in[0])[i], is = eager_read(e, x)[i];
        assert_true(is == (double)(float)((code - 128) / 128 * absmax));
        assert_true(fabs(was - is) <= absmax / (code == 255 ? 127.99 : 255.99));
    }
    eager_destroy(e);
}

/* A block of zeros comes back as zeros, a NaN spoils its block and no other. */
static void test_zero_and_nan(void **state) {
    static const double x[9] = {0, 0, 0, 1, (double)NAN, -2, 1, -2, 0.5};
    const qfw_block8_params p = {sizeof p, 3};
    const int64_t n = 9;
    eager *const e = eager_create();
    const qfw_val map = even_map(e);
    const op_call c = pack(eager_values(e, QFW_F32, 1, &n, x), map, &p);
    qfw_val out[2], y;
    (void)state;
    call_run(e, &c, out);
    const op_call d = unpack(out, map, &p);
    call_run(e, &d, &y);
    for (int i = 0; i < 3; i++) {
        assert_true(eager_read(e, y)[i] == 0);
        assert_true(isnan(eager_read(e, y)[3 + i]));
        assert_true(eager_read(e, y)[6 + i] == x[6 + i]);
    }
    eager_destroy(e);
}

static void test_nothing(void **state) {
    const qfw_block8_params p = {sizeof p, 256};
    eager *const e = eager_create();
    const qfw_val map = even_map(e);
    const op_call c = pack(eager_random_1d(e, QFW_F32, 0, 0, 1), map, &p);
    qfw_val out[2], x;
    (void)state;
    call_run(e, &c, out);
    const op_call d = unpack(out, map, &p);
    call_run(e, &d, &x);
    assert_int_equal(eager_shape(e, out[1]).dim[0], 0);
    assert_int_equal(eager_shape(e, x).dim[0], 0);
    eager_destroy(e);
}

static void test_refusals(void **state) {
    qfw_block8_params p = {sizeof p, 7};
    eager *const e = eager_create();
    const qfw_val map = even_map(e);
    op_call c = pack(eager_random_1d(e, QFW_F32, 20, 0, 1), map, &p);
    qfw_val out[2];
    (void)state;
    call_run(e, &c, out);
    op_call d = unpack(out, map, &p);
    check_refused_shape(e, &c, 1, 255, 0, "quant8: map is [255], wanted [256]");
    check_refused_shape(e, &d, 0, 22, 0, "dequant8: absmax is [3], wanted [4]");
    check_refused_shape(e, &d, 1, 2, 0, "dequant8: absmax is [2], wanted [3]");
    check_refused_shape(e, &d, 2, 16, 0, "dequant8: map is [16], wanted [256]");
    d.in[0] = map;
    check_refused(e, &d, QFW_E_DTYPE, "dequant8: code is f32, wanted u8");
    p.block = 0;
    check_refused(e, &c, QFW_E_INVALID, "quant8: block is 0, wanted 1 or more");
    check_refused(e, &d, QFW_E_INVALID, "dequant8: block is 0, wanted 1 or more");
    p.block = 7;
    c.in[0] = eager_random(e, QFW_F32, 2, 3);
    check_refused(e, &c, QFW_E_SHAPE, "quant8: x is [2, 3], wanted [any]");
    c.in[0] = out[0];
    check_refused(e, &c, QFW_E_DTYPE, "quant8: x is u8, wanted f32");
    eager_destroy(e);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_codes),
        cmocka_unit_test(test_nearest_of_the_dynamic_map),
        cmocka_unit_test(test_there_and_back),
        cmocka_unit_test(test_zero_and_nan),
        cmocka_unit_test(test_nothing),
        cmocka_unit_test(test_refusals),
    };
    return cmocka_run_group_tests_name("quant8", tests, NULL, NULL);
}
