/* eager.c -- values are host tensors, api->op runs the reference. */
#include "eager.h"

#include "base/error.h"
#include "base/mem.h"
#include "ops/quant4.h"
#include "ops/ref.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

enum { MAX_VALUES = 1024, MAX_BLOCKS = 4096 };

struct eager {
    graph g; /* first: what VJPs and decompositions look into */
    graph_value values[MAX_VALUES];
    qfw_tensor tensors[MAX_VALUES];
    qfw_quant quants[MAX_VALUES];
    void *blocks[MAX_BLOCKS]; /* what must be freed */
    uint32_t n_blocks;
    uint32_t emitted[QFW_OP_END];
    uint64_t seed;
};

static void *keep(eager *e, size_t count, size_t size) {
    void *const p = mem_alloc(count, size);
    assert_non_null(p);
    assert_in_range(e->n_blocks, 0, MAX_BLOCKS - 1);
    e->blocks[e->n_blocks++] = p;
    return p;
}

static qfw_mem *memory(void *p) { return (qfw_mem *)p; }

static void dense_strides(uint32_t rank, const int64_t *dim, int64_t *stride) {
    int64_t step = 1;
    for (uint32_t i = QFW_MAX_DIMS; i-- > 0;) {
        stride[i] = step;
        if (i < rank) step *= dim[i];
    }
}

static qfw_val add(eager *e, const qfw_tensor *t, uint32_t kind) {
    const qfw_val v = (qfw_val)++e->g.n_values;
    assert_in_range(v, 1, MAX_VALUES - 1);
    e->tensors[v] = *t;
    e->tensors[v].id = v;
    graph_value *const value = &e->values[v];
    value->kind = kind;
    value->shape.dtype = t->dtype;
    value->shape.rank = t->rank;
    memcpy(value->shape.dim, t->dim, sizeof value->shape.dim);
    memcpy(value->stride, t->stride, sizeof value->stride);
    return v;
}

static qfw_val new_tensor(eager *e, const op_shape *s) {
    qfw_tensor t = {.size = sizeof t, .dtype = s->dtype, .rank = s->rank};
    for (uint32_t i = 0; i < QFW_MAX_DIMS; i++) t.dim[i] = i < s->rank ? s->dim[i] : 1;
    dense_strides(t.rank, t.dim, t.stride);
    const size_t count = (size_t)qfw_tensor_count(&t);
    t.mem = memory(keep(e, count, qfw_dtype_bytes(t.dtype)));
    return add(e, &t, VALUE_OP);
}

static qfw_status eager_op(qfw_graph *pub, uint32_t code, const qfw_val *in, uint32_t n_in,
    const void *params, uint32_t param_bytes, const uint8_t *want, qfw_val *out, uint32_t n_out) {
    eager *const e = (eager *)(void *)pub;
    op_shape shapes[QFW_MAX_IN], made[QFW_MAX_OUT];
    const op_shape *given[QFW_MAX_IN] = {NULL};
    qfw_op op = {.size = sizeof op, .code = code, .n_in = n_in, .n_out = n_out};
    for (uint32_t i = 0; i < n_in; i++) {
        if (!in[i]) continue;
        shapes[i] = e->values[in[i]].shape;
        given[i] = &shapes[i];
        op.in[i] = &e->tensors[in[i]];
    }
    for (uint32_t o = 0; o < n_out; o++) out[o] = 0;
    QFW_TRY(op_infer_shapes(code, given, n_in, params, param_bytes, want, made, n_out));
    qfw_val results[QFW_MAX_OUT] = {0};
    for (uint32_t o = 0; o < n_out; o++) {
        if (want && !want[o]) continue;
        results[o] = new_tensor(e, &made[o]);
        op.out[o] = &e->tensors[results[o]];
    }
    op.params = params;
    op.param_bytes = param_bytes;
    QFW_TRY(op_find(code)->ref(&op));
    for (uint32_t o = 0; o < n_out; o++) out[o] = results[o];
    e->emitted[code]++;
    return QFW_OK;
}

static qfw_status eager_view(qfw_graph *pub, qfw_val base, uint32_t rank, const int64_t *dim,
    const int64_t *stride, int64_t offset, qfw_val *out) {
    eager *const e = (eager *)(void *)pub;
    qfw_tensor t = e->tensors[base];
    t.rank = rank;
    for (uint32_t i = 0; i < QFW_MAX_DIMS; i++) {
        t.dim[i] = i < rank ? dim[i] : 1;
        t.stride[i] = i < rank ? stride[i] : 1;
    }
    t.offset += (uint64_t)offset * qfw_dtype_bytes(t.dtype);
    *out = add(e, &t, VALUE_VIEW);
    return QFW_OK;
}

static qfw_status eager_shape_of(
    qfw_graph *pub, qfw_val v, uint32_t *dtype, uint32_t *rank, int64_t *dim) {
    const op_shape s = eager_shape((const eager *)(const void *)pub, v);
    *dtype = s.dtype;
    *rank = s.rank;
    memcpy(dim, s.dim, sizeof s.dim);
    return QFW_OK;
}

eager *eager_create(void) {
    static const qfw_graph_api api = {
        .size = sizeof api, .op = eager_op, .view = eager_view, .shape = eager_shape_of};
    eager *const e = mem_alloc(1, sizeof *e);
    assert_non_null(e);
    e->g.pub.api = &api;
    e->g.values = e->values;
    e->seed = 0x9e3779b97f4a7c15u;
    return e;
}

