/* test_elementwise.c -- COPY, SCALE, UNARY, BINARY and SELECT. */
#include "../support/gradcheck.h"
#include "../support/test.h"

#include "ops/ref.h"

#include <math.h>

#define INF ((double)INFINITY)
#define NaN ((double)NAN)

static qfw_kind_params kind_of(uint32_t kind) {
    return (qfw_kind_params){sizeof(qfw_kind_params), kind};
}

static op_call call(uint32_t code, uint32_t n_in, const void *params, uint32_t param_bytes) {
    op_call c = {.code = code, .n_in = n_in, .n_out = 1, .want = {1}, .params = params};
    c.param_bytes = param_bytes;
    return c;
}

static qfw_val vector(eager *e, uint32_t dtype, int64_t n, const double *values) {
    return eager_values(e, dtype, 1, &n, values);
}

/* Random values in the shape of dim. */
static qfw_val random_of(
    eager *e, uint32_t rank, const int64_t *dim, double centre, double radius) {
    int64_t n = 1;
    for (uint32_t d = 0; d < rank; d++) n *= dim[d];
    const qfw_val flat = eager_random_1d(e, QFW_F64, n, centre, radius);
    return eager_values(e, QFW_F64, rank, dim, eager_read(e, flat));
}

static int same(double a, double b) { return a == b || (isnan(a) && isnan(b)); }

static void expect(eager *e, const op_call *c, int64_t n, const double *want) {
    qfw_val y;
    call_run(e, c, &y);
    assert_int_equal(qfw_tensor_count(eager_tensor(e, y)), n);
    for (int64_t i = 0; i < n; i++)
        if (!same(eager_read(e, y)[i], want[i]))
            fail_msg("value %d is %.17g, not %.17g", (int)i, eager_read(e, y)[i], want[i]);
}

/* --- COPY --- */

static void test_copy_rounds_to_nearest_even(void **state) {
    static const double x[8] = {
        1 + 0x1p-8, 1 + 0x3p-8, 1 + 0x1p-11, 1 + 0x3p-11, 65519, 65520, -0.1, NaN};
    static const double bf16[8] = {1, 1 + 0x1p-6, 1, 1, 65536, 65536, -0.10009765625, NaN};
    static const double f16[8] = {
        1 + 0x1p-8, 1 + 0x3p-8, 1, 1 + 0x1p-9, 65504, INF, -0.0999755859375, NaN};
    const qfw_copy_params to_bf16 = {sizeof to_bf16, QFW_BF16}, to_f16 = {sizeof to_f16, QFW_F16};
    eager *const e = eager_create();
    op_call c = call(QFW_OP_COPY, 1, &to_bf16, sizeof to_bf16);
    (void)state;
    c.in[0] = vector(e, QFW_F32, 8, x);
    expect(e, &c, 8, bf16);
    c.params = &to_f16;
    expect(e, &c, 8, f16);
    eager_destroy(e);
}

static void test_copy_to_and_from_integers(void **state) {
    static const double x[7] = {2.5, 3.5, -2.5, 1e12, -1e12, NaN, 300};
    static const double i32[7] = {2, 4, -2, 2147483647, -2147483648.0, 0, 300};
    static const double u8[7] = {2, 4, 0, 255, 0, 0, 255};
    static const int32_t whole[3] = {16777217, -5, INT32_MIN};
    static const double as_f32[3] = {16777216, -5, -2147483648.0};
    static const double as_i32[3] = {16777217, -5, -2147483648.0};
    qfw_copy_params p = {sizeof p, QFW_I32};
    eager *const e = eager_create();
    op_call c = call(QFW_OP_COPY, 1, &p, sizeof p);
    (void)state;
    c.in[0] = vector(e, QFW_F64, 7, x);
    expect(e, &c, 7, i32);
    p.dtype = QFW_U8;
    expect(e, &c, 7, u8);
    c.in[0] = eager_ints(e, 3, whole);
    p.dtype = QFW_F32;
    expect(e, &c, 3, as_f32);
    p.dtype = QFW_I32;
    expect(e, &c, 3, as_i32);
    eager_destroy(e);
}

