/* backend.h -- what a compute plugin provides: memory, order, and kernels.
 *
 * Seven functions make a backend; the rest may be NULL. What it cannot run, the planner decomposes
 * or gives to the core's reference kernels, and prints.
 *
 * Work on one instance runs in the order it was enqueued. A call marked [async] may return before
 * the device is done, and a fault it causes is then reported by the next [sync] call. Threads:
 * host.h. One instance is one device. The core has already refused NULLs, wrong shapes and foreign
 * memory.
 */
#ifndef QFW_BACKEND_H
#define QFW_BACKEND_H

#include "qfw/ops.h"

typedef struct qfw_queue qfw_queue; /* always NULL in ABI minor 0: the instance's own queue */

/* What a piece of memory is for. */
enum {
    QFW_MEM_FROZEN = 1, /* base weights: written once, then only read; may be sealed */
    QFW_MEM_RUN = 2,    /* trainable weights, gradients, optimizer state: they outlive a step */
    QFW_MEM_STEP = 3,   /* activations and workspace: rewritten every step */
    QFW_MEM_INPUT = 4,  /* tokens, labels, tables: the host writes them every step */
};

enum { QFW_DEVICE_CPU = 1, QFW_DEVICE_IGPU = 2, QFW_DEVICE_GPU = 3, QFW_DEVICE_OTHER = 4 };

typedef struct qfw_device_info {
    uint32_t size, type;      /* QFW_DEVICE_* */
    uint64_t total_bytes;     /* memory of the device */
    uint64_t free_bytes;      /* of it free now; 0: unknown */
    uint64_t max_alloc_bytes; /* largest single mem_alloc; 0: total_bytes */
    uint32_t priority, rsv;   /* only breaks ties between backends that claim one device */
    char name[128];           /* "AMD EPYC, 2 threads, AVX-512" */
    char id[64];              /* PCI address or UUID, "" when it has none */
} qfw_device_info;
QFW_SEALED(qfw_device_info, id);

/* What `supports` answers: the level, and a flag. */
enum {
    QFW_SUPPORT_NO = 0,
    QFW_SUPPORT_NATIVE = 2,
    QFW_SUPPORT_LEVEL = 0xff,
    QFW_SUPPORT_DENSE_ROWS = 0x100, /* native once every input's stride[rank-1] is 1 */
};

typedef struct qfw_backend {
    uint32_t size, rsv; /* sizeof(qfw_backend); 0 */

    /* Open device `i`.   [init] [sync]
     * QFW_E_DEVICE if there is none; *out is then NULL, with nothing to destroy. */
    qfw_status (*create)(const qfw_host *h, const qfw_cfg *cfg, uint32_t i, qfw_inst **out);
    void (*destroy)(qfw_inst *be); /* every qfw_mem must be gone; NULL is ignored */

    /* Facts about device `i`, without opening it; QFW_E_END past the last.   [any] [sync] */
    qfw_status (*device_info)(const qfw_host *h, uint32_t i, qfw_device_info *out);

    /* Zeroed device memory, aligned to 256 bytes.   [inst] [sync]
     * QFW_E_DEVICE_OOM leaves the backend usable: the caller may free and retry. */
    qfw_status (*mem_alloc)(qfw_inst *be, uint64_t bytes, uint32_t usage, qfw_mem **out);
    /* Waits for work that uses mem; NULL is ignored. */
    void (*mem_free)(qfw_inst *be, qfw_mem *mem);

    /* Copy between host memory and `mem`, in order with the work enqueued before.
     * [inst] [sync] */
    qfw_status (*mem_write)(
        qfw_inst *be, qfw_queue *q, qfw_mem *mem, uint64_t offset, const void *src, uint64_t bytes);
    qfw_status (*mem_read)(
        qfw_inst *be, qfw_queue *q, qfw_mem *mem, uint64_t offset, void *dst, uint64_t bytes);

    /* --- optional from here on --- */

    /* Wait for all work; report its first fault. NULL: every call is synchronous.   [inst] */
    qfw_status (*sync)(qfw_inst *be, qfw_queue *q);
    /* Whether `run` takes this op with these dtypes, shapes and strides: QFW_SUPPORT_*. The
     * tensors' mem is NULL: no data is looked at. NULL: no op is supported.   [any] */
    uint32_t (*supports)(qfw_inst *be, const qfw_op *op);
    /* Run ops[0..n-1] in order; *done is how many were enqueued. On failure ops[*done] is the one
     * that failed. `workspace` is what workspace_size asked for, for one op at a time.
     * NULL only where `supports` is NULL.   [inst] [async] */
    qfw_status (*run)(qfw_inst *be, qfw_queue *q, const qfw_op *const *ops, uint32_t n,
        qfw_mem *workspace, uint64_t workspace_offset, uint32_t *done);
    /* Scratch bytes that `run` needs for this op. NULL: none.   [any] */
    uint64_t (*workspace_size)(qfw_inst *be, const qfw_op *op);
    /* The host address of mem, valid until mem_free, or NULL where the host cannot see it. With it
     * the reference kernels run in place.   [inst] */
    void *(*host_ptr)(qfw_inst *be, qfw_mem *mem);
    /* The weight `t`, in FROZEN memory, is complete and only this backend's own ops read it from
     * now on: it may be laid out anew, or copied into a private form. mem_read of its bytes then
     * gives the original or QFW_E_UNSUPPORTED.   [inst] [sync] */
    qfw_status (*mem_seal)(qfw_inst *be, qfw_queue *q, const qfw_tensor *t);
    /* Private bytes that mem_seal adds for this tensor, for the plan. NULL: 0.   [any] */
    uint64_t (*tensor_bytes)(qfw_inst *be, const qfw_tensor *t, uint32_t usage);
} qfw_backend;
QFW_SEALED(qfw_backend, tensor_bytes);
/* The first seven: what every backend has, and the size that no host may ask to exceed. */
#define QFW_BACKEND_V0_SIZE QFW_FIELD_END(qfw_backend, mem_read)

#endif
