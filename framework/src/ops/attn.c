/* attn.c -- causal attention over segments (packed sequences, shared prefixes, caches) with grouped
 * heads and an optional window, and its gradients. */
#include "base/error.h"
#include "base/mem.h"
#include "ops/check.h"
#include "ops/ref.h"

#include <inttypes.h>
#include <math.h>

/* --- shapes --- */

static qfw_status check_heads(const char *op, const qfw_attn_params *p) {
    const int64_t H = p->n_heads, G = p->n_kv_heads, D = p->head_dim;
    QFW_TRY(check_param(H > 0, op, "n_heads", (double)H, "1 or more"));
    QFW_TRY(check_param(G > 0 && H % G == 0, op, "n_kv_heads", (double)G, "a divisor of n_heads"));
    QFW_TRY(check_param(D > 0, op, "head_dim", (double)D, "1 or more"));
    QFW_TRY(check_param(p->window >= 0, op, "window", (double)p->window, "0 or more"));
    return check_param(isfinite(p->scale), op, "scale", (double)p->scale, "a finite number");
}

/* q, k, v from in[first]; with k and v absent q is the packed qkv. */
static qfw_status check_qkv(const char *op, const op_infer *i, uint32_t first) {
    const qfw_attn_params *const p = i->params;
    const op_shape *const q = i->in[first], *const k = i->in[first + 1],
                          *const v = i->in[first + 2];
    const int64_t H = p->n_heads, G = p->n_kv_heads, D = p->head_dim;
    QFW_TRY(check_heads(op, p));
    QFW_TRY(check_param(!k == !v, op, "k and v", (k != NULL) + (v != NULL), "both or neither"));
    if (!k)
        QFW_TRY(check_operand(op, "qkv", q, DTYPES_FLOAT, 2, ANY_DIM, (H + 2 * G) * D));
    else
        QFW_TRY(check_operand(op, "q", q, DTYPES_FLOAT, 2, ANY_DIM, H * D));
    QFW_TRY(check_operand(op, "k", k, DTYPES_FLOAT, 2, ANY_DIM, G * D));
    QFW_TRY(check_operand(op, "v", v, DTYPES_FLOAT, 2, k ? k->dim[0] : ANY_DIM, G * D));
    return check_operand(op, "segments", i->in[first + 3], DTYPE_BIT(QFW_I32), 2, ANY_DIM, 5);
}

static qfw_status attn_infer(op_infer *i) {
    const qfw_attn_params *const p = i->params;
    const op_shape *const q = i->in[0];
    QFW_TRY(check_qkv("attn", i, 0));
    i->out[0] = shape_2d(q->dtype, q->dim[0], p->n_heads * p->head_dim);
    i->out[1] = shape_2d(shape_stat_dtype(q->dtype), p->n_heads, q->dim[0]);
    return QFW_OK;
}

static qfw_status attn_bwd_infer(op_infer *i) {
    const char *const op = "attn_bwd";
    const qfw_attn_params *const p = i->params;
    const op_shape *const d_o = i->in[0], *const q = i->in[1], *const k = i->in[2];
    QFW_TRY(check_qkv(op, i, 1));
    const int64_t N = q->dim[0], width = p->n_heads * p->head_dim;
    QFW_TRY(check_operand(op, "do", d_o, DTYPES_FLOAT, 2, N, width));
    QFW_TRY(check_operand(op, "o", i->in[5], DTYPES_FLOAT, 2, N, width));
    QFW_TRY(check_operand(op, "lse", i->in[6], DTYPES_FLOAT, 2, p->n_heads, N));
    const int count = i->want[1] + i->want[2];
    QFW_TRY(check_param(count == (k ? 2 : 0), op, "outputs", 1 + count,
        k ? "dq, dk and dv" : "dqkv alone where qkv is packed"));
    i->out[0] = shape_2d(d_o->dtype, N, q->dim[1]);
    if (k) i->out[1] = i->out[2] = shape_2d(d_o->dtype, k->dim[0], k->dim[1]);
    return QFW_OK;
}