static void test_copy_makes_any_window_dense(void **state) {
    const qfw_copy_params p = {sizeof p, QFW_F32};
    const int64_t base_dim[3] = {2, 3, 4}, dim[3] = {4, 2, 3}, stride[3] = {1, 12, 4};
    eager *const e = eager_create();
    op_call c = call(QFW_OP_COPY, 1, &p, sizeof p);
    double values[24], want[24];
    qfw_val base;
    (void)state;
    for (int i = 0; i < 24; i++) values[i] = i;
    for (int i = 0; i < 24; i++) want[i] = i / 6 + i / 3 % 2 * 12 + i % 3 * 4;
    base = eager_values(e, QFW_F32, 3, base_dim, values);
    assert_int_equal(
        eager_graph(e)->api->view(eager_graph(e), base, 3, dim, stride, 0, &c.in[0]), QFW_OK);
    expect(e, &c, 24, want);
    eager_destroy(e);
}

/* A row is read in pieces: longer than one, and every third value of it. */
static void test_copy_of_a_long_strided_row(void **state) {
    enum { N = 10000, STEP = 3 };
    const qfw_copy_params p = {sizeof p, QFW_F32};
    const int64_t n = N, step = STEP;
    eager *const e = eager_create();
    op_call c = call(QFW_OP_COPY, 1, &p, sizeof p);
    const qfw_val base = eager_random_1d(e, QFW_F32, N * STEP, 0, 1);
    qfw_val y;
    (void)state;
    assert_int_equal(
        eager_graph(e)->api->view(eager_graph(e), base, 1, &n, &step, 1, &c.in[0]), QFW_OK);
    call_run(e, &c, &y);
    const double *const got = eager_read(e, y), *const from = eager_read(e, base);
    for (int i = 0; i < N; i++) assert_true(got[i] == from[i * STEP + 1]);
    eager_destroy(e);
}

static void test_copy_gradient_keeps_the_inputs_dtype(void **state) {
    static const uint8_t need[1] = {1};
    qfw_copy_params p = {sizeof p, QFW_F64};
    eager *const e = eager_create();
    op_call c = call(QFW_OP_COPY, 1, &p, sizeof p);
    qfw_val y, dy, dx = 0, acc = 0;
    (void)state;
    c.in[0] = eager_random(e, QFW_F64, 3, 5);
    check_gradients(e, &c, 0, need);
    p.dtype = QFW_BF16;
    c.in[0] = eager_random(e, QFW_F32, 3, 5);
    call_run(e, &c, &y);
    dy = eager_random(e, QFW_BF16, 3, 5);
    op_vjp v = {eager_graph(e), &p, c.in, &y, &dy, need, &dx, &acc};
    assert_int_equal(op_find(QFW_OP_COPY)->vjp(&v), QFW_OK);
    assert_int_equal(eager_shape(e, dx).dtype, QFW_F32);
    assert_true(eager_distance(e, dx, dy) == 0);
    p.dtype = QFW_I32; /* nothing flows through a whole number */
    dx = 0;
    assert_int_equal(op_find(QFW_OP_COPY)->vjp(&v), QFW_OK);
    assert_int_equal(dx, 0);
    eager_destroy(e);
}

/* --- SCALE --- */

static void test_scale(void **state) {
    static const double x[4] = {1, -2, 0, INF}, want[4] = {-1, 5, 1, -INF};
    static const uint8_t need[1] = {1};
    const qfw_scale_params p = {sizeof p, -2, 1};
    eager *const e = eager_create();
    op_call c = call(QFW_OP_SCALE, 1, &p, sizeof p);
    (void)state;
    c.in[0] = vector(e, QFW_F32, 4, x);
    expect(e, &c, 4, want);
    c.in[0] = eager_random(e, QFW_F32, 3, 5000); /* longer than one piece */
    check_in_place(e, &c);
    c.in[0] = eager_random(e, QFW_F64, 3, 5);
    check_gradients(e, &c, 0, need);
    eager_destroy(e);
}

