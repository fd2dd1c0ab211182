/* suite_prim.c -- the suite's cases of the primitives: as in suite_nn.c. */
#include "ops/ref.h"
#include "ops/suite_setup.h"

/* M, n, K, trans_a + 2 * trans_b, columns of c (0: no c), col0 */
static qfw_status build_gemm(suite_setup *s, const int64_t *d) {
    const uint32_t ta = d[3] & 1, tb = d[3] >> 1 & 1;
    const qfw_gemm_params p = {sizeof p, ta, tb, d[4] ? 0.5f : 1.0f, d[5]};
    QFW_TRY(setup_random(s, 0, ta ? d[2] : d[0], ta ? d[0] : d[2]));
    QFW_TRY(setup_random(s, 1, tb ? d[1] : d[2], tb ? d[2] : d[1]));
    if (d[4]) QFW_TRY(setup_random(s, 2, d[0], d[4]));
    setup_params(s, &p, sizeof p);
    setup_want(s, 1, 1);
    return QFW_OK;
}

/* M, K, row0, rows, type, nested */
static qfw_status build_dequant4(suite_setup *s, const int64_t *d) {
    const qfw_dequant4_params p = {sizeof p, 0, d[2], d[3]};
    QFW_TRY(setup_packed(s, 0, (uint32_t)d[4], d[0], d[1], (int)d[5]));
    setup_params(s, &p, sizeof p);
    setup_want(s, 1, 1);
    return QFW_OK;
}

static qfw_status build_copy(suite_setup *s, const int64_t *d) { /* rows, columns, to */
    const qfw_copy_params p = {sizeof p, (uint32_t)d[2]};
    QFW_TRY(setup_random(s, 0, d[0], d[1]));
    setup_params(s, &p, sizeof p);
    setup_want(s, 1, 1);
    return QFW_OK;
}

static qfw_status build_unview(
    suite_setup *s, const int64_t *d) { /* x [0,1], of [2,3], step, offset */
    const qfw_unview_params p = {sizeof p, 2, {d[2], d[3], 1, 1}, {d[3], d[4], 1, 1}, d[5]};
    QFW_TRY(setup_random(s, 0, d[0], d[1]));
    setup_params(s, &p, sizeof p);
    setup_want(s, 1, 1);
    return QFW_OK;
}

static qfw_status build_concat(suite_setup *s, const int64_t *d) { /* count, axis, rows, columns */
    const qfw_concat_params p = {sizeof p, (uint32_t)d[1]};
    for (uint32_t i = 0; i < d[0]; i++)
        QFW_TRY(setup_random(s, i, d[2] + (d[1] ? 0 : i), d[3] + (d[1] ? i : 0)));
    setup_params(s, &p, sizeof p);
    setup_want(s, 1, 1);
    return QFW_OK;
}

static qfw_status build_fill(suite_setup *s, const int64_t *d) { /* rows, columns */
    const qfw_fill_params p = {sizeof p, s->dtype, 2, 0, {d[0], d[1], 1, 1}, -1.25};
    setup_params(s, &p, sizeof p);
    setup_want(s, 1, 1);
    return QFW_OK;
}

static qfw_status build_scale(suite_setup *s, const int64_t *d) { /* rows, columns */
    const qfw_scale_params p = {sizeof p, -1.7f, 0.3f};
    QFW_TRY(setup_random(s, 0, d[0], d[1]));
    setup_params(s, &p, sizeof p);
    setup_want(s, 1, 1);
    return QFW_OK;
}

static qfw_status build_unary(suite_setup *s, const int64_t *d) { /* kind, rows, columns */
    const uint32_t kind = (uint32_t)d[0];
    const qfw_kind_params p = {sizeof p, kind};
    const int positive =
        kind == QFW_LOG || kind == QFW_LOG1P || kind == QFW_SQRT || kind == QFW_RSQRT;
    if (positive)
        QFW_TRY(setup_between(s, 0, 2, d[1], d[2], 0.05, 3));
    else
        QFW_TRY(setup_random(s, 0, d[1], d[2]));
    setup_params(s, &p, sizeof p);
    setup_want(s, 1, 1);
    return QFW_OK;
}

