/* test_vjp_all.c -- what holds for the VJP of every op there is, and of every op to come. */
#include "../support/calls.h"
#include "../support/test.h"

static void test_every_vjp_has_a_case(void **state) {
    (void)state;
    for (uint32_t k = 0; op_at(k); k++) {
        int found = !op_at(k)->vjp;
        for (uint32_t i = 0; i < n_calls; i++) found |= all_calls[i].code == op_at(k)->code;
        if (!found) fail_msg("%s has a VJP, but no case in support/calls.c", op_at(k)->name);
    }
}

/* Central differences, for all inputs at once and for each alone. */
static void check_case(const call_case *which, int64_t N) {
    for (int alone = -1; alone < QFW_MAX_IN; alone++) {
        uint8_t need[QFW_MAX_IN] = {0};
        if (alone >= 0 && !which->need[alone]) continue;
        for (int i = 0; i < QFW_MAX_IN; i++) need[i] = which->need[i] && (alone < 0 || alone == i);
        eager *const e = eager_create();
        const op_call c = which->make(e, QFW_F64, N);
        check_gradients(e, &c, which->out, need);
        eager_destroy(e);
    }
}

static void test_gradients(void **state) {
    (void)state;
    for (uint32_t i = 0; i < n_calls; i++) {
        if (!op_find(all_calls[i].code)->vjp) continue;
        print_message("%s, %s\n", op_find(all_calls[i].code)->name, all_calls[i].name);
        check_case(&all_calls[i], CALLS_MAX_ROWS);
        check_case(&all_calls[i], 0);
    }
}

/* Run the VJP on a random gradient of output which->out. */
static void backward(
    eager *e, const call_case *which, const op_call *c, const uint8_t *need, qfw_val *din) {
    qfw_val out[QFW_MAX_OUT], dout[QFW_MAX_OUT] = {0}, acc[QFW_MAX_IN] = {0};
    call_run(e, c, out);
    const op_shape s = eager_shape(e, out[which->out]);
    dout[which->out] = eager_values(e, s.dtype, s.rank, s.dim, NULL);
    op_vjp v = {eager_graph(e), c->params, c->in, out, dout, need, din, acc};
    assert_int_equal(op_find(c->code)->vjp(&v), QFW_OK);
}

/* With narrow floats too each gradient has the shape of its input, and is a float. */
static void test_gradients_have_the_inputs_shapes(void **state) {
    (void)state;
    for (uint32_t i = 0; i < n_calls; i++) {
        const call_case *const which = &all_calls[i];
        if (!op_find(which->code)->vjp) continue;
        eager *const e = eager_create();
        const op_call c = which->make(e, QFW_BF16, CALLS_MAX_ROWS);
        qfw_val din[QFW_MAX_IN] = {0};
        backward(e, which, &c, which->need, din);
        for (uint32_t k = 0; k < c.n_in; k++) {
            assert_int_equal(din[k] != 0, which->need[k]);
            if (!din[k]) continue;
            const op_shape x = eager_shape(e, c.in[k]), d = eager_shape(e, din[k]);
            assert_int_equal(d.rank, x.rank);
            assert_memory_equal(d.dim, x.dim, sizeof x.dim);
            assert_true(d.dtype == QFW_BF16 || d.dtype == QFW_F32);
        }
        eager_destroy(e);
    }
}

/* Without a gradient that arrives, and where none is wanted, a VJP emits nothing. */
static void test_nothing_comes_of_nothing(void **state) {
    static const uint8_t none[QFW_MAX_IN] = {0};
    (void)state;
    for (uint32_t i = 0; i < n_calls; i++) {
        const call_case *const which = &all_calls[i];
        if (!op_find(which->code)->vjp) continue;
        eager *const e = eager_create();
        const op_call c = which->make(e, QFW_F32, CALLS_MAX_ROWS);
        qfw_val out[QFW_MAX_OUT], dout[QFW_MAX_OUT] = {0}, din[QFW_MAX_IN] = {0};
        qfw_val acc[QFW_MAX_IN] = {0};
        call_run(e, &c, out);
        op_vjp v = {eager_graph(e), c.params, c.in, out, dout, which->need, din, acc};
        assert_int_equal(op_find(c.code)->vjp(&v), QFW_OK);
        for (uint32_t k = 0; k < QFW_MAX_IN; k++) assert_int_equal(din[k], 0);
        backward(e, which, &c, none, din);
        for (uint32_t k = 0; k < QFW_MAX_IN; k++) assert_int_equal(din[k], 0);
        eager_destroy(e);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_vjp_has_a_case),
        cmocka_unit_test(test_gradients),
        cmocka_unit_test(test_gradients_have_the_inputs_shapes),
        cmocka_unit_test(test_nothing_comes_of_nothing),
    };
    return cmocka_run_group_tests_name("vjp_all", tests, NULL, NULL);
}
