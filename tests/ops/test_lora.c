/* test_lora.c -- the adapter's product and gradients, its dropout, and its decompositions. */
#include "../support/gradcheck.h"
#include "../support/test.h"
#include "base/rng.h"

#include <math.h>

enum { K = 9, R = 3, MB = 4, M = 10, COL0 = 5 };
static const qfw_lora_params plain = {sizeof plain, 0, COL0, 1.5f, 0, 7, 11};
static const qfw_lora_params dropping = {sizeof dropping, 0, COL0, 1.5f, 0.4f, 7, 11};
static const int32_t keys[10] = {0, 0, 0, 1, 0, 2, 5, 0, 5, 1};

static op_call forward(eager *e, uint32_t dtype, int64_t N, const qfw_lora_params *p) {
    op_call c = {.code = QFW_OP_LORA, .n_in = 5, .n_out = 2, .want = {1, 1}, .params = p};
    c.param_bytes = sizeof *p;
    c.in[0] = eager_random(e, dtype, N, M);
    c.in[1] = eager_random(e, dtype, N, K);
    c.in[2] = eager_random(e, dtype, R, K);
    c.in[3] = eager_random(e, dtype, MB, R);
    if (p->p > 0) c.in[4] = eager_ints_2d(e, N, 2, keys);
    return c;
}

static op_call backward(eager *e, uint32_t dtype, int64_t N, const qfw_lora_params *p) {
    const op_call f = forward(e, dtype, N, p);
    op_call c = {.code = QFW_OP_LORA_BWD, .n_in = 7, .n_out = 3, .want = {1, 1, 1}, .params = p};
    qfw_val out[2];
    call_run(e, &f, out);
    c.param_bytes = sizeof *p;
    c.in[0] = eager_random(e, dtype, N, M);
    for (int i = 1; i < 4; i++) c.in[i] = f.in[i];
    c.in[4] = out[1];
    c.in[5] = f.in[4];
    c.in[6] = eager_random(e, dtype, N, K);
    return c;
}

static void test_values(void **state) {
    eager *const e = eager_create();
    const op_call c = forward(e, QFW_F64, 4, &plain);
    qfw_val out[2];
    (void)state;
    call_run(e, &c, out);
    const double *const y = eager_read(e, c.in[0]), *const x = eager_read(e, c.in[1]);
    const double *const a = eager_read(e, c.in[2]), *const b = eager_read(e, c.in[3]);
    for (int n = 0; n < 4; n++)
        for (int m = 0; m < M; m++) {
            double want = y[n * M + m];
            for (int r = 0; m >= COL0 && m < COL0 + MB && r < R; r++)
                for (int k = 0; k < K; k++)
                    want += 1.5 * x[n * K + k] * a[r * K + k] * b[(m - COL0) * R + r];
            assert_true(fabs(eager_read(e, out[0])[n * M + m] - want) < 1e-13);
        }
    eager_destroy(e);
}

static void test_gradients(void **state) {
    static const uint8_t all[5] = {1, 1, 1, 1, 0}, adapter[5] = {0, 0, 1, 1, 0};
    static const uint8_t through[5] = {1, 1, 0, 0, 0};
    eager *const e = eager_create();
    const op_call p = forward(e, QFW_F64, 4, &plain), d = forward(e, QFW_F64, 4, &dropping);
    (void)state;
    check_gradients(e, &p, 0, all);
    check_gradients(e, &d, 0, all);
    check_gradients(e, &d, 0, adapter);
    check_gradients(e, &d, 0, through);
    eager_destroy(e);
}

/* With a the identity, xa is drop(x): kept features are x / (1 - p), by the row's key alone. */
static void test_dropout_belongs_to_the_row_key(void **state) {
    static const int32_t swapped[10] = {5, 1, 0, 1, 0, 2, 5, 0, 0, 0};
    eager *const e = eager_create();
    op_call c = forward(e, QFW_F64, 5, &dropping);
    double ones[5 * K], identity[K * K] = {0};
    const int64_t x_dim[2] = {5, K}, a_dim[2] = {K, K};
    qfw_val first[2], again[2], other[2];
    int kept = 0;
    (void)state;
    for (int i = 0; i < 5 * K; i++) ones[i] = 1;
    for (int i = 0; i < K; i++) identity[i * K + i] = 1;
    c.in[1] = eager_values(e, QFW_F64, 2, x_dim, ones);
    c.in[2] = eager_values(e, QFW_F64, 2, a_dim, identity);
    c.in[3] = eager_random(e, QFW_F64, MB, K);
    call_run(e, &c, first);
    call_run(e, &c, again);
    c.in[4] = eager_ints_2d(e, 5, 2, swapped);
    call_run(e, &c, other);
    const double *const a = eager_read(e, first[1]), *const b = eager_read(e, other[1]);
    for (int i = 0; i < 5 * K; i++) {
        const int n = i / K, k = i % K;
        const uint32_t counter[4] = {(uint32_t)keys[2 * n], (uint32_t)keys[2 * n + 1],
            (uint32_t)k / 4, 0},
                       key[2] = {dropping.seed, dropping.module_hash};
        uint32_t word[4];
        philox4x32(counter, key, word);
        const int keep = word[k % 4] / 4294967296.0 >= (double)0.4f;
        assert_true(fabs(a[i] - (keep ? 1 / (1 - (double)0.4f) : 0)) < 1e-15);
        kept += keep;
        const int from = n == 0 ? 4 : n == 4 ? 0 : n;
        assert_true(b[i] == a[from * K + k]);
    }
    assert_in_range(kept, 5 * K * 4 / 10, 5 * K * 8 / 10);
    assert_true(eager_distance(e, again[1], first[1]) == 0);
    assert_memory_not_equal(a, a + 4 * K, K * sizeof *a);
    eager_destroy(e);
}

