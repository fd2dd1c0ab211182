/* attn.c -- ATTN and its gradient, tile by tile, never storing a row of scores.
 *
 * A tile is TILE queries against TILE keys, both gathered into scratch and padded, so every product
 * has one shape and a row's bits depend on its own sequence alone. The forward keeps a running
 * maximum and sum per query; the backward makes the probabilities again from the saved log-sum-exp.
 * Keys are numbered along the prefix, then the segment's own rows; query i of a segment sees keys 0
 * .. prefix + i, within the window.
 */
#include <math.h>
#include <string.h>

#include "cpu.h"

enum { TILE = 64 };

/* The rows of one operand for one head: row r starts at data + r * stride. */
typedef struct rows {
    float *data;
    int64_t stride;
} rows;

typedef struct attn_job {
    const qfw_attn_params *p;
    const cpu_isa *isa;
    const int32_t *segments;
    int64_t n_segments, group; /* group: query heads a kv head */
    rows q, k, v, o, d_o, dq, dk, dv;
    float *lse;
    int64_t lse_stride;
    float *scratch;
    int64_t scratch_size;
    int one_by_one; /* segments share keys: each head walks them in order */
} attn_job;

typedef struct segment {
    int64_t q0, n, p0, prefix, k0;
} segment;

static segment segment_at(const attn_job *j, int64_t s) {
    const int32_t *v = j->segments + s * 5;
    return (segment){
        v[0], v[1] > v[0] ? v[1] - v[0] : 0, v[2], v[3] > v[2] ? v[3] - v[2] : 0, v[4]};
}

static float *row_of(const rows *r, int64_t row, int64_t head, int64_t width) {
    return r->data + row * r->stride + head * width;
}

/* The row of key `i` of a segment. */
static int64_t key_row(const segment *s, int64_t i) {
    return i < s->prefix ? s->p0 + i : s->k0 + i - s->prefix;
}

/* Rows first .. first+n-1 of a segment's queries, times `scale`, into [TILE, D]; the rest zero. */
static void load_queries(const rows *from, const segment *s, int64_t first, int64_t n, int64_t head,
    int64_t width, float scale, float *to) {
    for (int64_t i = 0; i < TILE; i++, to += width) {
        if (i >= n) {
            memset(to, 0, (size_t)width * sizeof(float));
            continue;
        }
        const float *row = row_of(from, s->q0 + first + i, head, width);
        for (int64_t d = 0; d < width; d++) to[d] = row[d] * scale;
    }
}

static void load_keys(const rows *from, const segment *s, int64_t first, int64_t n, int64_t head,
    int64_t width, float *to) {
    for (int64_t i = 0; i < n; i++)
        memcpy(to + i * width, row_of(from, key_row(s, first + i), head, width),
            (size_t)width * sizeof(float));
    memset(to + n * width, 0, (size_t)((TILE - n) * width) * sizeof(float));
}

/* The keys that queries first .. first+n-1 can see: [*from, *to). */
static void visible(
    const attn_job *j, const segment *s, int64_t first, int64_t n, int64_t *from, int64_t *to) {
    const int64_t window = j->p->window, place = s->prefix + first;
    *from = window > 0 && place - window + 1 > 0 ? (place - window + 1) / TILE * TILE : 0;
    *to = place + n;
}

/* The visible keys of query `place` inside the tile that starts at key `first`: [*from, *to). */
static void row_range(
    const attn_job *j, int64_t place, int64_t first, int64_t n, int64_t *from, int64_t *to) {
    const int64_t window = j->p->window;
    *to = cpu_min(n, place - first + 1);
    *from = window > 0 && place - window + 1 > first ? place - window + 1 - first : 0;
}

/* y[TILE,n] (+)= a * b on this thread; a is [TILE,k], or turned [k,TILE]; b is [k,n]. */
static void tile_product(const attn_job *j, const float *a, int turned, const float *b, int64_t n,
    int64_t k, int accumulate, float *y) {
    j->isa->product(&(cpu_product){.m = TILE,
        .n = n,
        .k = k,
        .row = turned ? 1 : k,
        .step = turned ? TILE : 1,
        .ldb = n,
        .ldfrom = n,
        .ldy = n,
        .a = a,
        .b = b,
        .from = accumulate ? y : NULL,
        .y = y,
        .alpha = 1});
}

