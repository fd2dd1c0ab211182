/* test_exec.c -- runs: the same bits whoever runs the ops, transfers only where they are needed,
 * nothing allocated, faults named. */
#include "../support/graphlab.h"
#include "base/error.h"
#include "base/mem.h"
#include "graph/program.h"

#include "../support/test.h"

enum { N = 8, C = 64, CELLS = C * C };

/* --- a small training step: product with a packed weight, a trained layer, gradient, update --- */

static void declare(graphlab *l) {
    graphlab_packed(l, "frozen", C, C);
    graphlab_frozen(l, "bias", C);
    graphlab_entry(l, "w", QFW_F32, C, C);
    graphlab_entry(l, "m", QFW_F32, C, C);
    graphlab_entry(l, "v", QFW_F32, C, C);
    graphlab_fill(l);
    graphlab_ok(store_zero(l->s, store_find(l->s, "m")));
    graphlab_ok(store_zero(l->s, store_find(l->s, "v")));
}

static void emit_update(graphlab *l, qfw_val grad) {
    qfw_graph *g = &l->g->pub;
    const qfw_adamw_params p = {.size = sizeof p, .beta1 = 0.9, .beta2 = 0.99, .eps = 1e-8};
    const int64_t three[1] = {3};
    qfw_val in[6] = {graphlab_val(l, "w"), grad, graphlab_val(l, "m"), graphlab_val(l, "v"), 0, 0};
    qfw_val out[3];
    graphlab_ok(g->api->input(g, "scalars", QFW_F32, 1, three, &in[4]));
    graphlab_ok(g->api->op(g, QFW_OP_ADAMW, in, 5, &p, sizeof p, NULL, out, 3));
    graphlab_ok(g->api->assign(g, in[0], out[0]));
    graphlab_ok(g->api->assign(g, in[2], out[1]));
    graphlab_ok(g->api->assign(g, in[3], out[2]));
}

static qfw_val emit_step(graphlab *l, qfw_val *loss) {
    qfw_graph *g = &l->g->pub;
    const int64_t dim[2] = {N, C};
    qfw_val x, y, grad;
    const qfw_val w = graphlab_val(l, "w");
    graphlab_ok(g->api->input(g, "x", QFW_F32, 2, dim, &x));
    graphlab_ok(g->api->segment(g, "one"));
    graphlab_ok(g->api->linear(g, x, w, &y));
    graphlab_ok(qfw_unary(g, QFW_SIGMOID, y, &y));
    graphlab_ok(g->api->linear(g, y, graphlab_val(l, "frozen"), &y));
    graphlab_ok(qfw_binary(g, QFW_ADD, y, graphlab_val(l, "bias"), &y));
    graphlab_ok(g->api->segment(g, "two"));
    graphlab_ok(qfw_softmax(g, y, &y));
    graphlab_ok(qfw_reduce_all(g, QFW_SUMSQ, y, loss));
    graphlab_ok(graph_backward(l->g, *loss, &w, 1, 1, &grad));
    emit_update(l, grad);
    return grad;
}

static void write_inputs(graphlab *l) {
    float x[N * C];
    const float scalars[3] = {0.999f, 0.01f, 0.3f};
    for (uint64_t i = 0; i < N * C; i++) x[i] = (float)graphlab_number(9, i);
    graphlab_ok(exec_write(l->e, "x", x, sizeof x));
    graphlab_ok(exec_write(l->e, "scalars", scalars, sizeof scalars));
}

typedef struct outcome {
    double loss, w[CELLS], v[CELLS];
} outcome;

static void open_step(graphlab *l, void (*make)(test_device *d), const uint8_t *native) {
    qfw_val loss;
    graphlab_open(l, make);
    if (native) memcpy(l->device.native, native, sizeof l->device.native);
    declare(l);
    emit_step(l, &loss);
    graphlab_build(l, &loss, 1);
}

