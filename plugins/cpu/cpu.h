/* cpu.h -- what the kernels of the cpu backend share.
 *
 * Two promises shape every kernel: a row's bits depend neither on the other rows of the batch nor
 * on the number of threads, and nothing is allocated while an op runs: scratch comes from the op's
 * workspace.
 */
#ifndef CPU_H
#define CPU_H

#include "qfw/backend.h"
#include "qfw/ops_nn.h"
#include "qfw/ops_prim.h"

/* Before a static function: built for several instruction sets, chosen when it is loaded. */
#if defined(__x86_64__)
#    define CPU_X86
#endif
#if defined(CPU_X86) && !defined(__SANITIZE_ADDRESS__) && !defined(__clang__)
#    define MANY_ISAS __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#    define MANY_ISAS
#endif

struct qfw_mem {
    void *data;
    uint64_t bytes;
};

typedef struct cpu_isa cpu_isa;

struct qfw_inst {
    const qfw_host *host;
    const cpu_isa *isa;
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
    uint32_t kept; /* a bit for each input of 16 bits that it reads as they are */
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

/* --- tile.c --- */

/* y[m,n] = alpha * a[m,k] * b[k,n] (+ from[m,n], unless NULL), on this thread. a(r, s) is
 * a[r * row + s * step], so a may be a transpose; rows of b, from and y are ldb, ldfrom and ldy
 * apart. from may be y. */
typedef struct cpu_product {
    int64_t m, n, k, row, step, ldb, ldfrom, ldy;
    const float *a, *b, *from;
    float *y;
    float alpha;
} cpu_product;

/* The inner loops of one instruction set; each gives the same bits. */
struct cpu_isa {
    const char *name;
    /* Every value is one chain of k fused multiply-adds. */
    void (*product)(const cpu_product *p);
    /* out[n] = table[code] * scale for n codes of 4 bits, the first of a byte in its high half; n
     * is a multiple of 16, table has 16. */
    void (*decode)(const uint8_t *codes, int64_t n, const float *table, float scale, float *out);
    /* to[s * ld + i] = rows[i][s] for i < n, s < steps. */
    void (*turn)(const float *const *rows, int64_t n, int64_t steps, float *to, int64_t ld);
};
const cpu_isa *cpu_find_isa(const char *name); /* "auto": the best; NULL: not on this machine */

/* --- matrix.c --- */

/* A matrix as it is stored: rows of ld values of fp32, of 16 bits, or packed in 4. */
typedef struct cpu_matrix {
    uint32_t dtype;
    const char *data;
    int64_t ld;
    const float *code, *nested, *map; /* code NULL: not packed */
    const void *absmax;
    float offset;
    uint32_t block_bits, nested_bits, compute; /* blocks of 1 << bits */
} cpu_matrix;
cpu_matrix cpu_matrix_of(const qfw_tensor *t); /* of rank 2, its rows dense */
/* n values of a row from column col on: in place where they are fp32, else in `buffer`. */
const float *cpu_values(
    const cpu_isa *isa, const cpu_matrix *m, int64_t row, int64_t col, int64_t n, float *buffer);

void cpu_prefetch(const cpu_matrix *m, int64_t row, int64_t col);

/* --- gemm.c --- */

/* A product whose b is stored somehow: b[k,n], or with trans_b its transpose. */
typedef struct cpu_gemm_args {
    int64_t m, n, k, row, step, ldfrom, ldy;
    const float *a, *from; /* as in cpu_product */
    cpu_matrix b;
    int trans_b;
    float *y;
    float alpha;
} cpu_gemm_args;
void cpu_gemm(const cpu_call *c, const cpu_gemm_args *p, void *workspace);
uint64_t cpu_gemm_workspace(const qfw_inst *be);
/* cpu_product in chains of a panel's length, as cpu_gemm sums: for a long k on this thread. */
void cpu_sum_product(const cpu_isa *isa, const cpu_product *p);

/* --- wide.c: operands of 16 bits --- */

int cpu_is_half(const qfw_tensor *t); /* BF16 or F16; NULL: no */
int cpu_has_half(const qfw_op *op);
float cpu_round(float v, uint32_t dtype); /* to BF16 or F16, to nearest even, and back; else v */
void cpu_widen(const uint16_t *from, uint32_t dtype, float *to, int64_t n);
/* The kernel on an op that has some. */
uint32_t cpu_wide_supports(const qfw_op *op, const cpu_kernel *k);
uint64_t cpu_wide_workspace(const qfw_inst *be, const qfw_op *op, const cpu_kernel *k);
qfw_status cpu_wide_run(const cpu_call *c, const cpu_kernel *k);
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
