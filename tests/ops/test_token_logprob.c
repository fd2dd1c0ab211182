/* test_token_logprob.c -- log-probabilities and their statistics, from logits and from hidden
 * states. */
#include "../support/gradcheck.h"
#include "../support/test.h"
#include "base/parallel.h"

#include <math.h>

enum { C = 5, V = 7, N = 19 }; /* more rows than the reference takes at once */

static int32_t label_of(int64_t n) {
    return n % 4 == 1 ? QFW_IGNORE_LABEL : (int32_t)((n * 3) % V);
}

static qfw_val labels_of(eager *e, int64_t n) {
    int32_t labels[64];
    for (int64_t i = 0; i < n; i++) labels[i] = label_of(i);
    return eager_ints(e, n, labels);
}

static op_call xent(eager *e, uint32_t dtype, int64_t n) {
    op_call c = {.code = QFW_OP_XENT, .n_in = 2, .n_out = 6, .want = {1, 1, 1, 1, 1, 1}};
    c.in[0] = eager_random(e, dtype, n, V);
    c.in[1] = labels_of(e, n);
    return c;
}

static op_call fused(eager *e, uint32_t dtype, int64_t n) {
    op_call c = {.code = QFW_OP_TOKEN_LOGPROB, .n_in = 3, .n_out = 6};
    memset(c.want, 1, 6);
    c.in[0] = eager_random(e, dtype, n, C);
    c.in[1] = eager_random(e, dtype, V, C);
    c.in[2] = labels_of(e, n);
    return c;
}

static op_call fused_bwd(eager *e, uint32_t dtype, int64_t n) {
    const op_call f = fused(e, dtype, n);
    op_call c = {.code = QFW_OP_TOKEN_LOGPROB_BWD, .n_in = 6, .n_out = 2, .want = {1, 1}};
    qfw_val out[6];
    call_run(e, &f, out);
    c.in[0] = eager_random_1d(e, dtype, n, 0, 1);
    for (int i = 0; i < 3; i++) c.in[i + 1] = f.in[i];
    c.in[4] = out[1];
    c.in[5] = eager_random(e, dtype, V, C);
    return c;
}

static op_call xent_bwd(eager *e, uint32_t dtype, int64_t n) {
    const op_call f = xent(e, dtype, n);
    op_call c = {.code = QFW_OP_XENT_BWD, .n_in = 4, .n_out = 1, .want = {1}};
    qfw_val out[6];
    call_run(e, &f, out);
    c.in[0] = eager_random_1d(e, dtype, n, 0, 1);
    c.in[1] = f.in[0];
    c.in[2] = f.in[1];
    c.in[3] = out[1];
    return c;
}

/* Two rows by hand: a uniform one, all of whose statistics are known; and an ignored one. */
static void test_values(void **state) {
    eager *const e = eager_create();
    const double logits[2 * V] = {3, 3, 3, 3, 3, 3, 3, 9};
    const int32_t labels[2] = {4, QFW_IGNORE_LABEL};
    const int64_t dim[2] = {2, V};
    op_call c = xent(e, QFW_F64, 2);
    qfw_val out[6];
    (void)state;
    c.in[0] = eager_values(e, QFW_F64, 2, dim, logits);
    c.in[1] = eager_ints(e, 2, labels);
    call_run(e, &c, out);
    const double want[6] = {-log(7), 3 + log(7), 0, log(7), 3, 6 + log(7)};
    for (int o = 0; o < 6; o++) {
        assert_true(fabs(eager_read(e, out[o])[0] - want[o]) < 1e-14);
        assert_true(eager_read(e, out[o])[1] == (o == 2 ? -1 : 0));
    }
    eager_destroy(e);
}

static void test_every_statistic_is_its_formula(void **state) {
    eager *const e = eager_create();
    const op_call c = xent(e, QFW_F64, N);
    qfw_val out[6];
    (void)state;
    call_run(e, &c, out);
    for (int n = 0; n < N; n++) {
        const double *const z = eager_read(e, c.in[0]) + n * V;
        double sum = 0, sum2 = 0, mean = 0, entropy = 0;
        if (label_of(n) == QFW_IGNORE_LABEL) continue;
        for (int v = 0; v < V; v++) {
            sum += exp(z[v]);
            sum2 += exp(2 * z[v]);
            mean += z[v] / V;
        }
        for (int v = 0; v < V; v++) entropy -= exp(z[v]) / sum * log(exp(z[v]) / sum);
        const double want[6] = {z[label_of(n)] - log(sum), log(sum), 0, entropy, mean, log(sum2)};
        for (int o = 0; o < 6; o++)
            assert_true(o == 2 || fabs(eager_read(e, out[o])[n] - want[o]) < 1e-13);
        for (int v = 0; v < V; v++) assert_true(z[v] <= z[(int)eager_read(e, out[2])[n]]);
    }
    eager_destroy(e);
}

