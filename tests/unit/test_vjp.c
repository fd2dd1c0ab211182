/* test_vjp.c -- gradients of whole graphs against central differences, in F64 through planner and
 * executor; and the same bits under recomputation. */
#include "../support/graphlab.h"
#include "base/error.h"
#include "base/mem.h"

#include <math.h>

#include "../support/test.h"

enum { MAX_WRT = 32, MAX_GRAD = 4096 };

typedef struct model {
    void (*declare)(graphlab *l); /* entries, all F64: every one is trained */
    qfw_status (*forward)(graphlab *l, qfw_val *loss);
    void (*write)(graphlab *l); /* the inputs, before a run */
} model;

static void prepare(graphlab *l, const model *m) {
    graphlab_open(l, test_device_native);
    m->declare(l);
    graphlab_fill(l);
}

/* All gradients of the model, one after another; how many values. */
static int64_t run_backward(graphlab *l, const model *m, uint32_t recompute, double *out) {
    qfw_val wrt[MAX_WRT], keep[MAX_WRT];
    store_entry *e;
    uint32_t n = 0;
    int64_t count = 0;
    qfw_val loss;
    graphlab_renew(l);
    graphlab_ok(m->forward(l, &loss));
    for (; (e = store_at(l->s, n)) != NULL; n++) wrt[n] = graphlab_val(l, e->name);
    graphlab_ok(graph_backward(l->g, loss, wrt, n, recompute, keep));
    for (uint32_t i = 0; i < n; i++)
        if (!keep[i]) fail_msg("%s has no gradient", store_at(l->s, i)->name);
    graphlab_build(l, keep, n);
    m->write(l);
    graphlab_ok(exec_run(l->e));
    for (uint32_t i = 0; i < n; i++) {
        const int64_t values = qfw_tensor_count(&store_at(l->s, i)->t);
        assert_true(count + values <= MAX_GRAD);
        graphlab_read(l, keep[i], out + count, values);
        count += values;
    }
    return count;
}

static double run_loss(graphlab *l, const model *m, qfw_val loss) {
    double value = 0;
    m->write(l);
    graphlab_ok(exec_run(l->e));
    graphlab_read(l, loss, &value, 1);
    return value;
}

/* The same gradients by central differences. */
static void differences(graphlab *l, const model *m, double *out) {
    const double h = 1e-5;
    store_entry *e;
    double values[1024];
    qfw_val loss;
    graphlab_renew(l);
    graphlab_ok(m->forward(l, &loss));
    graphlab_build(l, &loss, 1);
    for (uint32_t i = 0; (e = store_at(l->s, i)) != NULL; i++) {
        const int64_t n = qfw_tensor_count(&e->t);
        assert_true(n <= 1024);
        graphlab_ok(store_read(l->s, e, values));
        for (int64_t k = 0; k < n; k++) {
            const double before = values[k];
            values[k] = before + h;
            graphlab_ok(store_write(l->s, e, values));
            const double above = run_loss(l, m, loss);
            values[k] = before - h;
            graphlab_ok(store_write(l->s, e, values));
            *out++ = (above - run_loss(l, m, loss)) / (2 * h);
            values[k] = before;
        }
        graphlab_ok(store_write(l->s, e, values));
    }
}

static void check_model(const model *m) {
    graphlab l;
    double grad[MAX_GRAD], again[MAX_GRAD], numeric[MAX_GRAD], scale = 0;
    prepare(&l, m);
    const int64_t n = run_backward(&l, m, 0, grad);
    assert_int_equal(run_backward(&l, m, 1, again), n);
    assert_memory_equal(grad, again, (size_t)n * sizeof *grad);
    assert_int_equal(run_backward(&l, m, RECOMPUTE_SELECTIVE, again), n);
    assert_memory_equal(grad, again, (size_t)n * sizeof *grad);
    differences(&l, m, numeric);
    for (int64_t i = 0; i < n; i++) scale = fmax(scale, fabs(numeric[i]));
    assert_true(scale > 1e-3);
    for (int64_t i = 0; i < n; i++)
        if (!(fabs(grad[i] - numeric[i]) < 1e-7 * scale))
            fail_msg("gradient %d is %.12g, differences give %.12g", (int)i, grad[i], numeric[i]);
    graphlab_close(&l);
}

