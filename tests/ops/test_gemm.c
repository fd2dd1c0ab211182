/* test_gemm.c -- products, plain and transposed, into some columns of a sum. */
#include "../support/gradcheck.h"
#include "../support/test.h"

#include "base/parallel.h"

#include <math.h>

enum { M = 5, N_COLUMNS = 4, K = 3, WIDE = 9, COL0 = 2 };
static const qfw_gemm_params forms[4] = {{sizeof(qfw_gemm_params), 0, 0, 1, 0},
    {sizeof(qfw_gemm_params), 0, 1, -1.5f, COL0}, {sizeof(qfw_gemm_params), 1, 0, 0.5f, COL0},
    {sizeof(qfw_gemm_params), 1, 1, 2, COL0}};

/* A product of this form; into a sum where the form has columns. */
static op_call product(
    eager *e, uint32_t dtype, const qfw_gemm_params *p, int64_t m, int64_t n, int64_t k) {
    op_call c = {.code = QFW_OP_GEMM, .n_in = 3, .n_out = 1, .want = {1}, .params = p};
    c.param_bytes = sizeof *p;
    c.in[0] = p->trans_a ? eager_random(e, dtype, k, m) : eager_random(e, dtype, m, k);
    c.in[1] = p->trans_b ? eager_random(e, dtype, n, k) : eager_random(e, dtype, k, n);
    if (p->col0) c.in[2] = eager_random(e, dtype, m, n + WIDE - N_COLUMNS);
    return c;
}

static void test_golden(void **state) {
    static const double a[4] = {1, 2, 3, 4}, b[6] = {5, 6, 7, 8, 9, 10};
    static const double want[6] = {21, 24, 27, 47, 54, 61};
    const int64_t a_dim[2] = {2, 2}, b_dim[2] = {2, 3};
    eager *const e = eager_create();
    op_call c = product(e, QFW_F64, &forms[0], 2, 3, 2);
    qfw_val y;
    (void)state;
    c.in[0] = eager_values(e, QFW_F64, 2, a_dim, a);
    c.in[1] = eager_values(e, QFW_F64, 2, b_dim, b);
    call_run(e, &c, &y);
    assert_memory_equal(eager_read(e, y), want, sizeof want);
    eager_destroy(e);
}

/* Against the definition, for sizes around the kernel's groups of rows. */
static void check_values(int64_t m, int64_t n, int64_t k, const qfw_gemm_params *p) {
    eager *const e = eager_create();
    const op_call c = product(e, QFW_F64, p, m, n, k);
    qfw_val out;
    call_run(e, &c, &out);
    const double *const a = eager_read(e, c.in[0]), *const b = eager_read(e, c.in[1]);
    const double *const sum = p->col0 ? eager_read(e, c.in[2]) : NULL;
    const double *const y = eager_read(e, out);
    const int64_t width = eager_shape(e, out).dim[1];
    for (int64_t i = 0; i < m * width; i++) {
        const int64_t row = i / width, col = i % width - p->col0;
        double want = sum ? sum[i] : 0;
        for (int64_t l = 0; col >= 0 && col < n && l < k; l++)
            want += (double)p->alpha * a[p->trans_a ? l * m + row : row * k + l] *
                    b[p->trans_b ? col * k + l : l * n + col];
        assert_true(fabs(y[i] - want) < 1e-13);
    }
    eager_destroy(e);
}

static void test_every_form(void **state) {
    static const int64_t sizes[5][3] = {
        {M, N_COLUMNS, K}, {1, 1, 1}, {17, 33, 40}, {32, 7, 9}, {3, 4, 0}};
    (void)state;
    for (int f = 0; f < 4; f++)
        for (int s = 0; s < 5; s++) check_values(sizes[s][0], sizes[s][1], sizes[s][2], &forms[f]);
}

static void test_gradients(void **state) {
    static const uint8_t needs[4][3] = {{1, 1, 1}, {1, 0, 0}, {0, 1, 1}, {0, 0, 1}};
    (void)state;
    for (int f = 0; f < 4; f++)
        for (int k = 0; k < 4; k++) {
            eager *const e = eager_create();
            const op_call c = product(e, QFW_F64, &forms[f], M, N_COLUMNS, K);
            const uint8_t need[3] = {needs[k][0], needs[k][1], needs[k][2] && c.in[2]};
            check_gradients(e, &c, 0, need);
            eager_destroy(e);
        }
}

/* The gradients of a and b are added to by the product itself. */
static void test_gradients_cost_one_product_each(void **state) {
    static const uint8_t need[3] = {1, 1, 0};
    eager *const e = eager_create();
    const op_call c = product(e, QFW_F64, &forms[1], M, N_COLUMNS, K);
    qfw_val y, din[3] = {0}, acc[3] = {0};
    (void)state;
    call_run(e, &c, &y);
    acc[0] = eager_random(e, QFW_F64, M, K);
    acc[1] = eager_random(e, QFW_F64, N_COLUMNS, K);
    op_vjp v = {eager_graph(e), c.params, c.in, &y, &y, need, din, acc};
    const uint32_t before = eager_count(e, QFW_OP_GEMM);
    assert_int_equal(op_find(QFW_OP_GEMM)->vjp(&v), QFW_OK);
    assert_int_equal(eager_count(e, QFW_OP_GEMM), before + 2);
    assert_int_equal(eager_count(e, QFW_OP_BINARY), 0);
    assert_int_equal(acc[0] + acc[1], 0);
    eager_destroy(e);
}

