/* suite_setup.c -- operands of the suite's cases: blocks with sentinels, floats in every layout. */
#include "ops/suite_setup.h"

#include "base/error.h"
#include "base/mem.h"
#include "ops/quant4.h"
#include "ops/ref.h"

#include <string.h>

enum { SENTINEL = 0xc5 };

void setup_free(suite_setup *s) {
    for (uint32_t i = 0; i < s->n_blocks; i++) mem_free(s->blocks[i].host);
    s->n_blocks = 0;
}

/* A block whose payload of `bytes` zeros starts at SUITE_GUARD. */
static qfw_status new_block(suite_setup *s, uint64_t bytes, uint32_t usage, qfw_mem **out) {
    const uint64_t all = bytes + 2 * SUITE_GUARD;
    if (s->n_blocks == SUITE_BLOCKS)
        return err_fail(
            "E_INTERNAL", QFW_E_INTERNAL, "suite: a case has more than %d operands", SUITE_BLOCKS);
    char *const host = mem_alloc_aligned((size_t)all, 256);
    if (!host) return QFW_E_NOMEM;
    memset(host, SENTINEL, SUITE_GUARD);
    memset(host + SUITE_GUARD + bytes, SENTINEL, SUITE_GUARD);
    s->blocks[s->n_blocks++] = (suite_block){host, all, usage};
    *out = (qfw_mem *)(void *)host;
    return QFW_OK;
}

static uint64_t payload_bytes(const op_shape *shape, const int64_t *stride) {
    uint64_t last = 0;
    for (uint32_t d = 0; d < shape->rank; d++) {
        if (shape->dim[d] == 0) return 0;
        last += (uint64_t)((shape->dim[d] - 1) * stride[d]);
    }
    return (last + 1) * qfw_dtype_bytes(shape->dtype);
}

static qfw_status new_tensor(
    suite_setup *s, const op_shape *shape, uint32_t layout, uint32_t usage, qfw_tensor *out) {
    qfw_tensor t = {.size = sizeof t, .dtype = shape->dtype, .rank = shape->rank};
    int64_t step = layout == LAYOUT_SPREAD ? 2 : 1;
    for (uint32_t d = QFW_MAX_DIMS; d-- > 0;) {
        t.dim[d] = d < shape->rank ? shape->dim[d] : 1;
        t.stride[d] = step;
        step *= t.dim[d];
        if (layout == LAYOUT_WIDE && d + 1 == shape->rank) step += 3;
    }
    t.offset = SUITE_GUARD;
    QFW_TRY(new_block(s, payload_bytes(shape, t.stride), usage, &t.mem));
    *out = t;
    return QFW_OK;
}

qfw_status setup_tensor(suite_setup *s, const op_shape *shape, uint32_t usage, qfw_tensor *out) {
    return new_tensor(s, shape, LAYOUT_DENSE, usage, out);
}

static double next(suite_setup *s) { /* in [0, 1) */
    s->seed = s->seed * 6364136223846793005u + 1442695040888963407u;
    return (double)(s->seed >> 11) / 9007199254740992.0;
}

/* Input i as a tensor of zeros. */
static qfw_status new_input(suite_setup *s, uint32_t i, uint32_t dtype, uint32_t layout,
    uint32_t rank, int64_t dim0, int64_t dim1) {
    const op_shape shape = {dtype, rank, {dim0, rank > 1 ? dim1 : 1, 1, 1}};
    QFW_TRY(new_tensor(s, &shape, layout, QFW_MEM_STEP, &s->in[i]));
    s->have[i] = 1;
    if (i >= s->n_in) s->n_in = i + 1;
    return QFW_OK;
}

qfw_status setup_between(suite_setup *s, uint32_t i, uint32_t rank, int64_t dim0, int64_t dim1,
    double low, double high) {
    QFW_TRY(new_input(s, i, s->dtype, s->layout, rank, dim0, dim1));
    const qfw_tensor *const t = &s->in[i];
    for (int64_t k = 0; k < qfw_tensor_count(t); k++)
        ref_store(t, ref_at(t, k), low + (high - low) * next(s));
    return QFW_OK;
}

static qfw_status random_of(suite_setup *s, uint32_t i, uint32_t rank, int64_t dim0, int64_t dim1) {
    static const double radius[3] = {1, 0, 8};
    return setup_between(s, i, rank, dim0, dim1, -radius[s->data], radius[s->data]);
}

qfw_status setup_random(suite_setup *s, uint32_t i, int64_t dim0, int64_t dim1) {
    return random_of(s, i, 2, dim0, dim1);
}

qfw_status setup_random_1d(suite_setup *s, uint32_t i, int64_t dim0) {
    return random_of(s, i, 1, dim0, 1);
}

qfw_status setup_ints(suite_setup *s, uint32_t i, uint32_t rank, int64_t dim0, int64_t dim1,
    int32_t low, int32_t high) {
    QFW_TRY(new_input(s, i, QFW_I32, LAYOUT_DENSE, rank, dim0, dim1));
    const qfw_tensor *const t = &s->in[i];
    for (int64_t k = 0; k < qfw_tensor_count(t); k++)
        ref_store(t, k, low + (double)(int64_t)((high - low + 1) * next(s)));
    return QFW_OK;
}

