/* testbackend.h -- a device for tests of the graph: as much of a backend as a test wants, with
 * counters of what the host asked of it.
 *
 * Its ops are the reference kernels. Before an op runs, outputs that are in no input's place are
 * filled with NaN, so that whoever gives two living values one place is found out by the results.
 */
#ifndef SUPPORT_TESTBACKEND_H
#define SUPPORT_TESTBACKEND_H

#include "graph/store.h"

typedef struct test_device {
    device dev; /* what the graph is given */
    qfw_backend be;

    uint8_t native[QFW_OP_END];      /* 1: supports says yes, run runs it */
    uint8_t wants_dense[QFW_OP_END]; /* 1: rows of its inputs must be dense */
    uint8_t lazy;                    /* 1: ops run when somebody waits, or reads or writes memory */
    uint8_t idle;                    /* 1: run counts and does nothing */
    uint32_t refuses;          /* run refuses this op code with UNSUPPORTED, though supported */
    uint32_t breaks;           /* run fails on this op code with QFW_E_DEVICE, without a word */
    const qfw_op *queue[1024]; /* lazy: what waits */
    uint32_t n_queue;
    uint64_t workspace; /* of every op */

    uint64_t n_writes, n_reads;         /* calls of mem_write and mem_read */
    uint64_t bytes_written, bytes_read; /* by them */
    uint64_t n_batches, n_ops, n_syncs; /* calls of run, and ops in them */
    uint64_t n_sealed;
    uint64_t n_mems, bytes, peak; /* living mems and their bytes, and the most there were */
    uint64_t largest;             /* mem_alloc so far */
    uint64_t limit;               /* mem_alloc fails when more than this would live; 0: no limit */
} test_device;

/* The seven functions alone: no op, and the host cannot see its memory. */
void test_device_storage(test_device *d);
/* The same with host_ptr. */
void test_device_visible(test_device *d);
/* All ops, and the host cannot see its memory. */
void test_device_native(test_device *d);
/* Forget the counters of transfers and ops. */
void test_device_reset(test_device *d);

#endif
