/* test_plan_random.c -- random graphs, planned for random devices, give the bits that evaluating
 * them op by op gives; and no two living values share a byte.
 *
 * The device fills outputs with NaN before it runs an op, so whoever lies in the wrong place is
 * seen in the results too.
 */
#include "../support/eager.h"
#include "../support/graphlab.h"
#include "base/error.h"
#include "base/mem.h"
#include "graph/program.h"
#include "ops/ref.h"

#include "../support/test.h"

enum { ROWS = 12, COLS = 8, CELLS = ROWS * COLS, N_INPUTS = 3, N_STATES = 3, MAX_VALS = 160 };

typedef struct dice {
    uint64_t state;
} dice;

static uint32_t roll(dice *d, uint32_t sides) {
    d->state = d->state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(d->state >> 33) % sides;
}

/* The values so far, all [ROWS, COLS] or views of that shape; the inputs and states come first. */
typedef struct pool {
    qfw_graph *g;
    qfw_val v[MAX_VALS];
    uint32_t n;
} pool;

static qfw_val pick(const pool *p, dice *d) { return p->v[roll(d, p->n)]; }

static qfw_status half(pool *p, qfw_val v, int64_t first, qfw_val *out) {
    const int64_t dim[2] = {ROWS, COLS / 2}, stride[2] = {COLS, 1};
    return p->g->api->view(p->g, v, 2, dim, stride, first, out);
}

/* A value whose halves are swapped, or come from two values. */
static qfw_status join(pool *p, dice *d, qfw_val *out) {
    const qfw_concat_params params = {sizeof params, 1};
    qfw_val a, b, in[2];
    QFW_TRY(qfw_scale(p->g, pick(p, d), 0.5f, 0.25f, &a)); /* dense, so that `half` fits */
    QFW_TRY(qfw_scale(p->g, pick(p, d), -1.0f, 0.5f, &b));
    QFW_TRY(half(p, a, COLS / 2, &in[0]));
    QFW_TRY(half(p, roll(d, 2) ? a : b, 0, &in[1]));
    if (roll(d, 2)) QFW_TRY(qfw_unary(p->g, QFW_NEG, in[0], &in[0])); /* a smaller value */
    return p->g->api->op(p->g, QFW_OP_CONCAT, in, 2, &params, sizeof params, NULL, out, 1);
}

/* The transpose of a value is read, then read back transposed: rows that are not dense. */
static qfw_status flip(pool *p, dice *d, qfw_val *out) {
    const int64_t dim[2] = {COLS, ROWS}, stride[2] = {1, COLS};
    const int64_t back_dim[2] = {ROWS, COLS}, back[2] = {1, ROWS};
    qfw_val a, t;
    QFW_TRY(qfw_scale(p->g, pick(p, d), 0.75f, 0.0f, &a));
    QFW_TRY(p->g->api->view(p->g, a, 2, dim, stride, 0, &t));
    QFW_TRY(qfw_unary(p->g, QFW_SIGMOID, t, &t));
    return p->g->api->view(p->g, t, 2, back_dim, back, 0, out);
}

static qfw_status grow(pool *p, dice *d) {
    static const uint32_t kinds[5] = {QFW_ADD, QFW_SUB, QFW_MIN, QFW_MAX, QFW_GT};
    static const uint32_t functions[4] = {QFW_NEG, QFW_SIGMOID, QFW_ABS, QFW_RELU};
    const uint32_t choice = roll(d, 10);
    const qfw_val a = pick(p, d), b = pick(p, d), c = pick(p, d);
    qfw_val *out = &p->v[p->n];
    if (choice < 4) QFW_TRY(qfw_binary(p->g, kinds[roll(d, 5)], a, b, out));
    if (choice == 4) QFW_TRY(qfw_scale(p->g, a, 0.5f, 0.125f, out));
    if (choice == 5) QFW_TRY(qfw_unary(p->g, functions[roll(d, 4)], a, out));
    if (choice == 6) QFW_TRY(qfw_softmax(p->g, a, out));
    if (choice == 7) QFW_TRY(qfw_select(p->g, a, b, c, out));
    if (choice == 8) QFW_TRY(join(p, d, out));
    if (choice == 9) QFW_TRY(flip(p, d, out));
    p->n++;
    return QFW_OK;
}

/* What is read after the run: places in the pool. */
typedef struct wishes {
    uint32_t keep[4], assign[N_STATES];
} wishes;

static void fill_pool(pool *p, dice d, uint32_t n_ops, wishes *w) {
    for (uint32_t i = 0; i < n_ops; i++) graphlab_ok(grow(p, &d));
    for (uint32_t i = 0; i < 4; i++) w->keep[i] = roll(&d, p->n);
    for (uint32_t i = 0; i < N_STATES; i++) w->assign[i] = roll(&d, p->n);
}

