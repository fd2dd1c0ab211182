/* test_schedule.c -- every learning rate of every schedule has the bits of transformers'. */
#include "train/run.h"

#include "../support/test.h"
#include "schedules.h"

static void rates_are_bit_equal(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        for (uint64_t s = 0; s < cases[i].total; s++) {
            const double rate = schedule_rate(&cases[i], s);
            if (memcmp(&rate, &rates[i][s], sizeof rate))
                fail_msg(
                    "%s, step %d: %.17g, wanted %.17g", cases[i].type, (int)s, rate, rates[i][s]);
        }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(rates_are_bit_equal)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
