/* arena.c -- device memory in blocks no larger than the device allows. */
#include "graph/arena.h"

#include "base/error.h"
#include "base/mem.h"
#include "graph/program.h"

qfw_mem *arena_at(const arena_blocks *b, uint64_t *offset) {
    const uint64_t block = *offset / b->block_bytes;
    *offset %= b->block_bytes;
    return b->mem[block < b->n ? block : b->n - 1];
}

static void free_blocks(const device *dev, arena_blocks *b) {
    for (size_t i = 0; i < b->n; i++) dev->be->mem_free(dev->inst, b->mem[i]);
    mem_free(b->mem);
    *b = (arena_blocks){NULL, 0, 0, 1};
}

/* At least one block, so that values without bytes have a memory, too. */
static qfw_status take_blocks(
    const device *dev, uint64_t bytes, uint32_t usage, const char *what, arena_blocks *b) {
    b->block_bytes = plan_block_bytes(dev);
    b->bytes = bytes ? bytes : 256;
    const size_t n = (size_t)((b->bytes + b->block_bytes - 1) / b->block_bytes);
    b->mem = mem_alloc(n, sizeof *b->mem);
    if (!b->mem) return QFW_E_NOMEM;
    for (; b->n < n; b->n++) {
        const uint64_t left = b->bytes - b->n * b->block_bytes;
        const uint64_t size = left < b->block_bytes ? left : b->block_bytes;
        const qfw_status status = dev->be->mem_alloc(dev->inst, size, usage, &b->mem[b->n]);
        if (status == QFW_OK) continue;
        err_prefix("%s: %llu bytes for %s", dev->name, (unsigned long long)bytes, what);
        return status;
    }
    return QFW_OK;
}

qfw_status exec_arena_create(const device *dev, uint64_t step_bytes, uint64_t host_bytes,
    uint64_t input_bytes, exec_arena **out) {
    exec_arena *a = mem_alloc(1, sizeof *a);
    *out = NULL;
    if (!a) return QFW_E_NOMEM;
    a->dev = dev;
    a->host_bytes = host_bytes;
    a->host = mem_alloc_aligned(host_bytes + 256, 256);
    qfw_status status = a->host ? QFW_OK : QFW_E_NOMEM;
    if (status == QFW_OK)
        status = take_blocks(dev, step_bytes, QFW_MEM_STEP, "activations", &a->step);
    if (status == QFW_OK)
        status = take_blocks(dev, input_bytes, QFW_MEM_INPUT, "inputs", &a->input);
    if (status != QFW_OK) {
        exec_arena_destroy(a);
        return status;
    }
    *out = a;
    return QFW_OK;
}

void exec_arena_destroy(exec_arena *a) {
    if (!a) return;
    free_blocks(a->dev, &a->step);
    free_blocks(a->dev, &a->input);
    mem_free(a->host);
    mem_free(a);
}
