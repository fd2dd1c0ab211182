/* test_windows.c -- UNVIEW, CONCAT and FILL: values put in their places. */
#include "../support/gradcheck.h"
#include "../support/test.h"

#include "ops/ref.h"

#include <math.h>

static op_call call(uint32_t code, uint32_t n_in, const void *params, uint32_t param_bytes) {
    op_call c = {.code = code, .n_in = n_in, .n_out = 1, .want = {1}, .params = params};
    c.param_bytes = param_bytes;
    return c;
}

static void expect(eager *e, const op_call *c, int64_t n, const double *want) {
    qfw_val y;
    call_run(e, c, &y);
    assert_int_equal(qfw_tensor_count(eager_tensor(e, y)), n);
    assert_memory_equal(eager_read(e, y), want, (size_t)n * sizeof *want);
}

/* --- UNVIEW --- */

static void test_unview_adds_through_the_window(void **state) {
    static const double x[4] = {1, 2, 3, 4};
    static const double columns[8] = {0, 1, 2, 0, 0, 3, 4, 0},
                        repeated[8] = {0, 0, 0, 3, 0, 0, 0, 7};
    static const double turned[8] = {1, 3, 0, 0, 2, 4, 0, 0};
    const int64_t dim[2] = {2, 2};
    qfw_unview_params p = {sizeof p, 2, {2, 4, 1, 1}, {4, 1, 1, 1}, 1};
    eager *const e = eager_create();
    op_call c = call(QFW_OP_UNVIEW, 1, &p, sizeof p);
    (void)state;
    c.in[0] = eager_values(e, QFW_F32, 2, dim, x);
    expect(e, &c, 8, columns);
    p.offset = 3;
    p.stride[1] = 0;
    expect(e, &c, 8, repeated);
    p = (qfw_unview_params){sizeof p, 2, {2, 4, 1, 1}, {1, 4, 1, 1}, 0};
    expect(e, &c, 8, turned);
    p = (qfw_unview_params){sizeof p, 1, {8, 1, 1, 1}, {1, 4, 1, 1}, 0}; /* y of another rank */
    expect(e, &c, 8, turned);
    eager_destroy(e);
}

static void test_unview_gradients(void **state) {
    static const qfw_unview_params params[3] = {
        {sizeof(qfw_unview_params), 2, {3, 7, 1, 1}, {7, 2, 1, 1}, 1},
        {sizeof(qfw_unview_params), 2, {3, 7, 1, 1}, {0, 3, 1, 1}, 0},
        {sizeof(qfw_unview_params), 1, {12, 1, 1, 1}, {3, 2, 1, 1}, 1}};
    static const uint8_t need[1] = {1};
    eager *const e = eager_create();
    (void)state;
    for (int k = 0; k < 3; k++) {
        op_call c = call(QFW_OP_UNVIEW, 1, &params[k], sizeof params[k]);
        c.in[0] = eager_random(e, QFW_F64, 3, 3);
        check_gradients(e, &c, 0, need);
    }
    eager_destroy(e);
}

static void test_unview_sums_wide(void **state) {
    eager *const e = eager_create();
    const qfw_unview_params p = {sizeof p, 1, {1, 1, 1, 1}, {0, 0, 1, 1}, 0};
    op_call c = call(QFW_OP_UNVIEW, 1, &p, sizeof p);
    const int64_t dim[2] = {2, 300};
    double ones[600];
    qfw_val y;
    (void)state;
    for (int i = 0; i < 600; i++) ones[i] = 1;
    c.in[0] = eager_values(e, QFW_BF16, 2, dim, ones);
    call_run(e, &c, &y);
    assert_int_equal(eager_shape(e, y).dtype, QFW_F32);
    assert_true(eager_read(e, y)[0] == 600);
    eager_destroy(e);
}

static void test_unview_of_nothing(void **state) {
    static const double zeros[6] = {0};
    const qfw_unview_params p = {sizeof p, 2, {2, 3, 1, 1}, {3, 1, 1, 1}, 6};
    const qfw_unview_params q = {sizeof q, 2, {0, 3, 1, 1}, {3, 1, 1, 1}, 0};
    eager *const e = eager_create();
    op_call c = call(QFW_OP_UNVIEW, 1, &p, sizeof p);
    (void)state;
    c.in[0] = eager_random(e, QFW_F32, 0, 3);
    expect(e, &c, 6, zeros);
    c.params = &q;
    expect(e, &c, 0, zeros);
    eager_destroy(e);
}

