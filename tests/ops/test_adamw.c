/* test_adamw.c -- AdamW against its formula over several steps, and in place. */
#include "../support/gradcheck.h"
#include "../support/test.h"

#include <math.h>

static const qfw_adamw_params params = {sizeof params, 0, 0.9, 0.999, 1e-8};

static op_call call(eager *e, uint32_t dtype, int64_t rows, int64_t columns) {
    op_call c = {.code = QFW_OP_ADAMW, .n_in = 6, .n_out = 3, .want = {1, 1, 1}};
    c.params = &params;
    c.param_bytes = sizeof params;
    for (int i = 0; i < 4; i++) c.in[i] = eager_random(e, dtype, rows, columns);
    c.in[4] = eager_random_1d(e, dtype, 3, 0.5, 0.2);
    c.in[5] = eager_random_1d(e, dtype, 1, 0.5, 0.2);
    return c;
}

/* With constant gradient g, m_t = g (1 - b1^t) and v_t = g^2 (1 - b2^t): each step moves by lr *
 * sign(g). */
static void test_bias_correction(void **state) {
    eager *const e = eager_create();
    const double lr = 0.01, decay = 0.1, g[2] = {0.3, -7};
    const int64_t dim[2] = {1, 2}, three = 3;
    double want[2] = {1, 2};
    op_call c = call(e, QFW_F64, 1, 2);
    (void)state;
    c.in[0] = eager_values(e, QFW_F64, 2, dim, want);
    c.in[1] = eager_values(e, QFW_F64, 2, dim, g);
    c.in[2] = eager_values(e, QFW_F64, 2, dim, NULL);
    c.in[3] = eager_values(e, QFW_F64, 2, dim, NULL);
    c.in[5] = 0;
    for (int t = 1; t <= 5; t++) {
        const double s[3] = {1 - lr * decay, lr / (1 - pow(0.9, t)), sqrt(1 - pow(0.999, t))};
        qfw_val out[3];
        c.in[4] = eager_values(e, QFW_F64, 1, &three, s);
        call_run(e, &c, out);
        for (int i = 0; i < 2; i++) {
            want[i] = want[i] * (1 - lr * decay) - lr * g[i] / (fabs(g[i]) + 1e-8);
            assert_true(fabs(eager_read(e, out[0])[i] - want[i]) < 1e-12);
        }
        c.in[0] = out[0];
        c.in[2] = out[1];
        c.in[3] = out[2];
    }
    eager_destroy(e);
}

static void test_coef_scales_the_gradient(void **state) {
    eager *const e = eager_create();
    op_call scaled = call(e, QFW_F64, 3, 4), plain = scaled;
    const int64_t dim[2] = {3, 4}, one = 1;
    const double coef = 0.25;
    double g[12];
    qfw_val a[3], b[3];
    (void)state;
    for (int i = 0; i < 12; i++) {
        /* v must not be negative: its root is taken. */
        g[i] = fabs(eager_read(e, scaled.in[3])[i]);
    }
    scaled.in[3] = plain.in[3] = eager_values(e, QFW_F64, 2, dim, g);
    for (int i = 0; i < 12; i++) g[i] = eager_read(e, scaled.in[1])[i] * coef;
    scaled.in[5] = eager_values(e, QFW_F64, 1, &one, &coef);
    plain.in[1] = eager_values(e, QFW_F64, 2, dim, g);
    plain.in[5] = 0;
    call_run(e, &scaled, a);
    call_run(e, &plain, b);
    for (int o = 0; o < 3; o++) assert_true(eager_distance(e, a[o], b[o]) == 0);
    eager_destroy(e);
}

static void test_in_place_and_empty(void **state) {
    eager *const e = eager_create();
    op_call c = call(e, QFW_F32, 3, 5);
    const op_call none = call(e, QFW_F32, 0, 5);
    qfw_val out[3];
    (void)state;
    c.in[3] = eager_random_1d(e, QFW_F32, 15, 1, 0.5);
    c.in[0] = eager_random_1d(e, QFW_F32, 15, 0, 1);
    c.in[1] = eager_random_1d(e, QFW_F32, 15, 0, 1);
    c.in[2] = eager_random_1d(e, QFW_F32, 15, 0, 1);
    check_in_place(e, &c);
    call_run(e, &none, out);
    eager_destroy(e);
}

static void test_refusals(void **state) {
    eager *const e = eager_create();
    op_call c = call(e, QFW_F32, 3, 5);
    qfw_adamw_params p = params;
    (void)state;
    check_refused_shape(e, &c, 1, 3, 4, "adamw: g is [3, 4], wanted [3, 5]");
    check_refused_shape(e, &c, 2, 5, 3, "adamw: m is [5, 3], wanted [3, 5]");
    check_refused_shape(e, &c, 3, 2, 5, "adamw: v is [2, 5], wanted [3, 5]");
    check_refused_shape(e, &c, 4, 2, 0, "adamw: scalars is [2], wanted [3]");
    check_refused_shape(e, &c, 5, 2, 0, "adamw: coef is [2], wanted [1]");
    c.params = &p;
    p.beta2 = 1;
    check_refused(e, &c, QFW_E_INVALID, "adamw: beta2 is 1, wanted in [0, 1)");
    p.beta1 = -0.5;
    check_refused(e, &c, QFW_E_INVALID, "adamw: beta1 is -0.5, wanted in [0, 1)");
    eager_destroy(e);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bias_correction),
        cmocka_unit_test(test_coef_scales_the_gradient),
        cmocka_unit_test(test_in_place_and_empty),
        cmocka_unit_test(test_refusals),
    };
    return cmocka_run_group_tests_name("adamw", tests, NULL, NULL);
}