static qfw_status build_binary(suite_setup *s, const int64_t *d) { /* kind, a [1,2], b [3,4] */
    const qfw_kind_params p = {sizeof p, (uint32_t)d[0]};
    QFW_TRY(setup_random(s, 0, d[1], d[2]));
    if (d[0] == QFW_DIV)
        QFW_TRY(setup_between(s, 1, 2, d[3], d[4], 0.5, 2));
    else
        QFW_TRY(setup_random(s, 1, d[3], d[4]));
    setup_params(s, &p, sizeof p);
    setup_want(s, 1, 1);
    return QFW_OK;
}

static qfw_status build_reduce(suite_setup *s, const int64_t *d) { /* kind, x [1,2], y [3,4] */
    const qfw_reduce_params p = {sizeof p, (uint32_t)d[0], {d[3], d[4], 1, 1}};
    QFW_TRY(setup_random(s, 0, d[1], d[2]));
    setup_params(s, &p, sizeof p);
    setup_want(s, 1, 1);
    return QFW_OK;
}

static qfw_status build_select(suite_setup *s, const int64_t *d) { /* rows, columns */
    for (uint32_t i = 0; i < 3; i++) QFW_TRY(setup_random(s, i, d[0], d[1]));
    for (int64_t k = 0; k < d[0] * d[1]; k += 3) ref_store(&s->in[0], ref_at(&s->in[0], k), 0);
    setup_want(s, 1, 1);
    return QFW_OK;
}

static qfw_status build_segment_sum(suite_setup *s, const int64_t *d) { /* N, C or 0, count */
    const qfw_segment_sum_params p = {sizeof p, 0, d[2]};
    QFW_TRY(d[1] ? setup_random(s, 0, d[0], d[1]) : setup_random_1d(s, 0, d[0]));
    QFW_TRY(setup_ints(s, 1, 1, d[0], 1, -1, (int32_t)d[2] - 1));
    setup_params(s, &p, sizeof p);
    setup_want(s, 1, 1);
    return QFW_OK;
}

static qfw_status build_gather_rows(suite_setup *s, const int64_t *d) { /* M, C or 0, N */
    QFW_TRY(d[1] ? setup_random(s, 0, d[0], d[1]) : setup_random_1d(s, 0, d[0]));
    QFW_TRY(setup_ints(s, 1, 1, d[2], 1, -1, (int32_t)d[0] - 1));
    setup_want(s, 1, 1);
    return QFW_OK;
}

static qfw_status build_scatter_rows(suite_setup *s, const int64_t *d) { /* M, C, N <= M */
    QFW_TRY(setup_random(s, 0, d[0], d[1]));
    QFW_TRY(setup_random(s, 1, d[2], d[1]));
    QFW_TRY(setup_ints(s, 2, 1, d[2], 1, -1, -1));
    int32_t *const index = ref_data(&s->in[2]);
    for (int64_t n = 0; n < d[2]; n++) /* each place once, out of order, and one nowhere */
        index[n] = n == 1 ? -1 : (int32_t)(d[0] - 1 - n);
    setup_want(s, 1, 1);
    return QFW_OK;
}

static qfw_status build_sort(suite_setup *s, const int64_t *d) { /* n */
    QFW_TRY(setup_random_1d(s, 0, d[0]));
    for (int64_t k = 0; k + 5 < d[0]; k += 7) /* equal values keep their order */
        ref_store(&s->in[0], ref_at(&s->in[0], k), ref_load(&s->in[0], ref_at(&s->in[0], k + 5)));
    setup_want(s, 2, 3);
    return QFW_OK;
}