static void test_decompositions(void **state) {
    (void)state;
    for (int64_t N = 0; N <= 5; N += 5)
        for (int drop = 0; drop < 2; drop++) {
            eager *const e = eager_create();
            const op_call nf = forward(e, QFW_BF16, N, drop ? &dropping : &plain);
            op_call nb = backward(e, QFW_BF16, N, drop ? &dropping : &plain);
            const op_call f = forward(e, QFW_F32, N, drop ? &dropping : &plain);
            op_call b = backward(e, QFW_F32, N, drop ? &dropping : &plain);
            check_decomposition(e, &nf, 3e-2);
            check_decomposition(e, &nb, 3e-2);
            nb.in[6] = eager_random(e, QFW_F32, N, K);
            check_decomposition(e, &nb, 3e-2);
            check_decomposition(e, &f, 2e-6);
            check_decomposition(e, &b, 2e-6);
            b.in[6] = 0;
            check_decomposition(e, &b, 2e-6);
            b.want[0] = 0;
            check_decomposition(e, &b, 2e-6);
            eager_destroy(e);
        }
}

static void test_in_place(void **state) {
    eager *const e = eager_create();
    const op_call f = forward(e, QFW_F32, 5, &dropping), b = backward(e, QFW_F32, 5, &dropping);
    (void)state;
    check_in_place(e, &f);
    check_in_place(e, &b);
    eager_destroy(e);
}

static void test_refusals(void **state) {
    eager *const e = eager_create();
    op_call f = forward(e, QFW_F32, 4, &dropping);
    const op_call b = backward(e, QFW_F32, 4, &dropping);
    qfw_lora_params p = dropping;
    (void)state;
    check_refused_shape(e, &f, 0, 3, M, "lora: x is [4, 9], wanted [3, any]");
    check_refused_shape(e, &f, 1, 5, K, "lora: x is [5, 9], wanted [4, any]");
    check_refused_shape(e, &f, 2, R, 8, "lora: a is [3, 8], wanted [any, 9]");
    check_refused_shape(e, &f, 3, MB, 2, "lora: b is [4, 2], wanted [any, 3]");
    check_refused_shape(e, &f, 4, 4, 3, "lora: row_key is [4, 3], wanted [4, 2]");
    check_refused_shape(e, &b, 0, 3, M, "lora_bwd: x is [4, 9], wanted [3, any]");
    check_refused_shape(e, &b, 1, 4, 8, "lora_bwd: a is [3, 9], wanted [any, 8]");
    check_refused_shape(e, &b, 2, 2, K, "lora_bwd: b is [4, 3], wanted [any, 2]");
    check_refused_shape(e, &b, 3, MB, 1, "lora_bwd: b is [4, 1], wanted [any, 3]");
    check_refused_shape(e, &b, 4, 4, 2, "lora_bwd: xa is [4, 2], wanted [4, 3]");
    check_refused_shape(e, &b, 5, 3, 2, "lora_bwd: row_key is [3, 2], wanted [4, 2]");
    check_refused_shape(e, &b, 6, K, 4, "lora_bwd: acc is [9, 4], wanted [4, 9]");
    f.params = &p;
    p.col0 = 7;
    check_refused(
        e, &f, QFW_E_INVALID, "lora: col0 is 7, wanted the rows of b inside the columns of y");
    p.col0 = COL0;
    p.p = 1;
    check_refused(e, &f, QFW_E_INVALID, "lora: p is 1, wanted in [0, 1)");
    p.p = 0.5f;
    f.in[4] = 0;
    check_refused(e, &f, QFW_E_INVALID, "lora: p is 0.5, wanted 0 where row_key is absent");
    eager_destroy(e);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_values),
        cmocka_unit_test(test_gradients),
        cmocka_unit_test(test_dropout_belongs_to_the_row_key),
        cmocka_unit_test(test_decompositions),
        cmocka_unit_test(test_in_place),
        cmocka_unit_test(test_refusals),
    };
    return cmocka_run_group_tests_name("lora", tests, NULL, NULL);
}
