/* test_swiglu.c -- the gated product, packed and apart. */
#include "../support/gradcheck.h"
#include "../support/test.h"

#include <math.h>

static op_call packed(eager *e, uint32_t dtype, int64_t N, int64_t F) {
    op_call c = {.code = QFW_OP_SWIGLU, .n_in = 2, .n_out = 1, .want = {1}};
    c.in[0] = eager_random(e, dtype, N, 2 * F);
    return c;
}

static op_call apart(eager *e, uint32_t dtype, int64_t N, int64_t F) {
    op_call c = {.code = QFW_OP_SWIGLU, .n_in = 2, .n_out = 1, .want = {1}};
    c.in[0] = eager_random(e, dtype, N, F);
    c.in[1] = eager_random(e, dtype, N, F);
    return c;
}

static op_call backward(eager *e, const op_call *f, int64_t N, int64_t F) {
    op_call c = {.code = QFW_OP_SWIGLU_BWD, .n_in = 3, .n_out = 2, .want = {1, f->in[1] != 0}};
    c.in[0] = eager_random(e, eager_shape(e, f->in[0]).dtype, N, F);
    c.in[1] = f->in[0];
    c.in[2] = f->in[1];
    return c;
}

static void test_values(void **state) {
    eager *const e = eager_create();
    const double gate_up[4] = {0.5, -2, 3, 10}; /* gates 0.5 and -2, ups 3 and 10 */
    const int64_t dim[2] = {1, 4};
    op_call c = packed(e, QFW_F64, 1, 2);
    qfw_val mid;
    (void)state;
    c.in[0] = eager_values(e, QFW_F64, 2, dim, gate_up);
    call_run(e, &c, &mid);
    assert_true(fabs(eager_read(e, mid)[0] - 3 * 0.5 / (1 + exp(-0.5))) < 1e-15);
    assert_true(fabs(eager_read(e, mid)[1] + 10 * 2 / (1 + exp(2))) < 1e-15);
    eager_destroy(e);
}

static void test_gradients(void **state) {
    static const uint8_t one[2] = {1, 0}, both[2] = {1, 1}, up[2] = {0, 1};
    eager *const e = eager_create();
    const op_call p = packed(e, QFW_F64, 3, 5), a = apart(e, QFW_F64, 3, 5);
    (void)state;
    check_gradients(e, &p, 0, one);
    check_gradients(e, &a, 0, both);
    check_gradients(e, &a, 0, one);
    check_gradients(e, &a, 0, up);
    eager_destroy(e);
}

static void test_decompositions(void **state) {
    eager *const e = eager_create();
    (void)state;
    for (int64_t N = 0; N < 4; N += 3) {
        const op_call p = packed(e, QFW_F32, N, 5), a = apart(e, QFW_F32, N, 5);
        const op_call dp = backward(e, &p, N, 5), da = backward(e, &a, N, 5);
        check_decomposition(e, &p, 1e-6);
        check_decomposition(e, &a, 1e-6);
        check_decomposition(e, &dp, 1e-6);
        check_decomposition(e, &da, 1e-6);
    }
    eager_destroy(e);
}

static void test_narrow_decompositions(void **state) {
    eager *const e = eager_create();
    const op_call p = packed(e, QFW_BF16, 3, 5), dp = backward(e, &p, 3, 5);
    (void)state;
    check_decomposition(e, &p, 3e-2);
    check_decomposition(e, &dp, 3e-2);
    eager_destroy(e);
}

static void test_in_place(void **state) {
    eager *const e = eager_create();
    const op_call p = packed(e, QFW_F32, 3, 5), a = apart(e, QFW_F32, 3, 5);
    const op_call dp = backward(e, &p, 3, 5), da = backward(e, &a, 3, 5);
    (void)state;
    check_in_place(e, &dp);
    check_in_place(e, &da);
    eager_destroy(e);
}

static void test_refusals(void **state) {
    eager *const e = eager_create();
    const op_call p = packed(e, QFW_F32, 3, 4), a = apart(e, QFW_F32, 3, 4);
    op_call dp = backward(e, &p, 3, 4);
    const op_call da = backward(e, &a, 3, 4);
    (void)state;
    check_refused_shape(e, &p, 0, 3, 7, "swiglu: gate_up is [3, 7], wanted [3, 6]");
    check_refused_shape(e, &a, 1, 3, 5, "swiglu: up is [3, 5], wanted [3, 4]");
    check_refused_shape(e, &dp, 0, 2, 4, "swiglu_bwd: dmid is [2, 4], wanted [3, 4]");
    check_refused_shape(e, &dp, 1, 3, 9, "swiglu_bwd: gate_up is [3, 9], wanted [3, 8]");
    check_refused_shape(e, &da, 2, 3, 3, "swiglu_bwd: up is [3, 3], wanted [3, 4]");
    dp.want[1] = 1;
    check_refused(e, &dp, QFW_E_INVALID, "swiglu_bwd: outputs is 2, wanted dgate_up alone");
    eager_destroy(e);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_values),
        cmocka_unit_test(test_gradients),
        cmocka_unit_test(test_decompositions),
        cmocka_unit_test(test_narrow_decompositions),
        cmocka_unit_test(test_in_place),
        cmocka_unit_test(test_refusals),
    };
    return cmocka_run_group_tests_name("swiglu", tests, NULL, NULL);
}
