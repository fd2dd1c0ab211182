/* test_graph.c -- the graph service: what it emits, what it refuses, and how it says so. */
#include "../support/graphlab.h"
#include "base/error.h"
#include "base/mem.h"
#include "base/rng.h"

#include "../support/test.h"

static const int64_t rows_cols[2] = {4, 64};

static qfw_val input(graphlab *l, const char *name, int64_t dim0, int64_t dim1) {
    const int64_t dim[2] = {dim0, dim1};
    qfw_val v;
    graphlab_ok(l->g->pub.api->input(&l->g->pub, name, QFW_F32, 2, dim, &v));
    return v;
}

static void check_message(const char *text) {
    if (!err_count() || !strstr(err_text(0), text))
        fail_msg("\"%s\" is not in: %s", text, err_count() ? err_text(0) : "no message");
    err_clear();
}

static void test_names(void **state) {
    graphlab l;
    qfw_val x, y;
    const int64_t other[2] = {4, 65};
    (void)state;
    graphlab_open(&l, test_device_native);
    qfw_graph *g = &l.g->pub;
    store_entry *e = graphlab_entry(&l, "w", QFW_F32, 64, 64);
    x = input(&l, "x", 4, 64);
    assert_int_equal(input(&l, "x", 4, 64), x);
    assert_int_not_equal(input(&l, "y", 4, 64), x);
    assert_int_equal(g->api->input(g, "x", QFW_F32, 2, other, &y), QFW_E_SHAPE);
    assert_int_equal(y, 0);
    check_message("'x' is f32 [4, 65], but was f32 [4, 64] before");
    assert_int_equal(g->api->input(g, "packed", QFW_NF4, 2, other, &y), QFW_E_DTYPE);
    check_message("'packed' is nf4");
    assert_int_equal(g->api->param(g, "nobody", &y), QFW_E_INVALID);
    check_message("'nobody'");
    graphlab_ok(g->api->param(g, "w", &x));
    graphlab_ok(graph_store_value(l.g, e, &y));
    assert_int_equal(x, y);
    assert_ptr_equal(graph_get(l.g, x)->entry, e);
    uint32_t dtype, rank;
    int64_t dim[QFW_MAX_DIMS];
    graphlab_ok(g->api->shape(g, x, &dtype, &rank, dim));
    assert_true(dtype == QFW_F32 && rank == 2 && dim[0] == 64 && dim[1] == 64 && dim[2] == 1);
    assert_int_equal(g->api->shape(g, 99, &dtype, &rank, dim), QFW_E_INVALID);
    check_message("value 99");
    assert_ptr_equal(g->api->host(g), l.device.dev.host);
    graphlab_close(&l);
}

static void test_states(void **state) {
    graphlab l;
    qfw_val s, again, x, w;
    (void)state;
    graphlab_open(&l, test_device_native);
    qfw_graph *g = &l.g->pub;
    graphlab_packed(&l, "w", 64, 64);
    graphlab_ok(g->api->state(g, "s", QFW_F32, 2, rows_cols, &s));
    graphlab_ok(g->api->state(g, "s", QFW_F32, 2, rows_cols, &again));
    assert_int_equal(s, again);
    assert_non_null(store_find(l.s, "s"));
    assert_int_equal(store_find(l.s, "s")->usage, QFW_MEM_RUN);
    assert_int_equal(g->api->state(g, "s", QFW_F32, 1, rows_cols, &again), QFW_E_SHAPE);
    assert_int_equal(again, 0);
    check_message("'s' is f32 [4], but was f32 [4, 64] before");
    x = input(&l, "x", 4, 64);
    graphlab_ok(g->api->param(g, "w", &w));
    assert_int_equal(g->api->assign(g, x, s), QFW_E_INVALID);
    check_message("not a state");
    assert_int_equal(g->api->assign(g, w, s), QFW_E_INVALID);
    check_message("not a state");
    assert_int_equal(g->api->assign(g, s, w), QFW_E_SHAPE);
    check_message("'s'");
    graphlab_ok(g->api->assign(g, s, x));
    assert_int_equal(g->api->assign(g, s, x), QFW_E_INVALID);
    check_message("twice");
    assert_int_equal(l.g->n_assigns, 1);
    graphlab_close(&l);
}