static void test_unview_refusals(void **state) {
    static const int32_t ints[6] = {1, 2, 3, 4, 5, 6};
    static const qfw_unview_params good = {sizeof good, 2, {2, 4, 1, 1}, {4, 1, 1, 1}, 1};
    qfw_unview_params p = good;
    eager *const e = eager_create();
    op_call c = call(QFW_OP_UNVIEW, 1, &p, sizeof p);
    qfw_val y;
    (void)state;
    c.in[0] = eager_random(e, QFW_F32, 2, 3);
    call_run(e, &c, &y);
    p.offset = 2;
    check_refused(
        e, &c, QFW_E_INVALID, "unview: offset is 2, wanted a window of x's shape inside y");
    p.offset = -1;
    check_refused(e, &c, QFW_E_INVALID, "unview: offset is -1");
    p = good;
    p.stride[0] = -1;
    check_refused(e, &c, QFW_E_INVALID, "unview: offset is 1");
    p.stride[0] = INT64_MAX;
    check_refused(e, &c, QFW_E_INVALID, "unview: offset is 1");
    p = good;
    p.stride[0] = -1; /* though no step of it would be taken */
    const qfw_val two_rows = c.in[0];
    c.in[0] = eager_random(e, QFW_F32, 1, 3);
    check_refused(e, &c, QFW_E_INVALID, "unview: offset is 1");
    c.in[0] = two_rows;
    p = good;
    p.rank = 5;
    check_refused(e, &c, QFW_E_INVALID, "unview: rank is 5, wanted at most 4");
    p = good;
    p.dim[0] = -2;
    check_refused(e, &c, QFW_E_INVALID, "unview: dim is -2, wanted a dimension of a tensor");
    p = good;
    c.in[0] = eager_ints_2d(e, 2, 3, ints);
    check_refused(e, &c, QFW_E_DTYPE, "unview: x is i32");
    eager_destroy(e);
}

/* --- CONCAT --- */

static void test_concat_along_each_dimension(void **state) {
    static const double a[4] = {1, 2, 3, 4}, b[2] = {5, 6};
    static const double rows[6] = {1, 2, 3, 4, 5, 6}, columns[6] = {1, 2, 5, 3, 4, 6};
    const int64_t square[2] = {2, 2}, row[2] = {1, 2}, column[2] = {2, 1};
    qfw_concat_params p = {sizeof p, 0};
    eager *const e = eager_create();
    op_call c = call(QFW_OP_CONCAT, 2, &p, sizeof p);
    (void)state;
    c.in[0] = eager_values(e, QFW_F32, 2, square, a);
    c.in[1] = eager_values(e, QFW_F32, 2, row, b);
    expect(e, &c, 6, rows);
    p.axis = 1;
    c.in[1] = eager_values(e, QFW_F32, 2, column, b);
    expect(e, &c, 6, columns);
    eager_destroy(e);
}

static void test_concat_of_integers(void **state) {
    static const int32_t a[2] = {INT32_MIN, 16777217}, b[1] = {-100};
    static const double want[3] = {-2147483648.0, 16777217, -100};
    const qfw_concat_params p = {sizeof p, 0};
    eager *const e = eager_create();
    op_call c = call(QFW_OP_CONCAT, 3, &p, sizeof p); /* the third is absent */
    (void)state;
    c.in[0] = eager_ints(e, 2, a);
    c.in[1] = eager_ints(e, 1, b);
    expect(e, &c, 3, want);
    eager_destroy(e);
}

static void test_concat_gradients(void **state) {
    static const uint8_t all[8] = {1, 1, 1}, last[8] = {0, 0, 1};
    const int64_t dim[3][3] = {{2, 1, 3}, {2, 0, 3}, {2, 4, 3}};
    const qfw_concat_params p = {sizeof p, 1};
    eager *const e = eager_create();
    op_call c = call(QFW_OP_CONCAT, 3, &p, sizeof p);
    (void)state;
    for (int k = 0; k < 3; k++) {
        const qfw_val flat = eager_random_1d(e, QFW_F64, 6 * dim[k][1], 0, 1);
        c.in[k] = eager_values(e, QFW_F64, 3, dim[k], eager_read(e, flat));
    }
    check_gradients(e, &c, 0, all);
    check_gradients(e, &c, 0, last);
    eager_destroy(e);
}

static void test_concat_of_eight(void **state) {
    static const double want[8] = {1, 2, 3, 4, 5, 6, 7, 8};
    const qfw_concat_params p = {sizeof p, 0};
    const int64_t one = 1;
    eager *const e = eager_create();
    op_call c = call(QFW_OP_CONCAT, 8, &p, sizeof p);
    (void)state;
    for (int k = 0; k < 8; k++) c.in[k] = eager_values(e, QFW_F32, 1, &one, &want[k]);
    expect(e, &c, 8, want);
    eager_destroy(e);
}

