/* test_reduce.c -- sums, sums of squares and maxima along any dimensions. */
#include "../support/gradcheck.h"
#include "../support/test.h"

#include "ops/ref.h"

#include <math.h>

/* Dimensions of x and of y. */
static const struct {
    uint32_t rank;
    int64_t x[4], y[4];
} shapes[] = {
    {1, {7, 1, 1, 1}, {1, 1, 1, 1}},
    {1, {7, 1, 1, 1}, {7, 1, 1, 1}},
    {2, {3, 5, 1, 1}, {1, 1, 1, 1}},
    {2, {3, 5, 1, 1}, {3, 1, 1, 1}},
    {2, {3, 5, 1, 1}, {1, 5, 1, 1}},
    {2, {3, 5, 1, 1}, {3, 5, 1, 1}},
    {3, {2, 3, 4, 1}, {2, 1, 4, 1}},
    {3, {2, 3, 4, 1}, {1, 3, 1, 1}},
    {4, {2, 3, 2, 3}, {1, 3, 1, 3}},
    {4, {2, 1, 2, 3}, {2, 1, 2, 1}},
    {0, {1, 1, 1, 1}, {1, 1, 1, 1}},
};
enum { N_SHAPES = sizeof shapes / sizeof *shapes };

static qfw_reduce_params params_of(uint32_t kind, const int64_t *dim) {
    return (qfw_reduce_params){sizeof(qfw_reduce_params), kind, {dim[0], dim[1], dim[2], dim[3]}};
}

static op_call reduction(const qfw_reduce_params *p) {
    op_call c = {.code = QFW_OP_REDUCE, .n_in = 1, .n_out = 1, .want = {1}, .params = p};
    c.param_bytes = sizeof *p;
    return c;
}

static qfw_val random_of(eager *e, uint32_t rank, const int64_t *dim) {
    int64_t n = 1;
    for (uint32_t d = 0; d < rank; d++) n *= dim[d];
    return eager_values(e, QFW_F64, rank, dim, eager_read(e, eager_random_1d(e, QFW_F64, n, 0, 1)));
}

/* Where value i of a tensor of x's shape goes in one of y's. */
static int64_t target(uint32_t rank, const int64_t *x, const int64_t *y, int64_t i) {
    int64_t at = 0, step = 1;
    for (uint32_t d = rank; d-- > 0;) {
        if (y[d] != 1) at += i % x[d] * step;
        step *= y[d];
        i /= x[d];
    }
    return at;
}

static void check_values(uint32_t kind, int s) {
    eager *const e = eager_create();
    const qfw_reduce_params p = params_of(kind, shapes[s].y);
    op_call c = reduction(&p);
    double want[64];
    qfw_val out;
    for (int i = 0; i < 64; i++) want[i] = kind == QFW_MAXIMUM ? -9 : 0;
    c.in[0] = random_of(e, shapes[s].rank, shapes[s].x);
    call_run(e, &c, &out);
    const double *const x = eager_read(e, c.in[0]), *const y = eager_read(e, out);
    for (int64_t i = 0; i < qfw_tensor_count(eager_tensor(e, c.in[0])); i++) {
        double *const to = &want[target(shapes[s].rank, shapes[s].x, shapes[s].y, i)];
        *to = kind == QFW_MAXIMUM ? fmax(*to, x[i]) : *to + (kind == QFW_SUM ? x[i] : x[i] * x[i]);
    }
    for (int64_t i = 0; i < qfw_tensor_count(eager_tensor(e, out)); i++)
        assert_true(fabs(y[i] - want[i]) < 1e-14);
    eager_destroy(e);
}

static void test_values(void **state) {
    (void)state;
    for (uint32_t kind = QFW_SUM; kind < QFW_REDUCE_END; kind++)
        for (int s = 0; s < N_SHAPES; s++) check_values(kind, s);
}

static void test_gradients(void **state) {
    static const uint8_t need[1] = {1};
    (void)state;
    for (uint32_t kind = QFW_SUM; kind < QFW_REDUCE_END; kind++)
        for (int s = 0; s < N_SHAPES; s++) {
            eager *const e = eager_create();
            const qfw_reduce_params p = params_of(kind, shapes[s].y);
            op_call c = reduction(&p);
            c.in[0] = random_of(e, shapes[s].rank, shapes[s].x);
            check_gradients(e, &c, 0, need);
            eager_destroy(e);
        }
}

static void test_equal_maxima_share_their_gradient(void **state) {
    static const double x[6] = {1, 3, 3, 5, 2, 5}, dy[2] = {2, 8}, want[6] = {0, 1, 1, 4, 0, 4};
    static const int64_t x_dim[2] = {2, 3}, y_dim[4] = {2, 1, 1, 1};
    static const uint8_t need[1] = {1};
    eager *const e = eager_create();
    const qfw_reduce_params p = params_of(QFW_MAXIMUM, y_dim);
    op_call c = reduction(&p);
    qfw_val y, d, dx = 0, acc = 0;
    (void)state;
    c.in[0] = eager_values(e, QFW_F32, 2, x_dim, x);
    d = eager_values(e, QFW_F32, 2, y_dim, dy);
    call_run(e, &c, &y);
    op_vjp v = {eager_graph(e), &p, c.in, &y, &d, need, &dx, &acc};
    assert_int_equal(op_find(QFW_OP_REDUCE)->vjp(&v), QFW_OK);
    assert_memory_equal(eager_read(e, dx), want, sizeof want);
    eager_destroy(e);
}