static void test_metrics(void **state) {
    graphlab l;
    qfw_val one;
    const int64_t dim[1] = {1};
    (void)state;
    graphlab_open(&l, test_device_native);
    qfw_graph *g = &l.g->pub;
    const qfw_val x = input(&l, "x", 4, 64);
    graphlab_ok(g->api->input(g, "one", QFW_F32, 1, dim, &one));
    assert_int_equal(g->api->metric(g, "m", x, 0), QFW_E_SHAPE);
    check_message("the value of 'm' is f32 [4, 64]");
    assert_int_equal(g->api->metric(g, "m", one, x), QFW_E_SHAPE);
    check_message("the weight of 'm'");
    graphlab_ok(g->api->metric(g, "m", one, 0));
    graphlab_ok(g->api->metric(g, "n", one, one));
    assert_int_equal(l.g->n_metrics, 2);
    assert_string_equal(l.g->metrics[1].name, "n");
    assert_int_equal(l.g->metrics[1].weight, one);
    graphlab_close(&l);
}

static void test_views(void **state) {
    graphlab l;
    qfw_val v, w, bad;
    const int64_t dim[2] = {4, 16}, stride[2] = {64, 1}, corner[2] = {2, 3}, steps[2] = {128, 4};
    const int64_t none[2] = {0, 16}, back[2] = {64, -1};
    (void)state;
    graphlab_open(&l, test_device_native);
    qfw_graph *g = &l.g->pub;
    const qfw_val x = input(&l, "x", 4, 64);
    graphlab_ok(g->api->view(g, x, 2, dim, stride, 48, &v));
    graphlab_ok(g->api->view(g, v, 2, corner, steps, 64 + 1, &w)); /* rows 1 and 3 */
    assert_int_equal(graph_get(l.g, w)->base, x);
    assert_int_equal(graph_get(l.g, w)->offset, 48 + 64 + 1);
    assert_int_equal(graph_get(l.g, w)->stride[0], 128);
    assert_int_equal(g->api->view(g, x, 2, dim, stride, 49, &bad), QFW_E_SHAPE);
    assert_int_equal(bad, 0);
    check_message("view: [4, 16] with strides [64, 1] from value 49 reaches outside of [4, 64]");
    assert_int_equal(g->api->view(g, v, 2, dim, stride, 1, &bad), QFW_E_SHAPE);
    assert_int_equal(g->api->view(g, x, 2, dim, stride, -1, &bad), QFW_E_SHAPE);
    assert_int_equal(g->api->view(g, x, 2, dim, back, 48, &bad), QFW_E_SHAPE);
    graphlab_ok(g->api->view(g, x, 2, none, stride, 0, &v)); /* nothing lies anywhere */
    assert_int_equal(g->api->view(g, 77, 2, dim, stride, 0, &bad), QFW_E_INVALID);
    err_clear();
    graphlab_packed(&l, "w", 64, 64);
    assert_int_equal(g->api->view(g, graphlab_val(&l, "w"), 2, dim, stride, 0, &bad), QFW_E_DTYPE);
    err_clear();
    graphlab_close(&l);
}

