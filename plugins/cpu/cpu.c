/* cpu.c -- the cpu backend: memory is host memory, order is the calling order, kernels use the
 * host's pool. */
#define _GNU_SOURCE
#include "cpu.h"

#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "qfw/plugin.h"

static uint64_t no_workspace(const qfw_inst *be, const qfw_op *op) {
    (void)be;
    (void)op;
    return 0;
}

#define ROW_KEEPS(name, kept)                                                                      \
    { cpu_##name##_supports, cpu_##name##_workspace, cpu_##name, kept }
#define ROW(name) ROW_KEEPS(name, 0)
#define PLAIN_KEEPS(name, kept)                                                                    \
    { cpu_##name##_supports, no_workspace, cpu_##name, kept }
#define PLAIN(name) PLAIN_KEEPS(name, 0)
static const cpu_kernel kernels[QFW_OP_END] = {
    [QFW_OP_GEMM] = ROW_KEEPS(gemm_op, 1 << 1),
    [QFW_OP_QMATMUL] = ROW(qmatmul),
    [QFW_OP_QMATMUL_DX] = ROW(qmatmul_dx),
    [QFW_OP_LORA] = ROW(lora),
    [QFW_OP_LORA_BWD] = ROW(lora_bwd),
    [QFW_OP_RMSNORM] = PLAIN(rmsnorm),
    [QFW_OP_RMSNORM_BWD] = ROW(rmsnorm_bwd),
    [QFW_OP_ROPE] = PLAIN(rope),
    [QFW_OP_SWIGLU] = PLAIN(swiglu),
    [QFW_OP_SWIGLU_BWD] = PLAIN(swiglu_bwd),
    [QFW_OP_ATTN] = ROW(attn),
    [QFW_OP_ATTN_BWD] = ROW(attn_bwd),
    [QFW_OP_EMBED] = PLAIN_KEEPS(embed, 1 << 0),
    [QFW_OP_EMBED_BWD] = PLAIN(embed_bwd),
    [QFW_OP_TOKEN_LOGPROB] = ROW_KEEPS(token_logprob, 1 << 1),
    [QFW_OP_TOKEN_LOGPROB_BWD] = ROW_KEEPS(token_logprob_bwd, 1 << 2),
    [QFW_OP_ADAMW] = PLAIN(adamw),
    [QFW_OP_QUANT8] = PLAIN(quant8),
    [QFW_OP_DEQUANT8] = PLAIN(dequant8),
    [QFW_OP_COPY] = PLAIN(copy),
    [QFW_OP_FILL] = PLAIN(fill),
    [QFW_OP_SCALE] = PLAIN(scale),
    [QFW_OP_UNARY] = PLAIN(unary),
    [QFW_OP_BINARY] = PLAIN(binary),
    [QFW_OP_REDUCE] = ROW(reduce),
    [QFW_OP_SELECT] = PLAIN(select),
    [QFW_OP_SEGMENT_SUM] = ROW(segment_sum),
    [QFW_OP_GATHER_ROWS] = PLAIN(gather_rows),
    [QFW_OP_SCATTER_ROWS] = PLAIN(scatter_rows),
};

void cpu_parallel(const cpu_call *c, int64_t n, qfw_parallel_fn fn, void *arg) {
    c->be->host->parallel(c->be->host, (uint32_t)n, fn, arg);
}

uint32_t cpu_support(const qfw_op *op) {
    uint32_t answer = QFW_SUPPORT_NATIVE;
    for (uint32_t i = 0; i < op->n_in + op->n_out; i++) {
        const qfw_tensor *t = i < op->n_in ? op->in[i] : op->out[i - op->n_in];
        if (!t || t->quant) continue;
        if (t->dtype == QFW_I32) {
            if (!qfw_tensor_is_dense(t)) return QFW_SUPPORT_NO;
            continue;
        }
        if (t->dtype != QFW_F32) return QFW_SUPPORT_NO;
        if (t->rank && t->dim[t->rank - 1] != 1 && t->stride[t->rank - 1] != 1)
            answer |= QFW_SUPPORT_DENSE_ROWS;
    }
    return answer;
}

/* --- device and memory --- */

static qfw_status cpu_create(const qfw_host *h, const qfw_cfg *cfg, uint32_t i, qfw_inst **out) {
    const char *name = "auto";
    *out = NULL;
    if (i) return qfw_fail(h, QFW_E_DEVICE, "cpu: there is no device %u, only device 0", i);
    QFW_TRY(h->cfg_str(h, cfg, "isa", &name));
    const cpu_isa *isa = cpu_find_isa(name);
    if (!isa)
        return qfw_fail(h, QFW_E_DEVICE, "cpu: this machine has no %s; hint: isa = auto", name);
    qfw_inst *be = (qfw_inst *)h->heap_alloc(h, sizeof *be, 16);
    if (!be) return qfw_fail(h, QFW_E_NOMEM, "cpu: no memory");
    *be = (qfw_inst){h, isa, h->n_workers(h)};
    *out = be;
    return QFW_OK;
}

static void cpu_destroy(qfw_inst *be) {
    if (be) be->host->heap_free(be->host, be);
}

/* "model name" of /proc/cpuinfo. */
static void read_name(char *name, size_t cap) {
    char line[256];
    FILE *f = fopen("/proc/cpuinfo", "r");
    snprintf(name, cap, "CPU");
    while (f && fgets(line, sizeof line, f)) {
        const char *value = strstr(line, ": ");
        if (strncmp(line, "model name", 10) || !value) continue;
        snprintf(name, cap, "%.*s", (int)strcspn(value + 2, "\n"), value + 2);
        break;
    }
    if (f) fclose(f);
}

/* MemAvailable of /proc/meminfo in bytes; 0: unknown. */
static uint64_t read_available(void) {
    char line[256];
    unsigned long long kib = 0;
    FILE *f = fopen("/proc/meminfo", "r");
    while (f && fgets(line, sizeof line, f))
        if (sscanf(line, "MemAvailable: %llu", &kib) == 1) break;
    if (f) fclose(f);
    return (uint64_t)kib * 1024;
}

static qfw_status cpu_device_info(const qfw_host *h, uint32_t i, qfw_device_info *out) {
    char name[96];
    if (i) return QFW_E_END;
    *out = (qfw_device_info){.size = sizeof *out, .type = QFW_DEVICE_CPU};
    out->total_bytes = (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE);
    out->free_bytes = read_available();
    read_name(name, sizeof name);
    const unsigned n_threads = h->n_workers(h);
    snprintf(
        out->name, sizeof out->name, "%s, %u thread%s", name, n_threads, n_threads == 1 ? "" : "s");
    return QFW_OK;
}

/* Pages from the kernel: zero without being touched, and given back at once. Large pieces begin
 * where a huge page can, and ask for them: walking down the rows of a weight would miss the TLB at
 * each. */
static void *map_pages(uint64_t bytes) {
    const uint64_t huge = (uint64_t)2 << 20, slack = bytes >= huge ? huge : 0;
    char *at =
        mmap(NULL, bytes + slack, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (at == MAP_FAILED || !slack) return at;
    const uint64_t before = (huge - (uintptr_t)at % huge) % huge,
                   page = (uint64_t)sysconf(_SC_PAGESIZE);
    const uint64_t end = before + (bytes + page - 1) / page * page, past = bytes + slack;
    if (before) munmap(at, before);
    if (end < past) munmap(at + end, past - end);
    (void)madvise(at + before, bytes, MADV_HUGEPAGE); /* a wish: without it all works, slower */
    return at + before;
}

static qfw_status cpu_mem_alloc(qfw_inst *be, uint64_t bytes, uint32_t usage, qfw_mem **out) {
    (void)usage;
    const qfw_host *h = be->host;
    *out = NULL;
    qfw_mem *mem = (qfw_mem *)h->heap_alloc(h, sizeof *mem, 16);
    if (!mem) return qfw_fail(h, QFW_E_NOMEM, "cpu: no memory");
    mem->bytes = bytes ? bytes : 1;
    mem->data = map_pages(mem->bytes);
    if (mem->data == MAP_FAILED) {
        h->heap_free(h, mem);
        return qfw_fail(h, QFW_E_DEVICE_OOM, "cpu: %llu bytes of memory are not to be had",
            (unsigned long long)bytes);
    }
    *out = mem;
    return QFW_OK;
}

static void cpu_mem_free(qfw_inst *be, qfw_mem *mem) {
    if (!mem) return;
    munmap(mem->data, mem->bytes);
    be->host->heap_free(be->host, mem);
}

static qfw_status check_range(
    const qfw_inst *be, const qfw_mem *mem, uint64_t offset, uint64_t bytes) {
    if (offset <= mem->bytes && bytes <= mem->bytes - offset) return QFW_OK;
    return qfw_fail(be->host, QFW_E_INVALID, "cpu: bytes %llu + %llu of a memory of %llu",
        (unsigned long long)offset, (unsigned long long)bytes, (unsigned long long)mem->bytes);
}

static qfw_status cpu_mem_write(
    qfw_inst *be, qfw_queue *q, qfw_mem *mem, uint64_t offset, const void *src, uint64_t bytes) {
    (void)q;
    QFW_TRY(check_range(be, mem, offset, bytes));
    if (bytes) memcpy((char *)mem->data + offset, src, bytes);
    return QFW_OK;
}

static qfw_status cpu_mem_read(
    qfw_inst *be, qfw_queue *q, qfw_mem *mem, uint64_t offset, void *dst, uint64_t bytes) {
    (void)q;
    QFW_TRY(check_range(be, mem, offset, bytes));
    if (bytes) memcpy(dst, (const char *)mem->data + offset, bytes);
    return QFW_OK;
}

static void *cpu_host_ptr(qfw_inst *be, qfw_mem *mem) {
    (void)be;
    return mem->data;
}

/* --- ops --- */

static uint32_t cpu_supports(qfw_inst *be, const qfw_op *op) {
    (void)be;
    if (op->code >= QFW_OP_END || !kernels[op->code].run) return QFW_SUPPORT_NO;
    const cpu_kernel *k = &kernels[op->code];
    return cpu_has_half(op) ? cpu_wide_supports(op, k) : k->supports(op);
}

static uint64_t cpu_workspace_size(qfw_inst *be, const qfw_op *op) {
    if (op->code >= QFW_OP_END || !kernels[op->code].run) return 0;
    const cpu_kernel *k = &kernels[op->code];
    return cpu_has_half(op) ? cpu_wide_workspace(be, op, k) : k->workspace(be, op);
}

static qfw_status cpu_run(qfw_inst *be, qfw_queue *q, const qfw_op *const *ops, uint32_t n,
    qfw_mem *workspace, uint64_t workspace_offset, uint32_t *done) {
    (void)q;
    char *scratch = workspace ? (char *)workspace->data + workspace_offset : NULL;
    for (*done = 0; *done < n; ++*done) {
        const qfw_op *op = ops[*done];
        if (op->code >= QFW_OP_END || !kernels[op->code].run)
            return qfw_fail(be->host, QFW_E_UNSUPPORTED, "cpu: there is no op %u", op->code);
        const cpu_call call = {be, op, scratch};
        const cpu_kernel *k = &kernels[op->code];
        QFW_TRY(cpu_has_half(op) ? cpu_wide_run(&call, k) : k->run(&call));
    }
    return QFW_OK;
}

static const qfw_backend cpu_backend = {
    .size = sizeof cpu_backend,
    .create = cpu_create,
    .destroy = cpu_destroy,
    .device_info = cpu_device_info,
    .mem_alloc = cpu_mem_alloc,
    .mem_free = cpu_mem_free,
    .mem_write = cpu_mem_write,
    .mem_read = cpu_mem_read,
    .supports = cpu_supports,
    .run = cpu_run,
    .workspace_size = cpu_workspace_size,
    .host_ptr = cpu_host_ptr,
};

static const qfw_option cpu_options[] = {
    QFW_OPTION(QFW_OPT_ENUM, "isa", "auto", 0, 0, "auto|avx512|avx2|generic",
        "instruction set of the matrix products; each gives the same bits"),
};

static const qfw_component cpu_component = {
    .size = sizeof cpu_component,
    .kind = QFW_KIND_BACKEND,
    .name = "cpu",
    .summary = "any CPU; bf16 and fp16 are kept in 16 bits and computed in fp32",
    .options = cpu_options,
    .n_options = sizeof cpu_options / sizeof cpu_options[0],
    .iface = &cpu_backend,
};
static const qfw_component *const cpu_components[] = {&cpu_component};

QFW_PLUGIN("cpu", "0.1.0", "qfw authors", "MIT", 1u << QFW_KIND_BACKEND, cpu_components);
