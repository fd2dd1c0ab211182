/* embed.c -- rows of a table by token, and the gradients of the table's rows. */
#include "base/error.h"
#include "base/mem.h"
#include "ops/check.h"
#include "ops/ref.h"

#include <inttypes.h>

static qfw_status embed_infer(op_infer *i) {
    const op_shape *const table = i->in[0], *const tokens = i->in[1];
    QFW_TRY(check_operand("embed", "table", table, DTYPES_FLOAT, 2, ANY_DIM, ANY_DIM));
    QFW_TRY(check_operand("embed", "tokens", tokens, DTYPE_BIT(QFW_I32), 1, ANY_DIM, 0));
    i->out[0] = shape_2d(table->dtype, tokens->dim[0], table->dim[1]);
    return QFW_OK;
}

static qfw_status embed_bwd_infer(op_infer *i) {
    const char *const op = "embed_bwd";
    const op_shape *const dy = i->in[0];
    const qfw_embed_bwd_params *const p = i->params;
    QFW_TRY(check_param(p->vocab >= 0, op, "vocab", (double)p->vocab, "0 or more"));
    QFW_TRY(check_operand(op, "dy", dy, DTYPES_FLOAT, 2, ANY_DIM, ANY_DIM));
    QFW_TRY(check_operand(op, "tokens", i->in[1], DTYPE_BIT(QFW_I32), 1, dy->dim[0], 0));
    QFW_TRY(check_operand(op, "acc", i->in[2], DTYPES_FLOAT, 2, p->vocab, dy->dim[1]));
    i->out[0] = shape_2d(shape_stat_dtype(dy->dtype), p->vocab, dy->dim[1]);
    return QFW_OK;
}

static qfw_status embed_vjp(op_vjp *v) {
    uint32_t dtype, rank;
    int64_t dim[QFW_MAX_DIMS];
    if (!v->dout[0] || !v->need[0]) return QFW_OK;
    QFW_TRY(v->g->api->shape(v->g, v->in[0], &dtype, &rank, dim));
    const qfw_embed_bwd_params p = {sizeof p, 0, dim[0]};
    const qfw_val in[3] = {v->dout[0], v->in[1], v->acc[0]};
    QFW_TRY(v->g->api->op(v->g, QFW_OP_EMBED_BWD, in, 3, &p, sizeof p, NULL, &v->din[0], 1));
    v->acc[0] = 0;
    return QFW_OK;
}

static qfw_status check_tokens(const char *op, const qfw_tensor *tokens, int64_t vocab) {
    for (int64_t n = 0; n < tokens->dim[0]; n++) {
        const int32_t t = ref_i32(tokens, ref_at(tokens, n));
        if (t < 0 || t >= vocab)
            return err_fail("E_OP_VALUE", QFW_E_DATA,
                "%s: token %" PRId32 " in row %" PRId64 ", wanted 0 to %" PRId64, op, t, n,
                vocab - 1);
    }
    return QFW_OK;
}

static void embed_row(void *arg, int64_t n, double *row) {
    const qfw_op *const op = arg;
    ref_row(op->in[0], ref_i32(op->in[1], ref_at(op->in[1], n)), row);
    ref_set_row(op->out[0], n, row);
}

static qfw_status embed_ref(const qfw_op *op) {
    const qfw_tensor *const table = op->in[0], *const tokens = op->in[1];
    QFW_TRY(check_tokens("embed", tokens, table->dim[0]));
    return ref_each_row(tokens->dim[0], table->dim[1], embed_row, (void *)(uintptr_t)op);
}

static qfw_status embed_bwd_ref(const qfw_op *op) {
    const qfw_tensor *const dy = op->in[0], *const tokens = op->in[1], *const out = op->out[0];
    const int64_t V = out->dim[0], C = out->dim[1];
    QFW_TRY(check_tokens("embed_bwd", tokens, V));
    double *const sum =
        op->in[2] ? ref_matrix(op->in[2]) : mem_alloc((size_t)V * (size_t)C, sizeof *sum);
    double *const row = sum ? mem_alloc((size_t)C, sizeof *row) : NULL;
    for (int64_t n = 0; row && n < dy->dim[0]; n++) {
        double *const to = sum + ref_i32(tokens, ref_at(tokens, n)) * C;
        ref_row(dy, n, row);
        for (int64_t c = 0; c < C; c++) to[c] += row[c];
    }
    for (int64_t v = 0; row && v < V; v++) ref_set_row(out, v, sum + v * C);
    const qfw_status s = row ? QFW_OK : QFW_E_NOMEM;
    mem_free(row);
    mem_free(sum);
    return s;
}

const op_def op_embed = {
    .name = "embed",
    .code = QFW_OP_EMBED,
    .n_in = 2,
    .n_in_min = 2,
    .n_out = 1,
    .infer = embed_infer,
    .vjp = embed_vjp,
    .ref = embed_ref,
};

const op_def op_embed_bwd = {
    .name = "embed_bwd",
    .code = QFW_OP_EMBED_BWD,
    .param_bytes = sizeof(qfw_embed_bwd_params),
    .n_in = 3,
    .n_in_min = 2,
    .n_out = 1,
    .inplace = {{3}},
    .infer = embed_bwd_infer,
    .ref = embed_bwd_ref,
};
