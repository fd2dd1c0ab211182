/* test_attn.c -- attention against a plain softmax over a mask, for every kind of segment, and its
 * gradients. */
#include "../support/gradcheck.h"
#include "../support/test.h"
#include "base/parallel.h"

#include <math.h>

enum { H = 4, G = 2, D = 3, N = 9, ROWS = 14 };

/* Two packed sequences and a padding row; with prefixes: rows 0..3 and 4..7 share the key rows
 * 0..2. */
static const int32_t packed_rows[15] = {0, 5, 0, 0, 0, 5, 8, 0, 0, 5, 8, 3, 99, 50, -7};
static const int32_t prefix_rows[10] = {0, 4, 0, 3, 4, 4, 8, 0, 3, 9};

static qfw_attn_params params_of(int64_t window) {
    const qfw_attn_params p = {sizeof p, 0.7f, H, G, D, window};
    return p;
}

static op_call packed(eager *e, uint32_t dtype, const qfw_attn_params *p) {
    op_call c = {.code = QFW_OP_ATTN, .n_in = 4, .n_out = 2, .want = {1, 1}, .params = p};
    c.param_bytes = sizeof *p;
    c.in[0] = eager_random(e, dtype, N, (H + 2 * G) * D);
    c.in[3] = eager_ints_2d(e, 3, 5, packed_rows);
    return c;
}

static op_call apart(eager *e, uint32_t dtype, const qfw_attn_params *p) {
    op_call c = {.code = QFW_OP_ATTN, .n_in = 4, .n_out = 2, .want = {1, 1}, .params = p};
    c.param_bytes = sizeof *p;
    c.in[0] = eager_random(e, dtype, N, H * D);
    c.in[1] = eager_random(e, dtype, ROWS, G * D);
    c.in[2] = eager_random(e, dtype, ROWS, G * D);
    c.in[3] = eager_ints_2d(e, 2, 5, prefix_rows);
    return c;
}

static op_call backward(eager *e, const op_call *f) {
    const int both = f->in[1] != 0;
    op_call c = {.code = QFW_OP_ATTN_BWD, .n_in = 7, .n_out = 3};
    qfw_val out[2];
    call_run(e, f, out);
    c.want[0] = 1;
    c.want[1] = c.want[2] = (uint8_t)both;
    c.params = f->params;
    c.param_bytes = f->param_bytes;
    c.in[0] = eager_random(e, eager_shape(e, f->in[0]).dtype, N, H * D);
    for (int i = 0; i < 4; i++) c.in[i + 1] = f->in[i];
    c.in[5] = out[0];
    c.in[6] = out[1];
    return c;
}

/* The place of key m for query n in segment s, -1 where it is not seen: written from the words of
 * ops_nn.h. */
static int place_seen(const int32_t *s, int n, int m, int which, int64_t window) {
    const int prefix = s[3] - s[2], own = n - s[0];
    int place = -1;
    if (n < s[0] || n >= s[1]) return -1;
    if (which == 0 && m >= s[2] && m < s[3]) place = m - s[2];
    if (which == 1 && m >= s[4] && m <= s[4] + own) place = prefix + m - s[4];
    if (place >= 0 && window > 0 && prefix + own - place >= window) return -1;
    return place;
}

/* o and lse of query n, head h, over all that it sees. */
static double plain(const double *q, const double *k, const double *v, int k_stride, int n_keys,
    const int32_t *segments, int n_segments, int n, int64_t window, double *o) {
    double sum = 0;
    for (int d = 0; d < D; d++) o[d] = 0;
    for (int s = 0; s < n_segments; s++)
        for (int which = 0; which < 2; which++)
            for (int m = 0; m < n_keys; m++) {
                double score = 0;
                if (place_seen(segments + 5 * s, n, m, which, window) < 0) continue;
                for (int d = 0; d < D; d++) score += (double)0.7f * q[d] * k[m * k_stride + d];
                sum += exp(score);
                for (int d = 0; d < D; d++) o[d] += exp(score) * v[m * k_stride + d];
            }
    for (int d = 0; d < D && sum > 0; d++) o[d] /= sum;
    return sum > 0 ? log(sum) : 0;
}

