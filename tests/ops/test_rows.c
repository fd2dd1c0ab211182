/* test_rows.c -- SEGMENT_SUM, GATHER_ROWS and SORT: rows and values moved by an index. */
#include "../support/gradcheck.h"
#include "../support/test.h"

#include "base/error.h"

#include <math.h>

static op_call call(uint32_t code, uint32_t n_in, uint32_t n_out) {
    op_call c = {.code = code, .n_in = n_in, .n_out = n_out, .want = {1, 1}};
    return c;
}

static void check_values(eager *e, qfw_val v, int64_t n, const double *want) {
    const double *const got = eager_read(e, v);
    assert_int_equal(qfw_tensor_count(eager_tensor(e, v)), n);
    for (int64_t i = 0; i < n; i++)
        if (!(got[i] == want[i] || (isnan(got[i]) && isnan(want[i]))))
            fail_msg("value %d is %g, not %g", (int)i, got[i], want[i]);
}

/* --- SEGMENT_SUM, GATHER_ROWS --- */

static const int32_t index5[5] = {2, 0, -1, 2, 0};

static void test_segment_sum(void **state) {
    static const double x[10] = {1, 10, 2, 20, 3, 30, 4, 40, 5, 50};
    static const double rows[8] = {7, 70, 0, 0, 5, 50, 0, 0};
    const qfw_segment_sum_params p = {sizeof p, 0, 4};
    const int64_t dim[2] = {5, 2};
    eager *const e = eager_create();
    const qfw_val index = eager_ints(e, 5, index5);
    op_call c = call(QFW_OP_SEGMENT_SUM, 2, 1);
    qfw_val y;
    (void)state;
    c.params = &p;
    c.param_bytes = sizeof p;
    c.in[0] = eager_values(e, QFW_F32, 2, dim, x);
    c.in[1] = index;
    call_run(e, &c, &y);
    check_values(e, y, 8, rows);
    c.in[0] = eager_values(e, QFW_F32, 1, dim, x); /* 1, 10, 2, 20, 3 */
    const double first[4] = {10 + 3, 0, 1 + 20, 0};
    call_run(e, &c, &y);
    check_values(e, y, 4, first);
    eager_destroy(e);
}

static void test_gather_rows(void **state) {
    static const double x[6] = {1, 10, 2, 20, 3, 30};
    static const double rows[10] = {3, 30, 1, 10, 0, 0, 3, 30, 1, 10}, values[5] = {2, 1, 0, 2, 1};
    static const int32_t whole[3] = {16777217, -7, 5};
    static const double picked[5] = {5, 16777217, 0, 5, 16777217};
    const int64_t dim[2] = {3, 2};
    eager *const e = eager_create();
    op_call c = call(QFW_OP_GATHER_ROWS, 2, 1);
    qfw_val y;
    (void)state;
    c.in[0] = eager_values(e, QFW_F32, 2, dim, x);
    c.in[1] = eager_ints(e, 5, index5);
    call_run(e, &c, &y);
    check_values(e, y, 10, rows);
    c.in[0] = eager_values(e, QFW_F32, 1, dim, x);
    call_run(e, &c, &y);
    check_values(e, y, 5, values);
    c.in[0] = eager_ints(e, 3, whole);
    call_run(e, &c, &y);
    check_values(e, y, 5, picked);
    assert_int_equal(eager_shape(e, y).dtype, QFW_I32);
    eager_destroy(e);
}

