/* test_stats.c -- the statistics against scipy, statsmodels and scikit-learn
 * (tests/parity/README.md, stats), and where there is nothing to say.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include "../support/lab.h"
#include "serve/stats.h"

#include <cmocka.h>

enum { MAX_VALUES = 600 };

static lab *golden;

static double at(const char *list, uint64_t i, const char *key) {
    char ptr[96];
    snprintf(ptr, sizeof ptr, "/%s/%llu/%s", list, (unsigned long long)i, key);
    return lab_number(golden, ptr);
}

static uint64_t count(const char *list) { return json_doc_api.count(golden->fixture, list); }

static void near(double found, double wanted) {
    if (!(fabs(found - wanted) <= 1e-12 * fmax(1, fabs(wanted))))
        fail_msg("%.17g, wanted %.17g", found, wanted);
}

static void shares(void **state) {
    (void)state;
    assert_true(count("/shares") >= 8);
    for (uint64_t i = 0; i < count("/shares"); i++) {
        const share s =
            stats_share((uint64_t)at("shares", i, "hits"), (uint64_t)at("shares", i, "n"));
        near(s.low, at("shares", i, "low"));
        near(s.high, at("shares", i, "high"));
        near(s.value, at("shares", i, "hits") / at("shares", i, "n"));
    }
    const share none = stats_share(0, 0);
    assert_true(isnan(none.value) && isnan(none.low) && isnan(none.high));
}

static void binomials(void **state) {
    (void)state;
    for (uint64_t i = 0; i < count("/binomials"); i++) {
        const uint64_t k = (uint64_t)at("binomials", i, "k"), n = (uint64_t)at("binomials", i, "n");
        const double p = stats_binomial(k, n), wanted = at("binomials", i, "p");
        if (fabs(p - wanted) > 1e-11 * wanted) /* lgamma loses a few digits at thousands */
            fail_msg("%llu of %llu: %.17g, wanted %.17g", (unsigned long long)k,
                (unsigned long long)n, p, wanted);
        assert_true(stats_binomial(n - k, n) == p);
    }
}

static uint32_t *levels(uint64_t i, const char *key, size_t *n) {
    char ptr[96];
    static uint32_t values[2][MAX_VALUES];
    uint32_t *out = values[*key == 'b'];
    snprintf(ptr, sizeof ptr, "/kappas/%llu/%s", (unsigned long long)i, key);
    *n = json_doc_api.count(golden->fixture, ptr);
    assert_true(*n <= MAX_VALUES);
    for (size_t k = 0; k < *n; k++) {
        snprintf(ptr, sizeof ptr, "/kappas/%llu/%s/%zu", (unsigned long long)i, key, k);
        out[k] = (uint32_t)lab_number(golden, ptr);
    }
    return out;
}

static void kappas(void **state) {
    static const uint32_t same[3] = {2, 2, 2};
    (void)state;
    for (uint64_t i = 0; i < count("/kappas"); i++) {
        size_t n;
        const uint32_t *a = levels(i, "a", &n), *b = levels(i, "b", &n);
        near(stats_kappa(a, b, n, (uint32_t)at("kappas", i, "levels")), at("kappas", i, "kappa"));
    }
    assert_true(isnan(stats_kappa(same, same, 3, 6)));
}

static void holms(void **state) {
    (void)state;
    for (uint64_t i = 0; i < count("/holms"); i++) {
        char ptr[64];
        double p[8];
        snprintf(ptr, sizeof ptr, "/holms/%llu/p", (unsigned long long)i);
        const uint64_t m = json_doc_api.count(golden->fixture, ptr);
        for (uint64_t k = 0; k < m; k++) {
            snprintf(ptr, sizeof ptr, "p/%llu", (unsigned long long)k);
            p[k] = at("holms", i, ptr);
        }
        stats_holm(p, (size_t)m);
        for (uint64_t k = 0; k < m; k++) {
            snprintf(ptr, sizeof ptr, "holm/%llu", (unsigned long long)k);
            near(p[k], at("holms", i, ptr));
        }
    }
}

static int open_golden(void **state) {
    (void)state;
    golden = lab_open("stats/stats.json");
    return 0;
}

static int close_golden(void **state) {
    (void)state;
    lab_close(golden);
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(shares),
        cmocka_unit_test(binomials),
        cmocka_unit_test(kappas),
        cmocka_unit_test(holms),
    };
    return cmocka_run_group_tests(tests, open_golden, close_golden);
}
