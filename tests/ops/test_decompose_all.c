/* test_decompose_all.c -- what holds for the decomposition of every op there is, and of every op to
 * come: it computes the same. */
#include "../support/calls.h"
#include "../support/test.h"

static void test_every_decomposition_has_a_case(void **state) {
    (void)state;
    for (uint32_t k = 0; op_at(k); k++) {
        int found = !op_at(k)->decompose;
        for (uint32_t i = 0; i < n_calls; i++) found |= all_calls[i].code == op_at(k)->code;
        if (!found) fail_msg("%s decomposes, but has no case in support/calls.c", op_at(k)->name);
    }
}

/* Narrow floats are rounded once per op, F32 nearly not at all. */
static void test_they_compute_the_same(void **state) {
    static const uint32_t dtypes[3] = {QFW_F32, QFW_BF16, QFW_F16};
    static const double tolerance[3] = {2e-6, 4e-2, 5e-3};
    (void)state;
    for (uint32_t i = 0; i < n_calls; i++)
        for (int k = 0; k < 6; k++) {
            if (!op_find(all_calls[i].code)->decompose) continue;
            eager *const e = eager_create();
            const op_call c = all_calls[i].make(e, dtypes[k % 3], k < 3 ? CALLS_MAX_ROWS : 0);
            print_message("%s, %s, %s\n", op_find(c.code)->name, all_calls[i].name,
                qfw_dtype_name(dtypes[k % 3]));
            check_decomposition(e, &c, tolerance[k % 3]);
            eager_destroy(e);
        }
}

/* An output that is not wanted is not computed, and the others do not change. */
static void test_what_is_not_wanted_is_left_out(void **state) {
    (void)state;
    for (uint32_t i = 0; i < n_calls; i++) {
        const op_def *const def = op_find(all_calls[i].code);
        for (uint32_t o = 0; def->decompose && o < def->n_out; o++) {
            if (!def->out_optional[o]) continue;
            eager *const e = eager_create();
            op_call c = all_calls[i].make(e, QFW_F32, CALLS_MAX_ROWS);
            c.want[o] = 0;
            if (c.code != QFW_OP_SWIGLU_BWD) check_decomposition(e, &c, 2e-6); /* all or none */
            eager_destroy(e);
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_decomposition_has_a_case),
        cmocka_unit_test(test_they_compute_the_same),
        cmocka_unit_test(test_what_is_not_wanted_is_left_out),
    };
    return cmocka_run_group_tests_name("decompose_all", tests, NULL, NULL);
}
