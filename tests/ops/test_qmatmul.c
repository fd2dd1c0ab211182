/* test_qmatmul.c -- products with packed weights, their unpacked rows, and their decompositions
 * into slabs. */
#include "../support/gradcheck.h"
#include "../support/test.h"
#include "ops/ref.h"

#include <math.h>

static op_call call(
    eager *e, uint32_t code, uint32_t dtype, uint32_t type, int64_t N, int64_t M, int64_t K) {
    op_call c = {.code = code, .n_in = 3, .n_out = 1, .want = {1}};
    const int forward = code == QFW_OP_QMATMUL;
    c.in[0] = eager_random(e, dtype, N, forward ? K : M);
    c.in[1] = eager_packed(e, type, M, K, 64, type == QFW_NF4);
    c.in[2] = eager_random(e, dtype, N, forward ? M : K);
    return c;
}

/* Every value of the weight as the product sees it. */
static void weight_of(eager *e, qfw_val w, int64_t M, int64_t K, double *out) {
    for (int64_t m = 0; m < M; m++) ref_packed_row(eager_tensor(e, w), m, out + m * K);
}

static void test_values(void **state) {
    enum { N = 3, M = 5, K = 70 }; /* blocks cross rows */
    static const uint32_t types[2] = {QFW_NF4, QFW_FP4};
    (void)state;
    for (int t = 0; t < 2; t++) {
        eager *const e = eager_create();
        const op_call f = call(e, QFW_OP_QMATMUL, QFW_F64, types[t], N, M, K);
        const op_call b = call(e, QFW_OP_QMATMUL_DX, QFW_F64, types[t], N, M, K);
        double w[M * K];
        qfw_val y, dx;
        call_run(e, &f, &y);
        weight_of(e, f.in[1], M, K, w);
        for (int n = 0; n < N; n++)
            for (int m = 0; m < M; m++) {
                double sum = eager_read(e, f.in[2])[n * M + m];
                for (int k = 0; k < K; k++) sum += eager_read(e, f.in[0])[n * K + k] * w[m * K + k];
                assert_true(fabs(sum - eager_read(e, y)[n * M + m]) < 1e-12);
            }
        call_run(e, &b, &dx);
        weight_of(e, b.in[1], M, K, w);
        for (int n = 0; n < N; n++)
            for (int k = 0; k < K; k++) {
                double sum = eager_read(e, b.in[2])[n * K + k];
                for (int m = 0; m < M; m++) sum += eager_read(e, b.in[0])[n * M + m] * w[m * K + k];
                assert_true(fabs(sum - eager_read(e, dx)[n * K + k]) < 1e-12);
            }
        eager_destroy(e);
    }
}

static void test_gradients_and_aliasing(void **state) {
    static const uint8_t need[3] = {1, 0, 0}, with_acc[3] = {1, 0, 1};
    eager *const e = eager_create();
    const op_call f = call(e, QFW_OP_QMATMUL, QFW_F64, QFW_NF4, 2, 3, 64);
    const op_call y = call(e, QFW_OP_QMATMUL, QFW_F32, QFW_NF4, 2, 3, 64);
    const op_call dx = call(e, QFW_OP_QMATMUL_DX, QFW_F32, QFW_NF4, 2, 3, 64);
    (void)state;
    check_gradients(e, &f, 0, need);
    check_gradients(e, &f, 0, with_acc);
    check_in_place(e, &y);
    check_in_place(e, &dx);
    eager_destroy(e);
}

/* 131072 columns make slabs of 64 rows: three of them for 130. */
static void test_decompositions(void **state) {
    static const int64_t shape[3][3] = {{2, 130, 131072}, {3, 5, 64}, {0, 4, 64}};
    (void)state;
    for (int i = 0; i < 3; i++)
        for (int acc = 0; acc < 2; acc++) {
            const int64_t N = shape[i][0], M = shape[i][1], K = shape[i][2];
            eager *const e = eager_create();
            op_call f = call(e, QFW_OP_QMATMUL, QFW_F32, QFW_NF4, N, M, K);
            op_call b = call(e, QFW_OP_QMATMUL_DX, QFW_F32, QFW_NF4, N, M, K);
            if (!acc) f.in[2] = b.in[2] = 0;
            op_call nf = call(e, QFW_OP_QMATMUL, QFW_BF16, QFW_NF4, N, M, K);
            nf.in[2] = f.in[2]; /* fp32, or none */
            if (i == 1) check_decomposition(e, &nf, 2e-2);
            check_decomposition(e, &f, 2e-6);
            check_decomposition(e, &b, 2e-6);
            assert_int_equal(eager_count(e, QFW_OP_DEQUANT4), i == 0 ? 6 : i == 1 ? 3 : 2);
            eager_destroy(e);
        }
}

static void test_dequant4(void **state) {
    enum { M = 4, K = 50 };
    eager *const e = eager_create();
    const qfw_dequant4_params p = {sizeof p, 0, 1, 2}, far = {sizeof far, 0, 3, 2};
    op_call c = {.code = QFW_OP_DEQUANT4, .n_in = 1, .n_out = 1, .want = {1}, .params = &p};
    double w[M * K];
    qfw_val y;
    (void)state;
    c.param_bytes = sizeof p;
    c.in[0] = eager_packed(e, QFW_FP4, M, K, 64, 1);
    call_run(e, &c, &y);
    weight_of(e, c.in[0], M, K, w);
    assert_int_equal(eager_shape(e, y).dim[0], 2);
    for (int i = 0; i < 2 * K; i++) assert_true(eager_read(e, y)[i] == w[K + i]);
    c.params = &far;
    check_refused(e, &c, QFW_E_INVALID, "dequant4: rows is 2, wanted at most the rows of w");
    c.params = &p;
    c.in[0] = y;
    check_refused(e, &c, QFW_E_DTYPE, "dequant4: w is f32, wanted nf4 or fp4");
    eager_destroy(e);
}

static void test_refusals(void **state) {
    eager *const e = eager_create();
    op_call f = call(e, QFW_OP_QMATMUL, QFW_F32, QFW_NF4, 2, 3, 64);
    const op_call b = call(e, QFW_OP_QMATMUL_DX, QFW_F32, QFW_NF4, 2, 3, 64);
    (void)state;
    check_refused_shape(e, &f, 0, 2, 65, "qmatmul: x is [2, 65], wanted [any, 64]");
    check_refused_shape(e, &f, 1, 3, 32, "qmatmul: x is [2, 64], wanted [any, 32]");
    check_refused_shape(e, &f, 2, 2, 4, "qmatmul: acc is [2, 4], wanted [2, 3]");
    check_refused_shape(e, &b, 0, 2, 4, "qmatmul_dx: dy is [2, 4], wanted [any, 3]");
    check_refused_shape(e, &b, 1, 4, 64, "qmatmul_dx: dy is [2, 3], wanted [any, 4]");
    check_refused_shape(e, &b, 2, 3, 64, "qmatmul_dx: acc is [3, 64], wanted [2, 64]");
    f.in[1] = f.in[0];
    check_refused(e, &f, QFW_E_DTYPE, "qmatmul: w is f32, wanted nf4 or fp4");
    eager_destroy(e);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_values),
        cmocka_unit_test(test_gradients_and_aliasing),
        cmocka_unit_test(test_decompositions),
        cmocka_unit_test(test_dequant4),
        cmocka_unit_test(test_refusals),
    };
    return cmocka_run_group_tests_name("qmatmul", tests, NULL, NULL);
}
