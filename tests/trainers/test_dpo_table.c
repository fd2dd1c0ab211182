/* test_dpo_table.c -- every loss of the dpo trainer on given log-probabilities, its value and its
 * gradient by each of them, against TRL's in float64 (tests/parity/README.md, dpo_table).
 *
 * The trainer is the plugin as it is, its graph on a device of reference kernels. The model is two
 * tokens and a head that is the identity, so that a row's hidden state makes its label as probable
 * as is wanted; batches end in padding of every kind.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "../support/graphlab.h"
#include "base/error.h"
#include "base/mem.h"
#include "base/option.h"
#include "files/json.h"
#include "plugin/host.h"
#include "plugin/loader.h"
#include "qfw/trainer.h"
#include "text/dataset.h"

#include "../support/test.h"

typedef struct pair {
    int n[2];                    /* tokens of chosen and rejected */
    double logp[2], ref_logp[2]; /* theirs, of policy and reference */
} pair;

enum { PAIRS = 6 };

typedef struct loss_case {
    const char *keys;       /* of [trainer.dpo] */
    double value;           /* of all pairs as one batch */
    double grad[2 * PAIRS]; /* of it: all chosen, all rejected */
    double alone[PAIRS];    /* the value of a batch of that pair */
} loss_case;

#include "dpo_table.h"

_Static_assert(sizeof pairs / sizeof pairs[0] == PAIRS, "the table's pairs");

enum { V = 2, N = 64, S = 2 * PAIRS + 3, E = PAIRS + 2, PLACES = 5 };

/* --- a batch of pairs --- */

typedef struct rows {
    qfw_batch pub;
    int32_t labels[N], row_segment[N], segments[S][PLACES];
    float hidden[N][V], ref_logp[N];
} rows;

/* The sequence's tokens, each with its share, and a last row that predicts nothing. */
static void add_sequence(rows *b, int n, double logp, double ref_logp) {
    const int64_t s = b->pub.n_seqs++;
    b->segments[s][0] = (int32_t)b->pub.n_tokens;
    for (int t = 0; t <= n; t++) {
        const int64_t row = b->pub.n_tokens++;
        b->row_segment[row] = (int32_t)s;
        if (t == n) break;
        const int32_t label = b->labels[row] = (int32_t)(row % V);
        b->hidden[row][label] = (float)(logp / n - log(-expm1(logp / n)));
        b->ref_logp[row] = (float)(ref_logp / n);
    }
    b->segments[s][1] = (int32_t)b->pub.n_tokens;
}

static void make_rows(rows *b, const pair *p, int n) {
    *b = (rows){.pub = {.size = sizeof b->pub, .n_examples = n}};
    b->pub.shape = (qfw_batch_shape){sizeof b->pub.shape, 1, N, S, E};
    b->pub.labels = b->labels;
    b->pub.row_segment = b->row_segment;
    b->pub.segments = b->segments[0];
    for (int row = 0; row < N; row++) {
        b->labels[row] = QFW_IGNORE_LABEL;
        b->row_segment[row] = -1;
    }
    for (int i = 0; i < n; i++)
        for (int side = 0; side < 2; side++)
            add_sequence(b, p[i].n[side], p[i].logp[side], p[i].ref_logp[side]);
    assert_true(b->pub.n_tokens < N);
}

/* --- the trainer and its graph --- */

typedef struct table_lab {
    const qfw_trainer *trainer;
    qfw_inst *inst;
    ini *i;
    schema_section section;
    graphlab g;
    qfw_val loss, d_hidden;
} table_lab;

static void open_trainer(table_lab *l, const char *keys) {
    const plugin *file = NULL;
    const qfw_component *c = NULL;
    char *text = mem_printf("[trainer.dpo]\n%s", keys);
    graphlab_ok(plugin_open("trainer", "dpo", &file, &c));
    graphlab_ok(ini_parse_text(text, strlen(text), "table.ini", &l->i));
    l->section = (schema_section){"trainer.dpo", c->options, c->n_options, NULL};
    graphlab_ok(option_check(l->i, &l->section, 1, NULL, 0));
    l->trainer = c->iface;
    graphlab_ok(l->trainer->create(host_table(), l->section.cfg, &l->inst));
    mem_free(text);
}

static void emit(table_lab *l) {
    const qfw_batch_shape shape = {sizeof shape, 1, N, S, E};
    qfw_val hidden = graphlab_val(&l->g, "hidden");
    const qfw_lm_vals lm = {
        .size = sizeof lm, .hidden = hidden, .lm_head = graphlab_val(&l->g, "head")};
    graphlab_ok(l->trainer->loss(l->inst, &l->g.g->pub, &shape, &lm, 0, &l->loss));
    graphlab_ok(graph_backward(l->g.g, l->loss, &hidden, 1, 0, &l->d_hidden));
    assert_int_not_equal(l->d_hidden, 0);
    const qfw_val keep[] = {l->loss, l->d_hidden};
    graphlab_build(&l->g, keep, 2);
}