static qfw_status attn_vjp(op_vjp *v) {
    const uint8_t apart = v->in[1] != 0, want[3] = {1, apart, apart};
    const qfw_val in[7] = {
        v->dout[0], v->in[0], v->in[1], v->in[2], v->in[3], v->out[0], v->out[1]};
    qfw_val out[3] = {0, 0, 0};
    if (!v->dout[0] || (!v->need[0] && !(apart && (v->need[1] || v->need[2])))) return QFW_OK;
    QFW_TRY(v->g->api->op(
        v->g, QFW_OP_ATTN_BWD, in, 7, v->params, sizeof(qfw_attn_params), want, out, 3));
    for (int k = 0; k < 3; k++)
        if (v->need[k]) v->din[k] = out[k];
    return QFW_OK;
}

/* --- what a query sees --- */

typedef struct segment {
    int64_t q0, q1, p0, p1, k0;
} segment;

/* Places count along the prefix, then along the segment's own rows. Row i of the segment sees the
 * places first .. last. */
typedef struct sight {
    int64_t first, last;
} sight;

static sight sight_of(const segment *s, int64_t row, int64_t window) {
    const int64_t last = s->p1 - s->p0 + row - s->q0;
    const int64_t first = window > 0 && last - window + 1 > 0 ? last - window + 1 : 0;
    return (sight){first, last};
}

static int64_t key_at(const segment *s, int64_t place) {
    const int64_t prefix = s->p1 - s->p0;
    return place < prefix ? s->p0 + place : s->k0 + place - prefix;
}

/* The segments of one op, read and checked; padding rows are left out. */
static qfw_status read_segments(
    const char *op, const qfw_tensor *t, int64_t N, int64_t M, segment **out, int64_t *count) {
    const int64_t S = t->dim[0];
    segment *const list = mem_alloc((size_t)S, sizeof *list);
    int64_t n = 0;
    if (!list) return QFW_E_NOMEM;
    for (int64_t s = 0; s < S; s++) {
        int64_t v[5];
        for (int64_t k = 0; k < 5; k++) v[k] = ref_i32(t, ref_at(t, 5 * s + k));
        if (v[1] <= v[0]) continue;
        if (v[0] < 0 || v[1] > N || v[2] < 0 || v[3] < v[2] || v[3] > M || v[4] < 0 ||
            v[4] > M - (v[1] - v[0])) {
            mem_free(list);
            return err_fail("E_OP_VALUE", QFW_E_DATA,
                "%s: segment %" PRId64 " is {%" PRId64 ", %" PRId64 ", %" PRId64 ", %" PRId64
                ", %" PRId64 "}, wanted rows inside %" PRId64 " queries and %" PRId64 " keys",
                op, s, v[0], v[1], v[2], v[3], v[4], N, M);
        }
        list[n++] = (segment){v[0], v[1], v[2], v[3], v[4]};
    }
    *out = list;
    *count = n;
    return QFW_OK;
}

/* --- reference --- */

typedef struct attn_job {
    const qfw_op *op;
    const qfw_attn_params *p;
    segment *segments;
    int64_t n_segments, N, M;    /* query and key rows */
    qfw_tensor q_of, k_of, v_of; /* windows, packed or not */
    double *q, *k, *v;           /* whole */
    double *d_o, *o, *lse;       /* whole, backward */
    double *dq, *dk, *dv;        /* sums, backward */
} attn_job;

