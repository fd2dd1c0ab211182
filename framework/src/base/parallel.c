/* parallel.c -- a pool of threads for loops of short items.
 *
 * A loop is open while its caller has items to hand out. A worker that sees an open loop joins it,
 * takes items from a shared counter until there are none, and leaves; the caller does the same,
 * closes the loop and waits for those who joined. A worker that comes too late finds the loop
 * closed, so a loop never waits for a sleeping thread. Idle workers look for work for some
 * microseconds, then sleep.
 */
#define _GNU_SOURCE /* sched_getaffinity */
#include "base/parallel.h"

#include <fenv.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <time.h>

#include "base/error.h"

/* pool.state: whether the loop is open, how many workers are inside it, and its number. */
#define LOOP_OPEN   ((uint64_t)1)
#define LOOP_ONE    ((uint64_t)2)
#define LOOP_INSIDE ((uint64_t)0xFFFE)
#define LOOP_NUMBER ((uint64_t)0x10000)

enum { SPIN_NS = 50000 };

static struct {
    _Atomic uint64_t state;
    _Atomic uint64_t next;     /* the item that is handed out next; 64 bits, for it runs past n */
    _Atomic uint32_t sleepers; /* workers that sleep on `wake`, or are about to */
    atomic_int stopping;
    atomic_int busy; /* a loop runs, or the pool changes */
    pthread_mutex_t lock;
    pthread_cond_t wake; /* for workers: a new loop, or the end */
    pthread_cond_t left; /* for the caller: the last worker has left the closed loop */
    pthread_t threads[QFW_MAX_WORKERS];
    _Atomic uint32_t n_workers; /* with the caller; threads 1 .. n_workers - 1 exist */
    /* The open loop: written before it opens, read by those who joined. */
    uint32_t n;
    qfw_parallel_fn fn;
    void *arg;
    fenv_t env;
} pool = {
    .lock = PTHREAD_MUTEX_INITIALIZER,
    .wake = PTHREAD_COND_INITIALIZER,
    .left = PTHREAD_COND_INITIALIZER,
    .n_workers = 1,
};

static _Thread_local uint32_t own_worker; /* this thread's index; 0 outside the pool */
static _Thread_local int inside;          /* an item runs in this thread */

static uint64_t clock_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static void spin_pause(void) {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#else
    atomic_signal_fence(memory_order_seq_cst);
#endif
}

/* Whether there is something to do for a worker whose last loop was `seen`. */
static int loop_ready(uint64_t seen) {
    const uint64_t state = atomic_load(&pool.state);
    return atomic_load(&pool.stopping) || (state & LOOP_OPEN && state / LOOP_NUMBER != seen);
}

static int loop_empty(void) { return (atomic_load(&pool.state) & LOOP_INSIDE) == 0; }

static int spin_until_ready(uint64_t seen) {
    const uint64_t end = clock_ns() + SPIN_NS;
    do {
        for (int i = 0; i < 64; i++) {
            if (loop_ready(seen)) return 1;
            spin_pause();
        }
    } while (clock_ns() < end);
    return 0;
}

static void sleep_until_ready(uint64_t seen) {
    pthread_mutex_lock(&pool.lock);
    atomic_fetch_add(&pool.sleepers, 1);
    while (!loop_ready(seen)) pthread_cond_wait(&pool.wake, &pool.lock);
    atomic_fetch_sub(&pool.sleepers, 1);
    pthread_mutex_unlock(&pool.lock);
}

/* Wake sleeping workers after state or stopping has changed. A worker that counts itself a
 * sleeper too late to be seen here sees the change itself: both sides are sequentially
 * consistent. */
static void wake_workers(void) {
    if (atomic_load(&pool.sleepers) == 0) return;
    pthread_mutex_lock(&pool.lock);
    pthread_cond_broadcast(&pool.wake);
    pthread_mutex_unlock(&pool.lock);
}

/* Enter the open loop, unless it is closed or was the last one: its number, or 0. */
static uint64_t loop_join(uint64_t seen) {
    uint64_t state = atomic_load(&pool.state);
    while (state & LOOP_OPEN && state / LOOP_NUMBER != seen)
        if (atomic_compare_exchange_weak(&pool.state, &state, state + LOOP_ONE))
            return state / LOOP_NUMBER;
    return 0;
}