/* --- UNARY --- */

static void test_unary_values(void **state) {
    static const double x[6] = {-1000, -0.5, 0, 0.5, 1000, NaN};
    const double l = log1p(exp(-0.5));
    const double want[QFW_UNARY_END][6] = {[QFW_NEG] = {1000, 0.5, 0, -0.5, -1000, NaN},
        [QFW_EXP] = {0, exp(-0.5), 1, exp(0.5), INF, NaN},
        [QFW_LOG] = {NaN, NaN, -INF, log(0.5), log(1000), NaN},
        [QFW_LOG1P] = {NaN, log1p(-0.5), 0, log1p(0.5), log1p(1000), NaN},
        [QFW_EXPM1] = {-1, expm1(-0.5), 0, expm1(0.5), INF, NaN},
        [QFW_SQRT] = {NaN, NaN, 0, sqrt(0.5), sqrt(1000), NaN},
        [QFW_RSQRT] = {NaN, NaN, INF, 1 / sqrt(0.5), 1 / sqrt(1000), NaN},
        [QFW_ABS] = {1000, 0.5, 0, 0.5, 1000, NaN},
        [QFW_SIGN] = {-1, -1, 0, 1, 1, NaN},
        [QFW_SIGMOID] = {0, exp(-0.5) / (1 + exp(-0.5)), 0.5, 1 / (1 + exp(-0.5)), 1, NaN},
        [QFW_LOGSIGMOID] = {-1000, -0.5 - l, -log(2), -l, 0, NaN},
        [QFW_RELU] = {0, 0, 0, 0.5, 1000, NaN}};
    eager *const e = eager_create();
    (void)state;
    for (uint32_t kind = QFW_NEG; kind < QFW_UNARY_END; kind++) {
        const qfw_kind_params p = kind_of(kind);
        op_call c = call(QFW_OP_UNARY, 1, &p, sizeof p);
        qfw_val y;
        c.in[0] = vector(e, QFW_F64, 6, x);
        call_run(e, &c, &y);
        for (int i = 0; i < 6; i++) {
            const double got = eager_read(e, y)[i], to = want[kind][i];
            if (!same(got, to) && !(fabs(got - to) <= 1e-15 * fabs(to)))
                fail_msg("kind %u of %g is %.17g, not %.17g", kind, x[i], got, to);
        }
    }
    eager_destroy(e);
}

static void test_unary_gradients(void **state) {
    static const uint8_t need[1] = {1};
    eager *const e = eager_create();
    (void)state;
    for (uint32_t kind = QFW_NEG; kind < QFW_UNARY_END; kind++) {
        const qfw_kind_params p = kind_of(kind);
        const int positive =
            kind == QFW_LOG || kind == QFW_LOG1P || kind == QFW_SQRT || kind == QFW_RSQRT;
        op_call c = call(QFW_OP_UNARY, 1, &p, sizeof p);
        c.in[0] = eager_random_1d(e, QFW_F64, 20, positive ? 2 : 0, positive ? 1 : 3);
        if (kind != QFW_SIGN) check_gradients(e, &c, 0, need);
        check_in_place(e, &c);
    }
    eager_destroy(e);
}

