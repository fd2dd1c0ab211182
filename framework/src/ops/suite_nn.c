/* suite_nn.c -- the suite's cases of the composite ops: how their operands are made from six
 * numbers, and a table of those numbers. Sizes are odd, 1, 0, a multiple of a vector, and just past
 * a tile. */
#include "ops/suite_setup.h"

/* --- products --- */

/* N, M, K, acc, type, nested */
static qfw_status build_qmatmul(suite_setup *s, const int64_t *d) {
    QFW_TRY(setup_random(s, 0, d[0], d[2]));
    QFW_TRY(setup_packed(s, 1, (uint32_t)d[4], d[1], d[2], (int)d[5]));
    if (d[3]) QFW_TRY(setup_random(s, 2, d[0], d[1]));
    setup_want(s, 1, 1);
    return QFW_OK;
}

static qfw_status build_qmatmul_dx(suite_setup *s, const int64_t *d) {
    QFW_TRY(setup_random(s, 0, d[0], d[1]));
    QFW_TRY(setup_packed(s, 1, (uint32_t)d[4], d[1], d[2], (int)d[5]));
    if (d[3]) QFW_TRY(setup_random(s, 2, d[0], d[2]));
    setup_want(s, 1, 1);
    return QFW_OK;
}

/* N, K, R, rows of b, columns of y, dropout in percent; from input `x` on: x, a, b */
static qfw_status lora_operands(suite_setup *s, const int64_t *d, uint32_t x) {
    const qfw_lora_params p = {
        sizeof p, 0, (d[4] - d[3]) / 2, 1.25f, (float)d[5] / 100, 42, 0xdeadbeef};
    QFW_TRY(setup_random(s, x, d[0], d[1]));
    QFW_TRY(setup_random(s, x + 1, d[2], d[1]));
    QFW_TRY(setup_random(s, x + 2, d[3], d[2]));
    setup_params(s, &p, sizeof p);
    return QFW_OK;
}

static qfw_status build_lora(suite_setup *s, const int64_t *d) {
    QFW_TRY(setup_random(s, 0, d[0], d[4]));
    QFW_TRY(lora_operands(s, d, 1));
    if (d[5]) QFW_TRY(setup_ints(s, 4, 2, d[0], 2, 0, 99));
    setup_want(s, 2, 3);
    return QFW_OK;
}

static qfw_status lora_bwd(suite_setup *s, const int64_t *d, int whole) {
    static const int forward[5] = {0, 1, 2, 3, 5};
    QFW_TRY(setup_random(s, 0, d[0], d[4]));
    QFW_TRY(lora_operands(s, d, 1));
    if (d[5]) QFW_TRY(setup_ints(s, 5, 2, d[0], 2, 0, 99));
    QFW_TRY(setup_result(s, 4, QFW_OP_LORA, 5, forward, sizeof(qfw_lora_params), 1));
    if (whole) QFW_TRY(setup_random(s, 6, d[0], d[1]));
    setup_want(s, 3, whole ? 7 : 6);
    return QFW_OK;
}

static qfw_status build_lora_bwd(suite_setup *s, const int64_t *d) { return lora_bwd(s, d, 1); }
static qfw_status build_lora_bwd_without_dx(suite_setup *s, const int64_t *d) {
    return lora_bwd(s, d, 0);
}

/* --- layers --- */

static const qfw_rmsnorm_params norm = {sizeof norm, 1e-5f};

static qfw_status build_rmsnorm(suite_setup *s, const int64_t *d) { /* N, C */
    QFW_TRY(setup_random(s, 0, d[0], d[1]));
    QFW_TRY(setup_between(s, 1, 1, d[1], 1, 0.5, 1.5));
    setup_params(s, &norm, sizeof norm);
    setup_want(s, 2, 3);
    return QFW_OK;
}

static qfw_status build_rmsnorm_bwd(suite_setup *s, const int64_t *d) { /* N, C, dw, acc */
    static const int forward[2] = {1, 2};
    QFW_TRY(setup_random(s, 0, d[0], d[1]));
    QFW_TRY(setup_random(s, 1, d[0], d[1]));
    QFW_TRY(setup_between(s, 2, 1, d[1], 1, 0.5, 1.5));
    setup_params(s, &norm, sizeof norm);
    QFW_TRY(setup_result(s, 3, QFW_OP_RMSNORM, 2, forward, sizeof norm, 1));
    s->param_bytes = 0;
    if (d[3]) QFW_TRY(setup_random(s, 4, d[0], d[1]));
    setup_want(s, 2, d[2] ? 3 : 1);
    return QFW_OK;
}

