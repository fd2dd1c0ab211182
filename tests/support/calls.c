/* calls.c -- calls of all ops, each with odd sizes and all its operands. */
#include "calls.h"

static op_call call(uint32_t code, uint32_t n_in, const void *params, uint32_t param_bytes) {
    op_call c = {.code = code, .n_in = n_in, .n_out = op_find(code)->n_out, .params = params};
    c.param_bytes = param_bytes;
    for (uint32_t o = 0; o < c.n_out; o++) c.want[o] = 1;
    return c;
}

static const int32_t keys[2 * CALLS_MAX_ROWS] = {0, 0, 0, 1, 7, 3, -1, 9, 4, 4};
static const int32_t numbers[CALLS_MAX_ROWS] = {2, 0, 1, 2, 0};
static const int32_t labels[CALLS_MAX_ROWS] = {2, QFW_IGNORE_LABEL, 0, 6, 2};

/* --- composites --- */

static op_call make_gemm(eager *e, uint32_t dtype, int64_t N) {
    static const qfw_gemm_params p = {sizeof p, 0, 1, 0.5f, 2};
    op_call c = call(QFW_OP_GEMM, 3, &p, sizeof p);
    c.in[0] = eager_random(e, dtype, N, 3);
    c.in[1] = eager_random(e, dtype, 4, 3);
    c.in[2] = eager_random(e, dtype, N, 7);
    return c;
}

static op_call make_gemm_transposed(eager *e, uint32_t dtype, int64_t N) {
    static const qfw_gemm_params p = {sizeof p, 1, 0, 1, 0};
    op_call c = call(QFW_OP_GEMM, 2, &p, sizeof p);
    c.in[0] = eager_random(e, dtype, 3, N);
    c.in[1] = eager_random(e, dtype, 3, 4);
    return c;
}

static op_call make_qmatmul(eager *e, uint32_t dtype, int64_t N) {
    op_call c = call(QFW_OP_QMATMUL, 3, NULL, 0);
    c.in[0] = eager_random(e, dtype, N, 64);
    c.in[1] = eager_packed(e, QFW_NF4, 5, 64, 64, 1);
    c.in[2] = eager_random(e, dtype, N, 5);
    return c;
}

static op_call make_qmatmul_dx(eager *e, uint32_t dtype, int64_t N) {
    op_call c = make_qmatmul(e, dtype, N);
    c.code = QFW_OP_QMATMUL_DX;
    c.in[0] = eager_random(e, dtype, N, 5);
    c.in[2] = eager_random(e, dtype, N, 64);
    return c;
}

static op_call make_lora(eager *e, uint32_t dtype, int64_t N) {
    static const qfw_lora_params p = {sizeof p, 0, 2, 1.5f, 0.25f, 3, 4};
    op_call c = call(QFW_OP_LORA, 5, &p, sizeof p);
    c.in[0] = eager_random(e, dtype, N, 9);
    c.in[1] = eager_random(e, dtype, N, 6);
    c.in[2] = eager_random(e, dtype, 2, 6);
    c.in[3] = eager_random(e, dtype, 4, 2);
    c.in[4] = eager_ints_2d(e, N, 2, keys);
    return c;
}

static op_call make_lora_bwd(eager *e, uint32_t dtype, int64_t N) {
    const op_call f = make_lora(e, dtype, N);
    op_call c = call(QFW_OP_LORA_BWD, 7, f.params, f.param_bytes);
    qfw_val out[2];
    call_run(e, &f, out);
    c.in[0] = eager_random(e, dtype, N, 9);
    for (int i = 1; i < 4; i++) c.in[i] = f.in[i];
    c.in[4] = out[1];
    c.in[5] = f.in[4];
    c.in[6] = eager_random(e, dtype, N, 6);
    return c;
}

static op_call make_rmsnorm(eager *e, uint32_t dtype, int64_t N) {
    static const qfw_rmsnorm_params p = {sizeof p, 1e-5f};
    op_call c = call(QFW_OP_RMSNORM, 2, &p, sizeof p);
    c.in[0] = eager_random(e, dtype, N, 7);
    c.in[1] = eager_random_1d(e, dtype, 7, 1, 0.5);
    return c;
}