static void loop_leave(void) {
    const uint64_t state = atomic_fetch_sub(&pool.state, LOOP_ONE) - LOOP_ONE;
    if (state & LOOP_OPEN || state & LOOP_INSIDE) return;
    pthread_mutex_lock(&pool.lock);
    pthread_cond_signal(&pool.left);
    pthread_mutex_unlock(&pool.lock);
}

static void run_items(uint32_t n, qfw_parallel_fn fn, void *arg) {
    uint64_t item;
    inside = 1;
    while ((item = atomic_fetch_add(&pool.next, 1)) < n) fn(arg, (uint32_t)item, own_worker);
    inside = 0;
}

static void *worker_main(void *index) {
    uint64_t seen = 0;
    own_worker = (uint32_t)(uintptr_t)index;
    while (!atomic_load(&pool.stopping)) {
        if (!spin_until_ready(seen)) sleep_until_ready(seen);
        const uint64_t number = loop_join(seen);
        if (!number) continue;
        seen = number;
        fesetenv(&pool.env);
        run_items(pool.n, pool.fn, pool.arg);
        loop_leave();
    }
    return NULL;
}

static void run_inline(uint32_t n, qfw_parallel_fn fn, void *arg) {
    const int outer = inside;
    inside = 1;
    for (uint32_t i = 0; i < n; i++) fn(arg, i, own_worker);
    inside = outer;
}

static void wait_until_empty(void) {
    const uint64_t end = clock_ns() + SPIN_NS;
    while (!loop_empty() && clock_ns() < end) spin_pause();
    if (loop_empty()) return;
    pthread_mutex_lock(&pool.lock);
    while (!loop_empty()) pthread_cond_wait(&pool.left, &pool.lock);
    pthread_mutex_unlock(&pool.lock);
}

void parallel_for(uint32_t n, qfw_parallel_fn fn, void *arg) {
    /* Nested, too small, or another thread has the pool: waiting could deadlock, so run it here. */
    if (inside || n < 2 || atomic_load(&pool.n_workers) == 1 || atomic_exchange(&pool.busy, 1)) {
        run_inline(n, fn, arg);
        return;
    }
    pool.n = n;
    pool.fn = fn;
    pool.arg = arg;
    fegetenv(&pool.env);
    atomic_store(&pool.next, 0);
    atomic_store(
        &pool.state, (atomic_load(&pool.state) / LOOP_NUMBER + 1) * LOOP_NUMBER | LOOP_OPEN);
    wake_workers();
    run_items(n, fn, arg);
    atomic_fetch_and(&pool.state, ~LOOP_OPEN);
    wait_until_empty();
    atomic_store(&pool.busy, 0);
}

uint32_t parallel_workers(void) { return atomic_load(&pool.n_workers); }

void parallel_stop(void) {
    atomic_store(&pool.stopping, 1);
    wake_workers();
    const uint32_t n_workers = atomic_exchange(&pool.n_workers, 1);
    for (uint32_t i = 1; i < n_workers; i++) pthread_join(pool.threads[i], NULL);
    atomic_store(&pool.stopping, 0);
}

static uint32_t cpus_allowed(void) {
    cpu_set_t set;
    CPU_ZERO(&set);
    const int n = sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 1;
    return n < 1 ? 1 : (uint32_t)n;
}

qfw_status parallel_start(uint32_t n_threads) {
    sigset_t all, before;
    int failed = 0;
    if (n_threads == 0) n_threads = cpus_allowed();
    if (n_threads > QFW_MAX_WORKERS) n_threads = QFW_MAX_WORKERS;
    parallel_stop();
    sigfillset(&all);
    pthread_sigmask(
        SIG_SETMASK, &all, &before); /* workers inherit it: signals go to the main thread */
    uint32_t n = 1;
    for (; n < n_threads && !failed; n += !failed)
        failed = pthread_create(&pool.threads[n], NULL, worker_main, (void *)(uintptr_t)n);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    atomic_store(&pool.n_workers, n);
    if (!failed) return QFW_OK;
    parallel_stop();
    return err_fail("E_LIMIT", QFW_E_NOMEM,
        "threads: %u of %u could be started (%s); hint: lower [run] threads, or raise `ulimit -u`",
        n, n_threads, strerror(failed));
}