/* to[D,TILE] = the transpose of a tile [TILE,D]. */
static void turn_tile(const attn_job *j, const float *tile, float *to) {
    const float *row[TILE];
    for (int64_t i = 0; i < TILE; i++) row[i] = tile + i * j->p->head_dim;
    j->isa->turn(row, TILE, j->p->head_dim, to, TILE);
}

/* Scratch of one worker, as tiles of [TILE,D] and [TILE,TILE]. */
typedef struct tiles {
    float *q, *k, *v, *o, *d_o, *dq, *dk, *dv; /* [TILE,D] */
    float *turned;                             /* [D,TILE] */
    float *s, *dp;                             /* [TILE,TILE] */
    float *top, *sum;                          /* [TILE] */
} tiles;

static int64_t scratch_floats(int64_t width) { return TILE * (9 * width + 2 * TILE + 2); }

static tiles tiles_of(const attn_job *j, uint32_t worker) {
    const int64_t d = TILE * j->p->head_dim;
    float *at = j->scratch + worker * j->scratch_size;
    return (tiles){at, at + d, at + 2 * d, at + 3 * d, at + 4 * d, at + 5 * d, at + 6 * d,
        at + 7 * d, at + 8 * d, at + 9 * d, at + 9 * d + TILE * TILE, at + 9 * d + 2 * TILE * TILE,
        at + 9 * d + 2 * TILE * TILE + TILE};
}

/* --- forward --- */

/* One row of a tile of scores: to probabilities over [from, to), carrying maximum, sum and
 * output. */
static void softmax_row(
    float *s, int64_t from, int64_t to, float *top, float *sum, float *o, int64_t width) {
    const int64_t seen = to > from ? to - from : 0;
    const float tile_top = cpu_max_row(s + from, seen), best = tile_top > *top ? tile_top : *top;
    for (int64_t i = 0; i < from; i++) s[i] = 0;
    cpu_exp_row(s + from, best, s + from, seen);
    const float total = (float)cpu_sum_row(s + from, seen);
    for (int64_t i = to > from ? to : from; i < TILE; i++) s[i] = 0;
    if (to <= from) return;
    const float keep = *top > -INFINITY ? expf(*top - best) : 0;
    *sum = *sum * keep + total;
    *top = best;
    for (int64_t d = 0; d < width; d++) o[d] *= keep;
}

static void forward_tile(
    const attn_job *j, const segment *s, int64_t first, int64_t head, const tiles *t) {
    const int64_t width = j->p->head_dim, n = cpu_min(TILE, s->n - first), kv = head / j->group;
    int64_t from, to;
    visible(j, s, first, n, &from, &to);
    load_queries(&j->q, s, first, n, head, width, j->p->scale, t->q);
    memset(t->o, 0, (size_t)(TILE * width) * sizeof(float));
    for (int64_t i = 0; i < TILE; i++) {
        t->top[i] = -INFINITY;
        t->sum[i] = 0;
    }
    for (int64_t key = from; key < to; key += TILE) {
        const int64_t keys = cpu_min(TILE, to - key);
        load_keys(&j->k, s, key, keys, kv, width, t->k);
        load_keys(&j->v, s, key, keys, kv, width, t->v);
        turn_tile(j, t->k, t->turned);
        tile_product(j, t->q, 0, t->turned, TILE, width, 0, t->s);
        for (int64_t i = 0; i < TILE; i++) {
            int64_t a = 0, b = 0;
            if (i < n) row_range(j, s->prefix + first + i, key, keys, &a, &b);
            softmax_row(t->s + i * TILE, a, b, &t->top[i], &t->sum[i], t->o + i * width, width);
        }
        tile_product(j, t->s, 0, t->v, width, TILE, 1, t->o);
    }
    for (int64_t i = 0; i < n; i++) {
        float *o = row_of(&j->o, s->q0 + first + i, head, width);
        for (int64_t d = 0; d < width; d++) o[d] = t->o[i * width + d] / t->sum[i];
        j->lse[head * j->lse_stride + s->q0 + first + i] = t->top[i] + logf(t->sum[i]);
    }
}

