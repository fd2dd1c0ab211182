/* host.h -- the services that qfw gives to a plugin: the only way back into the host.
 *
 * A plugin links nothing of qfw. It keeps the `const qfw_host *` that its first call was given; the
 * table lives as long as the process.
 *
 * Threads, here and in every table: [init] one thread, nothing concurrent; [inst] one thread at a
 * time per instance; [any] concurrently from any thread; [worker] inside `parallel`.
 */
#ifndef QFW_HOST_H
#define QFW_HOST_H

#include <stdarg.h>
#include <stdio.h>

#include "qfw/option.h"
#include "qfw/tensor.h"

typedef struct qfw_host qfw_host;
typedef struct qfw_cfg qfw_cfg;   /* the values of one component's options */
typedef struct qfw_inst qfw_inst; /* a plugin's own object, whose type it completes privately */
typedef struct qfw_op qfw_op;     /* ops.h */

enum { QFW_LOG_DEBUG = 0, QFW_LOG_INFO = 1, QFW_LOG_WARN = 2, QFW_LOG_ERROR = 3 };

/* One item of a parallel loop. `worker` < 64 is stable while the item runs: it indexes scratch. */
typedef void (*qfw_parallel_fn)(void *arg, uint32_t item, uint32_t worker);
#define QFW_MAX_WORKERS 64

struct qfw_host {
    uint32_t size;
    uint16_t abi_minor, rsv;
    const char *name, *version;
    /* One line to the log, under the plugin's name `who`.   [any] */
    void (*log_line)(const qfw_host *h, int32_t level, const char *who, const char *text);
    /* Keep `text` as this thread's message and return `code`.   [any] */
    qfw_status (*fail)(const qfw_host *h, qfw_status code, const char *text);
    /* `align` is a power of two, at most 4096; the bytes are zero. NULL when there is no memory;
     * n = 0 gives a pointer that may be freed. heap_free(NULL) does nothing.   [any] */
    void *(*heap_alloc)(const qfw_host *h, uint64_t n, uint64_t align);
    void (*heap_free)(const qfw_host *h, void *p);
    /* The value of a declared option. QFW_E_INVALID for a key that the component did not declare or
     * for another type. Strings live as long as the cfg: until `create` returns.   [any] */
    qfw_status (*cfg_i64)(const qfw_host *h, const qfw_cfg *cfg, const char *key, int64_t *out);
    qfw_status (*cfg_f64)(const qfw_host *h, const qfw_cfg *cfg, const char *key, double *out);
    qfw_status (*cfg_str)(const qfw_host *h, const qfw_cfg *cfg, const char *key, const char **out);
    /* Call fn(arg, i, worker) for every i < n, on the host's one thread pool, and return when all
     * are done. Items are handed out in order, one at a time. A call from inside an item runs its
     * items in the calling thread.   [any] */
    void (*parallel)(const qfw_host *h, uint32_t n, qfw_parallel_fn fn, void *arg);
    uint32_t (*n_workers)(const qfw_host *h); /* threads of the pool, 1..QFW_MAX_WORKERS   [any] */
    int32_t (*cancelled)(const qfw_host *h);  /* 1: stop soon, return QFW_E_CANCELLED   [any] */
    /* Run the core's reference kernel of `op`. Here every tensor's `mem` (and every mem of its
     * quant) is a plain host address, cast to qfw_mem *.   [inst] */
    qfw_status (*ref_run)(const qfw_host *h, const qfw_op *op);
    /* A table of further services by id, or NULL: "qfw.doc/1", "qfw.encoder/1".   [any] */
    const void *(*extension)(const qfw_host *h, const char *id);
};
QFW_SEALED(qfw_host, extension);

static inline qfw_status qfw_vfail(
    const qfw_host *h, qfw_status code, const char *fmt, va_list args) {
    char text[1024];
    vsnprintf(text, sizeof text, fmt, args);
    return h->fail(h, code, text);
}

/* Leave a message and return `code`: return qfw_fail(h, QFW_E_SHAPE, "rope: x is [%d], ...", n). */
QFW_PRINTF(3, 4)
static inline qfw_status qfw_fail(const qfw_host *h, qfw_status code, const char *fmt, ...) {
    va_list args;
    va_start(args, fmt);
    const qfw_status status = qfw_vfail(h, code, fmt, args);
    va_end(args);
    return status;
}

QFW_PRINTF(4, 5)
static inline void qfw_log(
    const qfw_host *h, int32_t level, const char *who, const char *fmt, ...) {
    char text[1024];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    h->log_line(h, level, who, text);
}

#endif