/* Far from 0 the gradient of logsigmoid is 1 or 0, never NaN; that of relu at NaN is dy. */
static void test_unary_gradients_at_the_ends(void **state) {
    static const double x[3] = {-800, 800, NaN}, ones[3] = {1, 1, 1};
    static const uint32_t kinds[3] = {QFW_LOGSIGMOID, QFW_SIGMOID, QFW_RELU};
    static const double want[3][3] = {{1, 0, NaN}, {0, 0, NaN}, {0, 1, 1}};
    static const uint8_t need[1] = {1};
    eager *const e = eager_create();
    (void)state;
    for (int k = 0; k < 3; k++) {
        const qfw_kind_params p = kind_of(kinds[k]);
        op_call c = call(QFW_OP_UNARY, 1, &p, sizeof p);
        qfw_val y, dy = vector(e, QFW_F32, 3, ones), dx = 0, acc = 0;
        c.in[0] = vector(e, QFW_F32, 3, x);
        call_run(e, &c, &y);
        op_vjp v = {eager_graph(e), &p, c.in, &y, &dy, need, &dx, &acc};
        assert_int_equal(op_find(QFW_OP_UNARY)->vjp(&v), QFW_OK);
        for (int i = 0; i < 3; i++) assert_true(same(eager_read(e, dx)[i], want[k][i]));
    }
    eager_destroy(e);
}

/* A function without slope gives no gradient at all. */
static void test_sign_and_gt_have_no_gradient(void **state) {
    static const uint8_t need[2] = {1, 1};
    const qfw_kind_params sign = kind_of(QFW_SIGN), gt = kind_of(QFW_GT);
    eager *const e = eager_create();
    const qfw_val in[2] = {eager_random(e, QFW_F32, 2, 2), eager_random(e, QFW_F32, 2, 2)};
    qfw_val y = in[0], din[2] = {0}, acc[2] = {0};
    op_vjp v = {eager_graph(e), &sign, in, &y, &y, need, din, acc};
    (void)state;
    assert_int_equal(op_find(QFW_OP_UNARY)->vjp(&v), QFW_OK);
    v.params = &gt;
    assert_int_equal(op_find(QFW_OP_BINARY)->vjp(&v), QFW_OK);
    assert_int_equal(din[0] + din[1], 0);
    eager_destroy(e);
}

/* --- BINARY --- */

static void test_binary_values(void **state) {
    static const double a[6] = {1, -2, 3, NaN, 1, 0}, b[6] = {2, -2, 1, 1, NaN, 0};
    static const double want[QFW_BINARY_END][6] = {[QFW_ADD] = {3, -4, 4, NaN, NaN, 0},
        [QFW_SUB] = {-1, 0, 2, NaN, NaN, 0},
        [QFW_MUL] = {2, 4, 3, NaN, NaN, 0},
        [QFW_DIV] = {0.5, 1, 3, NaN, NaN, NaN},
        [QFW_MIN] = {1, -2, 1, NaN, NaN, 0},
        [QFW_MAX] = {2, -2, 3, NaN, NaN, 0},
        [QFW_GT] = {0, 0, 1, 0, 0, 0}};
    eager *const e = eager_create();
    (void)state;
    for (uint32_t kind = QFW_ADD; kind < QFW_BINARY_END; kind++) {
        const qfw_kind_params p = kind_of(kind);
        op_call c = call(QFW_OP_BINARY, 2, &p, sizeof p);
        c.in[0] = vector(e, QFW_F32, 6, a);
        c.in[1] = vector(e, QFW_F32, 6, b);
        expect(e, &c, 6, want[kind]);
    }
    eager_destroy(e);
}

/* Shapes of a, b and y: ranks, then dimensions. */
static const struct {
    uint32_t rank[3];
    int64_t dim[3][4];
} shapes[] = {
    {{2, 2, 2}, {{3, 4}, {3, 4}, {3, 4}}},
    {{2, 2, 2}, {{3, 4}, {1, 4}, {3, 4}}},
    {{2, 2, 2}, {{3, 1}, {3, 4}, {3, 4}}},
    {{2, 2, 2}, {{3, 1}, {1, 4}, {3, 4}}},
    {{2, 1, 2}, {{3, 4}, {4}, {3, 4}}},
    {{1, 3, 3}, {{4}, {2, 3, 1}, {2, 3, 4}}},
    {{2, 0, 2}, {{3, 4}, {0}, {3, 4}}},
    {{4, 2, 4}, {{2, 1, 3, 1}, {3, 2}, {2, 1, 3, 2}}},
    {{1, 2, 2}, {{1}, {1, 1}, {1, 1}}},
    {{2, 1, 2}, {{0, 4}, {4}, {0, 4}}},
    {{2, 2, 2}, {{1, 4}, {0, 4}, {0, 4}}},
};
enum { N_SHAPES = sizeof shapes / sizeof *shapes };