static qfw_status input_2d(
    graphlab *l, const char *name, uint32_t dtype, int64_t dim0, int64_t dim1, qfw_val *out) {
    const int64_t dim[2] = {dim0, dim1};
    return l->g->pub.api->input(&l->g->pub, name, dtype, dim1 ? 2 : 1, dim, out);
}

static void write_numbers(graphlab *l, const char *name, int64_t n) {
    double values[256];
    for (int64_t i = 0; i < n; i++) values[i] = graphlab_number(100, (uint64_t)i);
    graphlab_ok(exec_write(l->e, name, values, (uint64_t)n * sizeof *values));
}

/* --- two layers that share a weight, which is read a third time through a view --- */

static void declare_mlp(graphlab *l) {
    graphlab_entry(l, "w1", QFW_F64, 6, 6);
    graphlab_entry(l, "w2", QFW_F64, 3, 6);
    graphlab_entry(l, "bias", QFW_F64, 6, 0);
}

static qfw_status forward_mlp(graphlab *l, qfw_val *loss) {
    qfw_graph *g = &l->g->pub;
    const int64_t row[2] = {1, 6}, step[2] = {6, 1};
    qfw_val x, y, v, squares, sum;
    const qfw_val w1 = graphlab_val(l, "w1"), w2 = graphlab_val(l, "w2");
    QFW_TRY(input_2d(l, "x", QFW_F64, 5, 6, &x));
    QFW_TRY(g->api->segment(g, "a"));
    QFW_TRY(g->api->linear(g, x, w1, &y));
    QFW_TRY(qfw_binary(g, QFW_ADD, y, graphlab_val(l, "bias"), &y));
    QFW_TRY(qfw_unary(g, QFW_SIGMOID, y, &y));
    QFW_TRY(g->api->segment(g, "b"));
    QFW_TRY(qfw_gemm(g, y, 0, y, 1, 0.5f, &squares)); /* y twice, with what the others gave */
    QFW_TRY(g->api->linear(g, y, w1, &x));
    QFW_TRY(qfw_binary(g, QFW_MUL, x, y, &x)); /* y is read by two */
    QFW_TRY(qfw_binary(g, QFW_ADD, x, x, &x)); /* the same value twice in one op */
    QFW_TRY(g->api->segment(g, "c"));
    QFW_TRY(g->api->view(g, w1, 2, row, step, 12, &v));
    QFW_TRY(qfw_binary(g, QFW_MUL, x, v, &x));
    QFW_TRY(g->api->linear(g, x, w2, &y));
    QFW_TRY(qfw_reduce_all(g, QFW_SUMSQ, squares, &sum));
    QFW_TRY(qfw_reduce_all(g, QFW_SUMSQ, y, loss));
    return qfw_binary(g, QFW_ADD, sum, *loss, loss);
}

static void write_mlp(graphlab *l) { write_numbers(l, "x", 30); }

static void test_mlp(void **state) {
    const model m = {declare_mlp, forward_mlp, write_mlp};
    (void)state;
    check_model(&m);
}

/* --- transformer blocks: adapters with dropout, views of qkv and gate_up, a tied embedding --- */

enum { N = 6, C = 8, F = 6, V = 11, HEADS = 2, KV = 1, D = 4, LAYERS = 3, ROT = 2 };

static lora adapters[2 * LAYERS];
static char module_names[2 * LAYERS][32], param_names[LAYERS][32];

static void declare_block(graphlab *l, int layer) {
    char name[32];
    snprintf(name, sizeof name, "norm%d", layer);
    graphlab_entry(l, name, QFW_F64, C, 0);
    snprintf(param_names[layer], sizeof param_names[layer], "%d.qkv", layer);
    graphlab_entry(l, param_names[layer], QFW_F64, (HEADS + 2 * KV) * D, C);
    snprintf(name, sizeof name, "o%d", layer);
    graphlab_entry(l, name, QFW_F64, C, HEADS * D);
    snprintf(name, sizeof name, "gate_up%d", layer);
    graphlab_entry(l, name, QFW_F64, 2 * F, C);
    snprintf(name, sizeof name, "down%d", layer);
    graphlab_entry(l, name, QFW_F64, C, F);
    for (int k = 0; k < 2; k++) { /* of q and of v */
        lora *a = &adapters[2 * layer + k];
        snprintf(module_names[2 * layer + k], 32, "%d.%c_proj", layer, k ? 'v' : 'q');
        *a = (lora){.param = param_names[layer], .module = module_names[2 * layer + k]};
        a->row0 = k ? (HEADS + KV) * D : 0;
        a->rows = k ? KV * D : HEADS * D;
        a->scale = 0.5f;
        a->dropout = 0.25f;
        a->which = QFW_ADAPTER_POLICY;
        snprintf(name, sizeof name, "A%d%d", layer, k);
        a->a = graphlab_entry(l, name, QFW_F64, 2, C);
        name[0] = 'B';
        a->b = graphlab_entry(l, name, QFW_F64, a->rows, 2);
    }
}

