/* test_emit.c -- lists longer than one CONCAT takes, and windows onto windows. */
#include "../support/gradcheck.h"
#include "../support/test.h"
#include "ops/emit.h"

static void test_long_lists_are_folded(void **state) {
    (void)state;
    for (int n = 1; n < 40; n++) {
        eager *const e = eager_create();
        emit_list list = {.axis = 0};
        double want[40 * 2];
        const int64_t dim[2] = {1, 2};
        qfw_val whole;
        for (int i = 0; i < n; i++) {
            const double pair[2] = {i, -i};
            want[2 * i] = i;
            want[2 * i + 1] = -i;
            const qfw_val v = eager_values(e, QFW_F32, 2, dim, pair);
            assert_int_equal(emit_concat(eager_graph(e), &list, v), QFW_OK);
        }
        assert_int_equal(emit_concat_end(eager_graph(e), &list, &whole), QFW_OK);
        assert_int_equal(eager_shape(e, whole).dim[0], n);
        assert_memory_equal(eager_read(e, whole), want, (size_t)n * 2 * sizeof *want);
        /* Each CONCAT but the last swallows seven more. */
        assert_int_equal(eager_count(e, QFW_OP_CONCAT), n == 1 ? 0 : (n - 2) / 7 + 1);
        eager_destroy(e);
    }
}

static void test_windows_of_windows(void **state) {
    eager *const e = eager_create();
    qfw_graph *const g = eager_graph(e);
    double x[6 * 7];
    const int64_t dim[2] = {6, 7};
    qfw_val columns, rows, inner;
    (void)state;
    for (int i = 0; i < 42; i++) x[i] = i;
    const qfw_val whole = eager_values(e, QFW_F32, 2, dim, x);
    assert_int_equal(emit_columns(g, whole, 2, 4, &columns), QFW_OK);
    assert_int_equal(emit_rows(g, columns, 1, 3, &rows), QFW_OK);
    assert_int_equal(emit_columns(g, rows, 1, 2, &inner), QFW_OK);
    for (int r = 0; r < 3; r++)
        for (int c = 0; c < 2; c++)
            assert_true(eager_read(e, inner)[r * 2 + c] == (r + 1) * 7 + c + 3);
    assert_int_equal(emit_rows(g, whole, 0, 6, &rows), QFW_OK);
    assert_int_equal(rows, whole); /* all of it needs no window */
    eager_destroy(e);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_long_lists_are_folded),
        cmocka_unit_test(test_windows_of_windows),
    };
    return cmocka_run_group_tests_name("emit", tests, NULL, NULL);
}
