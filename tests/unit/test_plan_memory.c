/* test_plan_memory.c -- where a plan puts values: in place where it may, no byte too many, and
 * peaks as low as what lives at one time. */
#include "../support/graphlab.h"
#include "base/error.h"
#include "graph/program.h"

#include "../support/test.h"

enum { CELLS = 1024, BYTES = CELLS * sizeof(float) };
static const int64_t shape[1] = {CELLS};

static qfw_val input(graphlab *l) {
    qfw_val x;
    graphlab_ok(l->g->pub.api->input(&l->g->pub, "x", QFW_F32, 1, shape, &x));
    return x;
}

static qfw_val unary(graphlab *l, uint32_t kind, qfw_val x) {
    qfw_val y;
    graphlab_ok(qfw_unary(&l->g->pub, kind, x, &y));
    return y;
}

static qfw_val binary(graphlab *l, uint32_t kind, qfw_val a, qfw_val b) {
    qfw_val y;
    graphlab_ok(qfw_binary(&l->g->pub, kind, a, b, &y));
    return y;
}

static plan *make_plan(graphlab *l, qfw_val keep) {
    graphlab_ok(plan_create(l->g, &l->device.dev, FALLBACK_ALLOW, &keep, keep ? 1 : 0, &l->p));
    return l->p;
}

static void assign(graphlab *l, const char *name, qfw_val v) {
    graphlab_ok(l->g->pub.api->assign(&l->g->pub, graphlab_val(l, name), v));
}

static float first(uint64_t stream, uint64_t i) { return (float)graphlab_number(stream, i); }

/* --- memory --- */

static void test_in_place(void **state) {
    graphlab l;
    (void)state;
    graphlab_open(&l, test_device_native);
    qfw_val x = input(&l), y = x;
    for (int i = 0; i < 10; i++) y = unary(&l, QFW_NEG, y);
    assert_int_equal(make_plan(&l, y)->step_bytes, BYTES);
    assert_int_equal(l.p->input_bytes, BYTES);
    assert_int_equal(l.p->n_native, 10);
    graphlab_renew(&l);
    x = unary(&l, QFW_NEG, input(&l)); /* two read it: the first may not write over it */
    y = unary(&l, QFW_ABS, x);
    assert_int_equal(make_plan(&l, binary(&l, QFW_SUB, x, y))->step_bytes, 2 * BYTES);
    graphlab_renew(&l);
    x = unary(&l, QFW_NEG, input(&l)); /* kept: nobody may write over it */
    y = unary(&l, QFW_ABS, x);
    const qfw_val keep[2] = {x, y};
    graphlab_ok(plan_create(l.g, &l.device.dev, FALLBACK_ALLOW, keep, 2, &l.p));
    assert_int_equal(l.p->step_bytes, 2 * BYTES);
    graphlab_renew(&l);
    x = unary(&l, QFW_NEG, input(&l)); /* the same memory twice: in place with both is with none */
    assert_int_equal(make_plan(&l, binary(&l, QFW_SUB, x, x))->step_bytes, 2 * BYTES);
    graphlab_close(&l);
}

/* A value lives as long as any view of it. */
static void test_views_hold(void **state) {
    graphlab l;
    const int64_t half[1] = {CELLS / 2}, step[1] = {1};
    qfw_val v;
    (void)state;
    graphlab_open(&l, test_device_native);
    const qfw_val x = unary(&l, QFW_NEG, input(&l));
    graphlab_ok(l.g->pub.api->view(&l.g->pub, x, 1, half, step, CELLS / 2, &v));
    const qfw_val y = unary(&l, QFW_ABS, x), z = unary(&l, QFW_EXP, y);
    qfw_val first;
    graphlab_ok(l.g->pub.api->view(&l.g->pub, z, 1, half, step, 0, &first));
    const qfw_val sum = binary(&l, QFW_ADD, first, v);
    /* x and y, and the sum of the halves */
    assert_int_equal(make_plan(&l, sum)->step_bytes, 2 * BYTES + BYTES / 2);
    graphlab_close(&l);
}

/* A chain of different sizes needs its two largest neighbours, in whatever order they come. */
static void test_reuse(void **state) {
    graphlab l;
    (void)state;
    graphlab_open(&l, test_device_native);
    const int64_t sizes[5] = {100, 900, 300, 700, 200};
    qfw_val index, v;
    graphlab_ok(l.g->pub.api->input(&l.g->pub, "x", QFW_F32, 1, &sizes[0], &v));
    for (int i = 1; i < 5; i++) {
        char name[8] = "i0";
        name[1] = (char)('0' + i);
        graphlab_ok(l.g->pub.api->input(&l.g->pub, name, QFW_I32, 1, &sizes[i], &index));
        graphlab_ok(qfw_gather_rows(&l.g->pub, v, index, &v));
    }
    const uint64_t aligned[4] = {3840, 1280, 2816, 1024}; /* of 900, 300, 700, 200 floats */
    assert_int_equal(make_plan(&l, v)->step_bytes, aligned[0] + aligned[1]);
    graphlab_close(&l);
}