static void declare_blocks(graphlab *l) {
    graphlab_entry(l, "table", QFW_F64, V, C);
    for (int layer = 0; layer < LAYERS; layer++) declare_block(l, layer);
    l->env.loras = adapters;
    l->env.n_loras = 2 * LAYERS;
    l->env.seed = 7;
}

static qfw_status columns(
    graphlab *l, qfw_val v, int64_t width, int64_t first, int64_t count, qfw_val *out) {
    const int64_t dim[2] = {N, count}, stride[2] = {width, 1};
    return l->g->pub.api->view(&l->g->pub, v, 2, dim, stride, first, out);
}

static qfw_val weight(graphlab *l, const char *format, int layer) {
    char name[32];
    snprintf(name, sizeof name, "%s%d", format, layer);
    return graphlab_val(l, name);
}

static qfw_status forward_attention(graphlab *l, int layer, qfw_val x, qfw_val *out) {
    qfw_graph *g = &l->g->pub;
    const qfw_attn_params p = {sizeof p, 0.5f, HEADS, KV, D, 0};
    const int64_t width = (HEADS + 2 * KV) * D;
    qfw_val cos, sin, segments, qkv, q, k, v, o;
    QFW_TRY(input_2d(l, "cos", QFW_F64, N, ROT / 2, &cos));
    QFW_TRY(input_2d(l, "sin", QFW_F64, N, ROT / 2, &sin));
    QFW_TRY(input_2d(l, "segments", QFW_I32, 2, 5, &segments));
    QFW_TRY(g->api->linear(g, x, graphlab_val(l, param_names[layer]), &qkv));
    QFW_TRY(qfw_rope(g, qkv, cos, sin, D, ROT, HEADS + KV, &qkv));
    QFW_TRY(columns(l, qkv, width, 0, HEADS * D, &q));
    QFW_TRY(columns(l, qkv, width, HEADS * D, KV * D, &k));
    QFW_TRY(columns(l, qkv, width, (HEADS + KV) * D, KV * D, &v));
    QFW_TRY(qfw_attn(g, q, k, v, segments, &p, &o));
    return g->api->linear(g, o, weight(l, "o", layer), out);
}

static qfw_status forward_block(graphlab *l, int layer, qfw_val *x) {
    qfw_graph *g = &l->g->pub;
    qfw_val y, gate, up;
    const qfw_val norm = weight(l, "norm", layer);
    QFW_TRY(qfw_rmsnorm(g, *x, norm, 1e-5f, &y));
    QFW_TRY(forward_attention(l, layer, y, &y));
    QFW_TRY(qfw_binary(g, QFW_ADD, *x, y, x));
    QFW_TRY(qfw_rmsnorm(g, *x, norm, 1e-5f, &y));
    QFW_TRY(g->api->linear(g, y, weight(l, "gate_up", layer), &y));
    QFW_TRY(columns(l, y, 2 * F, 0, F, &gate));
    QFW_TRY(columns(l, y, 2 * F, F, F, &up));
    QFW_TRY(qfw_swiglu(g, gate, up, &y));
    QFW_TRY(g->api->linear(g, y, weight(l, "down", layer), &y));
    return qfw_binary(g, QFW_ADD, *x, y, x);
}