static void test_row_gradients(void **state) {
    static const uint8_t need[2] = {1, 0};
    const qfw_segment_sum_params p = {sizeof p, 0, 3};
    eager *const e = eager_create();
    op_call sum = call(QFW_OP_SEGMENT_SUM, 2, 1), gather = call(QFW_OP_GATHER_ROWS, 2, 1);
    (void)state;
    sum.params = &p;
    sum.param_bytes = sizeof p;
    sum.in[1] = gather.in[1] = eager_ints(e, 5, index5);
    for (int matrix = 0; matrix < 2; matrix++) {
        sum.in[0] = matrix ? eager_random(e, QFW_F64, 5, 3) : eager_random_1d(e, QFW_F64, 5, 0, 1);
        gather.in[0] =
            matrix ? eager_random(e, QFW_F64, 4, 3) : eager_random_1d(e, QFW_F64, 4, 0, 1);
        check_gradients(e, &sum, 0, need);
        check_gradients(e, &gather, 0, need);
    }
    eager_destroy(e);
}

/* A strided column is summed as its copy is. */
static void test_strided_values(void **state) {
    const qfw_segment_sum_params p = {sizeof p, 0, 3};
    const int64_t n = 5, step = 4;
    eager *const e = eager_create();
    op_call c = call(QFW_OP_SEGMENT_SUM, 2, 1);
    qfw_val a, b, column;
    (void)state;
    c.params = &p;
    c.param_bytes = sizeof p;
    c.in[1] = eager_ints(e, 5, index5);
    const qfw_val base = eager_random(e, QFW_F32, 5, 4);
    assert_int_equal(
        eager_graph(e)->api->view(eager_graph(e), base, 1, &n, &step, 2, &column), QFW_OK);
    c.in[0] = column;
    call_run(e, &c, &a);
    c.in[0] = eager_values(e, QFW_F32, 1, &n, eager_read(e, column));
    call_run(e, &c, &b);
    assert_true(eager_distance(e, a, b) == 0);
    eager_destroy(e);
}

static void test_no_rows(void **state) {
    static const double zeros[6] = {0};
    const qfw_segment_sum_params p = {sizeof p, 0, 2}, none = {sizeof none, 0, 0};
    eager *const e = eager_create();
    op_call sum = call(QFW_OP_SEGMENT_SUM, 2, 1), gather = call(QFW_OP_GATHER_ROWS, 2, 1);
    static const int32_t nowhere[2] = {-1, -1};
    qfw_val y;
    (void)state;
    sum.params = &p;
    sum.param_bytes = sizeof p;
    sum.in[0] = gather.in[0] = eager_random(e, QFW_F32, 0, 3);
    sum.in[1] = gather.in[1] = eager_ints(e, 0, NULL);
    call_run(e, &sum, &y);
    check_values(e, y, 6, zeros);
    call_run(e, &gather, &y);
    check_values(e, y, 0, zeros);
    gather.in[1] = sum.in[1] = eager_ints(e, 2, nowhere);
    call_run(e, &gather, &y);
    check_values(e, y, 6, zeros);
    sum.in[0] = eager_random(e, QFW_F32, 2, 3);
    sum.params = &none;
    call_run(e, &sum, &y);
    check_values(e, y, 0, zeros);
    eager_destroy(e);
}

