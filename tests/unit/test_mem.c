/* test_mem.c -- zeroed, checked, counted, and failing where a test wants it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "base/error.h"
#include "base/mem.h"

#include <cmocka.h>

static void assert_no_memory(const void *p) {
    assert_null(p);
    assert_string_equal(err_name(), "E_MEM");
    assert_int_equal(err_status(), QFW_E_NOMEM);
    assert_int_equal(err_exit_code(), EXIT_MEMORY);
    err_clear();
}

static void assert_zero(const unsigned char *p, size_t n) {
    for (size_t i = 0; i < n; i++) assert_int_equal(p[i], 0);
}

static void allocates_zeroed_memory(void **state) {
    (void)state;
    for (int round = 0; round < 4; round++) { /* later rounds get memory that was used before */
        unsigned char *p = mem_alloc(37, 3);
        assert_non_null(p);
        assert_zero(p, 111);
        memset(p, 0xff, 111);
        mem_free(p);
    }
    void *empty = mem_alloc(0, 8);
    assert_non_null(empty);
    mem_free(empty);
    mem_free(NULL);
}

static void aligns_as_asked(void **state) {
    (void)state;
    for (size_t align = 1; align <= 4096; align *= 2) {
        unsigned char *p = mem_alloc_aligned(100, align);
        assert_non_null(p);
        assert_int_equal((uintptr_t)p % align, 0);
        assert_zero(p, 100);
        memset(p, 0xff, 100);
        mem_free(p);
    }
    void *empty = mem_alloc_aligned(0, 64);
    assert_non_null(empty);
    mem_free(empty);
    assert_null(mem_alloc_aligned(8, 48));
    assert_null(mem_alloc_aligned(8, 8192));
}

static void refuses_sizes_that_overflow(void **state) {
    (void)state;
    assert_no_memory(mem_alloc(SIZE_MAX, 2));
    assert_no_memory(mem_alloc(SIZE_MAX / 4 + 1, 4));
    assert_no_memory(mem_alloc((size_t)PTRDIFF_MAX + 1, 1));
    assert_no_memory(mem_alloc_aligned(SIZE_MAX - 8, 64));
    int64_t *items = NULL;
    size_t cap = 0;
    assert_int_not_equal(mem_grow(&items, &cap, SIZE_MAX / 8 + 2, sizeof *items), 0);
    assert_int_equal(cap, 0);
    assert_no_memory(items);
}

static void grows_and_keeps(void **state) {
    (void)state;
    int64_t *items = NULL;
    size_t cap = 0;
    for (size_t n = 0; n < 1000; n++) {
        assert_int_equal(mem_grow(&items, &cap, n + 1, sizeof *items), 0);
        assert_true(cap > n);
        assert_int_equal(items[n], 0);
        assert_int_equal(items[cap - 1], 0);
        items[n] = (int64_t)n;
    }
    for (size_t n = 0; n < 1000; n++) assert_int_equal(items[n], n);
    const uint64_t before = mem_count();
    assert_int_equal(mem_grow(&items, &cap, cap, sizeof *items), 0);
    assert_int_equal(mem_count(), before);
    mem_fail_at(1);
    const size_t old = cap;
    assert_int_not_equal(mem_grow(&items, &cap, cap + 1, sizeof *items), 0);
    assert_int_equal(cap, old);
    assert_int_equal(items[999], 999);
    mem_free(items);
}

static void makes_text(void **state) {
    (void)state;
    char *copy = mem_strdup("eins"), *text = mem_printf("%s %d %0300d", copy, 2, 3);
    assert_string_equal(copy, "eins");
    assert_int_equal(strlen(text), 307);
    assert_memory_equal(text, "eins 2 00", 9);
    mem_free(copy);
    mem_free(text);
}

static void fails_the_kth_once(void **state) {
    (void)state;
    mem_fail_at(3);
    for (int i = 1; i <= 5; i++) {
        void *p = i % 2 ? mem_alloc(1, 1) : mem_alloc_aligned(1, 64);
        if (i == 3)
            assert_no_memory(p);
        else
            assert_non_null(p);
        mem_free(p);
    }
    mem_fail_at(1);
    assert_no_memory(mem_strdup("x"));
    mem_fail_at(1);
    assert_no_memory(mem_printf("%d", 1));
    mem_fail_at(2);
    mem_fail_at(0);
    for (int i = 0; i < 3; i++) {
        void *p = mem_alloc(1, 1);
        assert_non_null(p);
        mem_free(p);
    }
}

static void counts_every_allocation(void **state) {
    (void)state;
    const uint64_t before = mem_count();
    char *items = NULL;
    size_t cap = 0;
    mem_free(mem_alloc(1, 1));
    mem_free(mem_alloc_aligned(1, 8));
    mem_free(mem_strdup(""));
    mem_free(mem_printf("x"));
    assert_int_equal(mem_grow(&items, &cap, 1, 1), 0);
    mem_free(items);
    assert_int_equal(mem_count() - before, 5);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(allocates_zeroed_memory),
        cmocka_unit_test(aligns_as_asked),
        cmocka_unit_test(refuses_sizes_that_overflow),
        cmocka_unit_test(grows_and_keeps),
        cmocka_unit_test(makes_text),
        cmocka_unit_test(fails_the_kth_once),
        cmocka_unit_test(counts_every_allocation),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