static qfw_status forward_blocks(graphlab *l, qfw_val *loss) {
    qfw_graph *g = &l->g->pub;
    qfw_logprob_vals lp;
    qfw_val tokens, labels, x, coef;
    const qfw_val table = graphlab_val(l, "table");
    QFW_TRY(input_2d(l, "tokens", QFW_I32, N, 0, &tokens));
    QFW_TRY(input_2d(l, "labels", QFW_I32, N, 0, &labels));
    QFW_TRY(input_2d(l, "coef", QFW_F64, N, 0, &coef));
    QFW_TRY(qfw_embed(g, table, tokens, &x));
    for (int layer = 0; layer < LAYERS; layer++) {
        QFW_TRY(g->api->segment(g, param_names[layer]));
        QFW_TRY(forward_block(l, layer, &x));
    }
    QFW_TRY(g->api->segment(g, "head"));
    QFW_TRY(qfw_token_logprob(g, x, table, labels, 0, &lp));
    QFW_TRY(qfw_binary(g, QFW_MUL, lp.logp, coef, &x));
    return qfw_reduce_all(g, QFW_SUM, x, loss);
}

static void write_blocks(graphlab *l) {
    const int32_t tokens[N] = {3, 1, 4, 1, 5, 9}, labels[N] = {1, 4, QFW_IGNORE_LABEL, 5, 9, 2};
    const int32_t segments[2][5] = {{0, 3, 0, 0, 0}, {3, 6, 0, 0, 3}};
    int32_t keys[N][2];
    for (int i = 0; i < N; i++) {
        keys[i][0] = i / 3;
        keys[i][1] = i % 3;
    }
    graphlab_ok(exec_write(l->e, "tokens", tokens, sizeof tokens));
    graphlab_ok(exec_write(l->e, "labels", labels, sizeof labels));
    graphlab_ok(exec_write(l->e, "segments", segments, sizeof segments));
    graphlab_ok(exec_write(l->e, "row_key", keys, sizeof keys));
    write_numbers(l, "cos", N * ROT / 2);
    write_numbers(l, "sin", N * ROT / 2);
    write_numbers(l, "coef", N);
}

static const model blocks = {declare_blocks, forward_blocks, write_blocks};

static void test_blocks(void **state) {
    (void)state;
    check_model(&blocks);
}

/* --- what recomputation emits --- */

/* Nodes of a phase in the graph, and in the plan (which has no dead ones). */
static size_t count_phase(const graph *g, uint32_t phase, const char *op) {
    size_t n = 0;
    for (size_t k = 0; k < g->n_nodes; k++)
        n += g->nodes[k].phase == phase && (!op || !strcmp(g->nodes[k].def->name, op));
    return n;
}

static size_t count_planned(const graphlab *l, uint32_t phase, const char *op) {
    exec_profile_row row;
    size_t n = 0;
    for (uint32_t i = 0; exec_profile_at(l->e, i, &row); i++)
        n += row.phase == phase && !strcmp(row.op, op);
    return n;
}

static void test_recompute(void **state) {
    graphlab l;
    double *grad = mem_alloc(MAX_GRAD, sizeof *grad);
    (void)state;
    assert_non_null(grad);
    prepare(&l, &blocks);
    run_backward(&l, &blocks, 0, grad);
    assert_int_equal(count_phase(l.g, PHASE_RECOMPUTE, NULL), 0);
    const uint64_t saved = l.p->saved_bytes, peak = l.p->step_bytes;
    run_backward(&l, &blocks, 1, grad);
    /* the head is the last segment: it is not run again; each layer is, without its last sum and
     * the product in front of it, which no gradient reads */
    assert_int_equal(count_planned(&l, PHASE_RECOMPUTE, "token_logprob"), 0);
    assert_int_equal(count_planned(&l, PHASE_RECOMPUTE, "attn"), LAYERS);
    assert_int_equal(count_planned(&l, PHASE_RECOMPUTE, "swiglu"), LAYERS);
    assert_int_equal(count_planned(&l, PHASE_RECOMPUTE, "binary"), LAYERS);
    assert_int_equal(count_planned(&l, PHASE_RECOMPUTE, "gemm"), 3 * LAYERS);
    assert_int_equal(count_planned(&l, PHASE_RECOMPUTE, "embed"), 0);
    assert_true(l.p->saved_bytes < saved / 2);
    assert_true(l.p->step_bytes < peak);
    graphlab_close(&l);
    mem_free(grad);
}