static qfw_status build_rope(
    suite_setup *s, const int64_t *d) { /* N, heads, D, rotary, n_rot, inv */
    const qfw_rope_params p = {sizeof p, (uint32_t)d[5], d[2], d[3], d[4]};
    QFW_TRY(setup_random(s, 0, d[0], d[1] * d[2]));
    QFW_TRY(setup_between(s, 1, 2, d[0], d[3] / 2, -1, 1));
    QFW_TRY(setup_between(s, 2, 2, d[0], d[3] / 2, -1, 1));
    setup_params(s, &p, sizeof p);
    setup_want(s, 1, 1);
    return QFW_OK;
}

static qfw_status gates(suite_setup *s, const int64_t *d, uint32_t i) { /* N, F, apart */
    QFW_TRY(setup_random(s, i, d[0], d[2] ? d[1] : 2 * d[1]));
    return d[2] ? setup_random(s, i + 1, d[0], d[1]) : QFW_OK;
}

static qfw_status build_swiglu(suite_setup *s, const int64_t *d) {
    QFW_TRY(gates(s, d, 0));
    setup_want(s, 1, 1);
    return QFW_OK;
}

static qfw_status build_swiglu_bwd(suite_setup *s, const int64_t *d) {
    QFW_TRY(setup_random(s, 0, d[0], d[1]));
    QFW_TRY(gates(s, d, 1));
    setup_want(s, 2, d[2] ? 3 : 1);
    return QFW_OK;
}

/* Segments for N rows: 0 one sequence; 1 two, then padding; 2 a prefix shared by two (keys: N + 4);
 * 3 none. From input i on: q, k, v, segments; d = N, H, G, D, window, kind. */
static qfw_status attn_operands(suite_setup *s, const int64_t *d, uint32_t i) {
    const int32_t N = (int32_t)d[0], half = N / 2;
    const int32_t table[3][10] = {{0, N, 0, 0, 0, 0, 0, 0, 0, 0},
        {0, half, 0, 0, 0, half, N - 1, 0, 0, half}, {0, half, 0, 4, 4, half, N, 0, 4, 4 + half}};
    const int64_t H = d[1], G = d[2], D = d[3];
    const qfw_attn_params p = {sizeof p, 0.4f, H, G, D, d[4]};
    setup_params(s, &p, sizeof p);
    if (d[5] == 2) {
        QFW_TRY(setup_random(s, i, N, H * D));
        QFW_TRY(setup_random(s, i + 1, N + 4, G * D));
        QFW_TRY(setup_random(s, i + 2, N + 4, G * D));
    } else
        QFW_TRY(setup_random(s, i, N, (H + 2 * G) * D));
    const int64_t rows = d[5] == 3 ? 0 : d[5] ? 2 : 1;
    return setup_int_values(s, i + 3, rows, 5, table[d[5] % 3]);
}

static qfw_status build_attn(suite_setup *s, const int64_t *d) {
    QFW_TRY(attn_operands(s, d, 0));
    setup_want(s, 2, 3);
    return QFW_OK;
}

static qfw_status build_attn_bwd(suite_setup *s, const int64_t *d) {
    static const int forward[4] = {1, 2, 3, 4};
    QFW_TRY(setup_random(s, 0, d[0], d[1] * d[3]));
    QFW_TRY(attn_operands(s, d, 1));
    QFW_TRY(setup_result(s, 5, QFW_OP_ATTN, 4, forward, sizeof(qfw_attn_params), 0));
    QFW_TRY(setup_result(s, 6, QFW_OP_ATTN, 4, forward, sizeof(qfw_attn_params), 1));
    setup_want(s, 3, d[5] == 2 ? 7 : 1);
    return QFW_OK;
}

static qfw_status build_embed(suite_setup *s, const int64_t *d) { /* N, V, C */
    QFW_TRY(setup_random(s, 0, d[1], d[2]));
    QFW_TRY(setup_ints(s, 1, 1, d[0], 1, 0, (int32_t)d[1] - 1));
    setup_want(s, 1, 1);
    return QFW_OK;
}

