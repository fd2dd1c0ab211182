/* testbackend.c -- memory from the heap, kernels from the core's table. */
#include "testbackend.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "ops/op.h"
#include "plugin/host.h"

struct qfw_inst {
    test_device d; /* the device is its own instance */
};
struct qfw_mem {
    char *data;
    uint64_t bytes;
};

static test_device *device_of(qfw_inst *be) { return &be->d; }
static void finish(test_device *d);

/* --- memory --- */

static qfw_status no_create(const qfw_host *h, const qfw_cfg *cfg, uint32_t i, qfw_inst **out) {
    (void)cfg;
    (void)i;
    *out = NULL;
    return qfw_fail(h, QFW_E_DEVICE, "test: made by the test itself");
}

static void no_destroy(qfw_inst *be) { (void)be; }

static qfw_status no_info(const qfw_host *h, uint32_t i, qfw_device_info *out) {
    (void)h;
    (void)i;
    (void)out;
    return QFW_E_END;
}

static qfw_status take(qfw_inst *be, uint64_t bytes, uint32_t usage, qfw_mem **out) {
    test_device *d = device_of(be);
    *out = NULL;
    assert_in_range(usage, QFW_MEM_FROZEN, QFW_MEM_INPUT);
    assert_true(bytes > 0);
    assert_true(!d->dev.info.max_alloc_bytes || bytes <= d->dev.info.max_alloc_bytes);
    if (d->limit && d->bytes + bytes > d->limit)
        return qfw_fail(d->dev.host, QFW_E_DEVICE_OOM, "test: out of memory");
    *out = calloc(1, sizeof **out);
    assert_non_null(*out);
    **out = (qfw_mem){calloc(1, bytes), bytes};
    assert_non_null((*out)->data);
    d->n_mems++;
    d->bytes += bytes;
    if (d->peak < d->bytes) d->peak = d->bytes;
    if (d->largest < bytes) d->largest = bytes;
    return QFW_OK;
}

static void give_back(qfw_inst *be, qfw_mem *mem) {
    test_device *d = device_of(be);
    if (!mem) return;
    d->n_mems--;
    d->bytes -= mem->bytes;
    free(mem->data);
    free(mem);
}

static qfw_status put(
    qfw_inst *be, qfw_queue *q, qfw_mem *mem, uint64_t offset, const void *src, uint64_t bytes) {
    test_device *d = device_of(be);
    assert_null(q);
    assert_true(offset <= mem->bytes && bytes <= mem->bytes - offset);
    finish(d);
    memcpy(mem->data + offset, src, bytes);
    d->n_writes++;
    d->bytes_written += bytes;
    return QFW_OK;
}

static qfw_status get(
    qfw_inst *be, qfw_queue *q, qfw_mem *mem, uint64_t offset, void *dst, uint64_t bytes) {
    test_device *d = device_of(be);
    assert_null(q);
    assert_true(offset <= mem->bytes && bytes <= mem->bytes - offset);
    finish(d);
    memcpy(dst, mem->data + offset, bytes);
    d->n_reads++;
    d->bytes_read += bytes;
    return QFW_OK;
}

static void *see(qfw_inst *be, qfw_mem *mem) {
    (void)be;
    return mem->data;
}

static qfw_status seal(qfw_inst *be, qfw_queue *q, const qfw_tensor *t) {
    (void)q;
    assert_non_null(t->quant);
    device_of(be)->n_sealed++;
    return QFW_OK;
}

static uint64_t private_bytes(qfw_inst *be, const qfw_tensor *t, uint32_t usage) {
    (void)be;
    (void)t;
    return usage == QFW_MEM_FROZEN ? 4096 : 0;
}

/* --- ops --- */

static int dense_rows(const qfw_tensor *t) {
    return !t || t->quant || t->rank == 0 || t->dim[t->rank - 1] == 1 ||
           t->stride[t->rank - 1] == 1;
}

static uint32_t supports(qfw_inst *be, const qfw_op *op) {
    const test_device *d = device_of(be);
    int dense = 1;
    if (op->code >= QFW_OP_END || !d->native[op->code]) return QFW_SUPPORT_NO;
    for (uint32_t i = 0; i < op->n_in; i++) {
        assert_true(!op->in[i] || !op->in[i]->mem);
        dense &= dense_rows(op->in[i]);
    }
    return QFW_SUPPORT_NATIVE |
           (d->wants_dense[op->code] && !dense ? (uint32_t)QFW_SUPPORT_DENSE_ROWS : 0);
}

static uint64_t workspace_size(qfw_inst *be, const qfw_op *op) {
    (void)op;
    return device_of(be)->workspace;
}

static qfw_mem *address(qfw_mem *mem) { return mem ? (qfw_mem *)(void *)mem->data : NULL; }

/* The whole tensor lies inside its memory. */
static void check_inside(const qfw_tensor *t) {
    uint64_t last = 0;
    assert_non_null(t->mem);
    assert_int_equal(t->size, sizeof *t);
    if (t->quant || !qfw_tensor_count(t)) return;
    for (uint32_t i = 0; i < t->rank; i++) last += (uint64_t)((t->dim[i] - 1) * t->stride[i]);
    assert_true(t->offset + (last + 1) * qfw_dtype_bytes(t->dtype) <= t->mem->bytes);
}

