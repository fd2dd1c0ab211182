/* storage.c -- the smallest backend: memory and nothing else. Seven functions, no op; the host
 * cannot see into its memory. Every op runs as a reference kernel, and the model must train all the
 * same. It is also built by each compiler that is there, as C and as C++17.
 */
#include <string.h>

#include "qfw/backend.h"
#include "qfw/plugin.h"

struct qfw_inst {
    const qfw_host *host;
};

struct qfw_mem {
    unsigned char *bytes;
    uint64_t size;
};

static qfw_status storage_create(
    const qfw_host *h, const qfw_cfg *cfg, uint32_t i, qfw_inst **out) {
    (void)cfg;
    *out = NULL;
    if (i) return qfw_fail(h, QFW_E_DEVICE, "storage: there is no device %u", i);
    *out = (qfw_inst *)h->heap_alloc(h, sizeof **out, 16);
    if (!*out) return qfw_fail(h, QFW_E_NOMEM, "storage: no memory");
    (*out)->host = h;
    return QFW_OK;
}

static void storage_destroy(qfw_inst *be) {
    if (be) be->host->heap_free(be->host, be);
}

static qfw_status storage_device_info(const qfw_host *h, uint32_t i, qfw_device_info *out) {
    (void)h;
    if (i) return QFW_E_END;
    *out = (qfw_device_info){.size = sizeof *out,
        .type = QFW_DEVICE_OTHER,
        .total_bytes = 1u << 30,
        .max_alloc_bytes = 4u << 20,
        .name = "storage alone"};
    return QFW_OK;
}

static qfw_status storage_mem_alloc(qfw_inst *be, uint64_t bytes, uint32_t usage, qfw_mem **out) {
    const qfw_host *h = be->host;
    (void)usage;
    *out = (qfw_mem *)h->heap_alloc(h, sizeof **out, 16);
    unsigned char *data = (unsigned char *)h->heap_alloc(h, bytes, 256);
    if (*out && data) {
        **out = (struct qfw_mem){data, bytes};
        return QFW_OK;
    }
    h->heap_free(h, *out);
    h->heap_free(h, data);
    *out = NULL;
    return qfw_fail(h, QFW_E_DEVICE_OOM, "storage: no memory");
}

static void storage_mem_free(qfw_inst *be, qfw_mem *mem) {
    if (!mem) return;
    be->host->heap_free(be->host, mem->bytes);
    be->host->heap_free(be->host, mem);
}

static qfw_status storage_mem_write(
    qfw_inst *be, qfw_queue *q, qfw_mem *mem, uint64_t offset, const void *src, uint64_t bytes) {
    (void)q;
    if (offset + bytes > mem->size)
        return qfw_fail(be->host, QFW_E_INVALID, "storage: past its end");
    if (bytes) memcpy(mem->bytes + offset, src, bytes);
    return QFW_OK;
}

static qfw_status storage_mem_read(
    qfw_inst *be, qfw_queue *q, qfw_mem *mem, uint64_t offset, void *dst, uint64_t bytes) {
    (void)q;
    if (offset + bytes > mem->size)
        return qfw_fail(be->host, QFW_E_INVALID, "storage: past its end");
    if (bytes) memcpy(dst, mem->bytes + offset, bytes);
    return QFW_OK;
}

static const qfw_backend storage_backend = {
    .size = QFW_BACKEND_V0_SIZE,
    .create = storage_create,
    .destroy = storage_destroy,
    .device_info = storage_device_info,
    .mem_alloc = storage_mem_alloc,
    .mem_free = storage_mem_free,
    .mem_write = storage_mem_write,
    .mem_read = storage_mem_read,
};

static const qfw_component storage_component = {
    .size = sizeof storage_component,
    .kind = QFW_KIND_BACKEND,
    .name = "storage",
    .summary = "memory without a single op: what the reference kernels make of it",
    .iface = &storage_backend,
};
static const qfw_component *const storage_components[] = {&storage_component};

QFW_PLUGIN("storage", "0.1.0", "qfw authors", "MIT", 1u << QFW_KIND_BACKEND, storage_components);