/* Products and attention are kept, but for the widest of a layer: gate and up. */
static void test_selective(void **state) {
    graphlab l;
    double *grad = mem_alloc(MAX_GRAD, sizeof *grad);
    (void)state;
    assert_non_null(grad);
    prepare(&l, &blocks);
    run_backward(&l, &blocks, RECOMPUTE_NONE, grad);
    const uint64_t all = l.p->saved_bytes;
    run_backward(&l, &blocks, RECOMPUTE_FULL, grad);
    const uint64_t least = l.p->saved_bytes;
    run_backward(&l, &blocks, RECOMPUTE_SELECTIVE, grad);
    assert_int_equal(count_planned(&l, PHASE_RECOMPUTE, "attn"), 0);
    assert_int_equal(count_planned(&l, PHASE_RECOMPUTE, "gemm"), LAYERS);
    assert_int_equal(count_planned(&l, PHASE_RECOMPUTE, "swiglu"), LAYERS);
    assert_int_equal(count_planned(&l, PHASE_RECOMPUTE, "binary"), 0); /* the sum is what is kept */
    assert_true(least < l.p->saved_bytes && l.p->saved_bytes < all);
    graphlab_close(&l);
    mem_free(grad);
}

/* A value that the next segment reads is kept, and read again where it is, not made again. */
static void test_kept_between(void **state) {
    const model m = {declare_mlp, forward_mlp, write_mlp};
    graphlab l;
    double grad[MAX_GRAD];
    (void)state;
    prepare(&l, &m);
    run_backward(&l, &m, 1, grad);
    assert_int_equal(count_phase(l.g, PHASE_RECOMPUTE, "unary"), 0);
    assert_int_equal(count_planned(&l, PHASE_RECOMPUTE, "gemm"), 1); /* b's, not a's */
    graphlab_close(&l);
}

/* --- what is asked for and what is not --- */

static void test_only_what_is_asked(void **state) {
    graphlab l;
    qfw_val loss, grads[3];
    (void)state;
    prepare(&l, &(const model){declare_mlp, forward_mlp, write_mlp});
    graphlab_ok(forward_mlp(&l, &loss));
    const qfw_val wrt[3] = {graphlab_val(&l, "w2"), loss, graphlab_val(&l, "w2")};
    const size_t forward = l.g->n_nodes;
    graphlab_ok(graph_backward(l.g, loss, wrt, 3, 0, grads));
    assert_int_not_equal(grads[0], 0);
    assert_int_equal(grads[0], grads[2]);
    assert_string_equal(l.g->nodes[graph_get(l.g, grads[1])->node].def->name, "fill");
    /* one product and what stands between it and the loss; nothing of w1's */
    assert_true(l.g->n_nodes - forward <= 5);
    graphlab_close(&l);
}

static void test_refusals(void **state) {
    graphlab l;
    qfw_val loss, grad = 9, x;
    (void)state;
    prepare(&l, &(const model){declare_mlp, forward_mlp, write_mlp});
    graphlab_ok(forward_mlp(&l, &loss));
    const qfw_val w = graphlab_val(&l, "w2");
    assert_int_equal(graph_backward(l.g, w, &w, 1, 0, &grad), QFW_E_SHAPE);
    assert_int_equal(grad, 0);
    x = 4000;
    assert_int_equal(graph_backward(l.g, loss, &x, 1, 0, &grad), QFW_E_INVALID);
    assert_int_equal(graph_backward(l.g, 0, &w, 1, 0, &grad), QFW_E_INVALID);
    err_clear();
    graphlab_close(&l);
}

/* A gradient that never arrives is 0, not a fault. */
static void test_no_path(void **state) {
    graphlab l;
    qfw_val loss, grads[2], x;
    (void)state;
    graphlab_open(&l, test_device_native);
    graphlab_entry(&l, "used", QFW_F32, 3, 0);
    graphlab_entry(&l, "unused", QFW_F32, 3, 0);
    const qfw_val wrt[2] = {graphlab_val(&l, "used"), graphlab_val(&l, "unused")};
    graphlab_ok(qfw_unary(&l.g->pub, QFW_EXP, wrt[0], &x));
    graphlab_ok(qfw_reduce_all(&l.g->pub, QFW_SUM, x, &loss));
    graphlab_ok(graph_backward(l.g, loss, wrt, 2, 1, grads));
    assert_int_not_equal(grads[0], 0);
    assert_int_equal(grads[1], 0);
    graphlab_close(&l);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_mlp),
        cmocka_unit_test(test_blocks),
        cmocka_unit_test(test_recompute),
        cmocka_unit_test(test_selective),
        cmocka_unit_test(test_kept_between),
        cmocka_unit_test(test_only_what_is_asked),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_no_path),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
