/* suite_backend.c -- a device's backend as a target of the suite: each call takes memory of its
 * own, writes the blocks, runs the op, and reads all of them back. */
#include "ops/suite.h"

#include "base/error.h"

enum { MAX_BLOCKS = 64 };

typedef struct loan {
    const device *dev;
    const suite_call *call;
    qfw_mem *mem[MAX_BLOCKS]; /* of call->blocks[i] */
    qfw_mem *workspace;
    qfw_tensor in[QFW_MAX_IN], out[QFW_MAX_OUT];
    qfw_quant quant[QFW_MAX_IN];
    qfw_op op;
} loan;

/* The device's memory for a host block's address; NULL for NULL, or before there is any. */
static qfw_mem *mapped(const loan *l, const qfw_mem *host) {
    for (uint32_t b = 0; b < l->call->n_blocks; b++)
        if (l->call->blocks[b].host == (const void *)host) return l->mem[b];
    return NULL;
}

/* The op as the backend is to see it. */
static void map_op(loan *l) {
    const qfw_op *const op = l->call->op;
    l->op = *op;
    for (uint32_t i = 0; i < op->n_in; i++) {
        if (!op->in[i]) continue;
        l->in[i] = *op->in[i];
        l->in[i].mem = mapped(l, op->in[i]->mem);
        l->op.in[i] = &l->in[i];
        if (!op->in[i]->quant) continue;
        qfw_quant *const q = &l->quant[i];
        *q = *op->in[i]->quant;
        q->absmax_mem = mapped(l, q->absmax_mem);
        q->nested_mem = mapped(l, q->nested_mem);
        q->map_mem = mapped(l, q->map_mem);
        l->in[i].quant = q;
    }
    for (uint32_t o = 0; o < op->n_out; o++) {
        if (!op->out[o]) continue;
        l->out[o] = *op->out[o];
        l->out[o].mem = mapped(l, op->out[o]->mem);
        l->op.out[o] = &l->out[o];
    }
}

static int dense_rows(const qfw_op *op) {
    for (uint32_t i = 0; i < op->n_in; i++) {
        const qfw_tensor *const t = op->in[i];
        if (t && t->rank && !t->quant && t->dim[t->rank - 1] > 1 && t->stride[t->rank - 1] != 1)
            return 0;
    }
    return 1;
}

/* `supports` is asked before there is memory. */
static int supported(loan *l) {
    const qfw_backend *const be = l->dev->be;
    if (!QFW_HAS(be, qfw_backend, supports) || !QFW_HAS(be, qfw_backend, run)) return 0;
    map_op(l);
    const uint32_t answer = be->supports(l->dev->inst, &l->op);
    if ((answer & QFW_SUPPORT_LEVEL) != QFW_SUPPORT_NATIVE) return 0;
    return !(answer & QFW_SUPPORT_DENSE_ROWS) || dense_rows(&l->op);
}

static qfw_status take_memory(loan *l) {
    const qfw_backend *const be = l->dev->be;
    for (uint32_t b = 0; b < l->call->n_blocks; b++) {
        const suite_block *const block = &l->call->blocks[b];
        QFW_TRY(be->mem_alloc(l->dev->inst, block->bytes, block->usage, &l->mem[b]));
        QFW_TRY(be->mem_write(l->dev->inst, NULL, l->mem[b], 0, block->host, block->bytes));
    }
    map_op(l);
    if (!QFW_HAS(be, qfw_backend, workspace_size)) return QFW_OK;
    const uint64_t bytes = be->workspace_size(l->dev->inst, &l->op);
    return bytes ? be->mem_alloc(l->dev->inst, bytes, QFW_MEM_STEP, &l->workspace) : QFW_OK;
}

static qfw_status seal(loan *l) {
    const qfw_backend *const be = l->dev->be;
    if (!l->call->seal || !QFW_HAS(be, qfw_backend, mem_seal)) return QFW_OK;
    for (uint32_t i = 0; i < l->op.n_in; i++)
        if (l->op.in[i] && l->op.in[i]->quant)
            QFW_TRY(be->mem_seal(l->dev->inst, NULL, l->op.in[i]));
    return QFW_OK;
}

/* Frozen memory may be private to the backend now: it is not read back. */
static qfw_status bring_back(loan *l) {
    const qfw_backend *const be = l->dev->be;
    for (uint32_t b = 0; b < l->call->n_blocks; b++) {
        const suite_block *const block = &l->call->blocks[b];
        if (l->call->seal && block->usage == QFW_MEM_FROZEN) continue;
        QFW_TRY(be->mem_read(l->dev->inst, NULL, l->mem[b], 0, block->host, block->bytes));
    }
    return QFW_OK;
}

static qfw_status run_op(loan *l) {
    const qfw_backend *const be = l->dev->be;
    const qfw_op *const ops[1] = {&l->op};
    uint32_t done = 0;
    QFW_TRY(take_memory(l));
    QFW_TRY(seal(l));
    QFW_TRY(be->run(l->dev->inst, NULL, ops, 1, l->workspace, 0, &done));
    if (done != 1)
        return err_fail("E_PLUG_OP", QFW_E_INTERNAL,
            "%s: run succeeded and says that %u of 1 ops were enqueued", l->dev->name, done);
    if (QFW_HAS(be, qfw_backend, sync)) QFW_TRY(be->sync(l->dev->inst, NULL));
    return bring_back(l);
}

static qfw_status run_backend(void *arg, const suite_call *call, int *taken) {
    loan l = {.dev = arg, .call = call};
    if (call->n_blocks > MAX_BLOCKS)
        return err_fail("E_INTERNAL", QFW_E_INTERNAL, "suite: %u blocks", call->n_blocks);
    *taken = supported(&l);
    if (!*taken) return QFW_OK;
    const qfw_status s = run_op(&l);
    l.dev->be->mem_free(l.dev->inst, l.workspace);
    for (uint32_t b = 0; b < call->n_blocks; b++) l.dev->be->mem_free(l.dev->inst, l.mem[b]);
    return s;
}

suite_target suite_backend(const device *dev) {
    const suite_target t = {dev->name, run_backend, (void *)(uintptr_t)dev};
    return t;
}