static void compare(eager *e, const op_call *c, const int32_t *segments, int n_segments) {
    const int apart_kv = c->in[1] != 0, width = (H + 2 * G) * D;
    const int64_t window = ((const qfw_attn_params *)c->params)->window;
    const double *const q = eager_read(e, c->in[0]);
    const double *const k = apart_kv ? eager_read(e, c->in[1]) : q + H * D;
    const double *const v = apart_kv ? eager_read(e, c->in[2]) : q + (H + G) * D;
    const int q_stride = apart_kv ? H * D : width, k_stride = apart_kv ? G * D : width;
    qfw_val out[2];
    call_run(e, c, out);
    for (int n = 0; n < N; n++)
        for (int h = 0; h < H; h++) {
            const int kv = h / (H / G) * D;
            double o[D];
            const double lse = plain(q + n * q_stride + h * D, k + kv, v + kv, k_stride,
                apart_kv ? ROWS : N, segments, n_segments, n, window, o);
            assert_true(fabs(eager_read(e, out[1])[h * N + n] - lse) < 1e-12);
            for (int d = 0; d < D; d++)
                assert_true(fabs(eager_read(e, out[0])[n * H * D + h * D + d] - o[d]) < 1e-12);
        }
}

static void test_values(void **state) {
    (void)state;
    for (int64_t window = 0; window < 6; window++) {
        eager *const e = eager_create();
        const qfw_attn_params p = params_of(window);
        const op_call a = packed(e, QFW_F64, &p), b = apart(e, QFW_F64, &p);
        compare(e, &a, packed_rows, 3);
        compare(e, &b, prefix_rows, 2);
        eager_destroy(e);
    }
}

static void test_the_first_query_sees_itself(void **state) {
    eager *const e = eager_create();
    const qfw_attn_params p = params_of(0);
    const op_call c = packed(e, QFW_F64, &p);
    qfw_val out[2];
    (void)state;
    call_run(e, &c, out);
    const double *const v = eager_read(e, c.in[0]) + (H + G) * D;
    for (int d = 0; d < D; d++) {
        assert_true(fabs(eager_read(e, out[0])[d] - v[d]) < 1e-15);
        assert_true(
            fabs(eager_read(e, out[0])[5 * H * D + d] - v[5 * (H + 2 * G) * D + d]) < 1e-15);
        assert_true(eager_read(e, out[0])[8 * H * D + d] == 0); /* padding */
    }
    assert_true(eager_read(e, out[1])[8] == 0);
    eager_destroy(e);
}

static void test_gradients(void **state) {
    static const uint8_t qkv[4] = {1, 0, 0, 0}, all[4] = {1, 1, 1, 0}, keys[4] = {0, 1, 1, 0};
    (void)state;
    for (int64_t window = 0; window < 4; window += 3) {
        eager *const e = eager_create();
        const qfw_attn_params p = params_of(window);
        const op_call a = packed(e, QFW_F64, &p), b = apart(e, QFW_F64, &p);
        check_gradients(e, &a, 0, qkv);
        check_gradients(e, &b, 0, all);
        check_gradients(e, &b, 0, keys);
        eager_destroy(e);
    }
}

static void test_packed_equals_apart(void **state) {
    eager *const e = eager_create();
    const qfw_attn_params p = params_of(0);
    const op_call a = packed(e, QFW_F32, &p), da = backward(e, &a);
    op_call b = a, db;
    qfw_val one[3], three[3], part[3];
    qfw_graph *const g = eager_graph(e);
    const int64_t first[3] = {0, H * D, (H + G) * D}, count[3] = {H * D, G * D, G * D};
    (void)state;
    for (int i = 0; i < 3; i++) {
        const int64_t dim[2] = {N, count[i]}, stride[2] = {(H + 2 * G) * D, 1};
        assert_int_equal(g->api->view(g, a.in[0], 2, dim, stride, first[i], &b.in[i]), 0);
    }
    db = backward(e, &b);
    db.in[0] = da.in[0];
    call_run(e, &da, one);
    call_run(e, &db, three);
    for (int i = 0; i < 3; i++) {
        const int64_t dim[2] = {N, count[i]}, stride[2] = {(H + 2 * G) * D, 1};
        assert_int_equal(g->api->view(g, one[0], 2, dim, stride, first[i], &part[i]), 0);
        assert_true(eager_distance(e, part[i], three[i]) == 0);
    }
    eager_destroy(e);
}