static void run_step(graphlab *l, outcome *out) {
    const qfw_val loss = l->p->steps->roots[0].asked;
    write_inputs(l);
    graphlab_ok(exec_run(l->e));
    graphlab_read(l, loss, &out->loss, 1);
    graphlab_read(l, graphlab_val(l, "w"), out->w, CELLS);
    graphlab_read(l, graphlab_val(l, "v"), out->v, CELLS);
}

static void run_three(void (*make)(test_device *d), const uint8_t *native, outcome *out) {
    graphlab l;
    open_step(&l, make, native);
    for (int i = 0; i < 3; i++) run_step(&l, &out[i]);
    graphlab_close(&l);
}

static void check_same(void (*make)(test_device *d), const uint8_t *native, const outcome *wanted) {
    outcome *found = mem_alloc(3, sizeof *found);
    assert_non_null(found);
    run_three(make, native, found);
    for (int i = 0; i < 3; i++) assert_memory_equal(&found[i], &wanted[i], sizeof *found);
    mem_free(found);
}

/* Its ops run when the host waits for them, and not before. */
static void make_lazy(test_device *d) {
    test_device_visible(d);
    d->lazy = 1;
}

static void test_same_bits(void **state) {
    outcome *wanted = mem_alloc(3, sizeof *wanted);
    uint8_t native[QFW_OP_END];
    (void)state;
    assert_non_null(wanted);
    run_three(test_device_native, NULL, wanted);
    assert_true(wanted[2].loss < wanted[0].loss); /* it learns */
    check_same(test_device_storage, NULL, wanted);
    check_same(test_device_visible, NULL, wanted);
    for (uint32_t which = 0; which < 4; which++) { /* some here, some there */
        for (uint32_t c = 0; c < QFW_OP_END; c++) native[c] = (c >> which & 1) != 0;
        check_same(test_device_native, native, wanted);
        check_same(test_device_visible, native, wanted);
        check_same(make_lazy, native, wanted);
    }
    mem_free(wanted);
}

/* --- transfers --- */

static void test_no_transfers(void **state) {
    graphlab l;
    outcome *o = mem_alloc(1, sizeof *o);
    (void)state;
    assert_non_null(o);
    open_step(&l, test_device_native, NULL);
    assert_int_equal(l.p->moved_bytes, 0);
    write_inputs(&l);
    test_device_reset(&l.device);
    graphlab_ok(exec_run(l.e));
    assert_int_equal(l.device.n_reads + l.device.n_writes, 0);
    assert_int_equal(l.device.n_batches, 1); /* all ops in one call */
    assert_int_equal(l.device.n_syncs, 1);
    graphlab_close(&l);
    mem_free(o);
}

/* Where the host runs everything, the states alone move: read before the first run, written after
 * each. Packed weights were read once, when the executor was made. */
static void test_only_states_move(void **state) {
    graphlab l;
    const uint64_t entry = CELLS * sizeof(float);
    (void)state;
    open_step(&l, test_device_storage, NULL);
    assert_int_equal(l.p->moved_bytes, 6 * entry);
    for (int run = 0; run < 3; run++) {
        write_inputs(&l);
        test_device_reset(&l.device);
        graphlab_ok(exec_run(l.e));
        assert_int_equal(l.device.bytes_read, run ? 0 : 3 * entry);
        assert_int_equal(l.device.bytes_written, 3 * entry);
    }
    graphlab_close(&l);
}

/* What is written to the store between runs is what the next run reads. */
static void test_store_changes(void **state) {
    graphlab l;
    float w[CELLS] = {0};
    double after[CELLS];
    (void)state;
    open_step(&l, test_device_storage, NULL);
    write_inputs(&l);
    graphlab_ok(exec_run(l.e));
    graphlab_ok(store_write(l.s, store_find(l.s, "w"), w));
    graphlab_ok(store_zero(l.s, store_find(l.s, "m")));
    graphlab_ok(exec_run(l.e));
    graphlab_read(&l, graphlab_val(&l, "w"), after, CELLS);
    for (int i = 0; i < CELLS; i++) assert_true(after[i] < 0.2 && after[i] > -0.2);
    graphlab_close(&l);
}