static qfw_status build_softmax(suite_setup *s, const int64_t *d) { /* rows, columns */
    QFW_TRY(setup_random(s, 0, d[0], d[1]));
    setup_want(s, 1, 1);
    return QFW_OK;
}

static qfw_status build_softmax_bwd(suite_setup *s, const int64_t *d) { /* rows, columns */
    static const int forward[1] = {1};
    QFW_TRY(setup_random(s, 0, d[0], d[1]));
    QFW_TRY(setup_random(s, 1, d[0], d[1]));
    QFW_TRY(setup_result(s, 1, QFW_OP_SOFTMAX, 1, forward, 0, 0));
    setup_want(s, 1, 1);
    return QFW_OK;
}

static qfw_status build_dropout(suite_setup *s, const int64_t *d) { /* N, C, percent */
    const qfw_dropout_params p = {sizeof p, (float)d[2] / 100, 7, 0x9747b28c};
    QFW_TRY(setup_random(s, 0, d[0], d[1]));
    QFW_TRY(setup_ints(s, 1, 2, d[0], 2, 0, 5000));
    setup_params(s, &p, sizeof p);
    setup_want(s, 1, 1);
    return QFW_OK;
}

/* Input i: the ascending map of 256 values in [-1, 1]. */
static qfw_status map8(suite_setup *s, uint32_t i) {
    QFW_TRY(setup_between(s, i, 1, 256, 1, -1, 1));
    float *const map = (float *)(void *)((char *)s->in[i].mem + s->in[i].offset);
    for (int64_t k = 0; k < 256 && s->in[i].dtype == QFW_F32; k++)
        map[k * s->in[i].stride[0]] = (float)(k - 128) / 128;
    return QFW_OK;
}

/* The map and the scales are fp32 and dense, whatever the case asks of x. */
static qfw_status fp32_map8(suite_setup *s, uint32_t i) {
    const uint32_t dtype = s->dtype, layout = s->layout;
    s->dtype = QFW_F32;
    s->layout = LAYOUT_DENSE;
    const qfw_status status = map8(s, i);
    s->dtype = dtype;
    s->layout = layout;
    return status;
}

static qfw_status build_quant8(suite_setup *s, const int64_t *d) { /* n, block */
    const qfw_block8_params p = {sizeof p, (uint32_t)d[1]};
    QFW_TRY(setup_random_1d(s, 0, d[0]));
    QFW_TRY(fp32_map8(s, 1));
    setup_params(s, &p, sizeof p);
    setup_want(s, 2, 3);
    return QFW_OK;
}

static qfw_status build_dequant8(suite_setup *s, const int64_t *d) { /* n, block */
    static const int forward[2] = {3, 2};
    const qfw_block8_params p = {sizeof p, (uint32_t)d[1]};
    const uint32_t dtype = s->dtype;
    setup_params(s, &p, sizeof p);
    QFW_TRY(fp32_map8(s, 2));
    s->dtype = QFW_F32;
    QFW_TRY(setup_random_1d(s, 3, d[0]));
    s->dtype = dtype;
    QFW_TRY(setup_result(s, 0, QFW_OP_QUANT8, 2, forward, sizeof p, 0));
    QFW_TRY(setup_result(s, 1, QFW_OP_QUANT8, 2, forward, sizeof p, 1));
    s->have[3] = 0;
    s->n_in = 3;
    setup_want(s, 1, 1);
    return QFW_OK;
}

#define NF4 QFW_NF4
#define FP4 QFW_FP4
#define UNARY(kind, name)                                                                          \
    {                                                                                              \
        QFW_OP_UNARY, name, build_unary, { kind, 5, 33 }                                           \
    }
#define BINARY(kind, name)                                                                         \
    {QFW_OP_BINARY, name, build_binary, {kind, 5, 33, 5, 33}},                                     \
        {QFW_OP_BINARY, name " of a row", build_binary, {kind, 5, 33, 1, 33}},                     \
        {QFW_OP_BINARY, name " by a column", build_binary, {kind, 5, 33, 5, 1}}, {                 \
        QFW_OP_BINARY, name " from one value", build_binary, { kind, 1, 1, 7, 3 }                  \
    }
