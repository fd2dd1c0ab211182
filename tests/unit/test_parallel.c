/* test_parallel.c -- every item once, stable workers, nesting, and the caller's floating-point
 * environment. */
#define _POSIX_C_SOURCE 200809L
#include <fenv.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

#if defined(__SSE__)
#    include <xmmintrin.h>
#endif

#include "base/error.h"
#include "base/parallel.h"

#include <cmocka.h> /* last: it defines fail() */

enum { MANY = 1000 };

typedef struct counts {
    atomic_uint of_item[MANY];
    atomic_uint of_worker[QFW_MAX_WORKERS];
    atomic_uint in_use[QFW_MAX_WORKERS]; /* items that hold this worker's index now */
    atomic_uint clashes;
} counts;

static void count_item(void *arg, uint32_t item, uint32_t worker) {
    counts *c = arg;
    if (atomic_fetch_add(&c->in_use[worker], 1) != 0) atomic_fetch_add(&c->clashes, 1);
    atomic_fetch_add(&c->of_item[item], 1);
    atomic_fetch_add(&c->of_worker[worker], 1);
    atomic_fetch_sub(&c->in_use[worker], 1);
}

static void assert_each_once(counts *c, uint32_t n) {
    for (uint32_t i = 0; i < MANY; i++) assert_int_equal(c->of_item[i], i < n);
    assert_int_equal(c->clashes, 0);
}

static void runs_every_item_once(void **state) {
    (void)state;
    const uint32_t sizes[] = {0, 1, 2, 3, 7, 64, MANY};
    for (uint32_t threads = 1; threads <= 5; threads += 2) {
        assert_int_equal(parallel_start(threads), QFW_OK);
        assert_int_equal(parallel_workers(), threads);
        for (uint32_t round = 0; round < 50; round++)
            for (uint32_t s = 0; s < sizeof sizes / sizeof *sizes; s++) {
                counts c = {0};
                parallel_for(sizes[s], count_item, &c);
                assert_each_once(&c, sizes[s]);
                for (uint32_t w = threads; w < QFW_MAX_WORKERS; w++)
                    assert_int_equal(c.of_worker[w], 0);
            }
    }
    parallel_stop();
    assert_int_equal(parallel_workers(), 1);
}

static void nap(long ns) {
    const struct timespec t = {0, ns};
    nanosleep(&t, NULL);
}

static void count_slowly(void *arg, uint32_t item, uint32_t worker) {
    count_item(arg, item, worker);
    nap(2000000);
}

static void wakes_sleeping_workers(void **state) {
    (void)state;
    assert_int_equal(parallel_start(3), QFW_OK);
    for (int round = 0; round < 3; round++) {
        counts c = {0};
        nap(5000000); /* long enough for the workers to sleep */
        parallel_for(12, count_slowly, &c);
        assert_each_once(&c, 12);
        for (uint32_t w = 0; w < 3; w++) assert_true(c.of_worker[w] > 0);
    }
    parallel_stop();
}

typedef struct nest {
    counts *outer, *inner;
    atomic_uint strays; /* inner items that ran under another worker's index or thread */
} nest;

typedef struct nest_item {
    nest *n;
    uint32_t worker, first;
    pthread_t thread;
} nest_item;

static void inner_item(void *arg, uint32_t item, uint32_t worker) {
    nest_item *i = arg;
    if (worker != i->worker || !pthread_equal(pthread_self(), i->thread))
        atomic_fetch_add(&i->n->strays, 1);
    atomic_fetch_add(&i->n->inner->of_item[i->first + item], 1);
    nap(50000); /* so that an idle worker had the time to take a share */
}

static void outer_item(void *arg, uint32_t item, uint32_t worker) {
    nest *n = arg;
    nest_item i = {n, worker, item * 10, pthread_self()};
    count_item(n->outer, item, worker);
    parallel_for(10, inner_item, &i);
    parallel_for(0, inner_item, &i);
}

static void nested_calls_run_in_the_item(void **state) {
    (void)state;
    for (uint32_t threads = 1; threads <= 4; threads++) {
        counts outer = {0}, inner = {0};
        nest n = {&outer, &inner, 0};
        assert_int_equal(parallel_start(threads), QFW_OK);
        parallel_for(100, outer_item, &n);
        assert_each_once(&outer, 100);
        assert_each_once(&inner, MANY);
        parallel_for(1, outer_item, &n);
        assert_int_equal(n.strays, 0);
    }
    parallel_stop();
}

typedef struct order {
    atomic_uint begun, skipped;
} order;

/* When an item begins, those before it have begun, but for the one that each other worker may
 * hold. */
static void note_order(void *arg, uint32_t item, uint32_t worker) {
    (void)worker;
    order *o = arg;
    const uint32_t begun = atomic_fetch_add(&o->begun, 1);
    if (item > begun + parallel_workers() - 1) atomic_fetch_add(&o->skipped, 1);
}