static int overlap(const qfw_tensor *a, const qfw_tensor *b) {
    const uint64_t a_bytes = (uint64_t)qfw_tensor_count(a) * qfw_dtype_bytes(a->dtype);
    const uint64_t b_bytes = (uint64_t)qfw_tensor_count(b) * qfw_dtype_bytes(b->dtype);
    return a->mem == b->mem && a->offset < b->offset + b_bytes && b->offset < a->offset + a_bytes;
}

/* An output touches no input but where the op may be in place with it, and then exactly. */
static void check_places(const qfw_op *op, const op_def *def, uint32_t o) {
    const qfw_tensor *out = op->out[o];
    int in_place = 0;
    assert_true(qfw_tensor_is_dense(out));
    for (uint32_t i = 0; i < op->n_in; i++) {
        if (!op->in[i] || op->in[i]->quant || !overlap(out, op->in[i])) continue;
        assert_true(def->inplace[o][0] == i + 1 || def->inplace[o][1] == i + 1);
        assert_int_equal(out->offset, op->in[i]->offset);
        assert_true(qfw_tensor_is_dense(op->in[i]));
        in_place = 1;
    }
    for (uint32_t k = 0; k < o; k++)
        assert_false(op->out[k] && overlap(out, op->out[k]) && qfw_tensor_count(out));
    if (!in_place)
        memset(out->mem->data + out->offset, 0xff,
            (size_t)qfw_tensor_count(out) * qfw_dtype_bytes(out->dtype));
}

static qfw_status run_one(const qfw_op *op) {
    const op_def *def = op_find(op->code);
    qfw_tensor tensor[QFW_MAX_IN + QFW_MAX_OUT];
    qfw_quant quant[QFW_MAX_IN];
    qfw_op mapped = *op;
    for (uint32_t i = 0; i < op->n_in; i++) {
        if (!op->in[i]) continue;
        check_inside(op->in[i]);
        tensor[i] = *op->in[i];
        tensor[i].mem = address(tensor[i].mem);
        mapped.in[i] = &tensor[i];
        if (!tensor[i].quant) continue;
        quant[i] = *tensor[i].quant;
        quant[i].absmax_mem = address(quant[i].absmax_mem);
        quant[i].nested_mem = address(quant[i].nested_mem);
        quant[i].map_mem = address(quant[i].map_mem);
        tensor[i].quant = &quant[i];
    }
    for (uint32_t o = 0; o < op->n_out; o++) {
        qfw_tensor *t = &tensor[QFW_MAX_IN + o];
        if (!op->out[o]) continue;
        check_inside(op->out[o]);
        check_places(op, def, o);
        *t = *op->out[o];
        t->mem = address(t->mem);
        mapped.out[o] = t;
    }
    return def->ref(&mapped);
}

static void finish(test_device *d) {
    for (uint32_t i = 0; i < d->n_queue; i++) assert_int_equal(run_one(d->queue[i]), QFW_OK);
    d->n_queue = 0;
}

static qfw_status run(qfw_inst *be, qfw_queue *q, const qfw_op *const *ops, uint32_t n,
    qfw_mem *workspace, uint64_t workspace_offset, uint32_t *done) {
    test_device *d = device_of(be);
    assert_null(q);
    assert_true(n > 0);
    assert_true(!d->workspace || workspace_offset + d->workspace <= workspace->bytes);
    d->n_batches++;
    for (*done = 0; *done < n; ++*done) {
        const qfw_op *op = ops[*done];
        assert_true(d->native[op->code]);
        if (op->code == d->refuses)
            return qfw_fail(d->dev.host, QFW_E_UNSUPPORTED, "test: not today");
        if (op->code == d->breaks) return QFW_E_DEVICE;
        if (d->workspace) memset(workspace->data + workspace_offset, 0xee, d->workspace);
        d->n_ops++;
        if (d->lazy) {
            assert_true(d->n_queue < sizeof d->queue / sizeof d->queue[0]);
            d->queue[d->n_queue++] = op;
        } else if (!d->idle)
            QFW_TRY(run_one(op));
    }
    return QFW_OK;
}

static qfw_status sync_all(qfw_inst *be, qfw_queue *q) {
    assert_null(q);
    finish(device_of(be));
    device_of(be)->n_syncs++;
    return QFW_OK;
}

/* --- the three kinds --- */

void test_device_storage(test_device *d) {
    memset(d, 0, sizeof *d);
    d->be = (qfw_backend){.size = QFW_BACKEND_V0_SIZE,
        .create = no_create,
        .destroy = no_destroy,
        .device_info = no_info,
        .mem_alloc = take,
        .mem_free = give_back,
        .mem_write = put,
        .mem_read = get};
    d->dev = (device){.be = &d->be,
        .inst = (qfw_inst *)(void *)d,
        .host = host_table(),
        .name = "test",
        .info = {.size = sizeof d->dev.info, .total_bytes = 1u << 30}};
}

static void give_ops(test_device *d) {
    d->be.size = sizeof d->be;
    d->be.sync = sync_all;
    d->be.supports = supports;
    d->be.run = run;
    d->be.workspace_size = workspace_size;
    d->be.mem_seal = seal;
    d->be.tensor_bytes = private_bytes;
}

void test_device_visible(test_device *d) {
    test_device_storage(d);
    give_ops(d);
    d->be.host_ptr = see;
}

void test_device_native(test_device *d) {
    test_device_storage(d);
    give_ops(d);
    memset(d->native, 1, sizeof d->native);
}

void test_device_reset(test_device *d) {
    d->n_writes = d->n_reads = d->bytes_written = d->bytes_read = 0;
    d->n_batches = d->n_ops = d->n_syncs = 0;
}
