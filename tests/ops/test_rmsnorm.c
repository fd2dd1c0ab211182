/* test_rmsnorm.c -- normalised rows, their gradients, and what the shape rules refuse. */
#include "../support/gradcheck.h"
#include "../support/test.h"
#include "ops/ref.h"

#include <math.h>

static const qfw_rmsnorm_params params = {sizeof params, 1e-5f};

static op_call forward(eager *e, uint32_t dtype, int64_t N, int64_t C) {
    op_call c = {.code = QFW_OP_RMSNORM, .n_in = 2, .n_out = 2, .want = {1, 1}};
    c.params = &params;
    c.param_bytes = sizeof params;
    c.in[0] = eager_random(e, dtype, N, C);
    c.in[1] = eager_random_1d(e, dtype, C, 1, 0.5);
    return c;
}

static op_call backward(eager *e, uint32_t dtype, int64_t N, int64_t C) {
    const op_call f = forward(e, dtype, N, C);
    qfw_val out[2];
    call_run(e, &f, out);
    op_call c = {.code = QFW_OP_RMSNORM_BWD, .n_in = 5, .n_out = 2, .want = {1, 1}};
    c.in[0] = eager_random(e, dtype, N, C);
    c.in[1] = f.in[0];
    c.in[2] = f.in[1];
    c.in[3] = out[1];
    c.in[4] = eager_random(e, dtype, N, C);
    return c;
}

static void test_values(void **state) {
    eager *const e = eager_create();
    const double x[4] = {3, 4, 0, 0}, w[2] = {1, 2};
    const int64_t dim[2] = {2, 2};
    op_call c = forward(e, QFW_F64, 2, 2);
    qfw_val out[2];
    (void)state;
    c.in[0] = eager_values(e, QFW_F64, 2, dim, x);
    c.in[1] = eager_values(e, QFW_F64, 1, dim, w);
    call_run(e, &c, out);
    const double rstd = 1 / sqrt(12.5 + (double)1e-5f);
    assert_true(fabs(eager_read(e, out[0])[0] - 3 * rstd) < 1e-15);
    assert_true(fabs(eager_read(e, out[0])[1] - 8 * rstd) < 1e-15);
    assert_true(eager_read(e, out[0])[2] == 0);
    assert_true(fabs(eager_read(e, out[1])[0] - rstd) < 1e-15);
    eager_destroy(e);
}

static void test_gradients(void **state) {
    static const uint8_t both[2] = {1, 1}, frozen[2] = {1, 0}, weight[2] = {0, 1};
    eager *const e = eager_create();
    const op_call c = forward(e, QFW_F64, 3, 7);
    (void)state;
    check_gradients(e, &c, 0, both);
    check_gradients(e, &c, 0, frozen);
    check_gradients(e, &c, 0, weight);
    eager_destroy(e);
}

static void test_a_frozen_weight_costs_no_output(void **state) {
    eager *const e = eager_create();
    op_call c = backward(e, QFW_F32, 3, 5);
    qfw_val whole[2], alone[2];
    (void)state;
    call_run(e, &c, whole);
    c.want[1] = 0;
    call_run(e, &c, alone);
    assert_int_equal(alone[1], 0);
    assert_true(eager_distance(e, alone[0], whole[0]) == 0);
    eager_destroy(e);
}

static void test_in_place(void **state) {
    eager *const e = eager_create();
    const op_call c = backward(e, QFW_F32, 5, 9);
    (void)state;
    check_in_place(e, &c);
    eager_destroy(e);
}

static void test_rows_may_be_strided(void **state) {
    eager *const e = eager_create();
    op_call c = forward(e, QFW_F32, 4, 6), dense = c;
    const int64_t dim[2] = {4, 6}, stride[2] = {10, 1};
    const qfw_val wide = eager_random(e, QFW_F32, 4, 10);
    qfw_val a[2], b[2], part;
    (void)state;
    assert_int_equal(eager_graph(e)->api->view(eager_graph(e), wide, 2, dim, stride, 3, &part), 0);
    c.in[0] = part;
    dense.in[0] = eager_values(e, QFW_F32, 2, dim, eager_read(e, part));
    call_run(e, &c, a);
    call_run(e, &dense, b);
    assert_true(eager_distance(e, a[0], b[0]) == 0);
    eager_destroy(e);
}

static void test_no_rows(void **state) {
    eager *const e = eager_create();
    const op_call f = forward(e, QFW_F32, 0, 8), b = backward(e, QFW_F32, 0, 8);
    qfw_val out[2];
    (void)state;
    call_run(e, &f, out);
    call_run(e, &b, out);
    for (int c = 0; c < 8; c++) assert_true(eager_read(e, out[1])[c] == 0);
    eager_destroy(e);
}

static void test_refusals(void **state) {
    static const qfw_rmsnorm_params zero = {sizeof zero, 0};
    static const int32_t ints[4] = {1, 2, 3, 4};
    eager *const e = eager_create();
    op_call f = forward(e, QFW_F32, 3, 8);
    const op_call b = backward(e, QFW_F32, 3, 8);
    (void)state;
    check_refused_shape(e, &f, 1, 7, 0, "rmsnorm: w is [7], wanted [8]");
    check_refused_shape(e, &b, 0, 3, 9, "rmsnorm_bwd: dy is [3, 9], wanted [3, 8]");
    check_refused_shape(e, &b, 1, 2, 8, "rmsnorm_bwd: dy is [3, 8], wanted [2, 8]");
    check_refused_shape(e, &b, 2, 9, 0, "rmsnorm_bwd: w is [9], wanted [8]");
    check_refused_shape(e, &b, 3, 4, 0, "rmsnorm_bwd: rstd is [4], wanted [3]");
    check_refused_shape(e, &b, 4, 8, 3, "rmsnorm_bwd: acc is [8, 3], wanted [3, 8]");
    f.params = &zero;
    check_refused(e, &f, QFW_E_INVALID, "rmsnorm: eps is 0, wanted a number above 0");
    f.params = &params;
    f.in[0] = f.in[1];
    check_refused(e, &f, QFW_E_SHAPE, "rmsnorm: x is [8], wanted [any, any]");
    f.in[0] = eager_ints_2d(e, 2, 2, ints);
    check_refused(e, &f, QFW_E_DTYPE, "rmsnorm: x is i32, wanted f32 or bf16 or f16 or f64");
    eager_destroy(e);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_values),
        cmocka_unit_test(test_gradients),
        cmocka_unit_test(test_a_frozen_weight_costs_no_output),
        cmocka_unit_test(test_in_place),
        cmocka_unit_test(test_rows_may_be_strided),
        cmocka_unit_test(test_no_rows),
        cmocka_unit_test(test_refusals),
    };
    return cmocka_run_group_tests_name("rmsnorm", tests, NULL, NULL);
}