static void hands_items_out_in_order(void **state) {
    (void)state;
    for (uint32_t threads = 1; threads <= 3; threads++) {
        assert_int_equal(parallel_start(threads), QFW_OK);
        for (int round = 0; round < 50; round++) {
            order o = {0};
            parallel_for(MANY, note_order, &o);
            assert_int_equal(o.begun, MANY);
            assert_int_equal(o.skipped, 0);
        }
    }
    parallel_stop();
}

typedef struct fp_seen {
    int rounding;
    atomic_uint wrong;
    unsigned csr;
} fp_seen;

static void look_at_fp(void *arg, uint32_t item, uint32_t worker) {
    (void)item, (void)worker;
    fp_seen *seen = arg;
    nap(1000000);
    if (fegetround() != seen->rounding) atomic_fetch_add(&seen->wrong, 1);
#if defined(__SSE__)
    if ((_mm_getcsr() & ~0x3fu) != seen->csr) atomic_fetch_add(&seen->wrong, 1);
#endif
}

static void workers_take_the_callers_fp_environment(void **state) {
    (void)state;
    fp_seen seen = {0};
    assert_int_equal(parallel_start(3), QFW_OK);
    const int modes[] = {FE_UPWARD, FE_TONEAREST, FE_DOWNWARD, FE_TONEAREST};
    for (int i = 0; i < 4; i++) {
        fesetround(modes[i]);
#if defined(__SSE__)
        const unsigned plain = _mm_getcsr() & ~0x3fu;
        seen.csr = i == 1 ? plain | 0x8040u
                          : plain; /* flush and denormals-are-zero, as -ffast-math sets */
        _mm_setcsr(seen.csr);
#endif
        seen.rounding = modes[i];
        parallel_for(12, look_at_fp, &seen);
#if defined(__SSE__)
        _mm_setcsr(plain);
#endif
    }
    fesetround(FE_TONEAREST);
    assert_int_equal(seen.wrong, 0);
    parallel_stop();
}

static void look_at_signals(void *arg, uint32_t item, uint32_t worker) {
    (void)item;
    sigset_t now;
    nap(1000000);
    pthread_sigmask(SIG_SETMASK, NULL, &now);
    if (worker > 0 && !(sigismember(&now, SIGTERM) && sigismember(&now, SIGINT)))
        atomic_fetch_add((atomic_uint *)arg, 1);
}

static void workers_block_signals_and_the_caller_does_not(void **state) {
    (void)state;
    atomic_uint open = 0;
    sigset_t now;
    assert_int_equal(parallel_start(3), QFW_OK);
    parallel_for(9, look_at_signals, &open);
    assert_int_equal(open, 0);
    pthread_sigmask(SIG_SETMASK, NULL, &now);
    assert_false(sigismember(&now, SIGTERM));
    parallel_stop();
}

static void *call_from_thread(void *arg) {
    for (int i = 0; i < 200; i++) {
        counts c = {0};
        parallel_for(50, count_item, &c);
        for (uint32_t k = 0; k < MANY; k++)
            if (c.of_item[k] != (k < 50)) atomic_fetch_add((atomic_uint *)arg, 1);
    }
    return NULL;
}

static void threads_may_call_at_the_same_time(void **state) {
    (void)state;
    atomic_uint wrong = 0;
    pthread_t threads[3];
    assert_int_equal(parallel_start(3), QFW_OK);
    for (int i = 0; i < 3; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, call_from_thread, &wrong), 0);
    for (int i = 0; i < 3; i++) pthread_join(threads[i], NULL);
    assert_int_equal(wrong, 0);
    parallel_stop();
}

static void size_follows_the_machine_and_the_limit(void **state) {
    (void)state;
    assert_int_equal(parallel_start(0), QFW_OK);
    assert_in_range(parallel_workers(), 1, QFW_MAX_WORKERS);
    assert_int_equal(parallel_start(1000), QFW_OK);
    assert_int_equal(parallel_workers(), QFW_MAX_WORKERS);
    counts c = {0};
    parallel_for(MANY, count_item, &c);
    assert_each_once(&c, MANY);
    parallel_stop();
    parallel_stop();
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(runs_every_item_once),
        cmocka_unit_test(wakes_sleeping_workers),
        cmocka_unit_test(nested_calls_run_in_the_item),
        cmocka_unit_test(hands_items_out_in_order),
        cmocka_unit_test(workers_take_the_callers_fp_environment),
        cmocka_unit_test(workers_block_signals_and_the_caller_does_not),
        cmocka_unit_test(threads_may_call_at_the_same_time),
        cmocka_unit_test(size_follows_the_machine_and_the_limit),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
