/* test_rng.c -- random numbers against published vectors and torch's own. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/rng.h"

#include <cmocka.h>

/* The known answers of Random123 for philox4x32, 10 rounds. */
static void philox_gives_the_known_answers(void **state) {
    (void)state;
    static const struct {
        uint32_t counter[4], key[2], out[4];
    } known[] = {
        {{0, 0, 0, 0}, {0, 0}, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
        {{0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff}, {0xffffffff, 0xffffffff},
            {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
        {{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0},
            {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
    };
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        uint32_t out[4];
        philox4x32(known[i].counter, known[i].key, out);
        assert_memory_equal(out, known[i].out, sizeof out);
    }
}

static void fnv_gives_the_known_answers(void **state) {
    (void)state;
    assert_int_equal(fnv1a32(""), 0x811c9dc5);
    assert_int_equal(fnv1a32("a"), 0xe40c292c);
    assert_int_equal(fnv1a32("foobar"), 0xbf9cf968);
    assert_true(fnv1a64("") == 0xcbf29ce484222325u);
    assert_true(fnv1a64("a") == 0xaf63dc4c8601ec8cu);
    assert_true(fnv1a64("foobar") == 0x85944171f73967e8u);
}

static void randperm_equals_torch(void **state) {
    (void)state;
    static const struct {
        uint64_t seed;
        uint32_t order[10];
    } seen[] = {
        {42, {2, 6, 1, 8, 4, 5, 0, 9, 3, 7}},
        {43, {8, 4, 9, 0, 5, 1, 6, 7, 2, 3}},
        {0, {4, 1, 7, 5, 3, 9, 0, 8, 6, 2}},
    };
    for (size_t i = 0; i < sizeof seen / sizeof *seen; i++) {
        uint32_t order[10];
        torch_randperm(seen[i].seed, 10, order);
        assert_memory_equal(order, seen[i].order, sizeof order);
    }
}

/* Over 624 draws, so that the generator refills its state. */
static void randperm_is_a_permutation(void **state) {
    (void)state;
    enum { N = 5000 };
    static uint32_t order[N + 1];
    static uint8_t seen[N];
    order[N] = 77;
    torch_randperm(7, N, order);
    assert_int_equal(order[N], 77);
    for (uint32_t i = 0; i < N; i++) {
        assert_true(order[i] < N);
        assert_false(seen[order[i]]++);
    }
    torch_randperm(7, 1, order);
    assert_int_equal(order[0], 0);
    torch_randperm(7, 0, NULL);
}

/* The place is the counter's low half, the hash of the name its high half, the seed the key. */
static void uniform_is_philox_of_seed_and_name(void **state) {
    (void)state;
    const uint64_t seed = 0x123456789abcdef0u, place = 0x500000003u,
                   hash = fnv1a64("layers.0.q_proj");
    const uint32_t key[2] = {0x9abcdef0u, 0x12345678u};
    const uint32_t counter[4] = {3, 5, (uint32_t)hash, (uint32_t)(hash >> 32)};
    uint32_t out[4];
    philox4x32(counter, key, out);
    assert_true(rng_uniform(seed, "layers.0.q_proj", place) == (float)(out[0] >> 8) / 16777216.0f);
    assert_true(
        rng_uniform(seed, "layers.0.q_proj", place) != rng_uniform(seed, "layers.0.k_proj", place));
    assert_true(rng_uniform(seed, "x", 0) != rng_uniform(seed + 1, "x", 0));
    assert_true(rng_uniform(seed, "x", 0) != rng_uniform(seed, "x", 1));
}

static void draws_have_the_right_moments(void **state) {
    (void)state;
    enum { N = 200000 };
    double sum_u = 0, sum_n = 0, square_n = 0, fourth_n = 0;
    for (uint64_t i = 0; i < N; i++) {
        const double u = (double)rng_uniform(1, "u", i), x = (double)rng_normal(1, "n", i);
        assert_true(u >= 0.0 && u < 1.0 && isfinite(x));
        sum_u += u;
        sum_n += x;
        square_n += x * x;
        fourth_n += x * x * x * x;
    }
    /* Five standard errors each. */
    assert_true(fabs(sum_u / N - 0.5) < 5 * 0.2887 / sqrt(N));
    assert_true(fabs(sum_n / N) < 5 / sqrt(N));
    assert_true(fabs(square_n / N - 1) < 5 * sqrt(2.0 / N));
    assert_true(fabs(fourth_n / N - 3) < 5 * sqrt(96.0 / N));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(philox_gives_the_known_answers),
        cmocka_unit_test(fnv_gives_the_known_answers),
        cmocka_unit_test(randperm_equals_torch),
        cmocka_unit_test(randperm_is_a_permutation),
        cmocka_unit_test(uniform_is_philox_of_seed_and_name),
        cmocka_unit_test(draws_have_the_right_moments),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
