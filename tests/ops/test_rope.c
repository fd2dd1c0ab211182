/* test_rope.c -- rotations of head halves: values, the inverse as gradient, heads and widths left
 * alone. */
#include "../support/gradcheck.h"
#include "../support/test.h"

#include <math.h>

/* Three heads of width 6, of which two turn, by their first four features. */
static const qfw_rope_params params = {sizeof params, 0, 6, 4, 2};

static op_call call(eager *e, uint32_t dtype, int64_t N) {
    op_call c = {.code = QFW_OP_ROPE, .n_in = 3, .n_out = 1, .want = {1}, .params = &params};
    c.param_bytes = sizeof params;
    c.in[0] = eager_random(e, dtype, N, 18);
    c.in[1] = eager_random(e, dtype, N, 2);
    c.in[2] = eager_random(e, dtype, N, 2);
    return c;
}

static void test_values(void **state) {
    eager *const e = eager_create();
    const op_call c = call(e, QFW_F64, 3);
    qfw_val y;
    (void)state;
    call_run(e, &c, &y);
    const double *const x = eager_read(e, c.in[0]), *const got = eager_read(e, y);
    const double *const cosine = eager_read(e, c.in[1]), *const sine = eager_read(e, c.in[2]);
    for (int n = 0; n < 3; n++)
        for (int f = 0; f < 18; f++) {
            const int head = f / 6, j = f % 6, i = n * 18 + f, angle = n * 2 + j % 2;
            double want = x[i];
            if (head < 2 && j < 2)
                want = x[i] * cosine[angle] - x[i + 2] * sine[angle];
            else if (head < 2 && j < 4)
                want = x[i] * cosine[angle] + x[i - 2] * sine[angle];
            assert_true(fabs(got[i] - want) < 1e-15);
        }
    eager_destroy(e);
}

static void test_inverse_turns_back(void **state) {
    eager *const e = eager_create();
    op_call c = call(e, QFW_F64, 4);
    qfw_rope_params inverse = params;
    double cosine[8], sine[8];
    const int64_t dim[2] = {4, 2};
    qfw_val y, back;
    (void)state;
    for (int i = 0; i < 8; i++) {
        cosine[i] = cos(0.3 * i);
        sine[i] = sin(0.3 * i);
    }
    c.in[1] = eager_values(e, QFW_F64, 2, dim, cosine);
    c.in[2] = eager_values(e, QFW_F64, 2, dim, sine);
    call_run(e, &c, &y);
    op_call again = c;
    inverse.inverse = 1;
    again.params = &inverse;
    again.in[0] = y;
    call_run(e, &again, &back);
    assert_true(eager_distance(e, y, c.in[0]) > 0.1);
    assert_true(eager_distance(e, back, c.in[0]) < 1e-15);
    eager_destroy(e);
}

static void test_gradients_and_aliasing(void **state) {
    static const uint8_t need[3] = {1, 0, 0};
    eager *const e = eager_create();
    const op_call wide = call(e, QFW_F64, 3), narrow = call(e, QFW_F32, 5),
                  none = call(e, QFW_F32, 0);
    qfw_val out;
    (void)state;
    check_gradients(e, &wide, 0, need);
    check_in_place(e, &narrow);
    call_run(e, &none, &out);
    eager_destroy(e);
}

static void test_refusals(void **state) {
    eager *const e = eager_create();
    op_call c = call(e, QFW_F32, 3);
    qfw_rope_params p = params;
    (void)state;
    check_refused_shape(e, &c, 0, 4, 18, "rope: cos is [3, 2], wanted [4, 2]");
    check_refused_shape(e, &c, 1, 3, 3, "rope: cos is [3, 3], wanted [3, 2]");
    check_refused_shape(e, &c, 2, 2, 2, "rope: sin is [2, 2], wanted [3, 2]");
    c.params = &p;
    p.rotary_dim = 5;
    check_refused(e, &c, QFW_E_INVALID, "rope: rotary_dim is 5, wanted an even number");
    p.rotary_dim = 8;
    check_refused(e, &c, QFW_E_INVALID, "rope: rotary_dim is 8");
    p.rotary_dim = 4;
    p.n_rot = 4;
    check_refused(e, &c, QFW_E_INVALID, "rope: n_rot is 4, wanted at most the heads of x");
    p.n_rot = 2;
    p.head_dim = 5;
    check_refused(e, &c, QFW_E_INVALID, "rope: head_dim is 5, wanted a divisor of x's width");
    p.head_dim = 0;
    check_refused(e, &c, QFW_E_INVALID, "rope: head_dim is 0");
    eager_destroy(e);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_values),
        cmocka_unit_test(test_inverse_turns_back),
        cmocka_unit_test(test_gradients_and_aliasing),
        cmocka_unit_test(test_refusals),
    };
    return cmocka_run_group_tests_name("rope", tests, NULL, NULL);
}