static void test_the_number_of_threads_changes_no_bit(void **state) {
    eager *const e = eager_create();
    const qfw_attn_params p = params_of(3);
    const op_call f = apart(e, QFW_F32, &p), b = backward(e, &f);
    qfw_val one[3], four[3];
    (void)state;
    call_run(e, &b, one);
    assert_int_equal(parallel_start(4), QFW_OK);
    call_run(e, &b, four);
    parallel_stop();
    for (int o = 0; o < 3; o++) assert_true(eager_distance(e, four[o], one[o]) == 0);
    eager_destroy(e);
}

static void test_refusals(void **state) {
    static const int32_t outside[4][5] = {
        {0, 10, 0, 0, 0}, {0, 4, 0, 15, 0}, {0, 4, 0, 0, 11}, {-1, 4, 0, 0, 0}};
    eager *const e = eager_create();
    const qfw_attn_params p = params_of(0);
    qfw_attn_params q = p;
    op_call a = packed(e, QFW_F32, &p), b = apart(e, QFW_F32, &p);
    op_call da = backward(e, &a), db = backward(e, &b);
    (void)state;
    check_refused_shape(e, &a, 0, N, 25, "attn: qkv is [9, 25], wanted [any, 24]");
    check_refused_shape(e, &a, 3, 3, 4, "attn: segments is [3, 4], wanted [any, 5]");
    check_refused_shape(e, &b, 0, N, 24, "attn: q is [9, 24], wanted [any, 12]");
    check_refused_shape(e, &b, 1, ROWS, 5, "attn: k is [14, 5], wanted [any, 6]");
    check_refused_shape(e, &b, 2, 13, 6, "attn: v is [13, 6], wanted [14, 6]");
    check_refused_shape(e, &da, 0, 8, 12, "attn_bwd: do is [8, 12], wanted [9, 12]");
    check_refused_shape(e, &da, 5, N, 11, "attn_bwd: o is [9, 11], wanted [9, 12]");
    check_refused_shape(e, &da, 6, N, H, "attn_bwd: lse is [9, 4], wanted [4, 9]");
    da.want[1] = 1;
    check_refused(e, &da, QFW_E_INVALID, "attn_bwd: outputs is 2, wanted dqkv alone");
    db.want[2] = 0;
    check_refused(e, &db, QFW_E_INVALID, "attn_bwd: outputs is 2, wanted dq, dk and dv");
    for (int i = 0; i < 4; i++) {
        b.in[3] = eager_ints_2d(e, 1, 5, outside[i]);
        check_refused(e, &b, QFW_E_DATA, "attn: segment 0 is {");
    }
    b.in[2] = 0;
    check_refused(e, &b, QFW_E_INVALID, "attn: k and v is 1, wanted both or neither");
    a.params = &q;
    q.n_kv_heads = 3;
    check_refused(e, &a, QFW_E_INVALID, "attn: n_kv_heads is 3, wanted a divisor of n_heads");
    q.n_kv_heads = G;
    q.window = -1;
    check_refused(e, &a, QFW_E_INVALID, "attn: window is -1");
    eager_destroy(e);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_values),
        cmocka_unit_test(test_the_first_query_sees_itself),
        cmocka_unit_test(test_gradients),
        cmocka_unit_test(test_packed_equals_apart),
        cmocka_unit_test(test_the_number_of_threads_changes_no_bit),
        cmocka_unit_test(test_refusals),
    };
    return cmocka_run_group_tests_name("attn", tests, NULL, NULL);
}