void eager_destroy(eager *e) {
    for (uint32_t i = 0; i < e->n_blocks; i++) mem_free(e->blocks[i]);
    mem_free(e);
}

qfw_graph *eager_graph(eager *e) { return &e->g.pub; }
const qfw_tensor *eager_tensor(const eager *e, qfw_val v) { return &e->tensors[v]; }
op_shape eager_shape(const eager *e, qfw_val v) { return e->values[v].shape; }
uint32_t eager_count(const eager *e, uint32_t code) { return e->emitted[code]; }

static double next_random(eager *e) {
    e->seed = e->seed * 6364136223846793005u + 1442695040888963407u;
    return (double)(int64_t)(e->seed >> 11) / 4503599627370496.0 - 1.0;
}

qfw_val eager_values(
    eager *e, uint32_t dtype, uint32_t rank, const int64_t *dim, const double *values) {
    op_shape s = {.dtype = dtype, .rank = rank};
    for (uint32_t i = 0; i < rank; i++) s.dim[i] = dim[i];
    const qfw_val v = new_tensor(e, &s);
    const int64_t n = qfw_tensor_count(&e->tensors[v]);
    for (int64_t i = 0; values && i < n; i++) ref_store(&e->tensors[v], i, values[i]);
    return v;
}

qfw_val eager_random(eager *e, uint32_t dtype, int64_t dim0, int64_t dim1) {
    const int64_t dim[2] = {dim0, dim1};
    const qfw_val v = eager_values(e, dtype, 2, dim, NULL);
    for (int64_t i = 0; i < dim0 * dim1; i++) ref_store(&e->tensors[v], i, next_random(e));
    return v;
}

qfw_val eager_random_1d(eager *e, uint32_t dtype, int64_t dim0, double centre, double radius) {
    const qfw_val v = eager_values(e, dtype, 1, &dim0, NULL);
    for (int64_t i = 0; i < dim0; i++)
        ref_store(&e->tensors[v], i, centre + radius * next_random(e));
    return v;
}

qfw_val eager_ints_2d(eager *e, int64_t rows, int64_t columns, const int32_t *values) {
    const int64_t dim[2] = {rows, columns};
    const qfw_val v = eager_values(e, QFW_I32, 2, dim, NULL);
    for (int64_t i = 0; i < rows * columns; i++) ref_store(&e->tensors[v], i, values[i]);
    return v;
}

qfw_val eager_ints(eager *e, int64_t n, const int32_t *values) {
    const qfw_val v = eager_values(e, QFW_I32, 1, &n, NULL);
    for (int64_t i = 0; i < n; i++) ref_store(&e->tensors[v], i, values[i]);
    return v;
}

qfw_val eager_packed(eager *e, uint32_t type, int64_t M, int64_t K, uint32_t block, int nested) {
    const int64_t n = M * K, n_blocks = quant4_blocks(n, block);
    float *const w = keep(e, (size_t)n, sizeof *w);
    float *const absmax = keep(e, (size_t)n_blocks, sizeof *absmax);
    uint8_t *const codes = keep(e, (size_t)quant4_code_bytes(n), 1);
    for (int64_t i = 0; i < n; i++) w[i] = (float)next_random(e);
    assert_int_equal(quant4_encode(type, w, n, block, codes, absmax), QFW_OK);
    qfw_tensor t = {.size = sizeof t, .dtype = type, .rank = 2, .dim = {M, K, 1, 1}};
    dense_strides(2, t.dim, t.stride);
    t.mem = memory(codes);
    qfw_quant *const q = &e->quants[e->g.n_values + 1];
    *q = (qfw_quant){.size = sizeof *q, .block = block, .absmax_mem = memory(absmax)};
    if (nested) {
        uint8_t *const scales = keep(e, (size_t)n_blocks, 1);
        float *const outer = keep(e, (size_t)n_blocks / 256 + 1, sizeof *outer);
        float *const map = keep(e, 256, sizeof *map), offset;
        assert_int_equal(
            quant8_nest(absmax, n_blocks, QUANT8_NEAREST, scales, outer, &offset), QFW_OK);
        memcpy(map, quant8_map(), 256 * sizeof *map);
        q->nested_block = 256;
        q->absmax_mem = memory(scales);
        q->nested_mem = memory(outer);
        q->map_mem = memory(map);
        q->offset = (double)offset;
    }
    t.quant = q;
    return add(e, &t, VALUE_STORE);
}

const double *eager_read(eager *e, qfw_val v) {
    const qfw_tensor *const t = &e->tensors[v];
    const int64_t n = qfw_tensor_count(t);
    double *const out = keep(e, (size_t)n, sizeof *out);
    for (int64_t i = 0; i < n; i++) out[i] = ref_load(t, ref_at(t, i));
    return out;
}

double eager_distance(eager *e, qfw_val a, qfw_val b) {
    const op_shape x = eager_shape(e, a), y = eager_shape(e, b);
    assert_int_equal(x.rank, y.rank);
    assert_memory_equal(x.dim, y.dim, sizeof x.dim);
    const double *const p = eager_read(e, a), *const q = eager_read(e, b);
    const int64_t n = qfw_tensor_count(&e->tensors[a]);
    double worst = 0, scale = 0;
    for (int64_t i = 0; i < n; i++) {
        const double apart = fabs(p[i] - q[i]);
        if (isnan(apart)) return (double)INFINITY;
        worst = fmax(worst, apart);
        scale = fmax(scale, fabs(q[i]));
    }
    return scale > 0 ? worst / scale : worst;
}