/* Value i of y is that of a and b under the same coordinates. */
static void check_broadcast(eager *e, int s) {
    const qfw_kind_params p = kind_of(QFW_SUB);
    op_call c = call(QFW_OP_BINARY, 2, &p, sizeof p);
    qfw_val y;
    for (int k = 0; k < 2; k++) c.in[k] = random_of(e, shapes[s].rank[k], shapes[s].dim[k], 0, 1);
    call_run(e, &c, &y);
    const op_shape got = eager_shape(e, y);
    assert_int_equal(got.rank, shapes[s].rank[2]);
    for (uint32_t d = 0; d < got.rank; d++) assert_int_equal(got.dim[d], shapes[s].dim[2][d]);
    for (int64_t i = 0; i < qfw_tensor_count(eager_tensor(e, y)); i++) {
        double value[2];
        for (int k = 0; k < 2; k++) {
            const uint32_t rank = shapes[s].rank[k];
            int64_t rest = i, at = 0, step = 1;
            for (uint32_t back = 0; back < got.rank; back++) {
                const int64_t n = got.dim[got.rank - 1 - back], place = rest % n;
                const int64_t m = back < rank ? shapes[s].dim[k][rank - 1 - back] : 1;
                rest /= n;
                if (m > 1) at += place * step;
                step *= m;
            }
            value[k] = eager_read(e, c.in[k])[at];
        }
        assert_true(eager_read(e, y)[i] == value[0] - value[1]);
    }
}

static void test_broadcasting(void **state) {
    (void)state;
    for (int s = 0; s < N_SHAPES; s++) {
        eager *const e = eager_create();
        check_broadcast(e, s);
        eager_destroy(e);
    }
}

static void test_binary_gradients(void **state) {
    static const uint8_t needs[3][2] = {{1, 1}, {1, 0}, {0, 1}};
    (void)state;
    for (uint32_t kind = QFW_ADD; kind < QFW_GT; kind++)
        for (int s = 0; s < N_SHAPES; s++) {
            eager *const e = eager_create();
            const qfw_kind_params p = kind_of(kind);
            op_call c = call(QFW_OP_BINARY, 2, &p, sizeof p);
            for (int k = 0; k < 2; k++)
                c.in[k] = random_of(e, shapes[s].rank[k], shapes[s].dim[k], 2 * k, 1 - 0.5 * k);
            for (int n = 0; n < 3; n++) check_gradients(e, &c, 0, needs[n]);
            eager_destroy(e);
        }
}

static void test_ties_go_to_a(void **state) {
    static const double x[3] = {1, 2, 3}, y[3] = {1, 1, 4}, ones[3] = {1, 1, 1};
    static const double to_a[2][3] = {{1, 0, 1}, {1, 1, 0}};
    static const uint8_t need[2] = {1, 1};
    eager *const e = eager_create();
    const qfw_val in[2] = {vector(e, QFW_F32, 3, x), vector(e, QFW_F32, 3, y)};
    const qfw_val dy = vector(e, QFW_F32, 3, ones);
    (void)state;
    for (int k = 0; k < 2; k++) {
        const qfw_kind_params p = kind_of(k ? QFW_MAX : QFW_MIN);
        qfw_val out = in[0], din[2] = {0}, acc[2] = {0};
        op_vjp v = {eager_graph(e), &p, in, &out, &dy, need, din, acc};
        assert_int_equal(op_find(QFW_OP_BINARY)->vjp(&v), QFW_OK);
        for (int i = 0; i < 3; i++) {
            assert_true(eager_read(e, din[0])[i] == to_a[k][i]);
            assert_true(eager_read(e, din[1])[i] == 1 - to_a[k][i]);
        }
    }
    eager_destroy(e);
}