static void test_ops(void **state) {
    graphlab l;
    qfw_val y, a[2];
    (void)state;
    graphlab_open(&l, test_device_native);
    qfw_graph *g = &l.g->pub;
    const qfw_val x = input(&l, "x", 4, 64), z = input(&l, "z", 5, 64);
    graphlab_ok(g->api->segment(g, "layers.3"));
    graphlab_ok(qfw_binary(g, QFW_ADD, x, x, &y));
    assert_int_equal(l.g->n_nodes, 1);
    assert_string_equal(l.g->nodes[0].label, "layers.3");
    assert_int_equal(l.g->nodes[0].segment, 1);
    assert_int_equal(graph_get(l.g, y)->node, 0);
    const size_t n_values = l.g->n_values;
    assert_int_equal(qfw_binary(g, QFW_ADD, x, z, &y), QFW_E_SHAPE);
    assert_int_equal(y, 0);
    check_message("layers.3: binary");
    assert_int_equal(qfw_binary(g, QFW_ADD, x, 1000, &y), QFW_E_INVALID);
    check_message("layers.3: binary: operand 1 is value 1000");
    a[0] = a[1] = 9;
    assert_int_equal(g->api->op(g, 999, a, 1, NULL, 0, NULL, a, 2), QFW_E_INVALID);
    assert_int_equal(a[0], 0);
    assert_int_equal(a[1], 0);
    err_clear();
    assert_int_equal(l.g->n_nodes, 1);
    assert_int_equal(l.g->n_values, n_values);
    graphlab_close(&l);
}

enum { N_LORAS = 4 };

/* Three slices of one packed weight, out of order, and one for the other adapter. */
static void open_adapters(graphlab *l, lora *loras) {
    graphlab_open(l, test_device_native);
    graphlab_packed(l, "model.layers.3.self_attn.qkv_proj.weight", 192, 64);
    graphlab_entry(l, "plain", QFW_F32, 192, 64);
    static const struct {
        const char *module;
        int64_t row0;
        uint32_t which;
    } rows[N_LORAS] = {{"v_proj", 128, QFW_ADAPTER_POLICY}, {"q_proj", 0, QFW_ADAPTER_POLICY},
        {"q_proj", 0, QFW_ADAPTER_REFERENCE}, {"k_proj", 64, QFW_ADAPTER_POLICY}};
    for (int i = 0; i < N_LORAS; i++) {
        char name[16];
        snprintf(name, sizeof name, "A%d", i);
        loras[i] = (lora){.param = "model.layers.3.self_attn.qkv_proj.weight",
            .module = rows[i].module,
            .row0 = rows[i].row0,
            .rows = 64,
            .scale = 2,
            .dropout = 0.25f,
            .which = rows[i].which};
        loras[i].a = graphlab_entry(l, name, QFW_F32, 8, 64);
        name[0] = 'B';
        loras[i].b = graphlab_entry(l, name, QFW_F32, 64, 8);
    }
    l->env.loras = loras;
    l->env.n_loras = N_LORAS;
    l->env.seed = 42;
}

static const qfw_lora_params *lora_at(const graphlab *l, size_t k, const lora *expected) {
    const graph_node *node = &l->g->nodes[k];
    assert_string_equal(node->def->name, "lora");
    assert_ptr_equal(graph_get(l->g, node->in[2])->entry, expected->a);
    assert_ptr_equal(graph_get(l->g, node->in[3])->entry, expected->b);
    return node->params;
}

static void test_linear(void **state) {
    graphlab l;
    lora loras[N_LORAS];
    qfw_val y;
    (void)state;
    open_adapters(&l, loras);
    qfw_graph *g = &l.g->pub;
    const qfw_val x = input(&l, "x", 4, 64);
    const qfw_val w = graphlab_val(&l, "model.layers.3.self_attn.qkv_proj.weight");
    graphlab_ok(g->api->segment(g, "layers.3"));
    graphlab_ok(g->api->linear(g, x, w, &y));
    assert_int_equal(l.g->n_nodes, 4);
    assert_string_equal(l.g->nodes[0].def->name, "qmatmul");
    assert_string_equal(l.g->nodes[0].label, "layers.3/qkv_proj");
    const qfw_lora_params *q = lora_at(&l, 1, &loras[1]), *v = lora_at(&l, 3, &loras[0]);
    lora_at(&l, 2, &loras[3]);
    assert_int_equal(q->col0, 0);
    assert_int_equal(v->col0, 128);
    assert_true(v->scale == 2.0f && v->p == 0.25f && v->seed == 42);
    assert_int_equal(v->module_hash, fnv1a32("v_proj"));
    assert_int_equal(l.g->nodes[1].in[0], l.g->nodes[0].out[0]);
    assert_int_equal(l.g->nodes[2].in[0], l.g->nodes[1].out[0]);
    assert_int_equal(l.g->nodes[3].in[1], x);
    assert_string_equal(graph_get(l.g, l.g->nodes[3].in[4])->name, "row_key");
    assert_int_equal(y, l.g->nodes[3].out[0]);
    assert_string_equal(l.g->label, "layers.3");
    graphlab_close(&l);
}