/* One op of the host's in the middle: what it reads comes down once, what it makes goes up once. */
static void test_one_transfer_each_way(void **state) {
    graphlab l;
    const int64_t dim[2] = {N, C};
    float x[N * C] = {1};
    qfw_val v, a, b;
    (void)state;
    graphlab_open(&l, test_device_native);
    l.device.native[QFW_OP_SOFTMAX] = 0;
    qfw_graph *g = &l.g->pub;
    graphlab_ok(g->api->input(g, "x", QFW_F32, 2, dim, &v));
    graphlab_ok(qfw_unary(g, QFW_NEG, v, &v));
    graphlab_ok(qfw_softmax(g, v, &a));
    graphlab_ok(qfw_softmax(g, v, &b)); /* shares the download */
    graphlab_ok(qfw_softmax(g, b, &b)); /* nothing in between */
    graphlab_ok(qfw_binary(g, QFW_ADD, a, b, &a));
    graphlab_ok(qfw_binary(g, QFW_MUL, a, b, &a));
    graphlab_build(&l, &a, 1);
    assert_int_equal(l.p->moved_bytes, 3 * sizeof x);
    graphlab_ok(exec_write(l.e, "x", x, sizeof x));
    test_device_reset(&l.device);
    graphlab_ok(exec_run(l.e));
    assert_int_equal(l.device.bytes_read, sizeof x);
    assert_int_equal(l.device.bytes_written, 2 * sizeof x);
    assert_int_equal(l.device.n_batches, 2);
    graphlab_close(&l);
}

/* --- allocation --- */

static void test_no_allocation(void **state) {
    graphlab l;
    float x[N * C] = {1}, y[N * C];
    const int64_t dim[2] = {N, C};
    qfw_val v;
    (void)state;
    graphlab_open(&l, test_device_native);
    l.device.idle = 1; /* the kernels of this device are references, which do allocate */
    qfw_graph *g = &l.g->pub;
    graphlab_ok(g->api->input(g, "x", QFW_F32, 2, dim, &v));
    for (int i = 0; i < 20; i++) graphlab_ok(qfw_unary(g, QFW_NEG, v, &v));
    graphlab_build(&l, &v, 1);
    for (int profiles = 0; profiles < 2; profiles++) {
        const uint64_t before = mem_count();
        exec_profile(l.e, profiles);
        graphlab_ok(exec_write(l.e, "x", x, sizeof x));
        graphlab_ok(exec_run(l.e));
        graphlab_ok(exec_read(l.e, v, y, sizeof y));
        assert_int_equal(mem_count(), before);
    }
    graphlab_close(&l);
}

/* Whatever allocation fails, exec_create fails and nothing leaks. */
static void test_out_of_memory(void **state) {
    qfw_status status = QFW_E_NOMEM;
    (void)state;
    for (uint64_t k = 1; status != QFW_OK; k++) {
        graphlab l;
        open_step(&l, test_device_storage, NULL);
        exec_destroy(l.e);
        mem_fail_at(k);
        status = exec_create(l.p, &l.device.dev, l.arena, &l.e);
        mem_fail_at(0);
        assert_int_equal(status == QFW_OK, l.e != NULL);
        graphlab_close(&l);
        assert_true(k < 200);
    }
}

static void test_device_memory(void **state) {
    graphlab l;
    exec_arena *a = NULL;
    exec *e;
    (void)state;
    open_step(&l, test_device_native, NULL);
    l.device.limit = l.device.bytes + l.p->step_bytes;
    assert_int_equal(
        exec_arena_create(&l.device.dev, l.p->step_bytes, 0, 4096, &a), QFW_E_DEVICE_OOM);
    assert_null(a);
    assert_non_null(strstr(err_text(0), "4096 bytes for inputs"));
    l.device.limit = 0;
    err_clear();
    graphlab_ok(exec_arena_create(&l.device.dev, 256, 0, 1 << 20, &a));
    assert_int_equal(exec_create(l.p, &l.device.dev, a, &e), QFW_E_INVALID);
    assert_null(e);
    err_clear();
    exec_arena_destroy(a);
    graphlab_close(&l);
}