#define REDUCE(kind, name)                                                                         \
    {QFW_OP_REDUCE, name " of all", build_reduce, {kind, 7, 33, 1, 1}},                            \
        {QFW_OP_REDUCE, name " of rows", build_reduce, {kind, 7, 33, 7, 1}}, {                     \
        QFW_OP_REDUCE, name " of columns", build_reduce, { kind, 7, 33, 1, 33 }                    \
    }

const suite_case suite_prim_cases[] = {
    {QFW_OP_GEMM, "odd sizes", build_gemm, {7, 13, 33, 0, 0, 0}},
    {QFW_OP_GEMM, "a transposed", build_gemm, {7, 13, 33, 1, 0, 0}},
    {QFW_OP_GEMM, "b transposed", build_gemm, {65, 130, 70, 2, 0, 0}},
    {QFW_OP_GEMM, "both transposed", build_gemm, {16, 32, 64, 3, 0, 0}},
    {QFW_OP_GEMM, "added to columns", build_gemm, {9, 12, 17, 2, 40, 11}},
    {QFW_OP_GEMM, "added to all", build_gemm, {33, 20, 8, 0, 20, 0}},
    {QFW_OP_GEMM, "one row", build_gemm, {1, 64, 128, 2, 0, 0}},
    {QFW_OP_GEMM, "no rows", build_gemm, {0, 8, 8, 0, 0, 0}},
    {QFW_OP_GEMM, "nothing to sum", build_gemm, {3, 8, 0, 0, 0, 0}},
    {QFW_OP_DEQUANT4, "all rows", build_dequant4, {9, 128, 0, 9, NF4, 1}},
    {QFW_OP_DEQUANT4, "inner rows", build_dequant4, {20, 80, 3, 11, NF4, 1}},
    {QFW_OP_DEQUANT4, "fp4, plain scales", build_dequant4, {8, 96, 1, 6, FP4, 0}},
    {QFW_OP_DEQUANT4, "more than one nested block", build_dequant4, {130, 192, 0, 130, NF4, 1}},
    {QFW_OP_DEQUANT4, "no rows", build_dequant4, {8, 64, 8, 0, NF4, 1}},
    {QFW_OP_COPY, "to f32", build_copy, {7, 33, QFW_F32}},
    {QFW_OP_COPY, "to bf16", build_copy, {7, 33, QFW_BF16}},
    {QFW_OP_COPY, "to f16", build_copy, {7, 33, QFW_F16}},
    {QFW_OP_COPY, "nothing", build_copy, {0, 8, QFW_F32}},
    {QFW_OP_UNVIEW, "columns", build_unview, {7, 5, 7, 33, 1, 9}},
    {QFW_OP_UNVIEW, "every second column", build_unview, {7, 16, 7, 33, 2, 1}},
    {QFW_OP_UNVIEW, "rows", build_unview, {3, 33, 7, 33, 1, 66}},
    {QFW_OP_UNVIEW, "a repeated value", build_unview, {4, 6, 4, 3, 0, 2}},
    {QFW_OP_UNVIEW, "nothing", build_unview, {0, 5, 3, 8, 1, 0}},
    {QFW_OP_CONCAT, "rows", build_concat, {3, 0, 2, 33}},
    {QFW_OP_CONCAT, "columns", build_concat, {8, 1, 5, 3}},
    {QFW_OP_CONCAT, "one", build_concat, {1, 1, 5, 3}},
    {QFW_OP_CONCAT, "first one empty", build_concat, {2, 0, 0, 8}},
    {QFW_OP_FILL, "odd sizes", build_fill, {7, 33}},
    {QFW_OP_FILL, "nothing", build_fill, {0, 8}},
    {QFW_OP_SCALE, "odd sizes", build_scale, {7, 33}},
    {QFW_OP_SCALE, "nothing", build_scale, {0, 8}},
    UNARY(QFW_NEG, "neg"),
    UNARY(QFW_EXP, "exp"),
    UNARY(QFW_LOG, "log"),
    UNARY(QFW_LOG1P, "log1p"),
    UNARY(QFW_EXPM1, "expm1"),
    UNARY(QFW_SQRT, "sqrt"),
    UNARY(QFW_RSQRT, "rsqrt"),
    UNARY(QFW_ABS, "abs"),
    UNARY(QFW_SIGN, "sign"),
    UNARY(QFW_SIGMOID, "sigmoid"),
    UNARY(QFW_LOGSIGMOID, "logsigmoid"),
    UNARY(QFW_RELU, "relu"),
    BINARY(QFW_ADD, "sum"),
    BINARY(QFW_SUB, "difference"),
    BINARY(QFW_MUL, "product"),
    BINARY(QFW_DIV, "quotient"),
    BINARY(QFW_MIN, "minimum"),
    BINARY(QFW_MAX, "maximum"),
    BINARY(QFW_GT, "comparison"),
    REDUCE(QFW_SUM, "sum"),
    REDUCE(QFW_SUMSQ, "sum of squares"),
    REDUCE(QFW_MAXIMUM, "maximum"),
    {QFW_OP_SELECT, "odd sizes", build_select, {7, 33}},
    {QFW_OP_SELECT, "nothing", build_select, {0, 8}},
    {QFW_OP_SEGMENT_SUM, "values", build_segment_sum, {40, 0, 7}},
    {QFW_OP_SEGMENT_SUM, "rows", build_segment_sum, {13, 33, 50}},
    {QFW_OP_SEGMENT_SUM, "no rows", build_segment_sum, {0, 8, 3}},
    {QFW_OP_GATHER_ROWS, "values", build_gather_rows, {7, 0, 40}},
    {QFW_OP_GATHER_ROWS, "rows", build_gather_rows, {50, 33, 13}},
    {QFW_OP_GATHER_ROWS, "no rows", build_gather_rows, {5, 8, 0}},
    {QFW_OP_SCATTER_ROWS, "some", build_scatter_rows, {50, 33, 13}},
    {QFW_OP_SCATTER_ROWS, "all", build_scatter_rows, {7, 8, 7}},
    {QFW_OP_SCATTER_ROWS, "no rows", build_scatter_rows, {5, 8, 0}},
    {QFW_OP_SORT, "odd size", build_sort, {77}},
    {QFW_OP_SORT, "one", build_sort, {1}},
    {QFW_OP_SORT, "nothing", build_sort, {0}},
    {QFW_OP_SOFTMAX, "odd sizes", build_softmax, {7, 33}},
    {QFW_OP_SOFTMAX, "one column", build_softmax, {5, 1}},
    {QFW_OP_SOFTMAX, "no rows", build_softmax, {0, 8}},
    {QFW_OP_SOFTMAX_BWD, "odd sizes", build_softmax_bwd, {7, 33}},
    {QFW_OP_SOFTMAX_BWD, "no rows", build_softmax_bwd, {0, 8}},
    {QFW_OP_DROPOUT, "odd sizes", build_dropout, {9, 33, 20}},
    {QFW_OP_DROPOUT, "nothing dropped", build_dropout, {9, 33, 0}},
    {QFW_OP_DROPOUT, "no rows", build_dropout, {0, 8, 50}},
    {QFW_OP_QUANT8, "short last block", build_quant8, {600, 256}},
    {QFW_OP_QUANT8, "nothing", build_quant8, {0, 256}},
    {QFW_OP_DEQUANT8, "short last block", build_dequant8, {600, 256}},
    {QFW_OP_DEQUANT8, "nothing", build_dequant8, {0, 256}},
};
const uint32_t suite_prim_count = sizeof suite_prim_cases / sizeof *suite_prim_cases;