static op_call make_rope(eager *e, uint32_t dtype, int64_t N) {
    static const qfw_rope_params p = {sizeof p, 0, 6, 4, 2};
    op_call c = call(QFW_OP_ROPE, 3, &p, sizeof p);
    c.in[0] = eager_random(e, dtype, N, 18);
    c.in[1] = eager_random(e, dtype, N, 2);
    c.in[2] = eager_random(e, dtype, N, 2);
    return c;
}

static op_call make_swiglu(eager *e, uint32_t dtype, int64_t N) {
    op_call c = call(QFW_OP_SWIGLU, 2, NULL, 0);
    c.in[0] = eager_random(e, dtype, N, 5);
    c.in[1] = eager_random(e, dtype, N, 5);
    return c;
}

static op_call make_swiglu_packed(eager *e, uint32_t dtype, int64_t N) {
    op_call c = make_swiglu(e, dtype, N);
    c.in[0] = eager_random(e, dtype, N, 10);
    c.in[1] = 0;
    return c;
}

static op_call make_swiglu_bwd(eager *e, uint32_t dtype, int64_t N) {
    op_call c = call(QFW_OP_SWIGLU_BWD, 3, NULL, 0);
    for (int i = 0; i < 3; i++) c.in[i] = eager_random(e, dtype, N, 5);
    return c;
}

static op_call make_attn(eager *e, uint32_t dtype, int64_t N) {
    static const qfw_attn_params p = {sizeof p, 0.7f, 4, 2, 3, 0};
    const int32_t segment[5] = {0, (int32_t)N, 0, 0, 0};
    op_call c = call(QFW_OP_ATTN, 4, &p, sizeof p);
    c.in[0] = eager_random(e, dtype, N, 24);
    c.in[3] = eager_ints_2d(e, 1, 5, segment);
    return c;
}

static op_call make_attn_apart(eager *e, uint32_t dtype, int64_t N) {
    op_call c = make_attn(e, dtype, N);
    c.in[0] = eager_random(e, dtype, N, 12);
    c.in[1] = eager_random(e, dtype, N, 6);
    c.in[2] = eager_random(e, dtype, N, 6);
    return c;
}

static op_call make_embed(eager *e, uint32_t dtype, int64_t N) {
    op_call c = call(QFW_OP_EMBED, 2, NULL, 0);
    c.in[0] = eager_random(e, dtype, 3, 4);
    c.in[1] = eager_ints(e, N, numbers);
    return c;
}

static op_call make_token_logprob(eager *e, uint32_t dtype, int64_t N) {
    op_call c = call(QFW_OP_TOKEN_LOGPROB, 3, NULL, 0);
    c.in[0] = eager_random(e, dtype, N, 4);
    c.in[1] = eager_random(e, dtype, 7, 4);
    c.in[2] = eager_ints(e, N, labels);
    return c;
}

static op_call make_token_logprob_bwd(eager *e, uint32_t dtype, int64_t N) {
    const op_call f = make_token_logprob(e, dtype, N);
    op_call c = call(QFW_OP_TOKEN_LOGPROB_BWD, 6, NULL, 0);
    qfw_val out[6];
    call_run(e, &f, out);
    c.in[0] = eager_random_1d(e, dtype, N, 0, 1);
    for (int i = 0; i < 3; i++) c.in[i + 1] = f.in[i];
    c.in[4] = out[1];
    c.in[5] = eager_random(e, dtype, 7, 4);
    return c;
}

static op_call make_xent(eager *e, uint32_t dtype, int64_t N) {
    op_call c = call(QFW_OP_XENT, 2, NULL, 0);
    c.in[0] = eager_random(e, dtype, N, 7);
    c.in[1] = eager_ints(e, N, labels);
    return c;
}

/* --- primitives --- */

