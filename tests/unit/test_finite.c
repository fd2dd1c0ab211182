/* test_finite.c -- what is not finite is seen, even where the compiler was told that there is no
 * such thing: this program and its finite.c are compiled with -ffinite-math-only
 * (CMakeLists.txt). */
#include <stdlib.h>
#include <string.h>

#include "base/finite.h"
#include "qfw/tensor.h"

#include "../support/test.h"

static float float_of(uint32_t bits) {
    float v;
    memcpy(&v, &bits, sizeof v);
    return v;
}

static double double_of(uint64_t bits) {
    double v;
    memcpy(&v, &bits, sizeof v);
    return v;
}

static void one_number(void **state) {
    static const uint32_t not_finite[] = {
        0x7f800000, 0xff800000, 0x7fc00000, 0xffc00000, 0x7f800001, 0x7fffffff, 0xff812345};
    static const uint32_t finite[] = {0, 0x80000000, 1, 0x7f7fffff, 0xff7fffff, 0x3f800000};
    (void)state;
    for (size_t i = 0; i < sizeof not_finite / sizeof *not_finite; i++)
        if (finite_f32(float_of(not_finite[i]))) fail_msg("0x%08x passes", not_finite[i]);
    for (size_t i = 0; i < sizeof finite / sizeof *finite; i++)
        if (!finite_f32(float_of(finite[i]))) fail_msg("0x%08x is refused", finite[i]);
    assert_false(finite_f64(double_of(0x7ff0000000000000)));
    assert_false(finite_f64(double_of(0xfff8000000000000)));
    assert_false(finite_f64(double_of(0x7ff0000000000001)));
    assert_true(finite_f64(double_of(0x7fefffffffffffff)));
    assert_true(finite_f64(double_of(1)));
}

/* Every place of a row, in every dtype, and no byte past it. */
static void many(void **state) {
    enum { N = 19 };
    static const struct {
        uint32_t dtype, bytes, bad, good;
    } rows[] = {{QFW_F32, 4, 0x7fc00000, 0x7f7fffff}, {QFW_BF16, 2, 0xff80, 0x7f7f},
        {QFW_F16, 2, 0x7c01, 0x7bff}, {QFW_F16, 2, 0xfc00, 0xfbff}};
    (void)state;
    for (size_t r = 0; r < sizeof rows / sizeof *rows; r++)
        for (size_t place = 0; place <= N; place++) {
            char *values = malloc((size_t)N * rows[r].bytes);
            assert_non_null(values);
            for (size_t i = 0; i < N; i++) /* the lower bytes come first */
                memcpy(values + i * rows[r].bytes, i < place ? &rows[r].good : &rows[r].bad,
                    rows[r].bytes);
            assert_int_equal(finite_all(values, rows[r].dtype, N), place);
            free(values);
        }
    assert_int_equal(finite_all("\xff\xff\xff\xff", QFW_U8, 4), 4);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(one_number), cmocka_unit_test(many)};
    return cmocka_run_group_tests_name("unit/finite", tests, NULL, NULL);
}