/* --- profile --- */

static void test_profile(void **state) {
    graphlab l;
    exec_profile_row row;
    uint32_t n = 0, qmatmuls = 0;
    uint64_t forward = 0;
    (void)state;
    open_step(&l, test_device_native, NULL);
    write_inputs(&l);
    graphlab_ok(exec_run(l.e));
    exec_profile(l.e, 1);
    test_device_reset(&l.device);
    graphlab_ok(exec_run(l.e));
    graphlab_ok(exec_run(l.e));
    for (; exec_profile_at(l.e, n, &row); n++) {
        assert_int_equal(row.calls, 2);
        assert_true(row.ns > 0);
        assert_int_equal(row.place, PLACE_NATIVE);
        forward += row.phase == PHASE_FORWARD;
        if (strcmp(row.op, "qmatmul")) continue;
        qmatmuls++;
        assert_string_equal(row.label, "one/frozen");
        assert_int_equal(row.bytes, 2 * (2 * N * C * 4 + store_find(l.s, "frozen")->bytes));
    }
    assert_int_equal(n, l.p->steps->g->n_nodes);
    assert_int_equal(qmatmuls, 1);
    assert_int_equal(forward, 6);
    assert_int_equal(l.device.n_batches, 2 * n); /* one at a time */
    assert_true(l.device.n_syncs >= 2 * n);
    assert_int_equal(exec_profile_at(l.e, n, &row), 0);
    graphlab_close(&l);
}

/* --- faults --- */

static void test_refused(void **state) {
    graphlab l;
    outcome *o = mem_alloc(3, sizeof *o);
    (void)state;
    assert_non_null(o);
    run_three(test_device_native, NULL, o);
    const double loss = o[2].loss;
    open_step(&l, test_device_visible, NULL); /* the host sees the memory: it takes over */
    memset(l.device.native, 1, sizeof l.device.native);
    plan_destroy(l.p);
    exec_destroy(l.e);
    exec_arena_destroy(l.arena);
    const qfw_val root = l.g->assigns[0].value;
    graphlab_build(&l, &root, 1);
    l.device.refuses = QFW_OP_QMATMUL;
    for (int i = 0; i < 3; i++) {
        write_inputs(&l);
        graphlab_ok(exec_run(l.e));
    }
    graphlab_read(&l, graphlab_val(&l, "w"), o[0].w, CELLS);
    assert_memory_equal(o[0].w, o[2].w, sizeof o[0].w);
    assert_true(loss > 0);
    graphlab_close(&l);
    open_step(&l, test_device_native, NULL); /* it does not: the op is named */
    l.device.refuses = QFW_OP_QMATMUL;
    write_inputs(&l);
    assert_int_equal(exec_run(l.e), QFW_E_UNSUPPORTED);
    assert_non_null(strstr(err_text(0), "backend test: qmatmul at one/frozen: test: not today"));
    err_clear();
    graphlab_close(&l);
    mem_free(o);
}

static void test_broken(void **state) {
    graphlab l;
    (void)state;
    open_step(&l, test_device_native, NULL);
    l.device.breaks = QFW_OP_SOFTMAX;
    write_inputs(&l);
    assert_int_equal(exec_run(l.e), QFW_E_DEVICE);
    assert_non_null(strstr(err_text(0), "backend test: softmax at two"));
    err_clear();
    l.device.breaks = 0;
    graphlab_ok(exec_run(l.e));
    graphlab_close(&l);
}