qfw_status setup_int_values(
    suite_setup *s, uint32_t i, int64_t dim0, int64_t dim1, const int32_t *values) {
    QFW_TRY(new_input(s, i, QFW_I32, LAYOUT_DENSE, 2, dim0, dim1));
    for (int64_t k = 0; k < dim0 * dim1; k++) ref_store(&s->in[i], k, values[k]);
    return QFW_OK;
}

/* The scales of s->quant, nested or plain, in blocks of their own. */
static qfw_status place_scales(suite_setup *s, const float *absmax, int64_t n, int nested) {
    qfw_quant *const q = &s->quant;
    char *host;
    float offset = 0;
    q->absmax_offset = q->nested_offset = q->map_offset = SUITE_GUARD;
    QFW_TRY(
        new_block(s, (uint64_t)n * (nested ? 1 : sizeof *absmax), QFW_MEM_FROZEN, &q->absmax_mem));
    host = (char *)q->absmax_mem + SUITE_GUARD;
    if (!nested) {
        if (n) memcpy(host, absmax, (size_t)n * sizeof *absmax);
        return QFW_OK;
    }
    q->nested_block = 256;
    const uint64_t outer = (uint64_t)(n + 255) / 256 * sizeof(float);
    QFW_TRY(new_block(s, outer, QFW_MEM_FROZEN, &q->nested_mem));
    QFW_TRY(new_block(s, 256 * sizeof(float), QFW_MEM_FROZEN, &q->map_mem));
    QFW_TRY(quant8_nest(absmax, n, QUANT8_NEAREST, (uint8_t *)host,
        (float *)(void *)((char *)q->nested_mem + SUITE_GUARD), &offset));
    memcpy((char *)q->map_mem + SUITE_GUARD, quant8_map(), 256 * sizeof(float));
    q->offset = (double)offset;
    return QFW_OK;
}

static qfw_status pack(suite_setup *s, const qfw_tensor *t, float *w, float *absmax, int nested) {
    const int64_t n = t->dim[0] * t->dim[1];
    for (int64_t i = 0; i < n; i++) w[i] = (float)(next(s) - 0.5);
    QFW_TRY(quant4_encode(t->dtype, w, n, s->quant.block, ref_data(t), absmax));
    return place_scales(s, absmax, quant4_blocks(n, s->quant.block), nested);
}

qfw_status setup_packed(
    suite_setup *s, uint32_t i, uint32_t type, int64_t M, int64_t K, int nested) {
    const int64_t n = M * K;
    qfw_tensor t = {.size = sizeof t, .dtype = type, .rank = 2, .dim = {M, K, 1, 1}};
    t.stride[0] = K;
    t.stride[1] = t.stride[2] = t.stride[3] = 1;
    t.offset = SUITE_GUARD;
    t.quant = &s->quant;
    s->quant = (qfw_quant){.size = sizeof s->quant, .block = 64};
    if (s->dtype == QFW_BF16 || s->dtype == QFW_F16) s->quant.compute = s->dtype;
    QFW_TRY(new_block(s, quant4_code_bytes(n), QFW_MEM_FROZEN, &t.mem));
    float *const w = mem_alloc((size_t)n, sizeof *w);
    float *const absmax = w ? mem_alloc((size_t)quant4_blocks(n, 64), sizeof *absmax) : NULL;
    const qfw_status status = absmax ? pack(s, &t, w, absmax, nested) : QFW_E_NOMEM;
    mem_free(absmax);
    mem_free(w);
    s->in[i] = t;
    s->have[i] = 1;
    if (i >= s->n_in) s->n_in = i + 1;
    return status;
}

qfw_status setup_result(suite_setup *s, uint32_t i, uint32_t code, uint32_t n_from, const int *from,
    uint32_t param_bytes, uint32_t out) {
    op_shape in[QFW_MAX_IN], made[QFW_MAX_OUT];
    const op_shape *given[QFW_MAX_IN] = {NULL};
    qfw_tensor result[QFW_MAX_OUT];
    const op_def *const def = op_find(code);
    qfw_op op = {.size = sizeof op, .code = code, .n_in = n_from, .n_out = def->n_out};
    op.params = param_bytes ? s->params : NULL;
    op.param_bytes = param_bytes;
    for (uint32_t k = 0; k < n_from; k++) {
        if (from[k] < 0 || !s->have[from[k]]) continue;
        const qfw_tensor *const t = &s->in[from[k]];
        in[k] = (op_shape){t->dtype, t->rank, {t->dim[0], t->dim[1], t->dim[2], t->dim[3]}};
        given[k] = &in[k];
        op.in[k] = t;
    }
    QFW_TRY(op_infer_shapes(code, given, n_from, op.params, param_bytes, NULL, made, def->n_out));
    for (uint32_t o = 0; o < def->n_out; o++) {
        QFW_TRY(setup_tensor(s, &made[o], QFW_MEM_STEP, &result[o]));
        op.out[o] = &result[o];
    }
    QFW_TRY(def->ref(&op));
    s->in[i] = result[out];
    s->have[i] = 1;
    if (i >= s->n_in) s->n_in = i + 1;
    return QFW_OK;
}

void setup_params(suite_setup *s, const void *params, uint32_t bytes) {
    memcpy(s->params, params, bytes);
    s->param_bytes = bytes;
}

void setup_want(suite_setup *s, uint32_t n_out, uint32_t bits) {
    s->n_out = n_out;
    for (uint32_t o = 0; o < n_out; o++) s->want[o] = (uint8_t)(bits >> o & 1);
}
