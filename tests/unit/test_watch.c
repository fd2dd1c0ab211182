/* test_watch.c -- a gradient that explodes and a loss that stands still are seen, once; what a run
 * usually does is not. */
#include "train/watch.h"

#include "../support/test.h"

static void a_norm_that_explodes(void **state) {
    watch w = {.n_norms = 0};
    double mean = 0;
    (void)state;
    for (int i = 0; i < 40; i++) assert_false(watch_norm(&w, i % 2 ? 1 : 3, &mean));
    assert_true(mean > 1.9 && mean < 2.1);
    assert_false(watch_norm(&w, 150, &mean)); /* 75 times its mean */
    for (int i = 0; i < WATCH_NORMS; i++) assert_false(watch_norm(&w, 2, &mean));
    assert_true(watch_norm(&w, 2e6, &mean));
    assert_false(watch_norm(&w, 2e6, &mean)); /* it is the new mean */
}

/* The first steps have nothing to be compared with. */
static void a_beginning_is_left_alone(void **state) {
    watch w = {.n_norms = 0};
    double mean = 0;
    (void)state;
    for (int i = 0; i < WATCH_FEWEST - 1; i++) assert_false(watch_norm(&w, 1e-3, &mean));
    assert_false(watch_norm(&w, 1e3, &mean));
}

static void a_loss_that_stands_still(void **state) {
    watch w = {.n_norms = 0};
    (void)state;
    for (int i = 1; i < WATCH_SAME; i++) assert_false(watch_loss(&w, 0));
    assert_true(watch_loss(&w, 0));
    assert_false(watch_loss(&w, 0));
    for (int i = 1; i < WATCH_SAME; i++) assert_false(watch_loss(&w, 2));
    assert_false(watch_loss(&w, 1));
    assert_false(watch_loss(&w, 2));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_norm_that_explodes),
        cmocka_unit_test(a_beginning_is_left_alone),
        cmocka_unit_test(a_loss_that_stands_still),
    };
    return cmocka_run_group_tests_name("unit/watch", tests, NULL, NULL);
}
