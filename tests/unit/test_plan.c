/* test_plan.c -- what a plan decides: who runs each op, what is dropped, where assigned values are
 * made, and what is said when the device cannot run an op. */
#include "../support/graphlab.h"
#include "base/error.h"
#include "base/mem.h"
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

static uint32_t count_ops(const plan *p, const char *name) {
    const graph *g = p->steps->g;
    uint32_t n = 0;
    for (size_t k = 0; k < g->n_nodes; k++) n += !strcmp(g->nodes[k].def->name, name);
    return n;
}

/* --- what is dropped --- */

static void test_dead(void **state) {
    graphlab l;
    (void)state;
    graphlab_open(&l, test_device_native);
    const qfw_val x = input(&l), y = unary(&l, QFW_NEG, x);
    unary(&l, QFW_EXP, unary(&l, QFW_ABS, y));
    assert_int_equal(make_plan(&l, y)->n_native, 1);
    assert_int_equal(l.p->steps->g->n_nodes, 1);
    assert_int_equal(l.p->placement[QFW_OP_UNARY].native, 1);
    plan_destroy(l.p);
    assert_int_equal(make_plan(&l, 0)->n_native, 0);
    assert_int_equal(l.p->step_bytes, 0);
    graphlab_close(&l);
}

/* Metrics and assigned values are alive without being kept; optional outputs that nobody reads are
 * not asked for. */
static void test_alive(void **state) {
    graphlab l;
    qfw_logprob_vals lp;
    const int64_t n[1] = {4}, table[2] = {9, 8}, hidden[2] = {4, 8};
    qfw_val h, w, labels, sum, entropy;
    (void)state;
    graphlab_open(&l, test_device_native);
    qfw_graph *g = &l.g->pub;
    graphlab_ok(g->api->input(g, "h", QFW_F32, 2, hidden, &h));
    graphlab_ok(g->api->input(g, "w", QFW_F32, 2, table, &w));
    graphlab_ok(g->api->input(g, "labels", QFW_I32, 1, n, &labels));
    graphlab_ok(qfw_token_logprob(g, h, w, labels, 0xf, &lp));
    graphlab_ok(qfw_reduce_all(g, QFW_SUM, lp.logp, &sum));
    graphlab_ok(qfw_reduce_all(g, QFW_SUM, lp.entropy, &entropy));
    graphlab_ok(g->api->metric(g, "entropy", entropy, 0));
    const plan *p = make_plan(&l, sum);
    assert_int_equal(p->n_native, 3);
    const graph_node *node = &p->steps->g->nodes[0];
    assert_string_equal(node->def->name, "token_logprob");
    assert_int_not_equal(node->out[0], 0);
    assert_int_not_equal(node->out[1], 0); /* lse is not optional */
    assert_int_equal(node->out[2], 0);
    assert_int_not_equal(node->out[3], 0);
    assert_int_equal(node->out[4], 0);
    graphlab_close(&l);
}

/* --- placement --- */

static void gated(graphlab *l, qfw_val *mid) {
    const int64_t dim[2] = {4, 16};
    qfw_val x;
    graphlab_ok(l->g->pub.api->input(&l->g->pub, "x", QFW_F32, 2, dim, &x));
    graphlab_ok(qfw_swiglu(&l->g->pub, x, 0, mid));
}

static void run_gated(graphlab *l, uint8_t swiglu, uint8_t others, double *out) {
    float x[64];
    qfw_val mid;
    graphlab_renew(l);
    memset(l->device.native, others, sizeof l->device.native);
    l->device.native[QFW_OP_SWIGLU] = swiglu;
    gated(l, &mid);
    graphlab_build(l, &mid, 1);
    for (uint64_t i = 0; i < 64; i++) x[i] = (float)graphlab_number(3, i);
    graphlab_ok(exec_write(l->e, "x", x, sizeof x));
    graphlab_ok(exec_run(l->e));
    graphlab_read(l, mid, out, 32);
}

static void test_placement(void **state) {
    graphlab l;
    double native[32], decomposed[32], reference[32];
    (void)state;
    graphlab_open(&l, test_device_native);
    graphlab_fill(&l);
    run_gated(&l, 1, 1, native);
    assert_int_equal(l.p->n_native, 1);
    assert_string_equal(l.p->placement[QFW_OP_SWIGLU].op, "swiglu");
    run_gated(&l, 0, 1, decomposed);
    assert_int_equal(l.p->n_decomposed, 1);
    assert_int_equal(l.p->n_native, 0);
    assert_int_equal(l.p->placement[QFW_OP_SWIGLU].decomposed, 1);
    assert_true(count_ops(l.p, "binary") >= 2);
    run_gated(&l, 0, 0, reference);
    assert_int_equal(l.p->n_reference, 1);
    assert_int_equal(l.p->moved_bytes, 0); /* the host writes the input and reads the result */
    for (int i = 0; i < 32; i++) {
        assert_true(native[i] == reference[i]);
        assert_true(decomposed[i] - native[i] < 1e-6 && native[i] - decomposed[i] < 1e-6);
    }
    l.device.native[QFW_OP_UNARY] = 1; /* part of a decomposition is no use */
    graphlab_renew(&l);
    qfw_val mid;
    gated(&l, &mid);
    assert_int_equal(make_plan(&l, mid)->n_reference, 1);
    assert_int_equal(l.p->steps->g->n_nodes, 1);
    graphlab_close(&l);
}