static qfw_status build_embed_bwd(suite_setup *s, const int64_t *d) { /* N, V, C, acc */
    const qfw_embed_bwd_params p = {sizeof p, 0, d[1]};
    QFW_TRY(setup_random(s, 0, d[0], d[2]));
    QFW_TRY(setup_ints(s, 1, 1, d[0], 1, 0, (int32_t)d[1] - 1));
    if (d[3]) QFW_TRY(setup_random(s, 2, d[1], d[2]));
    setup_params(s, &p, sizeof p);
    setup_want(s, 1, 1);
    return QFW_OK;
}

/* --- losses --- */

/* Labels 0 .. V-1 for N rows; some, or all where `all`, take no part. */
static qfw_status labels(suite_setup *s, uint32_t i, int64_t N, int64_t V, int64_t all) {
    QFW_TRY(setup_ints(s, i, 1, N, 1, 0, (int32_t)V - 1));
    int32_t *const label = (int32_t *)(void *)((char *)s->in[i].mem + s->in[i].offset);
    for (int64_t n = 0; n < N; n++)
        if (all || n % 3 == 1) label[n] = QFW_IGNORE_LABEL;
    return QFW_OK;
}

static qfw_status build_xent(suite_setup *s, const int64_t *d) { /* N, V, all ignored, outputs */
    QFW_TRY(setup_random(s, 0, d[0], d[1]));
    QFW_TRY(labels(s, 1, d[0], d[1], d[2]));
    setup_want(s, 6, (uint32_t)d[3]);
    return QFW_OK;
}

static qfw_status build_xent_bwd(suite_setup *s, const int64_t *d) { /* N, V, all ignored */
    static const int forward[2] = {1, 2};
    QFW_TRY(setup_random_1d(s, 0, d[0]));
    QFW_TRY(setup_random(s, 1, d[0], d[1]));
    QFW_TRY(labels(s, 2, d[0], d[1], d[2]));
    QFW_TRY(setup_result(s, 3, QFW_OP_XENT, 2, forward, 0, 1));
    setup_want(s, 1, 1);
    return QFW_OK;
}

static qfw_status build_token_logprob(
    suite_setup *s, const int64_t *d) { /* N, V, C, all, outputs */
    QFW_TRY(setup_random(s, 0, d[0], d[2]));
    QFW_TRY(setup_random(s, 1, d[1], d[2]));
    QFW_TRY(labels(s, 2, d[0], d[1], d[3]));
    setup_want(s, 6, (uint32_t)d[4]);
    return QFW_OK;
}

static qfw_status build_token_logprob_bwd(suite_setup *s, const int64_t *d) { /* ..., dw, acc */
    static const int forward[3] = {1, 2, 3};
    QFW_TRY(setup_random_1d(s, 0, d[0]));
    QFW_TRY(setup_random(s, 1, d[0], d[2]));
    QFW_TRY(setup_random(s, 2, d[1], d[2]));
    QFW_TRY(labels(s, 3, d[0], d[1], d[3]));
    QFW_TRY(setup_result(s, 4, QFW_OP_TOKEN_LOGPROB, 3, forward, 0, 1));
    if (d[5]) QFW_TRY(setup_random(s, 5, d[1], d[2]));
    setup_want(s, 2, d[4] ? 3 : 1);
    return QFW_OK;
}

/* --- optimizers --- */

static qfw_status build_adamw(suite_setup *s, const int64_t *d) { /* rows, columns, coef */
    const qfw_adamw_params p = {sizeof p, 0, 0.9, 0.999, 1e-8};
    for (uint32_t i = 0; i < 3; i++) QFW_TRY(setup_random(s, i, d[0], d[1]));
    QFW_TRY(setup_between(s, 3, 2, d[0], d[1], 0.1, 1));
    QFW_TRY(setup_between(s, 4, 1, 3, 1, 0.3, 0.9));
    if (d[2]) QFW_TRY(setup_between(s, 5, 1, 1, 1, 0.1, 0.9));
    setup_params(s, &p, sizeof p);
    setup_want(s, 3, 7);
    return QFW_OK;
}

#define NF4 QFW_NF4
#define FP4 QFW_FP4