static op_call make_copy(eager *e, uint32_t dtype, int64_t N) {
    static const qfw_copy_params wide = {sizeof wide, QFW_F64}, narrow = {sizeof narrow, QFW_F32};
    op_call c = call(QFW_OP_COPY, 1, dtype == QFW_F64 ? &wide : &narrow, sizeof wide);
    c.in[0] = eager_random(e, dtype, N, 3);
    return c;
}

static op_call make_unview(eager *e, uint32_t dtype, int64_t N) {
    static const qfw_unview_params p = {sizeof p, 2, {CALLS_MAX_ROWS, 9, 1, 1}, {9, 2, 1, 1}, 1};
    op_call c = call(QFW_OP_UNVIEW, 1, &p, sizeof p);
    c.in[0] = eager_random(e, dtype, N, 3);
    return c;
}

static op_call make_concat(eager *e, uint32_t dtype, int64_t N) {
    static const qfw_concat_params p = {sizeof p, 1};
    op_call c = call(QFW_OP_CONCAT, 2, &p, sizeof p);
    c.in[0] = eager_random(e, dtype, N, 3);
    c.in[1] = eager_random(e, dtype, N, 2);
    return c;
}

static op_call make_scale(eager *e, uint32_t dtype, int64_t N) {
    static const qfw_scale_params p = {sizeof p, -1.5f, 0.5f};
    op_call c = call(QFW_OP_SCALE, 1, &p, sizeof p);
    c.in[0] = eager_random(e, dtype, N, 3);
    return c;
}

static op_call make_unary(eager *e, uint32_t dtype, int64_t N) {
    static const qfw_kind_params p = {sizeof p, QFW_LOGSIGMOID};
    op_call c = call(QFW_OP_UNARY, 1, &p, sizeof p);
    c.in[0] = eager_random(e, dtype, N, 3);
    return c;
}

static op_call make_binary(eager *e, uint32_t dtype, int64_t N) {
    static const qfw_kind_params p = {sizeof p, QFW_MUL};
    op_call c = call(QFW_OP_BINARY, 2, &p, sizeof p);
    c.in[0] = eager_random(e, dtype, N, 3);
    c.in[1] = eager_random_1d(e, dtype, 3, 0, 1);
    return c;
}

static op_call make_reduce(eager *e, uint32_t dtype, int64_t N) {
    static const qfw_reduce_params p = {sizeof p, QFW_SUMSQ, {1, 3, 1, 1}};
    op_call c = call(QFW_OP_REDUCE, 1, &p, sizeof p);
    c.in[0] = eager_random(e, dtype, N, 3);
    return c;
}

static op_call make_select(eager *e, uint32_t dtype, int64_t N) {
    op_call c = call(QFW_OP_SELECT, 3, NULL, 0);
    c.in[0] = eager_ints_2d(e, N, 2, keys);
    c.in[1] = eager_random(e, dtype, N, 2);
    c.in[2] = eager_random(e, dtype, N, 2);
    return c;
}

static op_call make_segment_sum(eager *e, uint32_t dtype, int64_t N) {
    static const qfw_segment_sum_params p = {sizeof p, 0, 3};
    op_call c = call(QFW_OP_SEGMENT_SUM, 2, &p, sizeof p);
    c.in[0] = eager_random(e, dtype, N, 3);
    c.in[1] = eager_ints(e, N, numbers);
    return c;
}

static op_call make_gather_rows(eager *e, uint32_t dtype, int64_t N) {
    op_call c = call(QFW_OP_GATHER_ROWS, 2, NULL, 0);
    c.in[0] = eager_random(e, dtype, 3, 4);
    c.in[1] = eager_ints(e, N, numbers);
    return c;
}

static op_call make_scatter_rows(eager *e, uint32_t dtype, int64_t N) {
    static const int32_t last[1] = {1};
    op_call c = call(QFW_OP_SCATTER_ROWS, 3, NULL, 0);
    c.in[0] = eager_random(e, dtype, N, 3);
    c.in[1] = eager_random(e, dtype, N > 1, 3);
    c.in[2] = eager_ints(e, N > 1, last);
    return c;
}