static void test_row_refusals(void **state) {
    static const int32_t far[2] = {0, 3}, negative[2] = {-2, 0};
    qfw_segment_sum_params p = {sizeof p, 0, 3};
    const int64_t dim[3] = {2, 1, 1};
    eager *const e = eager_create();
    op_call sum = call(QFW_OP_SEGMENT_SUM, 2, 1), gather = call(QFW_OP_GATHER_ROWS, 2, 1);
    (void)state;
    sum.params = &p;
    sum.param_bytes = sizeof p;
    sum.in[0] = eager_random(e, QFW_F32, 2, 3);
    gather.in[0] = eager_random(e, QFW_F32, 3, 3);
    sum.in[1] = gather.in[1] = eager_ints(e, 2, far);
    check_refused(e, &sum, QFW_E_DATA, "segment_sum: index 3 at 1, wanted -1 to 2");
    check_refused(e, &gather, QFW_E_DATA, "gather_rows: index 3 at 1, wanted -1 to 2");
    sum.in[1] = gather.in[1] = eager_ints(e, 2, negative);
    check_refused(e, &sum, QFW_E_DATA, "segment_sum: index -2 at 0, wanted -1 to 2");
    check_refused(e, &gather, QFW_E_DATA, "gather_rows: index -2 at 0, wanted -1 to 2");
    check_refused_shape(e, &sum, 1, 3, 0, "segment_sum: index is [3], wanted [2]");
    gather.in[1] = eager_ints_2d(e, 1, 2, far);
    check_refused(e, &gather, QFW_E_SHAPE, "gather_rows: index is [1, 2], wanted [any]");
    gather.in[1] = gather.in[0];
    check_refused(e, &gather, QFW_E_DTYPE, "gather_rows: index is f32, wanted i32");
    sum.in[0] = gather.in[0] = eager_values(e, QFW_F32, 3, dim, NULL);
    check_refused(e, &sum, QFW_E_SHAPE, "segment_sum: x is [2, 1, 1], wanted [any] or [any, any]");
    check_refused(e, &gather, QFW_E_SHAPE, "gather_rows: x is [2, 1, 1], wanted");
    p.count = -1;
    check_refused(e, &sum, QFW_E_INVALID, "segment_sum: count is -1, wanted 0 or more");
    eager_destroy(e);
}

/* --- SCATTER_ROWS --- */

static void test_scatter_rows(void **state) {
    static const double x[8] = {1, 10, 2, 20, 3, 30, 4, 40}, rows[6] = {5, 50, 6, 60, 7, 70};
    static const double wanted[8] = {7, 70, 2, 20, 3, 30, 5, 50};
    static const int32_t index[3] = {3, -1, 0};
    static const uint8_t need[3] = {1, 1, 0};
    const int64_t dim_x[2] = {4, 2}, dim_rows[2] = {3, 2};
    eager *const e = eager_create();
    op_call c = call(QFW_OP_SCATTER_ROWS, 3, 1);
    qfw_val y;
    (void)state;
    c.in[0] = eager_values(e, QFW_F32, 2, dim_x, x);
    c.in[1] = eager_values(e, QFW_F32, 2, dim_rows, rows);
    c.in[2] = eager_ints(e, 3, index);
    call_run(e, &c, &y);
    check_values(e, y, 8, wanted);
    check_values(e, c.in[0], 8, x);
    c.in[0] = eager_random(e, QFW_F64, 4, 2);
    c.in[1] = eager_random(e, QFW_F64, 3, 2);
    check_gradients(e, &c, 0, need);
    eager_destroy(e);
}

static void test_scatter_refusals(void **state) {
    static const int32_t far[2] = {0, 4}, twice[2] = {1, 1};
    eager *const e = eager_create();
    op_call c = call(QFW_OP_SCATTER_ROWS, 3, 1);
    (void)state;
    c.in[0] = eager_random(e, QFW_F32, 4, 2);
    c.in[1] = eager_random(e, QFW_F32, 2, 2);
    c.in[2] = eager_ints(e, 2, far);
    check_refused(e, &c, QFW_E_DATA, "scatter_rows: index 4 at 1, wanted -1 to 3");
    c.in[2] = eager_ints(e, 2, twice);
    check_refused(e, &c, QFW_E_DATA, "scatter_rows: index 1 stands twice");
    check_refused_shape(e, &c, 1, 2, 3, "scatter_rows: rows is [2, 3], wanted [2, 2]");
    eager_destroy(e);
}

/* --- SORT --- */

/* Equal values, 0 and -0 among them, keep their order; NaN comes last, in order too. */
static void test_sort_is_stable(void **state) {
    static const double x[9] = {3, (double)NAN, 0, 1, -0.0, 3, -(double)INFINITY, (double)NAN, 1};
    static const double y[9] = {-(double)INFINITY, 0, 0, 1, 1, 3, 3, (double)NAN, (double)NAN};
    static const double perm[9] = {6, 2, 4, 3, 8, 0, 5, 1, 7};
    const int64_t n = 9;
    eager *const e = eager_create();
    op_call c = call(QFW_OP_SORT, 1, 2);
    qfw_val out[2];
    (void)state;
    c.in[0] = eager_values(e, QFW_F32, 1, &n, x);
    call_run(e, &c, out);
    check_values(e, out[0], 9, y);
    check_values(e, out[1], 9, perm);
    assert_true(!signbit(eager_read(e, out[0])[1]) && signbit(eager_read(e, out[0])[2]));
    eager_destroy(e);
}