static void test_workspace(void **state) {
    graphlab l;
    (void)state;
    graphlab_open(&l, test_device_native);
    l.device.workspace = 1000;
    assert_int_equal(make_plan(&l, unary(&l, QFW_NEG, input(&l)))->workspace_bytes, 1024);
    assert_int_equal(l.p->step_bytes, BYTES + 1024);
    graphlab_renew(&l);
    l.device.native[QFW_OP_UNARY] = 0; /* the reference takes its scratch elsewhere */
    assert_int_equal(make_plan(&l, unary(&l, QFW_NEG, input(&l)))->workspace_bytes, 0);
    graphlab_close(&l);
}

static void test_too_large(void **state) {
    graphlab l;
    plan *p;
    (void)state;
    graphlab_open(&l, test_device_native);
    l.device.dev.info.max_alloc_bytes = BYTES - 256;
    const qfw_val y = unary(&l, QFW_NEG, input(&l));
    assert_int_equal(plan_create(l.g, &l.device.dev, FALLBACK_ALLOW, &y, 1, &p), QFW_E_DEVICE_OOM);
    assert_null(p);
    assert_non_null(strstr(err_text(0), "4096"));
    err_clear();
    graphlab_close(&l);
}

/* Sums of gradients, all emitted after the backward: each runs as soon as its gradient is there, so
 * that six gradients do not live at the same time. */
static void test_hoist(void **state) {
    enum { PARAMS = 6 };
    graphlab l;
    qfw_val loss = 0, wrt[PARAMS], grads[PARAMS], v;
    char name[16];
    (void)state;
    graphlab_open(&l, test_device_native);
    for (int i = 0; i < 2 * PARAMS; i++) {
        snprintf(name, sizeof name, "%s%d", i < PARAMS ? "w" : "sum", i % PARAMS);
        graphlab_entry(&l, name, QFW_F32, CELLS, 0);
    }
    graphlab_fill(&l);
    for (int i = 0; i < PARAMS; i++) {
        snprintf(name, sizeof name, "w%d", i);
        wrt[i] = graphlab_val(&l, name);
        graphlab_ok(qfw_scale(&l.g->pub, wrt[i], (float)i + 0.5f, 0, &v));
        graphlab_ok(qfw_reduce_all(&l.g->pub, QFW_SUM, v, &v));
        loss = i ? binary(&l, QFW_ADD, loss, v) : v;
    }
    graphlab_ok(graph_backward(l.g, loss, wrt, PARAMS, 0, grads));
    for (int i = 0; i < PARAMS; i++) {
        snprintf(name, sizeof name, "sum%d", i);
        assign(&l, name, binary(&l, QFW_ADD, graphlab_val(&l, name), grads[i]));
    }
    graphlab_build(&l, &loss, 1);
    assert_true(l.p->step_bytes < 3 * BYTES);
    graphlab_ok(exec_run(l.e));
    for (int i = 0; i < PARAMS; i++) {
        double sum[CELLS];
        snprintf(name, sizeof name, "sum%d", i);
        graphlab_read(&l, graphlab_val(&l, name), sum, CELLS);
        const float grad = (float)i + 0.5f;
        for (uint64_t k = 0; k < CELLS; k++)
            assert_true(
                sum[k] == (double)(float)((double)first((uint64_t)(PARAMS + i), k) + (double)grad));
    }
    graphlab_close(&l);
}

/* --- a block of a transformer, planned but not run --- */

enum { N = 512, WIDTH = 256, FFN = 704, LAYERS = 6 };

static void declare_layer(graphlab *l, int layer) {
    static const struct {
        const char *name;
        int64_t rows, cols;
    } weights[4] = {{"qkv", 3 * WIDTH, WIDTH}, {"o", WIDTH, WIDTH}, {"gate_up", 2 * FFN, WIDTH},
        {"down", WIDTH, FFN}};
    char name[16];
    for (int i = 0; i < 4; i++) {
        snprintf(name, sizeof name, "%s%d", weights[i].name, layer & 7);
        graphlab_entry(l, name, QFW_F32, weights[i].rows, weights[i].cols);
    }
}

static qfw_val weight(graphlab *l, const char *which, int layer) {
    char name[16];
    snprintf(name, sizeof name, "%s%d", which, layer & 7);
    return graphlab_val(l, name);
}