static op_call make_sort(eager *e, uint32_t dtype, int64_t N) {
    op_call c = call(QFW_OP_SORT, 1, NULL, 0);
    c.in[0] = eager_random_1d(e, dtype, N, 0, 1);
    return c;
}

static op_call make_softmax(eager *e, uint32_t dtype, int64_t N) {
    op_call c = call(QFW_OP_SOFTMAX, 1, NULL, 0);
    c.in[0] = eager_random(e, dtype, N, 4);
    return c;
}

static op_call make_dropout(eager *e, uint32_t dtype, int64_t N) {
    static const qfw_dropout_params p = {sizeof p, 0.4f, 5, 6};
    op_call c = call(QFW_OP_DROPOUT, 2, &p, sizeof p);
    c.in[0] = eager_random(e, dtype, N, 6);
    c.in[1] = eager_ints_2d(e, N, 2, keys);
    return c;
}

const call_case all_calls[] = {
    {QFW_OP_GEMM, "into columns", 0, {1, 1, 1}, make_gemm},
    {QFW_OP_GEMM, "transposed", 0, {1, 1}, make_gemm_transposed},
    {QFW_OP_QMATMUL, "added", 0, {1, 0, 1}, make_qmatmul},
    {QFW_OP_QMATMUL_DX, "added", 0, {0}, make_qmatmul_dx},
    {QFW_OP_LORA, "dropping", 0, {1, 1, 1, 1}, make_lora},
    {QFW_OP_LORA_BWD, "dropping", 0, {0}, make_lora_bwd},
    {QFW_OP_RMSNORM, "rows", 0, {1, 1}, make_rmsnorm},
    {QFW_OP_ROPE, "partial", 0, {1}, make_rope},
    {QFW_OP_SWIGLU, "apart", 0, {1, 1}, make_swiglu},
    {QFW_OP_SWIGLU, "packed", 0, {1}, make_swiglu_packed},
    {QFW_OP_SWIGLU_BWD, "apart", 0, {0}, make_swiglu_bwd},
    {QFW_OP_ATTN, "packed", 0, {1}, make_attn},
    {QFW_OP_ATTN, "apart", 0, {1, 1, 1}, make_attn_apart},
    {QFW_OP_EMBED, "repeated tokens", 0, {1}, make_embed},
    {QFW_OP_TOKEN_LOGPROB, "all outputs", 0, {1, 1}, make_token_logprob},
    {QFW_OP_TOKEN_LOGPROB_BWD, "added", 0, {0}, make_token_logprob_bwd},
    {QFW_OP_XENT, "all outputs", 0, {1}, make_xent},
    {QFW_OP_COPY, "rows", 0, {1}, make_copy},
    {QFW_OP_UNVIEW, "every second", 0, {1}, make_unview},
    {QFW_OP_CONCAT, "columns", 0, {1, 1}, make_concat},
    {QFW_OP_SCALE, "rows", 0, {1}, make_scale},
    {QFW_OP_UNARY, "logsigmoid", 0, {1}, make_unary},
    {QFW_OP_BINARY, "broadcast", 0, {1, 1}, make_binary},
    {QFW_OP_REDUCE, "squares", 0, {1}, make_reduce},
    {QFW_OP_SELECT, "rows", 0, {0, 1, 1}, make_select},
    {QFW_OP_SEGMENT_SUM, "rows", 0, {1}, make_segment_sum},
    {QFW_OP_GATHER_ROWS, "rows", 0, {1}, make_gather_rows},
    {QFW_OP_SCATTER_ROWS, "rows", 0, {1, 1}, make_scatter_rows},
    {QFW_OP_SORT, "values", 0, {1}, make_sort},
    {QFW_OP_SOFTMAX, "rows", 0, {1}, make_softmax},
    {QFW_OP_DROPOUT, "rows", 0, {1}, make_dropout},
};
const uint32_t n_calls = sizeof all_calls / sizeof *all_calls;