static qfw_status open_job(attn_job *j, const char *name, const qfw_op *op, uint32_t first) {
    const qfw_tensor *const q = op->in[first];
    const qfw_attn_params *const p = op->params;
    const int64_t H = p->n_heads, G = p->n_kv_heads, D = p->head_dim;
    *j = (attn_job){.op = op, .p = p, .N = q->dim[0]};
    const int packed = !op->in[first + 1];
    j->q_of = packed ? ref_columns(q, 0, H * D) : *q;
    j->k_of = packed ? ref_columns(q, H * D, G * D) : *op->in[first + 1];
    j->v_of = packed ? ref_columns(q, (H + G) * D, G * D) : *op->in[first + 2];
    j->M = j->k_of.dim[0];
    QFW_TRY(read_segments(name, op->in[first + 3], j->N, j->M, &j->segments, &j->n_segments));
    j->q = ref_matrix(&j->q_of);
    j->k = ref_matrix(&j->k_of);
    j->v = ref_matrix(&j->v_of);
    return j->q && j->k && j->v ? QFW_OK : QFW_E_NOMEM;
}

static void close_job(attn_job *j) {
    double *const all[] = {j->q, j->k, j->v, j->d_o, j->o, j->lse, j->dq, j->dk, j->dv};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) mem_free(all[i]);
    mem_free(j->segments);
}

static const segment *segment_of(const attn_job *j, int64_t row) {
    for (int64_t s = 0; s < j->n_segments; s++)
        if (row >= j->segments[s].q0 && row < j->segments[s].q1) return &j->segments[s];
    return NULL;
}

/* One head of one query: o[D], and its lse. `score` has room for every key. */
static double attend(
    const attn_job *j, const segment *s, int64_t row, int64_t h, double *score, double *o) {
    const int64_t D = j->p->head_dim, G = j->p->n_kv_heads, kv = h / (j->p->n_heads / G) * D;
    const double *const q = j->q + (row * j->p->n_heads + h) * D;
    const sight see = sight_of(s, row, j->p->window);
    double max = (double)-INFINITY, sum = 0;
    for (int64_t t = see.first; t <= see.last; t++) {
        const double *const k = j->k + key_at(s, t) * G * D + kv;
        score[t - see.first] = (double)j->p->scale * ref_dot(q, k, D);
        max = fmax(max, score[t - see.first]);
    }
    for (int64_t t = see.first; t <= see.last; t++) {
        const double *const v = j->v + key_at(s, t) * G * D + kv;
        const double weight = exp(score[t - see.first] - max);
        sum += weight;
        for (int64_t d = 0; d < D; d++) o[d] += weight * v[d];
    }
    for (int64_t d = 0; d < D; d++) o[d] /= sum;
    return max + log(sum);
}

static void attn_row(void *arg, int64_t n, double *scratch) {
    const attn_job *const j = arg;
    const int64_t H = j->p->n_heads, D = j->p->head_dim;
    const qfw_tensor *const lse = j->op->out[1];
    double *const o = scratch, *const score = o + H * D;
    const segment *const s = segment_of(j, n);
    for (int64_t c = 0; c < H * D; c++) o[c] = 0;
    for (int64_t h = 0; h < H; h++) {
        const double l = s ? attend(j, s, n, h, score, o + h * D) : 0;
        ref_store(lse, ref_at(lse, h * j->N + n), l);
    }
    ref_set_row(j->op->out[0], n, o);
}

static qfw_status attn_ref(const qfw_op *op) {
    attn_job j;
    qfw_status s = open_job(&j, "attn", op, 0);
    /* A query sees at most every key once as prefix and once as its own. */
    const int64_t scratch = j.p->n_heads * j.p->head_dim + 2 * j.M;
    if (s == QFW_OK) s = ref_each_row(j.N, scratch, attn_row, &j);
    close_job(&j);
    return s;
}

/* One head of one query of the backward: adds to its dq and to the dk, dv of what it sees. */
static void attend_backward(const attn_job *j, const segment *s, int64_t row, int64_t h) {
    const int64_t D = j->p->head_dim, G = j->p->n_kv_heads, kv = h / (j->p->n_heads / G) * D;
    const int64_t at = (row * j->p->n_heads + h) * D;
    const double *const q = j->q + at, *const d_o = j->d_o + at;
    const double scale = (double)j->p->scale, delta = ref_dot(d_o, j->o + at, D);
    const double lse = j->lse[h * j->N + row];
    const sight see = sight_of(s, row, j->p->window);
    for (int64_t t = see.first; t <= see.last; t++) {
        const int64_t key = key_at(s, t) * G * D + kv;
        const double weight = exp(scale * ref_dot(q, j->k + key, D) - lse);
        const double ds = scale * weight * (ref_dot(d_o, j->v + key, D) - delta);
        for (int64_t d = 0; d < D; d++) {
            j->dq[at + d] += ds * j->k[key + d];
            j->dk[key + d] += ds * q[d];
            j->dv[key + d] += weight * d_o[d];
        }
    }
}