/* Sums of nothing are 0, the maximum of nothing -inf, and there may be nothing to sum for. */
static void test_nothing(void **state) {
    static const int64_t one[4] = {1, 1, 1, 1}, kept[4] = {0, 1, 1, 1}, wide[4] = {1, 3, 1, 1};
    (void)state;
    for (uint32_t kind = QFW_SUM; kind < QFW_REDUCE_END; kind++) {
        const double want = kind == QFW_MAXIMUM ? -(double)INFINITY : 0;
        const qfw_reduce_params p = params_of(kind, one), q = params_of(kind, kept);
        const qfw_reduce_params r = params_of(kind, wide);
        eager *const e = eager_create();
        op_call c = reduction(&p);
        qfw_val y;
        c.in[0] = eager_random(e, QFW_F32, 0, 3);
        call_run(e, &c, &y);
        assert_true(eager_read(e, y)[0] == want);
        c.params = &r;
        call_run(e, &c, &y);
        for (int i = 0; i < 3; i++) assert_true(eager_read(e, y)[i] == want);
        c.params = &q;
        call_run(e, &c, &y);
        assert_int_equal(eager_shape(e, y).dim[0], 0);
        c.params = &p;
        c.in[0] = eager_random(e, QFW_F32, 3, 0);
        call_run(e, &c, &y);
        assert_true(eager_read(e, y)[0] == want);
        eager_destroy(e);
    }
}

/* 2^24 + 1 ones cannot be counted in fp32, and sums of narrow floats come out as F32. */
static void test_sums_are_wide(void **state) {
    static const double big[4] = {16777216, 1, 1, 1};
    static const int64_t one[4] = {1, 1, 1, 1}, four = 4;
    eager *const e = eager_create();
    const qfw_reduce_params p = params_of(QFW_SUM, one);
    op_call c = reduction(&p);
    qfw_val y;
    (void)state;
    c.in[0] = eager_values(e, QFW_F32, 1, &four, big);
    call_run(e, &c, &y);
    assert_true(eager_read(e, y)[0] == 16777220);
    c.in[0] = eager_random(e, QFW_BF16, 9, 9);
    call_run(e, &c, &y);
    assert_int_equal(eager_shape(e, y).dtype, QFW_F32);
    eager_destroy(e);
}

static void test_nan_stays(void **state) {
    static const double x[6] = {1, (double)NAN, 3, 4, 5, 6};
    static const int64_t x_dim[2] = {2, 3}, y_dim[4] = {2, 1, 1, 1};
    (void)state;
    for (uint32_t kind = QFW_SUM; kind < QFW_REDUCE_END; kind++) {
        eager *const e = eager_create();
        const qfw_reduce_params p = params_of(kind, y_dim);
        op_call c = reduction(&p);
        qfw_val y;
        c.in[0] = eager_values(e, QFW_F32, 2, x_dim, x);
        call_run(e, &c, &y);
        assert_true(isnan(eager_read(e, y)[0]) && !isnan(eager_read(e, y)[1]));
        eager_destroy(e);
    }
}

static void test_the_wrapper_for_one_value(void **state) {
    eager *const e = eager_create();
    const int64_t dim[3] = {2, 2, 2};
    const double x[8] = {1, 2, 3, 4, 5, 6, 7, 8};
    qfw_val y;
    (void)state;
    assert_int_equal(
        qfw_reduce_all(eager_graph(e), QFW_SUMSQ, eager_values(e, QFW_F32, 3, dim, x), &y), QFW_OK);
    assert_int_equal(eager_shape(e, y).rank, 3);
    assert_true(eager_read(e, y)[0] == 204);
    eager_destroy(e);
}

static void test_refusals(void **state) {
    static const int32_t ints[2] = {1, 2};
    static const int64_t dim[4] = {3, 2, 1, 1};
    eager *const e = eager_create();
    qfw_reduce_params p = params_of(QFW_SUM, dim);
    op_call c = reduction(&p);
    (void)state;
    c.in[0] = eager_random(e, QFW_F32, 3, 4);
    check_refused(e, &c, QFW_E_INVALID, "reduce: dim is 2, wanted x's dimension or 1");
    p.dim[1] = 1;
    p.kind = QFW_REDUCE_END;
    check_refused(e, &c, QFW_E_INVALID, "reduce: kind is 4, wanted 1 (sum), 2 (sum of squares)");
    p.kind = 0;
    check_refused(e, &c, QFW_E_INVALID, "reduce: kind is 0");
    p.kind = QFW_SUM;
    c.in[0] = eager_ints(e, 2, ints);
    check_refused(e, &c, QFW_E_DTYPE, "reduce: x is i32");
    eager_destroy(e);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_values),
        cmocka_unit_test(test_gradients),
        cmocka_unit_test(test_equal_maxima_share_their_gradient),
        cmocka_unit_test(test_nothing),
        cmocka_unit_test(test_sums_are_wide),
        cmocka_unit_test(test_nan_stays),
        cmocka_unit_test(test_the_wrapper_for_one_value),
        cmocka_unit_test(test_refusals),
    };
    return cmocka_run_group_tests_name("reduce", tests, NULL, NULL);
}