static void forward_item(void *arg, uint32_t item, uint32_t worker) {
    const attn_job *j = (const attn_job *)arg;
    const segment s = segment_at(j, item / j->p->n_heads);
    const tiles t = tiles_of(j, worker);
    for (int64_t first = 0; first < s.n; first += TILE)
        forward_tile(j, &s, first, item % j->p->n_heads, &t);
}

/* --- backward --- */

/* Scores to probabilities, and dp to ds = p * (dp - delta). */
static void score_gradient(const attn_job *j, const segment *s, int64_t first, int64_t n,
    int64_t key, int64_t keys, int64_t head, const tiles *t) {
    for (int64_t i = 0; i < TILE; i++) {
        float *p = t->s + i * TILE, *ds = t->dp + i * TILE;
        int64_t from = 0, to = 0;
        if (i < n) row_range(j, s->prefix + first + i, key, keys, &from, &to);
        const float lse = i < n ? j->lse[head * j->lse_stride + s->q0 + first + i] : 0;
        for (int64_t c = 0; c < from; c++) p[c] = ds[c] = 0;
        cpu_exp_row(p + from, lse, p + from, to > from ? to - from : 0);
        for (int64_t c = from; c < to; c++) ds[c] = p[c] * (ds[c] - t->sum[i]);
        for (int64_t c = to > from ? to : from; c < TILE; c++) p[c] = ds[c] = 0;
    }
}

static void add_rows(const rows *to, const segment *s, int64_t key, int64_t keys, int64_t head,
    int64_t width, const float *from) {
    for (int64_t i = 0; i < keys; i++) {
        float *row = row_of(to, key_row(s, key + i), head, width);
        for (int64_t d = 0; d < width; d++) row[d] += from[i * width + d];
    }
}

static void backward_tile(
    const attn_job *j, const segment *s, int64_t first, int64_t head, const tiles *t) {
    const int64_t width = j->p->head_dim, n = cpu_min(TILE, s->n - first), kv = head / j->group;
    int64_t from, to;
    visible(j, s, first, n, &from, &to);
    load_queries(&j->q, s, first, n, head, width, j->p->scale, t->q);
    load_queries(&j->d_o, s, first, n, head, width, 1, t->d_o);
    load_queries(&j->o, s, first, n, head, width, 1, t->o);
    memset(t->dq, 0, (size_t)(TILE * width) * sizeof(float));
    for (int64_t i = 0; i < TILE; i++) { /* delta = do . o, the softmax's share of each row */
        float delta = 0;
        for (int64_t d = 0; d < width; d++) delta += t->d_o[i * width + d] * t->o[i * width + d];
        t->sum[i] = delta;
    }
    for (int64_t key = from; key < to; key += TILE) {
        const int64_t keys = cpu_min(TILE, to - key);
        load_keys(&j->k, s, key, keys, kv, width, t->k);
        load_keys(&j->v, s, key, keys, kv, width, t->v);
        turn_tile(j, t->k, t->turned);
        tile_product(j, t->q, 0, t->turned, TILE, width, 0, t->s);
        turn_tile(j, t->v, t->turned);
        tile_product(j, t->d_o, 0, t->turned, TILE, width, 0, t->dp);
        score_gradient(j, s, first, n, key, keys, head, t);
        tile_product(j, t->s, 1, t->d_o, width, TILE, 0, t->dv);
        tile_product(j, t->dp, 1, t->q, width, TILE, 0, t->dk);
        tile_product(j, t->dp, 0, t->k, width, TILE, 1, t->dq);
        add_rows(&j->dk, s, key, keys, kv, width, t->dk);
        add_rows(&j->dv, s, key, keys, kv, width, t->dv);
    }
    for (int64_t i = 0; i < n; i++) {
        float *dq = row_of(&j->dq, s->q0 + first + i, head, width);
        for (int64_t d = 0; d < width; d++) dq[d] = j->p->scale * t->dq[i * width + d];
    }
}