static void test_binary_takes_the_wider_dtype(void **state) {
    static const uint32_t pairs[5][3] = {{QFW_F32, QFW_BF16, QFW_F32}, {QFW_BF16, QFW_F16, QFW_F32},
        {QFW_BF16, QFW_BF16, QFW_BF16}, {QFW_F64, QFW_F16, QFW_F64}, {QFW_F16, QFW_F16, QFW_F16}};
    const qfw_kind_params p = kind_of(QFW_ADD);
    eager *const e = eager_create();
    (void)state;
    for (int k = 0; k < 5; k++) {
        op_call c = call(QFW_OP_BINARY, 2, &p, sizeof p);
        qfw_val y;
        for (int i = 0; i < 2; i++) c.in[i] = eager_random(e, pairs[k][i], 2, 3);
        call_run(e, &c, &y);
        assert_int_equal(eager_shape(e, y).dtype, pairs[k][2]);
    }
    eager_destroy(e);
}

static void test_binary_in_place(void **state) {
    eager *const e = eager_create();
    const qfw_kind_params p = kind_of(QFW_SUB);
    op_call c = call(QFW_OP_BINARY, 2, &p, sizeof p);
    (void)state;
    c.in[0] = eager_random(e, QFW_F32, 3, 5000);
    c.in[1] = eager_random(e, QFW_F32, 3, 5000);
    check_in_place(e, &c);
    eager_destroy(e);
}

/* --- SELECT --- */

static void test_select(void **state) {
    static const double cond[5] = {0, 1, -2, NaN, -0.0}, a[5] = {1, 2, 3, 4, NaN};
    static const double b[5] = {-1, NaN, -3, -4, -5}, want[5] = {-1, 2, 3, 4, -5};
    static const int32_t whole[5] = {0, 1, -2, 7, 0};
    static const uint8_t both[3] = {0, 1, 1}, one[3] = {0, 0, 1};
    eager *const e = eager_create();
    op_call c = call(QFW_OP_SELECT, 3, NULL, 0);
    (void)state;
    c.in[0] = vector(e, QFW_F32, 5, cond);
    c.in[1] = vector(e, QFW_F32, 5, a);
    c.in[2] = vector(e, QFW_F32, 5, b);
    expect(e, &c, 5, want);
    c.in[0] = eager_ints(e, 5, whole);
    expect(e, &c, 5, want);
    c.in[1] = eager_random_1d(e, QFW_F64, 5, 0, 1);
    c.in[2] = eager_random_1d(e, QFW_F64, 5, 0, 1);
    check_gradients(e, &c, 0, both);
    check_gradients(e, &c, 0, one);
    check_in_place(e, &c);
    eager_destroy(e);
}

/* --- all --- */

static void test_nothing(void **state) {
    const qfw_scale_params p = {sizeof p, 2, 1};
    eager *const e = eager_create();
    op_call c = call(QFW_OP_SCALE, 1, &p, sizeof p);
    qfw_val y;
    (void)state;
    c.in[0] = eager_random(e, QFW_F32, 0, 8);
    call_run(e, &c, &y);
    c.in[0] = eager_random(e, QFW_F32, 8, 0);
    call_run(e, &c, &y);
    eager_destroy(e);
}

