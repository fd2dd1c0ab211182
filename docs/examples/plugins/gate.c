/* gate.c -- a backend with one op of its own, SWIGLU, in memory that the host sees. Everything else
 * runs in place, as reference kernels.
 */
#include <math.h>
#include <string.h>

#include "qfw/backend.h"
#include "qfw/plugin.h"

struct qfw_inst {
    const qfw_host *host;
};

struct qfw_mem {
    char *bytes;
};

static qfw_status gate_create(const qfw_host *h, const qfw_cfg *cfg, uint32_t i, qfw_inst **out) {
    (void)cfg;
    *out = NULL;
    if (i) return qfw_fail(h, QFW_E_DEVICE, "gate: there is no device %u", i);
    *out = (qfw_inst *)h->heap_alloc(h, sizeof **out, 16);
    if (!*out) return qfw_fail(h, QFW_E_NOMEM, "gate: no memory");
    (*out)->host = h;
    return QFW_OK;
}

static void gate_destroy(qfw_inst *be) {
    if (be) be->host->heap_free(be->host, be);
}

static qfw_status gate_device_info(const qfw_host *h, uint32_t i, qfw_device_info *out) {
    (void)h;
    if (i) return QFW_E_END;
    *out = (qfw_device_info){.size = sizeof *out,
        .type = QFW_DEVICE_CPU,
        .total_bytes = 4ull << 30,
        .name = "one op on this CPU"};
    return QFW_OK;
}

/* --- memory --- */

static void gate_mem_free(qfw_inst *be, qfw_mem *mem) {
    if (!mem) return;
    be->host->heap_free(be->host, mem->bytes);
    be->host->heap_free(be->host, mem);
}

static qfw_status gate_mem_alloc(qfw_inst *be, uint64_t bytes, uint32_t usage, qfw_mem **out) {
    const qfw_host *h = be->host;
    (void)usage;
    *out = (qfw_mem *)h->heap_alloc(h, sizeof **out, 16);
    if (*out) (*out)->bytes = (char *)h->heap_alloc(h, bytes, 256); /* zeroed */
    if (*out && (*out)->bytes) return QFW_OK;
    gate_mem_free(be, *out);
    *out = NULL;
    return qfw_fail(h, QFW_E_DEVICE_OOM, "gate: no memory");
}

static qfw_status gate_mem_write(
    qfw_inst *be, qfw_queue *q, qfw_mem *mem, uint64_t offset, const void *src, uint64_t bytes) {
    (void)be;
    (void)q;
    if (bytes) memcpy(mem->bytes + offset, src, bytes);
    return QFW_OK;
}

static qfw_status gate_mem_read(
    qfw_inst *be, qfw_queue *q, qfw_mem *mem, uint64_t offset, void *dst, uint64_t bytes) {
    (void)be;
    (void)q;
    if (bytes) memcpy(dst, mem->bytes + offset, bytes);
    return QFW_OK;
}

static void *gate_host_ptr(qfw_inst *be, qfw_mem *mem) {
    (void)be;
    return mem->bytes;
}

/* --- the op --- */

/* Row r of a tensor. */
static float *row_of(const qfw_tensor *t, int64_t r) {
    return (float *)(void *)(t->mem->bytes + t->offset) + r * t->stride[0];
}

static uint32_t gate_supports(qfw_inst *be, const qfw_op *op) {
    (void)be;
    if (op->code != QFW_OP_SWIGLU) return QFW_SUPPORT_NO;
    for (uint32_t i = 0; i < op->n_in; i++)
        if (op->in[i] && op->in[i]->dtype != QFW_F32) return QFW_SUPPORT_NO;
    return QFW_SUPPORT_NATIVE | QFW_SUPPORT_DENSE_ROWS;
}

/* mid = up * gate * sigmoid(gate); without in[1] the rows of in[0] are gate and up. */
static void run_swiglu(const qfw_op *op) {
    const qfw_tensor *mid = op->out[0];
    const int64_t width = mid->dim[1];
    for (int64_t r = 0; r < mid->dim[0]; r++) {
        const float *gate = row_of(op->in[0], r);
        const float *up = op->in[1] ? row_of(op->in[1], r) : gate + width;
        float *y = row_of(mid, r);
        for (int64_t c = 0; c < width; c++) y[c] = up[c] * gate[c] / (1 + expf(-gate[c]));
    }
}

static qfw_status gate_run(qfw_inst *be, qfw_queue *q, const qfw_op *const *ops, uint32_t n,
    qfw_mem *workspace, uint64_t workspace_offset, uint32_t *done) {
    (void)q;
    (void)workspace;
    (void)workspace_offset;
    for (*done = 0; *done < n; ++*done) {
        if (ops[*done]->code != QFW_OP_SWIGLU)
            return qfw_fail(
                be->host, QFW_E_INTERNAL, "gate: op %u was not promised", ops[*done]->code);
        run_swiglu(ops[*done]);
    }
    return QFW_OK;
}

static const qfw_backend gate_backend = {
    .size = sizeof gate_backend,
    .create = gate_create,
    .destroy = gate_destroy,
    .device_info = gate_device_info,
    .mem_alloc = gate_mem_alloc,
    .mem_free = gate_mem_free,
    .mem_write = gate_mem_write,
    .mem_read = gate_mem_read,
    .supports = gate_supports,
    .run = gate_run,
    .host_ptr = gate_host_ptr,
};

static const qfw_component gate_component = {
    .size = sizeof gate_component,
    .kind = QFW_KIND_BACKEND,
    .name = "gate",
    .summary = "SWIGLU, and the reference kernels for the rest",
    .iface = &gate_backend,
};
static const qfw_component *const gate_components[] = {&gate_component};

QFW_PLUGIN("gate", "0.1.0", "qfw authors", "MIT", 1u << QFW_KIND_BACKEND, gate_components);