static void open_lab(table_lab *l, const char *keys) {
    static const float identity[V][V] = {{1, 0}, {0, 1}};
    open_trainer(l, keys);
    graphlab_open(&l->g, test_device_native);
    graphlab_entry(&l->g, "hidden", QFW_F32, N, V);
    store_entry *head = graphlab_entry(&l->g, "head", QFW_F32, V, V);
    graphlab_fill(&l->g);
    graphlab_ok(store_write(l->g.s, head, identity));
    emit(l);
}

static void close_lab(table_lab *l) {
    graphlab_close(&l->g);
    l->trainer->destroy(l->inst);
    option_free(&l->section, 1);
    ini_destroy(l->i);
}

/* Each input as the core writes it, or as the trainer fills it. */
static void write_input(table_lab *l, const rows *b, const char *name, qfw_val v) {
    static float own[N];
    const float inv_weight = 1 / (float)b->pub.n_examples;
    const op_shape *shape = &graph_get(l->g.g, v)->shape;
    const uint64_t bytes = (uint64_t)shape->dim[0] * 4;
    const void *data = !strcmp(name, "labels")        ? (const void *)b->labels
                       : !strcmp(name, "row_segment") ? (const void *)b->row_segment
                       : !strcmp(name, "ref_logp")    ? (const void *)b->ref_logp
                       : !strcmp(name, "inv_weight")  ? (const void *)&inv_weight
                                                      : own;
    assert_true(shape->rank == 1 && bytes <= sizeof own);
    if (data == own) graphlab_ok(l->trainer->fill(l->inst, &b->pub, name, own, bytes));
    graphlab_ok(exec_write(l->g.e, name, data, bytes));
}

static double run_rows(table_lab *l, const rows *b, double d_hidden[N][V]) {
    const char *name;
    qfw_val v;
    double loss = 0;
    graphlab_ok(store_write(l->g.s, store_find(l->g.s, "hidden"), b->hidden));
    for (uint32_t i = 0; (name = exec_input(l->g.e, i, &v)) != NULL; i++)
        write_input(l, b, name, v);
    graphlab_ok(exec_run(l->g.e));
    graphlab_read(&l->g, l->loss, &loss, 1);
    graphlab_read(&l->g, l->d_hidden, d_hidden[0], (int64_t)N * V);
    return loss;
}

/* --- against the table --- */

/* How far off, of the larger of 1 and what is wanted. */
static double off(double found, double wanted, double one) {
    const double by = fabs(found - wanted) / fmax(one, fabs(wanted));
    return isnan(by) ? HUGE_VAL : by;
}

/* The rate of a sequence's log-probability is that of each of its tokens; times 1 - the label's
 * probability it is the rate of the label's logit, and with the other sign of the other's. */
static double compare_gradient(const rows *b, const loss_case *c, double d_hidden[N][V]) {
    double worst = 0, largest = 0;
    for (int i = 0; i < 2 * PAIRS; i++) largest = fmax(largest, fabs(c->grad[i]));
    for (int row = 0; row < N; row++) {
        const int s = b->row_segment[row], label = b->labels[row];
        if (label == QFW_IGNORE_LABEL) {
            assert_true(d_hidden[row][0] == 0 && d_hidden[row][1] == 0);
            continue;
        }
        const double x = (double)b->hidden[row][label], rest = 1 / (1 + exp(x));
        const double wanted = c->grad[s / 2 + s % 2 * PAIRS];
        worst = fmax(worst, off(d_hidden[row][label] / rest, wanted, fmin(1, largest)));
        worst = fmax(worst, off(-d_hidden[row][!label] / rest, wanted, fmin(1, largest)));
    }
    return worst;
}

static void check_case(const loss_case *c, double *worst_value, double *worst_grad) {
    table_lab l;
    rows b;
    double d_hidden[N][V];
    open_lab(&l, c->keys);
    make_rows(&b, pairs, PAIRS);
    double value = off(run_rows(&l, &b, d_hidden), c->value, 1);
    const double grad = compare_gradient(&b, c, d_hidden);
    for (int i = 0; i < PAIRS; i++) {
        make_rows(&b, &pairs[i], 1);
        value = fmax(value, off(run_rows(&l, &b, d_hidden), c->alone[i], 1));
    }
    if (!(value <= 1e-5 && grad <= 1e-5))
        print_message("%svalue off by %.1e, gradient by %.1e\n", c->keys, value, grad);
    *worst_value = fmax(*worst_value, value);
    *worst_grad = fmax(*worst_grad, grad);
    close_lab(&l);
}

static void losses_match_trl(void **state) {
    const size_t n = sizeof cases / sizeof cases[0];
    double value = 0, grad = 0;
    (void)state;
    for (size_t i = 0; i < n; i++) check_case(cases[i], &value, &grad);
    print_message("%zu losses: value off by %.1e at most, gradient by %.1e\n", n, value, grad);
    assert_true(value <= 1e-5);
    assert_true(grad <= 1e-5);
}

static int setup(void **state) {
    (void)state;
    host_register("qfw.doc/1", &json_doc_api);
    host_register("qfw.encoder/1", &encoder_api);
    plugin_set_host(host_table());
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(losses_match_trl)};
    return cmocka_run_group_tests(tests, setup, NULL);
}
