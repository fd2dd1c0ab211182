/* cpu.h -- what the kernels of the cpu backend share.
 *
 * Two promises shape every kernel: a row's bits depend neither on the other rows of the batch nor
 * on the number of threads, and nothing is allocated while an op runs. So work is cut into panels
 * whose size is fixed, the last one padded to full height, one OpenBLAS thread a panel; scratch
 * comes from the op's workspace.
 */
#ifndef CPU_H
#define CPU_H

#include "qfw/backend.h"
#include "qfw/ops_nn.h"
#include "qfw/ops_prim.h"

/* Before a static function: built for several instruction sets, chosen when it is loaded. */
#if defined(__x86_64__) && !defined(__SANITIZE_ADDRESS__) && !defined(__clang__)
#    define MANY_ISAS __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#    define MANY_ISAS
#endif

struct qfw_mem {
    void *data;
    uint64_t bytes;
};

struct qfw_inst {
    const qfw_host *host;
    uint32_t n_workers;
};

/* One op being run. */
typedef struct cpu_call {
    qfw_inst *be;
    const qfw_op *op;
    char *workspace; /* as many bytes as the op's row in the table asked for */
} cpu_call;

/* What the backend knows of an op: a row of cpu.c's table. */
typedef struct cpu_kernel {
    uint32_t (*supports)(const qfw_op *op);
    uint64_t (*workspace)(const qfw_inst *be, const qfw_op *op);
    qfw_status (*run)(const cpu_call *c);
    uint32_t kept; /* a bit for each input of 16 bits that it reads by cpu_widen_rows */
} cpu_kernel;

static inline float *cpu_f32(const qfw_tensor *t) {
    return (float *)((char *)t->mem->data + t->offset);
}
static inline const int32_t *cpu_i32(const qfw_tensor *t) {
    return (const int32_t *)((const char *)t->mem->data + t->offset);
}
static inline uint8_t *cpu_u8(const qfw_tensor *t) {
    return (uint8_t *)((char *)t->mem->data + t->offset);
}
static inline int64_t cpu_min(int64_t a, int64_t b) { return a < b ? a : b; }
static inline int64_t cpu_panels(int64_t n, int64_t size) { return (n + size - 1) / size; }
static inline int64_t cpu_padded(int64_t n, int64_t size) { return cpu_panels(n, size) * size; }

/* fn(arg, item, worker) for every item below n. */
void cpu_parallel(const cpu_call *c, int64_t n, qfw_parallel_fn fn, void *arg);

/* --- gemm.c --- */

enum { PANEL_ROWS = 128, PANEL_COLS = 256 };

/* y[M,N] = alpha * op(a)[M,K] * op(b)[K,N] (+ y when accumulate). op(a) = a with rows lda apart, or
 * the transpose of a[K,M]; b likewise. Row panels of op(a) = a are padded to PANEL_ROWS. */
typedef struct cpu_matmul {
    int trans_a, trans_b, accumulate;
    int64_t m, n, k, lda, ldb, ldy;
    float alpha;
    const float *a, *b;
    float *y;
} cpu_matmul;
void cpu_gemm(const cpu_call *c, const cpu_matmul *p, char *workspace);
uint64_t cpu_gemm_workspace(const qfw_inst *be, int trans_a, int64_t m, int64_t k);
/* One product on this thread. */
void cpu_sgemm(const cpu_matmul *p);
/* Once, before the first product: how many rows OpenBLAS treats alike. */
qfw_status cpu_probe_sgemm(const qfw_host *h);

/* y = a * op(w) as p says but for b, which w is: one of 16 bits a slab at a time. */
void cpu_gemm_rows(
    const cpu_call *c, const cpu_matmul *p, const qfw_tensor *w, char *workspace, float *slab);

/* --- wide.c: operands of 16 bits --- */

int cpu_is_half(const qfw_tensor *t); /* BF16 or F16; NULL: no */
int cpu_has_half(const qfw_op *op);
float cpu_round(float v, uint32_t dtype); /* to BF16 or F16, to nearest even, and back; else v */
void cpu_widen(const uint16_t *from, uint32_t dtype, float *to, int64_t n);
/* The kernel on an op that has some. */
uint32_t cpu_wide_supports(const qfw_op *op, const cpu_kernel *k);
uint64_t cpu_wide_workspace(const qfw_inst *be, const qfw_op *op, const cpu_kernel *k);
qfw_status cpu_wide_run(const cpu_call *c, const cpu_kernel *k);
/* Rows of w[R,C] from row0 on as fp32, *ld apart: its own, or widened into `slab`, which has room
 * for cpu_slab_bytes; at most cpu_slab_rows then. */
const float *cpu_widen_rows(
    const cpu_call *c, const qfw_tensor *w, int64_t row0, int64_t rows, float *slab, int64_t *ld);
int64_t cpu_slab_rows(const qfw_tensor *w);
uint64_t cpu_slab_bytes(const qfw_tensor *w); /* 0 for one of fp32 */

/* --- dropout.c --- */

/* y[j] = x[j] / (1-p) where row `key` keeps feature first + j, else 0, for j < n (ops_prim.h,
 * DROPOUT). `first` is a multiple of 4. x and y may be the same. */
void cpu_drop_row(const float *x, float *y, int64_t first, int64_t n, const int32_t key[2], float p,
    uint32_t seed, uint32_t module_hash);

/* --- vector.c: over n values; rows may be the same where a kernel is in place --- */

void cpu_exp_row(const float *x, float shift, float *y, int64_t n); /* y = e^(x - shift) */
float cpu_max_row(const float *x, int64_t n);                       /* -inf where n is 0 */
double cpu_sum_row(const float *x, int64_t n);
double cpu_dot_row(const float *x, const float *y, int64_t n);
void cpu_swiglu_row(const float *gate, const float *up, float *mid, int64_t n);
void cpu_swiglu_bwd_row(
    const float *d, const float *gate, const float *up, float *dgate, float *dup, int64_t n);

/* --- the kernels: one row each in cpu.c's table --- */

#define CPU_KERNEL(name)                                                                           \
    uint32_t cpu_##name##_supports(const qfw_op *op);                                              \
    uint64_t cpu_##name##_workspace(const qfw_inst *be, const qfw_op *op);                         \
    qfw_status cpu_##name(const cpu_call *c);
CPU_KERNEL(gemm_op)
CPU_KERNEL(qmatmul)
CPU_KERNEL(qmatmul_dx)
CPU_KERNEL(lora)
CPU_KERNEL(lora_bwd)
CPU_KERNEL(rmsnorm)
CPU_KERNEL(rmsnorm_bwd)
CPU_KERNEL(rope)
CPU_KERNEL(swiglu)
CPU_KERNEL(swiglu_bwd)
CPU_KERNEL(attn)
CPU_KERNEL(attn_bwd)
CPU_KERNEL(embed)
CPU_KERNEL(embed_bwd)
CPU_KERNEL(token_logprob)
CPU_KERNEL(token_logprob_bwd)
CPU_KERNEL(adamw)
CPU_KERNEL(quant8)
CPU_KERNEL(dequant8)
CPU_KERNEL(copy)
CPU_KERNEL(fill)
CPU_KERNEL(scale)
CPU_KERNEL(unary)
CPU_KERNEL(binary)
CPU_KERNEL(reduce)
CPU_KERNEL(select)
CPU_KERNEL(gather_rows)
CPU_KERNEL(scatter_rows)
CPU_KERNEL(segment_sum)

/* The answer of most kernels: native for F32 (and dense I32) operands, once their rows are
 * dense. */
uint32_t cpu_support(const qfw_op *op);

#endif