static void test_concat_refusals(void **state) {
    qfw_concat_params p = {sizeof p, 0};
    eager *const e = eager_create();
    op_call c = call(QFW_OP_CONCAT, 3, &p, sizeof p);
    (void)state;
    c.in[0] = eager_random(e, QFW_F32, 2, 3);
    c.in[1] = eager_random(e, QFW_F32, 4, 3);
    c.in[2] = eager_random(e, QFW_F32, 1, 3);
    check_refused_shape(e, &c, 2, 1, 4, "concat: x2 is [1, 4], wanted [any, 3]");
    p.axis = 1;
    check_refused(e, &c, QFW_E_SHAPE, "concat: x1 is [4, 3], wanted [2, any]");
    p.axis = 2;
    check_refused(e, &c, QFW_E_INVALID, "concat: axis is 2, wanted a dimension of x0");
    p.axis = 0;
    c.in[1] = 0;
    check_refused(
        e, &c, QFW_E_INVALID, "concat: x2 is 2, wanted no input after one that is absent");
    c.in[1] = eager_random(e, QFW_BF16, 4, 3);
    check_refused(e, &c, QFW_E_DTYPE, "concat: x1 is bf16, wanted f32");
    c.in[0] = 0;
    check_refused(e, &c, QFW_E_INVALID, "concat: input 0 is absent, but not optional");
    eager_destroy(e);
}

/* --- FILL --- */

static void test_fill(void **state) {
    static const double want[6] = {-1.25, -1.25, -1.25, -1.25, -1.25, -1.25}, zeros[3] = {0};
    qfw_fill_params p = {sizeof p, QFW_F16, 2, 0, {2, 3, 9, 9}, -1.25};
    const int64_t three = 3;
    eager *const e = eager_create();
    op_call c = call(QFW_OP_FILL, 0, &p, sizeof p);
    qfw_val y;
    (void)state;
    expect(e, &c, 6, want);
    p.dim[0] = 0;
    expect(e, &c, 0, want);
    p.rank = 0;
    expect(e, &c, 1, want);
    p.dtype = QFW_I32;
    p.value = -100;
    call_run(e, &c, &y);
    assert_true(eager_read(e, y)[0] == -100);
    assert_int_equal(qfw_fill(eager_graph(e), 0, 1, &three, &y), QFW_OK);
    assert_int_equal(eager_shape(e, y).dtype, QFW_F32);
    assert_memory_equal(eager_read(e, y), zeros, sizeof zeros);
    eager_destroy(e);
}

static void test_fill_refusals(void **state) {
    static const qfw_fill_params good = {sizeof good, QFW_F32, 2, 0, {2, 3, 1, 1}, 0};
    qfw_fill_params p = good;
    eager *const e = eager_create();
    op_call c = call(QFW_OP_FILL, 0, &p, sizeof p);
    (void)state;
    p.dtype = QFW_FP4;
    check_refused(e, &c, QFW_E_INVALID, "fill: dtype is 6, wanted f32");
    p.dtype = QFW_U8;
    p.value = 256;
    check_refused(
        e, &c, QFW_E_INVALID, "fill: value is 256, wanted a value that the dtype can hold");
    p.dtype = QFW_I32;
    p.value = 0.5;
    check_refused(e, &c, QFW_E_INVALID, "fill: value is 0.5");
    p.value = -2147483649.0;
    check_refused(e, &c, QFW_E_INVALID, "fill: value is -2.14748365e+09");
    p.value = (double)NAN;
    check_refused(e, &c, QFW_E_INVALID, "fill: value is nan");
    p = good;
    p.rank = 5;
    check_refused(e, &c, QFW_E_INVALID, "fill: rank is 5, wanted at most 4");
    p = good;
    p.dim[0] = p.dim[1] = INT64_C(1) << 32;
    check_refused(e, &c, QFW_E_INVALID, "fill: dim is 4.2949673e+09, wanted a dimension");
    eager_destroy(e);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_unview_adds_through_the_window),
        cmocka_unit_test(test_unview_gradients),
        cmocka_unit_test(test_unview_sums_wide),
        cmocka_unit_test(test_unview_of_nothing),
        cmocka_unit_test(test_unview_refusals),
        cmocka_unit_test(test_concat_along_each_dimension),
        cmocka_unit_test(test_concat_of_integers),
        cmocka_unit_test(test_concat_gradients),
        cmocka_unit_test(test_concat_of_eight),
        cmocka_unit_test(test_concat_refusals),
        cmocka_unit_test(test_fill),
        cmocka_unit_test(test_fill_refusals),
    };
    return cmocka_run_group_tests_name("windows", tests, NULL, NULL);
}