static void test_dense_rows(void **state) {
    graphlab l;
    const int64_t dim[2] = {32, 32}, across[2] = {1, 32}, along[2] = {32, 1};
    qfw_val x, t, y;
    (void)state;
    graphlab_open(&l, test_device_native);
    l.device.wants_dense[QFW_OP_UNARY] = 1;
    for (int copies = 0; copies < 2; copies++) {
        graphlab_renew(&l);
        qfw_graph *g = &l.g->pub;
        graphlab_ok(g->api->input(g, "x", QFW_F32, 2, dim, &x));
        graphlab_ok(g->api->view(g, x, 2, dim, copies ? across : along, 0, &t));
        graphlab_ok(qfw_unary(g, QFW_NEG, t, &y));
        assert_int_equal(make_plan(&l, y)->n_native, 1);
        assert_int_equal(count_ops(l.p, "copy"), copies);
    }
    plan_destroy(l.p);
    l.device.native[QFW_OP_COPY] = 0; /* without a copy the device cannot have it */
    assert_int_equal(make_plan(&l, y)->n_reference, 1);
    assert_int_equal(count_ops(l.p, "copy"), 0);
    graphlab_close(&l);
}

static void test_fallback(void **state) {
    graphlab l;
    plan *p;
    (void)state;
    graphlab_open(&l, test_device_native);
    l.device.native[QFW_OP_UNARY] = l.device.native[QFW_OP_BINARY] = 0;
    const qfw_val x = input(&l), y = unary(&l, QFW_NEG, unary(&l, QFW_ABS, x));
    const qfw_val z = binary(&l, QFW_ADD, x, y);
    assert_int_equal(plan_create(l.g, &l.device.dev, FALLBACK_ERROR, &z, 1, &p), QFW_E_CONFIG);
    assert_null(p);
    assert_non_null(strstr(err_text(0), "backend test"));
    assert_non_null(strstr(err_text(0), "unary (2), binary (1)"));
    err_clear();
    graphlab_ok(plan_create(l.g, &l.device.dev, FALLBACK_WARN, &z, 1, &l.p));
    assert_int_equal(l.p->n_reference, 3);
    plan_destroy(l.p);
    graphlab_ok(plan_create(l.g, &l.device.dev, FALLBACK_ERROR, &x, 1, &l.p));
    graphlab_close(&l);
}

/* Sealed is what only the device reads. */
static void test_seal(void **state) {
    graphlab l;
    qfw_val y;
    const int64_t dim[2] = {4, 64};
    (void)state;
    graphlab_open(&l, test_device_native);
    const store_entry *w = graphlab_packed(&l, "w", 64, 64);
    const store_entry *other = graphlab_packed(&l, "other", 64, 64);
    graphlab_entry(&l, "plain", QFW_F32, 64, 64);
    graphlab_fill(&l);
    for (uint8_t native = 0; native < 2; native++) {
        graphlab_renew(&l);
        memset(l.device.native, native, sizeof l.device.native);
        qfw_graph *g = &l.g->pub;
        graphlab_ok(g->api->input(g, "x", QFW_F32, 2, dim, &y));
        graphlab_ok(g->api->linear(g, y, graphlab_val(&l, "w"), &y));
        make_plan(&l, y);
        assert_int_equal(plan_reads_on_host(l.p, w), !native);
        assert_int_equal(plan_reads_on_host(l.p, other), 0);
        const plan *const plans[1] = {l.p};
        graphlab_ok(plan_seal(l.s, plans, 1));
        assert_int_equal(l.device.n_sealed, native ? 2 : 1);
        assert_int_equal(w->sealed, native);
        assert_int_equal(other->sealed, 1);
    }
    graphlab_close(&l);
}

/* --- assignments --- */

static void open_states(graphlab *l) {
    graphlab_open(l, test_device_native);
    graphlab_entry(l, "a", QFW_F32, CELLS, 0);
    graphlab_entry(l, "b", QFW_F32, CELLS, 0);
    graphlab_fill(l);
}

static void assign(graphlab *l, const char *name, qfw_val v) {
    graphlab_ok(l->g->pub.api->assign(&l->g->pub, graphlab_val(l, name), v));
}

static void run_states(graphlab *l, double *a, double *b) {
    graphlab_build(l, NULL, 0);
    graphlab_ok(exec_run(l->e));
    graphlab_read(l, graphlab_val(l, "a"), a, CELLS);
    graphlab_read(l, graphlab_val(l, "b"), b, CELLS);
}

static float first(uint64_t stream, uint64_t i) { return (float)graphlab_number(stream, i); }