static void emit_layer(graphlab *l, int layer, qfw_val segments, qfw_val *x) {
    qfw_graph *g = &l->g->pub;
    const qfw_attn_params p = {sizeof p, 0.125f, 4, 4, WIDTH / 4, 0};
    qfw_val y;
    graphlab_ok(g->api->segment(g, "layer"));
    graphlab_ok(qfw_rmsnorm(g, *x, graphlab_val(l, "norm"), 1e-5f, &y));
    graphlab_ok(g->api->linear(g, y, weight(l, "qkv", layer), &y));
    graphlab_ok(qfw_attn(g, y, 0, 0, segments, &p, &y));
    graphlab_ok(g->api->linear(g, y, weight(l, "o", layer), &y));
    *x = binary(l, QFW_ADD, *x, y);
    graphlab_ok(qfw_rmsnorm(g, *x, graphlab_val(l, "norm"), 1e-5f, &y));
    graphlab_ok(g->api->linear(g, y, weight(l, "gate_up", layer), &y));
    graphlab_ok(qfw_swiglu(g, y, 0, &y));
    graphlab_ok(g->api->linear(g, y, weight(l, "down", layer), &y));
    *x = binary(l, QFW_ADD, *x, y);
}

static void plan_layers(graphlab *l, uint32_t recompute) {
    const int64_t dim[2] = {N, WIDTH}, seg[2] = {2, 5};
    qfw_graph *g = &l->g->pub;
    qfw_val x, segments, loss, grad;
    graphlab_ok(g->api->input(g, "x", QFW_F32, 2, dim, &x));
    graphlab_ok(g->api->input(g, "segments", QFW_I32, 2, seg, &segments));
    for (int layer = 0; layer < LAYERS; layer++) emit_layer(l, layer, segments, &x);
    graphlab_ok(g->api->segment(g, "head"));
    graphlab_ok(qfw_reduce_all(g, QFW_SUMSQ, x, &loss));
    const qfw_val w = weight(l, "qkv", 0);
    graphlab_ok(graph_backward(l->g, loss, &w, 1, recompute, &grad));
    make_plan(l, grad);
}

/* The most that lives at one step, what follows in place counted once. */
static uint64_t floor_of(const plan *p) {
    const plan_steps *s = p->steps;
    const graph *g = s->g;
    uint64_t most = 0;
    for (size_t t = 0; t < s->n_steps; t++) {
        uint64_t bytes = 0;
        for (qfw_val v = 1; v <= g->n_values; v++) {
            const plan_place *place = &s->values[v].place[SIDE_DEVICE];
            size_t begin = g->values[v].node, end = s->values[v].root ? s->n_steps : begin;
            int follows = 0;
            if (g->values[v].kind != VALUE_OP || place->at != AT_ARENA) continue;
            for (size_t k = begin; k < s->n_steps; k++)
                for (int i = 0; i < QFW_MAX_IN; i++)
                    if (g->nodes[k].in[i] == v && end < k) end = k;
            for (int o = 0; o < QFW_MAX_OUT && end == t && begin != t && end < s->n_steps; o++) {
                const qfw_val out = g->nodes[t].out[o];
                follows |= out && s->values[out].place[SIDE_DEVICE].offset == place->offset;
            }
            if (begin <= t && t <= end && !follows)
                bytes += plan_aligned(plan_bytes(&g->values[v]));
        }
        if (most < bytes) most = bytes;
    }
    return most;
}

/* Nothing is lost to gaps, and recomputation keeps one value a layer. */
static void test_peak(void **state) {
    graphlab l;
    (void)state;
    graphlab_open(&l, test_device_native);
    graphlab_entry(&l, "norm", QFW_F32, WIDTH, 0);
    for (int layer = 0; layer < LAYERS; layer++) declare_layer(&l, layer);
    const uint64_t row = N * WIDTH * sizeof(float), ffn = (uint64_t)N * FFN * sizeof(float);
    plan_layers(&l, 0);
    assert_int_equal(
        l.p->n_native, l.p->steps->n_steps); /* a step is a node: floor_of relies on it */
    assert_true((double)l.p->step_bytes <= 1.01 * (double)floor_of(l.p));
    const uint64_t all = l.p->step_bytes;
    graphlab_renew(&l);
    plan_layers(&l, 1);
    assert_true((double)l.p->step_bytes <= 1.02 * (double)floor_of(l.p));
    assert_true(l.p->saved_bytes < (LAYERS + 1) * row + row / 8);
    /* the layers' inputs, and one layer's own: norms, qkv, o, the sum, gate_up, mid, gradients */
    assert_true(l.p->step_bytes < (LAYERS + 10) * row + 4 * ffn);
    assert_true(l.p->step_bytes < all * 2 / 3);
    graphlab_close(&l);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_in_place),
        cmocka_unit_test(test_views_hold),
        cmocka_unit_test(test_reuse),
        cmocka_unit_test(test_workspace),
        cmocka_unit_test(test_too_large),
        cmocka_unit_test(test_hoist),
        cmocka_unit_test(test_peak),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