/* The query heads of one kv head over one segment: what adds to one dk and dv is one thread's. */
static void backward_item(void *arg, uint32_t item, uint32_t worker) {
    const attn_job *j = (const attn_job *)arg;
    const int64_t kv = item % j->p->n_kv_heads;
    const int64_t first_segment = j->one_by_one ? 0 : item / j->p->n_kv_heads;
    const int64_t past = j->one_by_one ? j->n_segments : first_segment + 1;
    const tiles t = tiles_of(j, worker);
    for (int64_t at = first_segment; at < past; at++) {
        const segment s = segment_at(j, at);
        for (int64_t head = kv * j->group; head < (kv + 1) * j->group; head++)
            for (int64_t first = 0; first < s.n; first += TILE)
                backward_tile(j, &s, first, head, &t);
    }
}

/* --- the ops --- */

static rows rows_at(const qfw_tensor *t, int64_t col) {
    return (rows){cpu_f32(t) + col, t->stride[0]};
}

/* q, k and v from three tensors, or from one that is packed. */
static void set_qkv(
    const qfw_attn_params *p, const qfw_tensor *const *t, rows *q, rows *k, rows *v) {
    const int64_t q_cols = p->n_heads * p->head_dim, kv_cols = p->n_kv_heads * p->head_dim;
    *q = rows_at(t[0], 0);
    *k = t[1] ? rows_at(t[1], 0) : rows_at(t[0], q_cols);
    *v = t[2] ? rows_at(t[2], 0) : rows_at(t[0], q_cols + kv_cols);
}

static attn_job make_job(const cpu_call *c, const qfw_tensor *segments, const qfw_tensor *lse) {
    const qfw_attn_params *p = (const qfw_attn_params *)c->op->params;
    return (attn_job){.p = p,
        .isa = c->be->isa,
        .segments = cpu_i32(segments),
        .n_segments = segments->dim[0],
        .group = p->n_heads / p->n_kv_heads,
        .lse = cpu_f32(lse),
        .lse_stride = lse->stride[0],
        .scratch = (float *)(void *)c->workspace,
        .scratch_size = scratch_floats(p->head_dim)};
}

static void clear(const qfw_tensor *t) {
    if (t) memset(cpu_f32(t), 0, (size_t)qfw_tensor_count(t) * sizeof(float));
}

static uint64_t workspace(const qfw_inst *be, const qfw_op *op) {
    const qfw_attn_params *p = (const qfw_attn_params *)op->params;
    return sizeof(float) * be->n_workers * (uint64_t)scratch_floats(p->head_dim);
}

uint32_t cpu_attn_supports(const qfw_op *op) { return cpu_support(op); }
uint32_t cpu_attn_bwd_supports(const qfw_op *op) { return cpu_support(op); }
uint64_t cpu_attn_workspace(const qfw_inst *be, const qfw_op *op) { return workspace(be, op); }
uint64_t cpu_attn_bwd_workspace(const qfw_inst *be, const qfw_op *op) { return workspace(be, op); }

qfw_status cpu_attn(const cpu_call *c) {
    const qfw_op *op = c->op;
    attn_job job = make_job(c, op->in[3], op->out[1]);
    set_qkv(job.p, op->in, &job.q, &job.k, &job.v);
    job.o = rows_at(op->out[0], 0);
    clear(op->out[0]);
    clear(op->out[1]);
    cpu_parallel(c, job.n_segments * job.p->n_heads, forward_item, &job);
    return QFW_OK;
}

qfw_status cpu_attn_bwd(const cpu_call *c) {
    const qfw_op *op = c->op;
    attn_job job = make_job(c, op->in[4], op->in[6]);
    set_qkv(job.p, op->in + 1, &job.q, &job.k, &job.v);
    set_qkv(job.p, op->out, &job.dq, &job.dk, &job.dv);
    job.d_o = rows_at(op->in[0], 0);
    job.o = rows_at(op->in[5], 0);
    for (int i = 0; i < 3; i++) clear(op->out[i]);
    for (int64_t s = 0; s < job.n_segments; s++) job.one_by_one |= segment_at(&job, s).prefix > 0;
    const int64_t items = job.p->n_kv_heads * (job.one_by_one ? 1 : job.n_segments);
    cpu_parallel(c, items, backward_item, &job);
    return QFW_OK;
}
