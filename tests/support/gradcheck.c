/* gradcheck.c -- central differences, decompositions and aliasing for any op of the table. */
#include "gradcheck.h"

#include "base/error.h"
#include "base/mem.h"
#include "ops/ref.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

static void must(qfw_status s) {
    if (s != QFW_OK) fail_msg("status %d: %s", s, err_count() ? err_text(0) : "no message");
}

void call_run(eager *e, const op_call *c, qfw_val *out) {
    qfw_graph *const g = eager_graph(e);
    must(g->api->op(g, c->code, c->in, c->n_in, c->params, c->param_bytes, c->want, out, c->n_out));
}

/* The op that call_run ran, to run again on the same memory. */
static qfw_op again(const eager *e, const op_call *c, const qfw_val *out) {
    qfw_op op = {.size = sizeof op, .code = c->code, .n_in = c->n_in, .n_out = c->n_out};
    for (uint32_t i = 0; i < c->n_in; i++)
        if (c->in[i]) op.in[i] = eager_tensor(e, c->in[i]);
    for (uint32_t o = 0; o < c->n_out; o++)
        if (out[o]) op.out[o] = eager_tensor(e, out[o]);
    op.params = c->params;
    op.param_bytes = c->param_bytes;
    return op;
}

static double product(const qfw_tensor *a, const qfw_tensor *b) {
    const int64_t n = qfw_tensor_count(a);
    double sum = 0;
    for (int64_t i = 0; i < n; i++) sum += ref_load(a, ref_at(a, i)) * ref_load(b, ref_at(b, i));
    return sum;
}

/* A random tensor of v's shape; its dtype is F64. */
static qfw_val random_like(eager *e, qfw_val v) {
    const op_shape s = eager_shape(e, v);
    const qfw_val out = eager_values(e, QFW_F64, s.rank, s.dim, NULL);
    const int64_t n = qfw_tensor_count(eager_tensor(e, out));
    const qfw_val from = eager_random_1d(e, QFW_F64, n, 0, 1);
    for (int64_t i = 0; i < n; i++)
        ref_store(eager_tensor(e, out), i, ref_load(eager_tensor(e, from), i));
    return out;
}

/* d product(out, weight) / d input i, in a new value. */
static qfw_val difference(
    eager *e, const op_call *c, const qfw_val *out, uint32_t o, qfw_val weight, uint32_t i) {
    const double h = 1e-5;
    const qfw_op op = again(e, c, out);
    const qfw_tensor *const x = op.in[i];
    const op_shape s = eager_shape(e, c->in[i]);
    const qfw_val d = eager_values(e, QFW_F64, s.rank, s.dim, NULL);
    for (int64_t k = 0; k < qfw_tensor_count(x); k++) {
        const int64_t at = ref_at(x, k);
        const double v = ref_load(x, at);
        ref_store(x, at, v + h);
        must(op_find(c->code)->ref(&op));
        const double above = product(op.out[o], eager_tensor(e, weight));
        ref_store(x, at, v - h);
        must(op_find(c->code)->ref(&op));
        const double below = product(op.out[o], eager_tensor(e, weight));
        ref_store(x, at, v);
        ref_store(eager_tensor(e, d), k, (above - below) / (2 * h));
    }
    must(op_find(c->code)->ref(&op));
    return d;
}

static void check_vjp(eager *e, const op_call *c, const qfw_val *out, uint32_t o, qfw_val weight,
    const uint8_t *need, int with_acc) {
    qfw_val dout[QFW_MAX_OUT] = {0}, din[QFW_MAX_IN] = {0}, acc[QFW_MAX_IN] = {0};
    qfw_val given[QFW_MAX_IN] = {0};
    dout[o] = weight;
    for (uint32_t i = 0; with_acc && i < c->n_in; i++)
        if (need[i]) given[i] = acc[i] = random_like(e, c->in[i]);
    op_vjp v = {.g = eager_graph(e), .params = c->params, .in = c->in, .out = out, .dout = dout};
    v.need = need;
    v.din = din;
    v.acc = acc;
    must(op_find(c->code)->vjp(&v));
    for (uint32_t i = 0; i < c->n_in; i++) {
        if (!need[i]) {
            assert_int_equal(din[i], 0);
            continue;
        }
        assert_int_not_equal(din[i], 0);
        const qfw_val numeric = difference(e, c, out, o, weight, i);
        const qfw_tensor *const to = eager_tensor(e, numeric);
        const int64_t n = qfw_tensor_count(to);
        /* acc[i] is 0 again where the VJP has added it in. */
        for (int64_t k = 0; given[i] && !acc[i] && k < n; k++)
            ref_store(to, k, ref_load(to, k) + ref_load(eager_tensor(e, given[i]), k));
        const double apart = eager_distance(e, din[i], numeric);
        if (!(apart < 1e-7)) fail_msg("gradient of input %u is %g off", i, apart);
    }
}

