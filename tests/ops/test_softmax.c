/* test_softmax.c -- exp(x) over its sum, row by row. */
#include "../support/gradcheck.h"
#include "../support/test.h"

#include <math.h>

static op_call forward(eager *e, uint32_t dtype, int64_t n, int64_t columns) {
    op_call c = {.code = QFW_OP_SOFTMAX, .n_in = 1, .n_out = 1, .want = {1}};
    c.in[0] = eager_random(e, dtype, n, columns);
    return c;
}

static op_call backward(eager *e, uint32_t dtype, int64_t n, int64_t columns) {
    op_call f = forward(e, dtype, n, columns), c = f;
    call_run(e, &f, &c.in[1]);
    c.code = QFW_OP_SOFTMAX_BWD;
    c.n_in = 2;
    c.in[0] = eager_random(e, dtype, n, columns);
    return c;
}

static void test_values(void **state) {
    static const double x[8] = {0, 1, 2, 3, 1000, 1001, 1002, 1003};
    const int64_t dim[2] = {2, 4};
    eager *const e = eager_create();
    op_call c = forward(e, QFW_F64, 2, 4);
    qfw_val y;
    (void)state;
    c.in[0] = eager_values(e, QFW_F64, 2, dim, x);
    call_run(e, &c, &y);
    const double sum = 1 + exp(1) + exp(2) + exp(3);
    for (int i = 0; i < 8; i++) assert_true(fabs(eager_read(e, y)[i] - exp(i % 4) / sum) < 1e-15);
    eager_destroy(e);
}

/* As torch has it: -inf is weightless, NaN and +inf spoil their row, and so does a row of -inf. */
static void test_infinities_and_nan(void **state) {
    const double inf = (double)INFINITY;
    const double x[12] = {-inf, 0, 0, (double)NAN, 0, 0, inf, 0, 0, -inf, -inf, -inf};
    const int64_t dim[2] = {4, 3};
    eager *const e = eager_create();
    op_call c = forward(e, QFW_F32, 4, 3);
    qfw_val y;
    (void)state;
    c.in[0] = eager_values(e, QFW_F32, 2, dim, x);
    call_run(e, &c, &y);
    const double *const p = eager_read(e, y);
    assert_true(p[0] == 0 && p[1] == 0.5 && p[2] == 0.5);
    for (int i = 3; i < 12; i++) assert_true(isnan(p[i]));
    eager_destroy(e);
}

static void test_gradients(void **state) {
    static const uint8_t need[1] = {1};
    const int64_t dim[4] = {2, 3, 1, 4}, n = 5;
    eager *const e = eager_create();
    op_call c = forward(e, QFW_F64, 3, 7);
    (void)state;
    check_gradients(e, &c, 0, need);
    const qfw_val flat = eager_random_1d(e, QFW_F64, 24, 0, 2);
    c.in[0] = eager_values(e, QFW_F64, 4, dim, eager_read(e, flat));
    check_gradients(e, &c, 0, need);
    c.in[0] = eager_values(e, QFW_F64, 1, &n, eager_read(e, flat));
    check_gradients(e, &c, 0, need);
    eager_destroy(e);
}

static void test_in_place(void **state) {
    eager *const e = eager_create();
    const op_call f = forward(e, QFW_F32, 5, 9), b = backward(e, QFW_F32, 5, 9);
    (void)state;
    check_in_place(e, &f);
    check_in_place(e, &b);
    eager_destroy(e);
}

static void test_rows_may_be_strided(void **state) {
    const int64_t dim[2] = {4, 5}, stride[2] = {13, 2};
    eager *const e = eager_create();
    op_call c = backward(e, QFW_F32, 4, 5), dense = c;
    qfw_graph *const g = eager_graph(e);
    const qfw_val wide = eager_random(e, QFW_F32, 4, 13);
    qfw_val a, b;
    (void)state;
    assert_int_equal(g->api->view(g, wide, 2, dim, stride, 1, &c.in[0]), QFW_OK);
    dense.in[0] = eager_values(e, QFW_F32, 2, dim, eager_read(e, c.in[0]));
    call_run(e, &c, &a);
    call_run(e, &dense, &b);
    assert_true(eager_distance(e, a, b) == 0);
    eager_destroy(e);
}

static void test_nothing(void **state) {
    static const int64_t sizes[2][2] = {{0, 8}, {3, 0}};
    (void)state;
    for (int k = 0; k < 2; k++) {
        eager *const e = eager_create();
        const op_call b = backward(e, QFW_F32, sizes[k][0], sizes[k][1]);
        qfw_val dx;
        call_run(e, &b, &dx);
        eager_destroy(e);
    }
}

static void test_refusals(void **state) {
    static const int32_t ints[2] = {1, 2};
    eager *const e = eager_create();
    op_call f = forward(e, QFW_F32, 3, 4), b = backward(e, QFW_F32, 3, 4);
    (void)state;
    check_refused_shape(e, &b, 0, 3, 5, "softmax_bwd: dy is [3, 5], wanted [3, 4]");
    check_refused_shape(e, &b, 1, 4, 4, "softmax_bwd: dy is [3, 4], wanted [4, 4]");
    f.in[0] = eager_values(e, QFW_F32, 0, NULL, NULL);
    check_refused(e, &f, QFW_E_SHAPE, "softmax: x is [], wanted [any]");
    b.in[1] = f.in[0];
    check_refused(e, &b, QFW_E_SHAPE, "softmax_bwd: y is [], wanted [any]");
    f.in[0] = b.in[1] = eager_ints(e, 2, ints);
    check_refused(e, &f, QFW_E_DTYPE, "softmax: x is i32");
    check_refused(e, &b, QFW_E_DTYPE, "softmax_bwd: y is i32");
    eager_destroy(e);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_values),
        cmocka_unit_test(test_infinities_and_nan),
        cmocka_unit_test(test_gradients),
        cmocka_unit_test(test_in_place),
        cmocka_unit_test(test_rows_may_be_strided),
        cmocka_unit_test(test_nothing),
        cmocka_unit_test(test_refusals),
    };
    return cmocka_run_group_tests_name("softmax", tests, NULL, NULL);
}