static void test_wrong_calls(void **state) {
    graphlab l;
    float x[N * C] = {0};
    (void)state;
    open_step(&l, test_device_native, NULL);
    qfw_val v;
    assert_string_equal(exec_input(l.e, 0, &v), "x");
    assert_int_equal(graph_get(l.g, v)->kind, VALUE_INPUT);
    assert_string_equal(exec_input(l.e, 1, &v), "scalars");
    assert_null(exec_input(l.e, 2, &v));
    assert_int_equal(exec_write(l.e, "nobody", x, sizeof x), QFW_E_INVALID);
    assert_non_null(strstr(err_text(0), "'nobody'"));
    err_clear();
    assert_int_equal(exec_write(l.e, "x", x, sizeof x - 4), QFW_E_SHAPE);
    assert_int_equal(exec_read(l.e, l.g->nodes[0].out[0], x, sizeof x), QFW_E_INVALID);
    assert_int_equal(exec_read(l.e, 0, x, sizeof x), QFW_E_INVALID);
    assert_int_equal(exec_read(l.e, l.p->steps->roots[0].asked, x, 8), QFW_E_SHAPE);
    err_clear();
    graphlab_close(&l);
}

/* A sealed weight is the device's alone: a plan that would read it on the host is refused. */
static void test_sealed(void **state) {
    graphlab l;
    exec *e;
    (void)state;
    open_step(&l, test_device_native, NULL);
    graphlab_ok(store_seal(l.s, store_find(l.s, "frozen")));
    write_inputs(&l);
    graphlab_ok(exec_run(l.e));
    l.device.native[QFW_OP_QMATMUL] = l.device.native[QFW_OP_DEQUANT4] = 0;
    plan_destroy(l.p);
    exec_destroy(l.e);
    l.e = NULL;
    graphlab_ok(plan_create(l.g, &l.device.dev, FALLBACK_ALLOW, NULL, 0, &l.p));
    exec_arena_destroy(l.arena);
    graphlab_ok(exec_arena_create(
        &l.device.dev, l.p->step_bytes, l.p->host_bytes, l.p->input_bytes, &l.arena));
    assert_int_equal(exec_create(l.p, &l.device.dev, l.arena, &e), QFW_E_UNSUPPORTED);
    assert_null(e);
    assert_non_null(strstr(err_text(0), "frozen"));
    err_clear();
    graphlab_close(&l);
}

/* --- edges --- */

static void test_no_values(void **state) {
    void (*const make[3])(test_device * d) = {
        test_device_native, test_device_storage, test_device_visible};
    const int64_t none[2] = {0, C};
    (void)state;
    for (int k = 0; k < 3; k++) {
        graphlab l;
        qfw_val x, y, sum;
        double loss = 1;
        graphlab_open(&l, make[k]);
        qfw_graph *g = &l.g->pub;
        graphlab_ok(g->api->input(g, "x", QFW_F32, 2, none, &x));
        graphlab_ok(qfw_softmax(g, x, &y));
        graphlab_ok(qfw_reduce_all(g, QFW_SUM, y, &sum));
        const qfw_val keep[3] = {x, y, sum};
        graphlab_build(&l, keep, 3);
        graphlab_ok(exec_write(l.e, "x", NULL, 0));
        graphlab_ok(exec_run(l.e));
        graphlab_ok(exec_read(l.e, y, NULL, 0));
        graphlab_read(&l, sum, &loss, 1);
        assert_true(loss == 0);
        graphlab_close(&l);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_same_bits),
        cmocka_unit_test(test_no_transfers),
        cmocka_unit_test(test_only_states_move),
        cmocka_unit_test(test_store_changes),
        cmocka_unit_test(test_one_transfer_each_way),
        cmocka_unit_test(test_no_allocation),
        cmocka_unit_test(test_out_of_memory),
        cmocka_unit_test(test_device_memory),
        cmocka_unit_test(test_profile),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_broken),
        cmocka_unit_test(test_wrong_calls),
        cmocka_unit_test(test_sealed),
        cmocka_unit_test(test_no_values),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
