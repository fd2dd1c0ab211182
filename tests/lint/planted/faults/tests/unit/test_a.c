/* test_a.c -- a planted test program: of four functions two are tests that run. */
static void runs(void **state) { (void)state; }
static void runs_too(void **state) { (void)state; }
static void helps(int n) { (void)n; }
static void is_forgotten(void **state) { (void)state; }
int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(runs),
        cmocka_unit_test_setup(runs_too, usual),
        cmocka_unit_test(is_elsewhere),
        cmocka_unit_test(helps),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