static void store_name(uint32_t i, char name[16]) { snprintf(name, 16, "state%u", i & 7); }

/* The planned graph: inputs and states, then ops. */
static void build(graphlab *l, dice d, uint32_t n_ops, wishes *w, qfw_val *keep) {
    const int64_t dim[2] = {ROWS, COLS};
    char name[16];
    pool p = {.g = &l->g->pub};
    for (uint32_t i = 0; i < N_INPUTS; i++) {
        snprintf(name, sizeof name, "input%u", i);
        graphlab_ok(p.g->api->input(p.g, name, QFW_F32, 2, dim, &p.v[p.n++]));
    }
    for (uint32_t i = 0; i < N_STATES; i++) {
        store_name(i, name);
        p.v[p.n++] = graphlab_val(l, name);
    }
    fill_pool(&p, d, n_ops, w);
    for (uint32_t i = 0; i < 4; i++) keep[i] = p.v[w->keep[i]];
    for (uint32_t i = 0; i < N_STATES; i++)
        graphlab_ok(p.g->api->assign(p.g, p.v[N_INPUTS + i], p.v[w->assign[i]]));
}

/* The same graph evaluated op by op; states come from and go to `state`. */
static void evaluate(dice d, uint32_t n_ops, double state[N_STATES][CELLS], double kept[4][CELLS]) {
    const int64_t dim[2] = {ROWS, COLS};
    double values[CELLS];
    eager *e = eager_create();
    pool p = {.g = eager_graph(e)};
    wishes w;
    for (uint32_t i = 0; i < N_INPUTS; i++) {
        for (uint64_t k = 0; k < CELLS; k++) values[k] = graphlab_number(50 + i, k);
        p.v[p.n++] = eager_values(e, QFW_F32, 2, dim, values);
    }
    for (uint32_t i = 0; i < N_STATES; i++) p.v[p.n++] = eager_values(e, QFW_F32, 2, dim, state[i]);
    fill_pool(&p, d, n_ops, &w);
    for (uint32_t i = 0; i < 4; i++) memcpy(kept[i], eager_read(e, p.v[w.keep[i]]), sizeof kept[i]);
    for (uint32_t i = 0; i < N_STATES; i++)
        memcpy(state[i], eager_read(e, p.v[w.assign[i]]), sizeof state[i]);
    eager_destroy(e);
}

static void write_inputs(graphlab *l) {
    float values[CELLS];
    char name[16];
    for (uint32_t i = 0; i < N_INPUTS; i++) {
        for (uint64_t k = 0; k < CELLS; k++) values[k] = (float)graphlab_number(50 + i, k);
        snprintf(name, sizeof name, "input%u", i);
        graphlab_ok(exec_write(l->e, name, values, sizeof values));
    }
}

static void compare(const double *found, const double *wanted, const char *what, uint64_t seed) {
    for (int k = 0; k < CELLS; k++)
        if (!(found[k] == wanted[k]))
            fail_msg("graph %d: %s: value %d is %.9g, wanted %.9g", (int)seed, what, k, found[k],
                wanted[k]);
}

/* Run twice, so that the second run starts from the states of the first. */
static void check_runs(graphlab *l, dice d, uint32_t n_ops, const qfw_val *keep, uint64_t seed) {
    double state[N_STATES][CELLS], kept[4][CELLS], found[CELLS];
    char name[16];
    for (uint32_t i = 0; i < N_STATES; i++)
        for (uint64_t k = 0; k < CELLS; k++) state[i][k] = (double)(float)graphlab_number(i, k);
    for (int run = 0; run < 2; run++) {
        evaluate(d, n_ops, state, kept);
        write_inputs(l);
        graphlab_ok(exec_run(l->e));
        for (uint32_t i = 0; i < 4; i++) {
            if (graph_get(l->g, keep[i])->kind == VALUE_STORE) continue; /* overwritten by now */
            graphlab_read(l, keep[i], found, CELLS);
            compare(found, kept[i], "kept", seed);
        }
        for (uint32_t i = 0; i < N_STATES; i++) {
            store_name(i, name);
            graphlab_read(l, graphlab_val(l, name), found, CELLS);
            compare(found, state[i], name, seed);
        }
    }
}

/* --- places --- */

typedef struct life {
    size_t first, last;
    uint64_t offset, end;
} life;

static void touch(life *lives, const graph *g, qfw_val v, size_t step) {
    if (!v) return;
    life *l = &lives[plan_base(g, v)];
    if (l->first > step) l->first = step;
    if (l->last < step) l->last = step;
}

/* No two values that live on after the same step overlap; one that dies there may give its place,
 * exactly, to one that is made there. */
