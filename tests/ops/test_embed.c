/* test_embed.c -- rows by token, and their gradients summed by token. */
#include "../support/gradcheck.h"
#include "../support/test.h"
#include "base/error.h"
#include "ops/ref.h"

enum { V = 5, C = 3 };
static const int32_t tokens[4] = {2, 0, 2, 4};
static const qfw_embed_bwd_params params = {sizeof params, 0, V};

static op_call forward(eager *e, uint32_t dtype) {
    op_call c = {.code = QFW_OP_EMBED, .n_in = 2, .n_out = 1, .want = {1}};
    c.in[0] = eager_random(e, dtype, V, C);
    c.in[1] = eager_ints(e, 4, tokens);
    return c;
}

static op_call backward(eager *e, uint32_t dtype) {
    op_call c = {.code = QFW_OP_EMBED_BWD, .n_in = 3, .n_out = 1, .want = {1}, .params = &params};
    c.param_bytes = sizeof params;
    c.in[0] = eager_random(e, dtype, 4, C);
    c.in[1] = eager_ints(e, 4, tokens);
    c.in[2] = eager_random(e, dtype, V, C);
    return c;
}

static void test_values(void **state) {
    eager *const e = eager_create();
    const op_call f = forward(e, QFW_F32);
    op_call b = backward(e, QFW_F32);
    qfw_val y, d;
    (void)state;
    call_run(e, &f, &y);
    for (int n = 0; n < 4; n++)
        for (int c = 0; c < C; c++)
            assert_true(eager_read(e, y)[n * C + c] == eager_read(e, f.in[0])[tokens[n] * C + c]);
    b.in[2] = 0;
    call_run(e, &b, &d);
    const double *const dy = eager_read(e, b.in[0]), *const got = eager_read(e, d);
    for (int c = 0; c < C; c++) {
        assert_true(got[c] == dy[C + c]);
        assert_true(got[C + c] == 0);
        assert_true((float)got[2 * C + c] == (float)(dy[c] + dy[2 * C + c]));
    }
    eager_destroy(e);
}

static void test_gradients_and_aliasing(void **state) {
    static const uint8_t need[2] = {1, 0};
    eager *const e = eager_create();
    const op_call f = forward(e, QFW_F64), b = backward(e, QFW_F32);
    (void)state;
    check_gradients(e, &f, 0, need);
    check_in_place(e, &b);
    eager_destroy(e);
}

static void test_refusals(void **state) {
    static const int32_t outside[4] = {2, 0, 5, 4}, negative[4] = {2, -1, 2, 4};
    eager *const e = eager_create();
    op_call f = forward(e, QFW_F32), b = backward(e, QFW_F32);
    (void)state;
    check_refused_shape(e, &b, 1, 3, 0, "embed_bwd: tokens is [3], wanted [4]");
    check_refused_shape(e, &b, 2, V, C + 1, "embed_bwd: acc is [5, 4], wanted [5, 3]");
    f.in[1] = eager_ints(e, 4, outside);
    b.in[1] = eager_ints(e, 4, negative);
    check_refused(e, &f, QFW_E_DATA, "embed: token 5 in row 2, wanted 0 to 4");
    check_refused(e, &b, QFW_E_DATA, "embed_bwd: token -1 in row 1, wanted 0 to 4");
    f.in[1] = f.in[0];
    check_refused(e, &f, QFW_E_DTYPE, "embed: tokens is f32, wanted i32");
    f.in[0] = eager_ints(e, 4, tokens);
    check_refused(e, &f, QFW_E_DTYPE, "embed: table is i32");
    eager_destroy(e);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_values),
        cmocka_unit_test(test_gradients_and_aliasing),
        cmocka_unit_test(test_refusals),
    };
    return cmocka_run_group_tests_name("embed", tests, NULL, NULL);
}
