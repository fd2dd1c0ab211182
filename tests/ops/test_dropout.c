/* test_dropout.c -- which features are dropped, to the bit. */
#include "../support/gradcheck.h"
#include "../support/test.h"

#include "base/rng.h"

#include <math.h>

static const qfw_dropout_params half = {sizeof half, 0.5f, 1234, 0x9747b28c};
static const int32_t keys[8] = {0, 0, 0, 1, 7, 3, -1, 2147483647};

static op_call drop(eager *e, uint32_t dtype, int64_t n, int64_t columns, const void *params) {
    op_call c = {.code = QFW_OP_DROPOUT, .n_in = 2, .n_out = 1, .want = {1}, .params = params};
    c.param_bytes = sizeof half;
    c.in[0] = eager_random(e, dtype, n, columns);
    c.in[1] = eager_ints_2d(e, n, 2, keys);
    return c;
}

/* Word c % 4 of Philox(counter {key, c / 4, 0}, key {seed, module}), as ops_prim.h has it. */
static void test_the_mask_is_the_headers(void **state) {
    static const float rates[3] = {0.5f, 0.1f, 0.9f};
    const uint32_t key[2] = {half.seed, half.module_hash};
    (void)state;
    for (int k = 0; k < 3; k++) {
        eager *const e = eager_create();
        const qfw_dropout_params p = {sizeof p, rates[k], half.seed, half.module_hash};
        const op_call c = drop(e, QFW_F64, 4, 11, &p);
        qfw_val y;
        call_run(e, &c, &y);
        for (uint32_t i = 0; i < 44; i++) {
            const int32_t *const row = keys + i / 11 * 2;
            const uint32_t counter[4] = {(uint32_t)row[0], (uint32_t)row[1], i % 11 / 4, 0};
            uint32_t word[4];
            philox4x32(counter, key, word);
            const int kept = word[i % 11 % 4] / 4294967296.0 >= (double)p.p;
            const double x = eager_read(e, c.in[0])[i];
            assert_true(eager_read(e, y)[i] == (kept ? x / (1 - (double)p.p) : 0));
        }
        eager_destroy(e);
    }
}

/* The mask of the first features of row {0, 0}, from another implementation of Philox. */
static void test_golden(void **state) {
    static const char want[] = "11100110111000111011";
    eager *const e = eager_create();
    const op_call c = drop(e, QFW_F32, 1, 20, &half);
    char mask[21] = {0};
    qfw_val y;
    (void)state;
    call_run(e, &c, &y);
    for (int i = 0; i < 20; i++) mask[i] = eager_read(e, y)[i] == 0 ? '0' : '1';
    assert_string_equal(mask, want);
    eager_destroy(e);
}

static void test_gradient_is_the_same_op(void **state) {
    static const uint8_t need[2] = {1, 0};
    eager *const e = eager_create();
    const op_call c = drop(e, QFW_F64, 4, 9, &half);
    (void)state;
    check_gradients(e, &c, 0, need);
    eager_destroy(e);
}

static void test_no_dropout_changes_no_bit(void **state) {
    const qfw_dropout_params p = {sizeof p, 0, 1, 2};
    eager *const e = eager_create();
    const op_call c = drop(e, QFW_BF16, 4, 9, &p);
    qfw_val y;
    (void)state;
    call_run(e, &c, &y);
    assert_true(eager_distance(e, y, c.in[0]) == 0);
    eager_destroy(e);
}

static void test_what_is_dropped_is_zero_even_if_nan(void **state) {
    eager *const e = eager_create();
    op_call c = drop(e, QFW_F32, 1, 20, &half);
    const int64_t dim[2] = {1, 20};
    double nan[20];
    int dropped = 0;
    qfw_val y;
    (void)state;
    for (int i = 0; i < 20; i++) nan[i] = (double)NAN;
    c.in[0] = eager_values(e, QFW_F32, 2, dim, nan);
    call_run(e, &c, &y);
    for (int i = 0; i < 20; i++) dropped += eager_read(e, y)[i] == 0;
    assert_in_range(dropped, 5, 15);
    eager_destroy(e);
}

static void test_in_place_and_nothing(void **state) {
    eager *const e = eager_create();
    const op_call c = drop(e, QFW_F32, 4, 9, &half);
    const op_call rows = drop(e, QFW_F32, 0, 9, &half), columns = drop(e, QFW_F32, 4, 0, &half);
    qfw_val y;
    (void)state;
    check_in_place(e, &c);
    call_run(e, &rows, &y);
    call_run(e, &columns, &y);
    eager_destroy(e);
}

static void test_refusals(void **state) {
    qfw_dropout_params p = half;
    eager *const e = eager_create();
    op_call c = drop(e, QFW_F32, 4, 9, &p);
    (void)state;
    check_refused_shape(e, &c, 0, 3, 9, "dropout: row_key is [4, 2], wanted [3, 2]");
    check_refused_shape(e, &c, 1, 4, 3, "dropout: row_key is [4, 3], wanted [4, 2]");
    p.p = 1;
    check_refused(e, &c, QFW_E_INVALID, "dropout: p is 1, wanted in [0, 1)");
    p.p = NAN;
    check_refused(e, &c, QFW_E_INVALID, "dropout: p is nan, wanted in [0, 1)");
    p.p = 0.5f;
    c.in[1] = eager_random(e, QFW_F32, 4, 2);
    check_refused(e, &c, QFW_E_DTYPE, "dropout: row_key is f32, wanted i32");
    c.in[0] = eager_random_1d(e, QFW_F32, 4, 0, 1);
    check_refused(e, &c, QFW_E_SHAPE, "dropout: x is [4], wanted [any, any]");
    eager_destroy(e);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_mask_is_the_headers),
        cmocka_unit_test(test_golden),
        cmocka_unit_test(test_gradient_is_the_same_op),
        cmocka_unit_test(test_no_dropout_changes_no_bit),
        cmocka_unit_test(test_what_is_dropped_is_zero_even_if_nan),
        cmocka_unit_test(test_in_place_and_nothing),
        cmocka_unit_test(test_refusals),
    };
    return cmocka_run_group_tests_name("dropout", tests, NULL, NULL);
}