const suite_case suite_nn_cases[] = {
    {QFW_OP_QMATMUL, "odd rows", build_qmatmul, {7, 65, 192, 0, NF4, 1}},
    {QFW_OP_QMATMUL, "added", build_qmatmul, {33, 40, 128, 1, NF4, 0}},
    {QFW_OP_QMATMUL, "fp4", build_qmatmul, {16, 64, 64, 0, FP4, 1}},
    {QFW_OP_QMATMUL, "blocks across rows", build_qmatmul, {5, 9, 80, 0, NF4, 1}},
    {QFW_OP_QMATMUL, "one row", build_qmatmul, {1, 300, 256, 0, NF4, 1}},
    {QFW_OP_QMATMUL, "no rows", build_qmatmul, {0, 16, 64, 0, NF4, 1}},
    {QFW_OP_QMATMUL_DX, "odd rows", build_qmatmul_dx, {7, 65, 192, 0, NF4, 1}},
    {QFW_OP_QMATMUL_DX, "added", build_qmatmul_dx, {33, 40, 128, 1, NF4, 0}},
    {QFW_OP_QMATMUL_DX, "fp4", build_qmatmul_dx, {16, 64, 64, 0, FP4, 1}},
    {QFW_OP_QMATMUL_DX, "blocks across rows", build_qmatmul_dx, {5, 9, 80, 0, NF4, 1}},
    {QFW_OP_QMATMUL_DX, "one row", build_qmatmul_dx, {1, 300, 256, 0, NF4, 1}},
    {QFW_OP_QMATMUL_DX, "no rows", build_qmatmul_dx, {0, 16, 64, 0, NF4, 1}},
    {QFW_OP_LORA, "some columns", build_lora, {7, 33, 4, 10, 24, 0}},
    {QFW_OP_LORA, "all columns", build_lora, {16, 64, 16, 48, 48, 0}},
    {QFW_OP_LORA, "dropout", build_lora, {9, 65, 8, 20, 30, 20}},
    {QFW_OP_LORA, "no rows", build_lora, {0, 32, 8, 16, 16, 0}},
    {QFW_OP_LORA_BWD, "some columns", build_lora_bwd, {7, 33, 4, 10, 24, 0}},
    {QFW_OP_LORA_BWD, "dropout", build_lora_bwd, {9, 65, 8, 20, 30, 20}},
    {QFW_OP_LORA_BWD, "without dx", build_lora_bwd_without_dx, {16, 64, 16, 48, 48, 5}},
    {QFW_OP_LORA_BWD, "no rows", build_lora_bwd, {0, 32, 8, 16, 16, 0}},
    {QFW_OP_RMSNORM, "odd sizes", build_rmsnorm, {7, 33}},
    {QFW_OP_RMSNORM, "wide", build_rmsnorm, {3, 1024}},
    {QFW_OP_RMSNORM, "one value", build_rmsnorm, {1, 1}},
    {QFW_OP_RMSNORM, "no rows", build_rmsnorm, {0, 16}},
    {QFW_OP_RMSNORM_BWD, "all of it", build_rmsnorm_bwd, {7, 33, 1, 1}},
    {QFW_OP_RMSNORM_BWD, "frozen weight", build_rmsnorm_bwd, {3, 1024, 0, 1}},
    {QFW_OP_RMSNORM_BWD, "alone", build_rmsnorm_bwd, {5, 16, 0, 0}},
    {QFW_OP_RMSNORM_BWD, "no rows", build_rmsnorm_bwd, {0, 16, 1, 0}},
    {QFW_OP_ROPE, "whole heads", build_rope, {7, 3, 16, 16, 3, 0}},
    {QFW_OP_ROPE, "packed qkv", build_rope, {5, 8, 32, 32, 6, 1}},
    {QFW_OP_ROPE, "part of a head", build_rope, {9, 4, 12, 6, 3, 0}},
    {QFW_OP_ROPE, "nothing turns", build_rope, {3, 2, 8, 0, 2, 0}},
    {QFW_OP_ROPE, "no rows", build_rope, {0, 2, 8, 8, 2, 0}},
    {QFW_OP_SWIGLU, "packed", build_swiglu, {7, 33, 0}},
    {QFW_OP_SWIGLU, "apart", build_swiglu, {7, 33, 1}},
    {QFW_OP_SWIGLU, "no rows", build_swiglu, {0, 8, 0}},
    {QFW_OP_SWIGLU_BWD, "packed", build_swiglu_bwd, {7, 33, 0}},
    {QFW_OP_SWIGLU_BWD, "apart", build_swiglu_bwd, {7, 33, 1}},
    {QFW_OP_SWIGLU_BWD, "no rows", build_swiglu_bwd, {0, 8, 1}},
    {QFW_OP_ATTN, "one sequence", build_attn, {37, 4, 2, 16, 0, 0}},
    {QFW_OP_ATTN, "packed", build_attn, {21, 6, 2, 8, 0, 1}},
    {QFW_OP_ATTN, "window", build_attn, {70, 2, 2, 32, 9, 0}},
    {QFW_OP_ATTN, "shared prefix", build_attn, {18, 4, 4, 12, 0, 2}},
    {QFW_OP_ATTN, "prefix and window", build_attn, {18, 4, 1, 96, 5, 2}},
    {QFW_OP_ATTN, "only padding", build_attn, {6, 2, 1, 8, 0, 3}},
    {QFW_OP_ATTN, "no rows", build_attn, {0, 2, 1, 8, 0, 3}},
    {QFW_OP_ATTN_BWD, "one sequence", build_attn_bwd, {37, 4, 2, 16, 0, 0}},
    {QFW_OP_ATTN_BWD, "packed", build_attn_bwd, {21, 6, 2, 8, 0, 1}},
    {QFW_OP_ATTN_BWD, "window", build_attn_bwd, {70, 2, 2, 32, 9, 0}},
    {QFW_OP_ATTN_BWD, "shared prefix", build_attn_bwd, {18, 4, 4, 12, 0, 2}},
    {QFW_OP_ATTN_BWD, "prefix and window", build_attn_bwd, {18, 4, 1, 96, 5, 2}},
    {QFW_OP_ATTN_BWD, "only padding", build_attn_bwd, {6, 2, 1, 8, 0, 3}},
    {QFW_OP_ATTN_BWD, "no rows", build_attn_bwd, {0, 2, 1, 8, 0, 3}},
    {QFW_OP_EMBED, "odd sizes", build_embed, {13, 9, 33}},
    {QFW_OP_EMBED, "no rows", build_embed, {0, 9, 8}},
    {QFW_OP_EMBED_BWD, "repeated tokens", build_embed_bwd, {40, 9, 33, 0}},
    {QFW_OP_EMBED_BWD, "added", build_embed_bwd, {13, 50, 8, 1}},
    {QFW_OP_EMBED_BWD, "no rows", build_embed_bwd, {0, 9, 8, 1}},
    {QFW_OP_TOKEN_LOGPROB, "everything", build_token_logprob, {19, 301, 33, 0, 63}},
    {QFW_OP_TOKEN_LOGPROB, "log-probabilities alone", build_token_logprob, {33, 64, 64, 0, 3}},
    {QFW_OP_TOKEN_LOGPROB, "no label", build_token_logprob, {5, 17, 8, 1, 63}},
    {QFW_OP_TOKEN_LOGPROB, "no rows", build_token_logprob, {0, 17, 8, 0, 63}},
    {QFW_OP_TOKEN_LOGPROB_BWD, "frozen head", build_token_logprob_bwd, {19, 301, 33, 0, 0, 0}},
    {QFW_OP_TOKEN_LOGPROB_BWD, "trained head", build_token_logprob_bwd, {33, 64, 64, 0, 1, 1}},
    {QFW_OP_TOKEN_LOGPROB_BWD, "no label", build_token_logprob_bwd, {5, 17, 8, 1, 1, 0}},
    {QFW_OP_TOKEN_LOGPROB_BWD, "no rows", build_token_logprob_bwd, {0, 17, 8, 0, 1, 1}},
    {QFW_OP_XENT, "everything", build_xent, {19, 301, 0, 63}},
    {QFW_OP_XENT, "log-probabilities alone", build_xent, {4, 1000, 0, 3}},
    {QFW_OP_XENT, "no label", build_xent, {5, 17, 1, 63}},
    {QFW_OP_XENT, "no rows", build_xent, {0, 17, 0, 63}},
    {QFW_OP_XENT_BWD, "odd sizes", build_xent_bwd, {19, 301, 0}},
    {QFW_OP_XENT_BWD, "no label", build_xent_bwd, {5, 17, 1}},
    {QFW_OP_XENT_BWD, "no rows", build_xent_bwd, {0, 17, 0}},
    {QFW_OP_ADAMW, "with clipping", build_adamw, {7, 33, 1}},
    {QFW_OP_ADAMW, "without", build_adamw, {16, 64, 0}},
    {QFW_OP_ADAMW, "nothing", build_adamw, {0, 8, 1}},
};
const uint32_t suite_nn_count = sizeof suite_nn_cases / sizeof *suite_nn_cases;