static void test_in_place(void **state) {
    eager *const e = eager_create();
    const op_call c = product(e, QFW_F32, &forms[1], 20, N_COLUMNS, K);
    (void)state;
    check_in_place(e, &c);
    eager_destroy(e);
}

static void test_strides_and_dtypes(void **state) {
    static const uint32_t dtypes[3] = {QFW_F32, QFW_BF16, QFW_F16};
    static const double tolerance[3] = {1e-7, 4e-3, 5e-4};
    (void)state;
    for (int k = 0; k < 3; k++) {
        eager *const e = eager_create();
        op_call c = product(e, dtypes[k], &forms[0], M, N_COLUMNS, K), wide = c;
        const int64_t dim[2] = {M, K}, stride[2] = {11, 3};
        const qfw_val base = eager_random(e, dtypes[k], M, 11);
        qfw_graph *const g = eager_graph(e);
        qfw_val a, b;
        assert_int_equal(g->api->view(g, base, 2, dim, stride, 1, &c.in[0]), QFW_OK);
        wide.in[0] = eager_values(e, QFW_F64, 2, dim, eager_read(e, c.in[0]));
        const int64_t b_dim[2] = {K, N_COLUMNS};
        wide.in[1] = eager_values(e, QFW_F64, 2, b_dim, eager_read(e, c.in[1]));
        call_run(e, &c, &a);
        call_run(e, &wide, &b);
        assert_int_equal(eager_shape(e, a).dtype, dtypes[k]);
        assert_true(eager_distance(e, a, b) < tolerance[k]);
        eager_destroy(e);
    }
}

static void test_threads_change_no_bit(void **state) {
    eager *const e = eager_create();
    const op_call c = product(e, QFW_F32, &forms[3], 70, 19, 300);
    qfw_val alone, together;
    (void)state;
    call_run(e, &c, &alone);
    assert_int_equal(parallel_start(3), QFW_OK);
    call_run(e, &c, &together);
    parallel_stop();
    assert_memory_equal(eager_read(e, alone), eager_read(e, together), 70 * 24 * sizeof(double));
    eager_destroy(e);
}

static void test_nothing(void **state) {
    eager *const e = eager_create();
    const op_call rows = product(e, QFW_F32, &forms[0], 0, 4, 3);
    const op_call columns = product(e, QFW_F32, &forms[0], 3, 0, 3);
    qfw_val y;
    (void)state;
    call_run(e, &rows, &y);
    call_run(e, &columns, &y);
    eager_destroy(e);
}

static void test_a_nan_reaches_its_row_alone(void **state) {
    eager *const e = eager_create();
    const op_call c = product(e, QFW_F32, &forms[0], M, N_COLUMNS, K);
    float *const a = (float *)(void *)((char *)eager_tensor(e, c.in[0])->mem);
    qfw_val y;
    (void)state;
    a[2 * K + 1] = NAN;
    call_run(e, &c, &y);
    for (int i = 0; i < M * N_COLUMNS; i++)
        assert_int_equal(!!isnan(eager_read(e, y)[i]), i / N_COLUMNS == 2);
    eager_destroy(e);
}

static void test_refusals(void **state) {
    eager *const e = eager_create();
    op_call c = product(e, QFW_F32, &forms[0], M, N_COLUMNS, K);
    const op_call t = product(e, QFW_F32, &forms[3], M, N_COLUMNS, K);
    qfw_gemm_params p = forms[0];
    (void)state;
    check_refused_shape(e, &c, 0, M, 7, "gemm: b is [3, 4], wanted [7, any]");
    check_refused_shape(e, &c, 1, 64, 32, "gemm: b is [64, 32], wanted [3, any]");
    check_refused_shape(e, &t, 1, 4, 2, "gemm: b is [4, 2], wanted [any, 3]");
    check_refused_shape(e, &t, 2, 6, WIDE, "gemm: c is [6, 9], wanted [5, any]");
    op_call narrow = t;
    narrow.in[2] = eager_random(e, QFW_F32, M, 5);
    check_refused(
        e, &narrow, QFW_E_INVALID, "gemm: col0 is 2, wanted the columns of the product inside c");
    c.params = &p;
    p.col0 = 1;
    check_refused(e, &c, QFW_E_INVALID, "gemm: col0 is 1, wanted 0 where c is absent");
    p = forms[0];
    p.trans_a = 2;
    check_refused(e, &c, QFW_E_INVALID, "gemm: trans_a is 2, wanted 0 or 1");
    p = forms[0];
    p.alpha = INFINITY;
    check_refused(e, &c, QFW_E_INVALID, "gemm: alpha is inf, wanted a finite number");
    p = forms[0];
    c.in[0] = eager_random_1d(e, QFW_F32, K, 0, 1);
    check_refused(e, &c, QFW_E_SHAPE, "gemm: a is [3], wanted [any, any]");
    c.in[0] = eager_packed(e, QFW_NF4, 4, 64, 64, 0);
    check_refused(e, &c, QFW_E_DTYPE, "gemm: a is nf4, wanted f32 or bf16 or f16 or f64");
    eager_destroy(e);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_golden),
        cmocka_unit_test(test_every_form),
        cmocka_unit_test(test_gradients),
        cmocka_unit_test(test_gradients_cost_one_product_each),
        cmocka_unit_test(test_in_place),
        cmocka_unit_test(test_strides_and_dtypes),
        cmocka_unit_test(test_threads_change_no_bit),
        cmocka_unit_test(test_nothing),
        cmocka_unit_test(test_a_nan_reaches_its_row_alone),
        cmocka_unit_test(test_refusals),
    };
    return cmocka_run_group_tests_name("gemm", tests, NULL, NULL);
}
