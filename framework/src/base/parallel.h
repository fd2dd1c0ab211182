/* parallel.h -- the one thread pool. Items are handed out in order, one at a time; a call from
 * inside an item runs in the calling thread. Workers keep the caller's floating-point
 * environment. */
#ifndef BASE_PARALLEL_H
#define BASE_PARALLEL_H

#include "qfw/host.h"

/* Set the size of the pool: n_threads 0 = one per CPU this process may run on, at most
 * QFW_MAX_WORKERS. May be called again while no loop runs (tests do). Without a call the pool has
 * one thread. */
qfw_status parallel_start(uint32_t n_threads);
void parallel_stop(void); /* join the workers; the pool is one thread again */
uint32_t parallel_workers(void);
void parallel_for(uint32_t n, qfw_parallel_fn fn, void *arg);

#endif