static void test_refusals(void **state) {
    static const int32_t ints[2] = {1, 2};
    qfw_kind_params kind = kind_of(QFW_UNARY_END);
    qfw_copy_params copy = {sizeof copy, QFW_NF4};
    const qfw_scale_params scale = {sizeof scale, 1, 0};
    eager *const e = eager_create();
    op_call u = call(QFW_OP_UNARY, 1, &kind, sizeof kind),
            b = call(QFW_OP_BINARY, 2, &kind, sizeof kind);
    op_call c = call(QFW_OP_COPY, 1, &copy, sizeof copy), s = call(QFW_OP_SELECT, 3, NULL, 0);
    op_call r = call(QFW_OP_SCALE, 1, &scale, sizeof scale);
    const qfw_val whole = eager_ints(e, 2, ints), x = eager_random(e, QFW_F32, 3, 4);
    (void)state;
    u.in[0] = r.in[0] = whole;
    b.in[0] = b.in[1] = c.in[0] = s.in[0] = s.in[1] = s.in[2] = x;
    check_refused(e, &u, QFW_E_INVALID, "unary: kind is 13, wanted one of");
    check_refused(e, &b, QFW_E_INVALID, "binary: kind is 13, wanted one of");
    check_refused(e, &r, QFW_E_DTYPE, "scale: x is i32, wanted f32 or bf16 or f16 or f64");
    kind.kind = 0;
    check_refused(e, &u, QFW_E_INVALID, "unary: kind is 0, wanted one of");
    check_refused(e, &b, QFW_E_INVALID, "binary: kind is 0, wanted one of");
    kind.kind = QFW_ADD;
    check_refused(e, &u, QFW_E_DTYPE, "unary: x is i32, wanted f32 or bf16 or f16 or f64");
    check_refused_shape(e, &b, 1, 3, 5, "binary: b is [3, 5], wanted [3, 4]");
    check_refused_shape(e, &b, 1, 2, 1, "binary: b is [2, 1], wanted [3, 1]");
    check_refused_shape(e, &b, 0, 0, 4, "binary: b is [3, 4], wanted [0, 4]");
    b.in[0] = whole;
    check_refused(e, &b, QFW_E_DTYPE, "binary: a is i32");
    b.in[0] = x;
    b.in[1] = whole;
    check_refused(e, &b, QFW_E_DTYPE, "binary: b is i32");
    check_refused(e, &c, QFW_E_INVALID, "copy: dtype is 5, wanted f32, bf16");
    copy.dtype = 99;
    check_refused(e, &c, QFW_E_INVALID, "copy: dtype is 99, wanted f32, bf16");
    copy.dtype = QFW_F32;
    c.in[0] = eager_packed(e, QFW_NF4, 2, 64, 64, 0);
    check_refused(e, &c, QFW_E_DTYPE, "copy: x is nf4, wanted f32");
    check_refused_shape(e, &s, 0, 3, 1, "select: cond is [3, 1], wanted [3, 4]");
    check_refused_shape(e, &s, 2, 4, 3, "select: b is [4, 3], wanted [3, 4]");
    s.in[1] = whole;
    check_refused(e, &s, QFW_E_DTYPE, "select: a is i32");
    eager_destroy(e);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_copy_rounds_to_nearest_even),
        cmocka_unit_test(test_copy_to_and_from_integers),
        cmocka_unit_test(test_copy_makes_any_window_dense),
        cmocka_unit_test(test_copy_of_a_long_strided_row),
        cmocka_unit_test(test_copy_gradient_keeps_the_inputs_dtype),
        cmocka_unit_test(test_scale),
        cmocka_unit_test(test_unary_values),
        cmocka_unit_test(test_unary_gradients),
        cmocka_unit_test(test_unary_gradients_at_the_ends),
        cmocka_unit_test(test_sign_and_gt_have_no_gradient),
        cmocka_unit_test(test_binary_values),
        cmocka_unit_test(test_broadcasting),
        cmocka_unit_test(test_binary_gradients),
        cmocka_unit_test(test_ties_go_to_a),
        cmocka_unit_test(test_binary_takes_the_wider_dtype),
        cmocka_unit_test(test_binary_in_place),
        cmocka_unit_test(test_select),
        cmocka_unit_test(test_nothing),
        cmocka_unit_test(test_refusals),
    };
    return cmocka_run_group_tests_name("elementwise", tests, NULL, NULL);
}