static void check_places(const plan *p, uint32_t side) {
    const plan_steps *s = p->steps;
    const graph *g = s->g;
    const uint64_t arena = side == SIDE_HOST ? p->host_bytes : p->step_bytes - p->workspace_bytes;
    life *lives = mem_alloc(g->n_values + 1, sizeof *lives);
    assert_non_null(lives);
    for (qfw_val v = 1; v <= g->n_values; v++) lives[v].first = SIZE_MAX;
    for (size_t i = 0; i < s->n_steps; i++) {
        const plan_step *step = &s->steps[i];
        if (step->kind != STEP_OP) touch(lives, g, step->value, i + 1);
        if (step->kind != STEP_OP || plan_side(s, step->node) != side) continue;
        for (int k = 0; k < QFW_MAX_IN; k++) touch(lives, g, g->nodes[step->node].in[k], i + 1);
        for (int k = 0; k < QFW_MAX_OUT; k++) touch(lives, g, g->nodes[step->node].out[k], i + 1);
    }
    for (qfw_val v = 1; v <= g->n_values; v++) {
        const plan_place *place = &s->values[v].place[side];
        if (s->values[v].root && s->values[v].home == side) touch(lives, g, v, s->n_steps + 1);
        if (g->values[v].kind == VALUE_INPUT) touch(lives, g, v, 0);
        if (place->at != AT_ARENA) lives[v].first = SIZE_MAX;
        lives[v].offset = place->offset;
        lives[v].end = place->offset + plan_bytes(&g->values[v]);
        assert_true(place->at != AT_ARENA || lives[v].end <= arena);
    }
    for (qfw_val a = 1; a <= g->n_values; a++)
        for (qfw_val b = 1; b < a; b++) {
            const life *x = &lives[a], *y = &lives[b];
            if (x->first == SIZE_MAX || y->first == SIZE_MAX) continue;
            if (x->offset >= y->end || y->offset >= x->end) continue;
            if (x->first > y->last || y->first > x->last) continue;
            assert_true(x->first == y->last || y->first == x->last); /* one follows the other */
            assert_true(x->offset == y->offset && x->end == y->end);
        }
    mem_free(lives);
}

static void check_graph(uint64_t seed, void (*make)(test_device *d), int mixed, uint64_t block) {
    graphlab l;
    wishes w;
    char name[16];
    qfw_val keep[4];
    dice d = {seed * 0x9e3779b97f4a7c15u + 1}, other = {seed ^ 0xabcdef};
    const uint32_t n_ops = 5 + roll(&other, 60);
    graphlab_open(&l, make);
    l.device.dev.info.max_alloc_bytes = block;
    l.device.workspace = roll(&other, 3) * 100;
    for (uint32_t c = 0; c < QFW_OP_END; c++) {
        if (mixed) l.device.native[c] = (uint8_t)roll(&other, 2);
        l.device.wants_dense[c] = c != QFW_OP_COPY && roll(&other, 2);
    }
    for (uint32_t i = 0; i < N_STATES; i++) {
        store_name(i, name);
        graphlab_entry(&l, name, QFW_F32, ROWS, COLS);
    }
    graphlab_fill(&l);
    build(&l, d, n_ops, &w, keep);
    graphlab_build(&l, keep, 4);
    check_places(l.p, SIDE_DEVICE);
    if (l.p->steps->two_sided) check_places(l.p, SIDE_HOST);
    check_runs(&l, d, n_ops, keep, seed);
    graphlab_close(&l);
}

enum { GRAPHS = 60 };

static void test_all_native(void **state) {
    (void)state;
    for (uint64_t seed = 0; seed < GRAPHS; seed++) check_graph(seed, test_device_native, 0, 0);
}

static void test_no_op(void **state) {
    (void)state;
    for (uint64_t seed = 0; seed < GRAPHS; seed++) check_graph(seed, test_device_storage, 0, 0);
}

static void test_some_ops(void **state) {
    (void)state;
    for (uint64_t seed = 0; seed < GRAPHS; seed++) check_graph(seed, test_device_native, 1, 0);
}

static void test_some_ops_visible(void **state) {
    (void)state;
    for (uint64_t seed = 0; seed < GRAPHS; seed++) check_graph(seed, test_device_visible, 1, 0);
}

/* Arenas of many blocks: values take 512 or 256 bytes, blocks have 768. */
static void test_small_blocks(void **state) {
    (void)state;
    for (uint64_t seed = 0; seed < GRAPHS; seed++)
        check_graph(seed, test_device_native, seed % 2, 1000);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_all_native),
        cmocka_unit_test(test_no_op),
        cmocka_unit_test(test_some_ops),
        cmocka_unit_test(test_some_ops_visible),
        cmocka_unit_test(test_small_blocks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