static void test_the_greatest_logit_wins_and_huge_ones_do_not_overflow(void **state) {
    eager *const e = eager_create();
    const double logits[V] = {-1e30, 5, 2000, 2000, 7, -2000, 0};
    const int64_t dim[2] = {1, V};
    op_call c = xent(e, QFW_F64, 1);
    qfw_val out[6];
    (void)state;
    c.in[0] = eager_values(e, QFW_F64, 2, dim, logits);
    call_run(e, &c, out);
    assert_true(eager_read(e, out[2])[0] == 2);
    assert_true(fabs(eager_read(e, out[1])[0] - 2000 - log(2)) < 1e-12);
    assert_true(fabs(eager_read(e, out[3])[0] - log(2)) < 1e-12);
    assert_true(fabs(eager_read(e, out[5])[0] - 4000 - log(2)) < 1e-12);
    eager_destroy(e);
}

/* Without logits in memory the same numbers come out. */
static void test_fused_equals_logits_then_xent(void **state) {
    eager *const e = eager_create();
    const op_call f = fused(e, QFW_F64, N);
    op_call x = xent(e, QFW_F64, N);
    double logits[N * V];
    const int64_t dim[2] = {N, V};
    qfw_val a[6], b[6];
    (void)state;
    for (int n = 0; n < N; n++)
        for (int v = 0; v < V; v++) {
            logits[n * V + v] = 0;
            for (int c = 0; c < C; c++)
                logits[n * V + v] +=
                    eager_read(e, f.in[0])[n * C + c] * eager_read(e, f.in[1])[v * C + c];
        }
    x.in[0] = eager_values(e, QFW_F64, 2, dim, logits);
    call_run(e, &f, a);
    call_run(e, &x, b);
    for (int o = 0; o < 6; o++) assert_true(eager_distance(e, a[o], b[o]) < 1e-13);
    eager_destroy(e);
}

static void test_gradients(void **state) {
    static const uint8_t both[3] = {1, 1, 0}, frozen[3] = {1, 0, 0}, head[3] = {0, 1, 0};
    eager *const e = eager_create();
    const op_call f = fused(e, QFW_F64, N), x = xent(e, QFW_F64, N);
    (void)state;
    check_gradients(e, &x, 0, frozen);
    check_gradients(e, &f, 0, both);
    check_gradients(e, &f, 0, frozen);
    check_gradients(e, &f, 0, head);
    eager_destroy(e);
}

static void test_decompositions(void **state) {
    static const uint8_t few[6] = {1, 1, 0, 1, 0, 0};
    (void)state;
    for (int64_t n = 0; n <= N; n += N) {
        eager *const e = eager_create();
        op_call f = fused(e, QFW_F32, n), b = fused_bwd(e, QFW_F32, n);
        const op_call nf = fused(e, QFW_BF16, n), nb = fused_bwd(e, QFW_BF16, n);
        check_decomposition(e, &nf, 3e-2);
        check_decomposition(e, &nb, 3e-2);
        check_decomposition(e, &f, 2e-6);
        memcpy(f.want, few, sizeof few);
        check_decomposition(e, &f, 2e-6);
        check_decomposition(e, &b, 2e-6);
        b.in[5] = 0;
        check_decomposition(e, &b, 2e-6);
        b.want[1] = 0;
        check_decomposition(e, &b, 2e-6);
        eager_destroy(e);
    }
}

/* A vocabulary of 1.1 million makes chunks of 16 rows: the 17th row is a chunk of its own. */
static void test_chunks(void **state) {
    enum { ROWS = 17, WIDE = 1100000 };
    eager *const e = eager_create();
    int32_t labels[ROWS];
    op_call f = {.code = QFW_OP_TOKEN_LOGPROB, .n_in = 3, .n_out = 6, .want = {1, 1, 0, 0, 0, 0}};
    op_call b = {.code = QFW_OP_TOKEN_LOGPROB_BWD, .n_in = 5, .n_out = 2, .want = {1, 1}};
    qfw_val out[6];
    (void)state;
    for (int n = 0; n < ROWS; n++) labels[n] = n % 8 ? QFW_IGNORE_LABEL : 5 + n * 7;
    f.in[0] = b.in[1] = eager_random(e, QFW_F32, ROWS, 2);
    f.in[1] = b.in[2] = eager_random(e, QFW_F32, WIDE, 2);
    f.in[2] = b.in[3] = eager_ints(e, ROWS, labels);
    check_decomposition(e, &f, 2e-6);
    assert_int_equal(eager_count(e, QFW_OP_XENT), 2);
    call_run(e, &f, out);
    b.in[0] = eager_random_1d(e, QFW_F32, ROWS, 0, 1);
    b.in[4] = out[1];
    check_decomposition(e, &b, 2e-6);
    assert_int_equal(eager_count(e, QFW_OP_XENT_BWD), 2);
    eager_destroy(e);
}