static void test_sort_many(void **state) {
    enum { N = 1000 };
    eager *const e = eager_create();
    op_call c = call(QFW_OP_SORT, 1, 2);
    int seen[N] = {0};
    qfw_val out[2];
    (void)state;
    c.in[0] = eager_random_1d(e, QFW_BF16, N, 0, 1); /* bf16: with ties */
    call_run(e, &c, out);
    const double *const x = eager_read(e, c.in[0]), *const y = eager_read(e, out[0]);
    const double *const perm = eager_read(e, out[1]);
    for (int i = 0; i < N; i++) {
        const int from = (int)perm[i];
        assert_in_range(from, 0, N - 1);
        assert_int_equal(seen[from]++, 0);
        assert_true(y[i] == x[from]);
        assert_true(i == 0 || y[i - 1] < y[i] || (y[i - 1] == y[i] && perm[i - 1] < perm[i]));
    }
    eager_destroy(e);
}

static void test_sort_gradient_goes_back(void **state) {
    static const uint8_t need[1] = {1};
    eager *const e = eager_create();
    op_call c = call(QFW_OP_SORT, 1, 2);
    (void)state;
    c.in[0] = eager_random_1d(e, QFW_F64, 13, 0, 1);
    check_gradients(e, &c, 0, need);
    eager_destroy(e);
}

static void test_sort_corners(void **state) {
    eager *const e = eager_create();
    op_call c = call(QFW_OP_SORT, 1, 2);
    qfw_val out[2];
    (void)state;
    c.in[0] = eager_random_1d(e, QFW_F32, 0, 0, 1);
    call_run(e, &c, out);
    c.in[0] = eager_random_1d(e, QFW_F32, 1, 0, 1);
    call_run(e, &c, out);
    assert_true(eager_read(e, out[1])[0] == 0);
    c.in[0] = eager_random(e, QFW_F32, 2, 3);
    check_refused(e, &c, QFW_E_SHAPE, "sort: x is [2, 3], wanted [any]");
    c.in[0] = out[1];
    check_refused(e, &c, QFW_E_DTYPE, "sort: x is i32");
    eager_destroy(e);
}

static void test_sort_length_fits_perm(void **state) {
    const op_shape x = {QFW_F32, 1, {INT64_C(1) << 31, 1, 1, 1}};
    const op_shape *const in[1] = {&x};
    op_shape out[2];
    (void)state;
    assert_int_equal(op_infer_shapes(QFW_OP_SORT, in, 1, NULL, 0, NULL, out, 2), QFW_E_INVALID);
    assert_non_null(strstr(err_text(0), "sort: x's length is 2.14748365e+09"));
    err_clear();
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_segment_sum),
        cmocka_unit_test(test_gather_rows),
        cmocka_unit_test(test_row_gradients),
        cmocka_unit_test(test_strided_values),
        cmocka_unit_test(test_no_rows),
        cmocka_unit_test(test_row_refusals),
        cmocka_unit_test(test_scatter_rows),
        cmocka_unit_test(test_scatter_refusals),
        cmocka_unit_test(test_sort_is_stable),
        cmocka_unit_test(test_sort_many),
        cmocka_unit_test(test_sort_gradient_goes_back),
        cmocka_unit_test(test_sort_corners),
        cmocka_unit_test(test_sort_length_fits_perm),
    };
    return cmocka_run_group_tests_name("rows", tests, NULL, NULL);
}