void check_gradients(eager *e, const op_call *c, uint32_t o, const uint8_t *need) {
    qfw_val out[QFW_MAX_OUT];
    assert_non_null(op_find(c->code)->vjp);
    call_run(e, c, out);
    const qfw_val weight = random_like(e, out[o]);
    check_vjp(e, c, out, o, weight, need, 0);
    check_vjp(e, c, out, o, weight, need, 1);
}

void check_decomposition(eager *e, const op_call *c, double tolerance) {
    qfw_val out[QFW_MAX_OUT], result[QFW_MAX_OUT] = {0}, in[QFW_MAX_IN] = {0};
    const uint32_t before = eager_count(e, c->code);
    call_run(e, c, out);
    memcpy(in, c->in, c->n_in * sizeof *in);
    op_decompose d = {.g = eager_graph(e), .params = c->params, .in = in, .want = c->want};
    d.result = result;
    assert_non_null(op_find(c->code)->decompose);
    must(op_find(c->code)->decompose(&d));
    assert_int_equal(eager_count(e, c->code), before + 1); /* not by itself */
    for (uint32_t o = 0; o < c->n_out; o++) {
        if (!c->want[o]) continue;
        assert_int_not_equal(result[o], 0);
        assert_int_equal(eager_shape(e, result[o]).dtype, eager_shape(e, out[o]).dtype);
        const double apart = eager_distance(e, result[o], out[o]);
        if (!(apart <= tolerance)) fail_msg("output %u is %g off when decomposed", o, apart);
    }
}

/* Run c again with output o in the memory of input i, which gets its values back. */
static void compare_in_place(
    eager *e, const op_call *c, const qfw_val *out, uint32_t o, uint32_t i) {
    qfw_op op = again(e, c, out);
    const qfw_tensor *const x = op.in[i], *const apart = op.out[o];
    const int64_t n = qfw_tensor_count(x);
    double *const before = mem_alloc((size_t)n, sizeof *before);
    assert_non_null(before);
    assert_int_equal(x->dtype, apart->dtype);
    assert_int_equal(n, qfw_tensor_count(apart));
    for (int64_t k = 0; k < n; k++) before[k] = ref_load(x, ref_at(x, k));
    op.out[o] = x;
    must(op_find(c->code)->ref(&op));
    for (int64_t k = 0; k < n; k++) {
        const double a = ref_load(x, ref_at(x, k)), b = ref_load(apart, ref_at(apart, k));
        if (!(a == b)) fail_msg("output %u in place with input %u differs at %d", o, i, (int)k);
        ref_store(x, ref_at(x, k), before[k]);
    }
    mem_free(before);
}

void check_in_place(eager *e, const op_call *c) {
    const op_def *const def = op_find(c->code);
    qfw_val out[QFW_MAX_OUT];
    int pairs = 0;
    call_run(e, c, out);
    for (uint32_t o = 0; o < c->n_out; o++)
        for (int k = 0; k < 2; k++) {
            const uint32_t i = def->inplace[o][k];
            if (!i || i > c->n_in || !c->in[i - 1] || !out[o]) continue;
            compare_in_place(e, c, out, o, i - 1);
            pairs++;
        }
    assert_true(pairs > 0);
}

void check_refused(eager *e, const op_call *c, qfw_status status, const char *text) {
    qfw_graph *const g = eager_graph(e);
    qfw_val out[QFW_MAX_OUT];
    err_clear();
    const qfw_status s =
        g->api->op(g, c->code, c->in, c->n_in, c->params, c->param_bytes, c->want, out, c->n_out);
    if (s != status || !err_text(0) || !strstr(err_text(0), text))
        fail_msg("status %d, \"%s\"; wanted %d, \"%s\"", s, err_count() ? err_text(0) : "", status,
            text);
    for (uint32_t o = 0; o < c->n_out; o++) assert_int_equal(out[o], 0);
    err_clear();
}

void check_refused_shape(
    eager *e, const op_call *c, uint32_t i, int64_t dim0, int64_t dim1, const char *text) {
    op_call wrong = *c;
    const op_shape s = eager_shape(e, c->in[i]);
    const int64_t dim[2] = {dim0, dim1};
    if (s.dtype == QFW_NF4 || s.dtype == QFW_FP4)
        wrong.in[i] = eager_packed(e, s.dtype, dim0, dim1, 64, 0);
    else
        wrong.in[i] = eager_values(e, s.dtype, s.rank, dim, NULL);
    check_refused(e, &wrong, QFW_E_SHAPE, text);
}