static void test_in_place(void **state) {
    eager *const e = eager_create();
    const op_call b = fused_bwd(e, QFW_F32, N), x = xent_bwd(e, QFW_F32, N);
    (void)state;
    check_in_place(e, &b);
    check_in_place(e, &x);
    eager_destroy(e);
}

static void test_the_number_of_threads_changes_no_bit(void **state) {
    eager *const e = eager_create();
    const op_call f = fused(e, QFW_F32, N), b = fused_bwd(e, QFW_F32, N);
    qfw_val one[6], four[6], d_one[2], d_four[2];
    (void)state;
    call_run(e, &f, one);
    call_run(e, &b, d_one);
    assert_int_equal(parallel_start(4), QFW_OK);
    call_run(e, &f, four);
    call_run(e, &b, d_four);
    parallel_stop();
    for (int o = 0; o < 6; o++) assert_true(eager_distance(e, four[o], one[o]) == 0);
    for (int o = 0; o < 2; o++) assert_true(eager_distance(e, d_four[o], d_one[o]) == 0);
    eager_destroy(e);
}

static void test_refusals(void **state) {
    static const int32_t far[3] = {0, 7, -100}, negative[3] = {-1, 0, 1};
    eager *const e = eager_create();
    op_call f = fused(e, QFW_F32, 3), x = xent(e, QFW_F32, 3);
    const op_call b = fused_bwd(e, QFW_F32, 3), xb = xent_bwd(e, QFW_F32, 3);
    (void)state;
    check_refused_shape(e, &f, 1, V, C + 1, "token_logprob: w is [7, 6], wanted [any, 5]");
    check_refused_shape(e, &f, 2, 4, 0, "token_logprob: labels is [4], wanted [3]");
    check_refused_shape(e, &x, 1, 2, 0, "xent: labels is [2], wanted [3]");
    check_refused_shape(e, &b, 0, 2, 0, "token_logprob_bwd: coef is [2], wanted [3]");
    check_refused_shape(e, &b, 1, 3, 4, "token_logprob_bwd: w is [7, 5], wanted [any, 4]");
    check_refused_shape(e, &b, 3, 2, 0, "token_logprob_bwd: labels is [2], wanted [3]");
    check_refused_shape(e, &b, 4, 2, 0, "token_logprob_bwd: lse is [2], wanted [3]");
    check_refused_shape(e, &b, 5, C, V, "token_logprob_bwd: acc is [5, 7], wanted [7, 5]");
    check_refused_shape(e, &xb, 0, 4, 0, "xent_bwd: coef is [4], wanted [3]");
    check_refused_shape(e, &xb, 2, 4, 0, "xent_bwd: labels is [4], wanted [3]");
    check_refused_shape(e, &xb, 3, 4, 0, "xent_bwd: lse is [4], wanted [3]");
    f.in[2] = eager_ints(e, 3, far);
    check_refused(e, &f, QFW_E_DATA, "token_logprob: label 7 in row 1, wanted 0 to 6 or -100");
    x.in[1] = eager_ints(e, 3, negative);
    check_refused(e, &x, QFW_E_DATA, "xent: label -1 in row 0, wanted 0 to 6 or -100");
    x.in[1] = x.in[0];
    check_refused(e, &x, QFW_E_DTYPE, "xent: labels is f32, wanted i32");
    eager_destroy(e);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_values),
        cmocka_unit_test(test_every_statistic_is_its_formula),
        cmocka_unit_test(test_the_greatest_logit_wins_and_huge_ones_do_not_overflow),
        cmocka_unit_test(test_fused_equals_logits_then_xent),
        cmocka_unit_test(test_gradients),
        cmocka_unit_test(test_decompositions),
        cmocka_unit_test(test_chunks),
        cmocka_unit_test(test_in_place),
        cmocka_unit_test(test_the_number_of_threads_changes_no_bit),
        cmocka_unit_test(test_refusals),
    };
    return cmocka_run_group_tests_name("token_logprob", tests, NULL, NULL);
}