/* a += b: in a's own memory, without a byte of the arena. */
static void test_assign_in_place(void **state) {
    graphlab l;
    double a[CELLS], b[CELLS];
    (void)state;
    open_states(&l);
    assign(&l, "a", binary(&l, QFW_ADD, graphlab_val(&l, "a"), graphlab_val(&l, "b")));
    run_states(&l, a, b);
    assert_int_equal(l.p->step_bytes, 0);
    assert_int_equal(l.p->steps->g->n_nodes, 1);
    for (uint64_t i = 0; i < CELLS; i++) {
        assert_true(a[i] == (double)(float)((double)first(0, i) + (double)first(1, i)));
        assert_true(b[i] == (double)first(1, i));
    }
    graphlab_close(&l);
}

/* All who read the old state have run: the value is made in the state's memory, by whatever op. */
static void test_assign_after_reads(void **state) {
    graphlab l;
    double a[CELLS], b[CELLS];
    qfw_val zero;
    (void)state;
    open_states(&l);
    assign(&l, "b", binary(&l, QFW_ADD, graphlab_val(&l, "a"), graphlab_val(&l, "b")));
    graphlab_ok(qfw_fill(&l.g->pub, 0, 1, shape, &zero));
    assign(&l, "a", zero);
    run_states(&l, a, b);
    assert_int_equal(l.p->step_bytes, 0);
    assert_int_equal(count_ops(l.p, "copy"), 0);
    for (uint64_t i = 0; i < CELLS; i++) assert_true(a[i] == 0);
    assert_true(b[5] == (double)(float)((double)first(0, 5) + (double)first(1, 5)));
    graphlab_close(&l);
}

/* The old state is read later: the new one waits in the arena and is copied at the end. */
static void test_assign_early(void **state) {
    graphlab l;
    double a[CELLS], b[CELLS];
    (void)state;
    open_states(&l);
    const qfw_val old = graphlab_val(&l, "a"), next = unary(&l, QFW_NEG, old);
    assign(&l, "a", next);
    assign(&l, "b", binary(&l, QFW_ADD, old, next)); /* 0 everywhere */
    run_states(&l, a, b);
    assert_int_equal(count_ops(l.p, "copy"), 1);
    assert_int_equal(l.p->step_bytes, BYTES);
    for (uint64_t i = 0; i < CELLS; i++) {
        assert_true(a[i] == (double)-first(0, i));
        assert_true(b[i] == 0);
    }
    graphlab_close(&l);
}

static void test_assign_swap(void **state) {
    graphlab l;
    double a[CELLS], b[CELLS];
    (void)state;
    open_states(&l);
    assign(&l, "a", graphlab_val(&l, "b"));
    assign(&l, "b", graphlab_val(&l, "a"));
    run_states(&l, a, b);
    for (uint64_t i = 0; i < CELLS; i++) {
        assert_true(a[i] == (double)first(1, i));
        assert_true(b[i] == (double)first(0, i));
    }
    graphlab_ok(exec_run(l.e)); /* and back */
    graphlab_read(&l, graphlab_val(&l, "a"), a, CELLS);
    assert_true(a[7] == (double)first(0, 7));
    graphlab_close(&l);
}

static void test_assign_shared(void **state) {
    graphlab l;
    double a[CELLS], b[CELLS];
    (void)state;
    open_states(&l);
    const qfw_val v = unary(&l, QFW_ABS, graphlab_val(&l, "a"));
    assign(&l, "a", v);
    assign(&l, "b", v);
    run_states(&l, a, b);
    for (uint64_t i = 0; i < CELLS; i++) {
        assert_true(a[i] == (double)(first(0, i) < 0 ? -first(0, i) : first(0, i)));
        assert_true(a[i] == b[i]);
    }
    graphlab_close(&l);
}

/* Whatever allocation fails, plan_create fails and nothing leaks. */
static void test_out_of_memory(void **state) {
    qfw_status status = QFW_E_NOMEM;
    (void)state;
    for (uint64_t k = 1; status != QFW_OK; k++) {
        graphlab l;
        qfw_val mid;
        graphlab_open(&l, test_device_native);
        l.device.native[QFW_OP_SWIGLU] = 0;
        gated(&l, &mid);
        mem_fail_at(k);
        status = plan_create(l.g, &l.device.dev, FALLBACK_ALLOW, &mid, 1, &l.p);
        mem_fail_at(0);
        assert_int_equal(status == QFW_OK, l.p != NULL);
        graphlab_close(&l);
        assert_true(k < 200);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_dead),
        cmocka_unit_test(test_alive),
        cmocka_unit_test(test_placement),
        cmocka_unit_test(test_dense_rows),
        cmocka_unit_test(test_fallback),
        cmocka_unit_test(test_seal),
        cmocka_unit_test(test_assign_in_place),
        cmocka_unit_test(test_assign_after_reads),
        cmocka_unit_test(test_assign_early),
        cmocka_unit_test(test_assign_swap),
        cmocka_unit_test(test_assign_shared),
        cmocka_unit_test(test_out_of_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