/* All that one kv head takes part in: its columns of dk and dv, and of dq those of its query
 * heads. */
static void backward_group(void *arg, int64_t g, double *scratch) {
    const attn_job *const j = arg;
    const int64_t share = j->p->n_heads / j->p->n_kv_heads;
    (void)scratch;
    for (int64_t s = 0; s < j->n_segments; s++)
        for (int64_t row = j->segments[s].q0; row < j->segments[s].q1; row++)
            for (int64_t h = g * share; h < (g + 1) * share; h++)
                attend_backward(j, &j->segments[s], row, h);
}

static qfw_status open_backward(attn_job *j) {
    const qfw_op *const op = j->op;
    const int64_t width = j->p->n_heads * j->p->head_dim, kv = j->p->n_kv_heads * j->p->head_dim;
    j->d_o = ref_matrix(op->in[0]);
    j->o = ref_matrix(op->in[5]);
    j->lse = ref_matrix(op->in[6]);
    j->dq = mem_alloc((size_t)(j->N * width), sizeof *j->dq);
    j->dk = mem_alloc((size_t)(j->M * kv), sizeof *j->dk);
    j->dv = mem_alloc((size_t)(j->M * kv), sizeof *j->dv);
    return j->d_o && j->o && j->lse && j->dq && j->dk && j->dv ? QFW_OK : QFW_E_NOMEM;
}

static void store_matrix(const qfw_tensor *t, const double *m) {
    for (int64_t r = 0; r < t->dim[0]; r++) ref_set_row(t, r, m + r * t->dim[1]);
}

static void store_gradients(const attn_job *j) {
    const qfw_op *const op = j->op;
    const int64_t q = j->q_of.dim[1], kv = j->k_of.dim[1];
    const int packed = !op->out[1];
    const qfw_tensor dq = packed ? ref_columns(op->out[0], 0, q) : *op->out[0];
    const qfw_tensor dk = packed ? ref_columns(op->out[0], q, kv) : *op->out[1];
    const qfw_tensor dv = packed ? ref_columns(op->out[0], q + kv, kv) : *op->out[2];
    store_matrix(&dq, j->dq);
    store_matrix(&dk, j->dk);
    store_matrix(&dv, j->dv);
}

static qfw_status attn_bwd_ref(const qfw_op *op) {
    attn_job j;
    qfw_status s = open_job(&j, "attn_bwd", op, 1);
    if (s == QFW_OK) s = open_backward(&j);
    if (s == QFW_OK) s = ref_each_row(j.p->n_kv_heads, 0, backward_group, &j);
    if (s == QFW_OK) store_gradients(&j);
    close_job(&j);
    return s;
}

const op_def op_attn = {
    .name = "attn",
    .code = QFW_OP_ATTN,
    .param_bytes = sizeof(qfw_attn_params),
    .n_in = 4,
    .n_in_min = 4,
    .n_out = 2,
    .optional = {0, 1, 1},
    .infer = attn_infer,
    .vjp = attn_vjp,
    .ref = attn_ref,
};

const op_def op_attn_bwd = {
    .name = "attn_bwd",
    .code = QFW_OP_ATTN_BWD,
    .param_bytes = sizeof(qfw_attn_params),
    .n_in = 7,
    .n_in_min = 7,
    .n_out = 3,
    .optional = {0, 0, 1, 1},
    .out_optional = {0, 1, 1},
    .infer = attn_bwd_infer,
    .ref = attn_bwd_ref,
};