static void test_adapter_choice(void **state) {
    graphlab l;
    lora loras[N_LORAS];
    qfw_val y;
    (void)state;
    open_adapters(&l, loras);
    l.env.training = 0;
    qfw_graph *g = &l.g->pub;
    const qfw_val x = input(&l, "x", 4, 64);
    const qfw_val w = graphlab_val(&l, "model.layers.3.self_attn.qkv_proj.weight");
    graphlab_ok(g->api->adapter(g, QFW_ADAPTER_REFERENCE));
    graphlab_ok(g->api->linear(g, x, w, &y));
    assert_int_equal(l.g->n_nodes, 2);
    assert_true(lora_at(&l, 1, &loras[2])->p == 0.0f);
    assert_int_equal(l.g->nodes[1].in[4], 0); /* no dropout, no row_key */
    graphlab_ok(g->api->adapter(g, QFW_ADAPTER_NONE));
    graphlab_ok(g->api->linear(g, x, w, &y));
    assert_int_equal(l.g->n_nodes, 3);
    assert_int_equal(g->api->adapter(g, 3), QFW_E_INVALID);
    err_clear();
    graphlab_ok(g->api->linear(g, x, graphlab_val(&l, "plain"), &y));
    assert_string_equal(l.g->nodes[3].def->name, "gemm");
    assert_int_equal(((const qfw_gemm_params *)l.g->nodes[3].params)->trans_b, 1);
    assert_int_equal(g->api->linear(g, x, x, &y), QFW_E_INVALID);
    assert_int_equal(y, 0);
    check_message("linear: w is value");
    const qfw_val narrow = input(&l, "narrow", 4, 63);
    assert_int_equal(g->api->linear(g, narrow, w, &y), QFW_E_SHAPE);
    check_message("qkv_proj: qmatmul");
    graphlab_close(&l);
}

/* Whatever allocation fails, the call fails, the graph stays whole, and nothing leaks. */
static void test_out_of_memory(void **state) {
    qfw_status status = QFW_E_NOMEM;
    (void)state;
    for (uint64_t k = 1; status != QFW_OK; k++) {
        graphlab l;
        lora loras[N_LORAS];
        qfw_val y = 9;
        open_adapters(&l, loras);
        qfw_graph *g = &l.g->pub;
        const qfw_val x = input(&l, "x", 4, 64);
        const qfw_val w = graphlab_val(&l, "model.layers.3.self_attn.qkv_proj.weight");
        mem_fail_at(k);
        status = g->api->linear(g, x, w, &y);
        mem_fail_at(0);
        assert_int_equal(status == QFW_OK, y != 0);
        for (size_t n = 0; n < l.g->n_nodes; n++) assert_non_null(l.g->nodes[n].def);
        graphlab_close(&l);
        assert_true(k < 100);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_names),
        cmocka_unit_test(test_states),
        cmocka_unit_test(test_metrics),
        cmocka_unit_test(test_views),
        cmocka_unit_test(test_ops),
        cmocka_unit_test(test_linear),
        cmocka_unit_test(test_adapter_choice),
        cmocka_unit_test(test_out_of_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
