/* ops_nn.h -- the composite ops: what each computes, its operands, its params, its typed wrapper.
 *
 * Formulas hold row by row unless said otherwise. Letters: tensor.h. The gradients named _BWD are
 * emitted by the core's VJPs, never by authors; they stand here because backends implement them.
 */
#ifndef QFW_OPS_NN_H
#define QFW_OPS_NN_H

#include "qfw/ops.h"

/* QMATMUL: y[N,M] = x[N,K] * w[M,K]^T (+ acc[N,M]); w NF4 or FP4, frozen: no dw exists.
 *   in x, w, acc?   out y
 * QMATMUL_DX: dx[N,K] = dy[N,M] * w[M,K] (+ acc[N,K]).   in dy, w, acc?   out dx
 * Authors call qfw_linear, which chooses GEMM or QMATMUL. */

/* LORA: xa[N,R] = drop(x)[N,K] * a[R,K]^T;  out[:, col0 .. col0+M'-1] = y[...] + scale * xa *
 * b[M',R]^T, the other columns of y[N,M] unchanged. drop: qfw_dropout_params; p = 0: row_key may be
 * absent.
 *   in y, x, a, b, row_key?   out y' (in place with y), xa
 * LORA_BWD: with dys = dy[:, col0 ..], t = scale * dys * b:  da = t^T * drop(x),
 *   db = scale * dys^T * xa, dx = drop'(t * a) (+ acc), drop' the same mask and 1/(1-p).
 *   in dy, x, a, b, xa, row_key?, acc?   out dx?, da, db */
typedef struct qfw_lora_params {
    uint32_t size, rsv;
    int64_t col0;
    float scale, p;             /* alpha / r (or alpha / sqrt r); dropout */
    uint32_t seed, module_hash; /* the dropout key (qfw_dropout_params) */
} qfw_lora_params;
QFW_SEALED(qfw_lora_params, module_hash);

/* RMSNORM: rstd = 1 / sqrt(mean(x^2) + eps), y = (x * rstd) * w.   in x[N,C], w[C]   out y, rstd[N]
 * RMSNORM_BWD: with g = dy * w, xh = x * rstd:  dx = rstd * (g - xh * mean(g * xh)) (+ acc),
 *   dw = sum over rows of dy * xh.   in dy, x, w, rstd, acc?   out dx (in place with dy), dw? */
typedef struct qfw_rmsnorm_params {
    uint32_t size;
    float eps;
} qfw_rmsnorm_params;
QFW_SEALED(qfw_rmsnorm_params, eps);

static inline QFW_CHECKED qfw_status qfw_rmsnorm(
    qfw_graph *g, qfw_val x, qfw_val w, float eps, qfw_val *y) {
    const qfw_rmsnorm_params p = {sizeof p, eps};
    const qfw_val in[2] = {x, w};
    qfw_val out[2] = {0, 0}; /* y, rstd */
    const qfw_status s = g->api->op(g, QFW_OP_RMSNORM, in, 2, &p, sizeof p, NULL, out, 2);
    *y = out[0];
    return s;
}

/* ROPE: in each of the first n_rot heads of x[N, heads*D], with h = rotary_dim / 2 and j < h,
 *   y[j] = x[j] * cos[j] - x[j+h] * sin[j],   y[j+h] = x[j+h] * cos[j] + x[j] * sin[j];
 * dimensions past rotary_dim and the heads past n_rot are copied. inverse = 1 negates sin: that is
 * the gradient. So a fused qkv is one op with n_rot = H + G.
 *   in x, cos[N,h], sin[N,h]   out y (in place with x) */
typedef struct qfw_rope_params {
    uint32_t size, inverse;
    int64_t head_dim, rotary_dim, n_rot;
} qfw_rope_params;
QFW_SEALED(qfw_rope_params, n_rot);

static inline QFW_CHECKED qfw_status qfw_rope(qfw_graph *g, qfw_val x, qfw_val cos, qfw_val sin,
    int64_t head_dim, int64_t rotary_dim, int64_t n_rot, qfw_val *y) {
    const qfw_rope_params p = {sizeof p, 0, head_dim, rotary_dim, n_rot};
    const qfw_val in[3] = {x, cos, sin};
    return g->api->op(g, QFW_OP_ROPE, in, 3, &p, sizeof p, NULL, y, 1);
}

/* SWIGLU: mid[N,F] = up * gate * sigmoid(gate).   in gate_up[N,2F] (gate first), or gate[N,F],
 * up[N,F]
 *   out mid
 * SWIGLU_BWD:   in dmid, gate_up, or dmid, gate, up   out dgate_up (in place with gate_up), or
 * dgate
 *   (in place with gate), dup (in place with up) */
static inline QFW_CHECKED qfw_status qfw_swiglu(
    qfw_graph *g, qfw_val gate, qfw_val up, qfw_val *mid) { /* up 0: gate is the packed gate_up */
    const qfw_val in[2] = {gate, up};
    return g->api->op(g, QFW_OP_SWIGLU, in, 2, NULL, 0, NULL, mid, 1);
}

/* ATTN: per head, softmax(scale * q * k^T) * v over the keys that each query sees, H/G consecutive
 * query heads sharing one kv head. segments I32[S,5], one {q0, q1, p0, p1, k0} a row: query rows
 * q0..q1-1 see the key rows p0..p1-1 and, causally, k0 .. k0 + (row - q0). Rows in no segment give
 * 0 (lse 0). A row with q1 <= q0 is padding. Query ranges do not overlap. window > 0: a query sees
 * a key only if (its place - the key's place) < window, places counted along prefix then own rows.
 *   in q[N,H*D], k[M,G*D], v[M,G*D], segments; or qkv[N,(H+2G)*D], 0, 0, segments (then M = N)
 *   out o[N,H*D], lse[H,N] (natural log of the sum of exp of scaled scores)
 * ATTN_BWD:   in do, q, k, v, segments, o, lse   out dq, dk, dv; or dqkv alone (each written whole,
 *   zero where no segment reaches; keys shared by segments sum in segment order) */
typedef struct qfw_attn_params {
    uint32_t size;
    float scale;                                   /* usually 1 / sqrt(D) */
    int64_t n_heads, n_kv_heads, head_dim, window; /* window 0: none */
} qfw_attn_params;
QFW_SEALED(qfw_attn_params, window);

/* Through the graph service, which keeps keys and values where a graph generates. */
static inline QFW_CHECKED qfw_status qfw_attn(qfw_graph *g, qfw_val q, qfw_val k, qfw_val v,
    qfw_val segments, const qfw_attn_params *p, qfw_val *o) { /* k = v = 0: q is the packed qkv */
    return g->api->attention(g, q, k, v, segments, p, o);
}

/* EMBED: y[n] = table[tokens[n]].   in table[V,C], tokens I32[N]   out y[N,C]
 * EMBED_BWD: dtable = rows of dy summed by token, in row order.   in dy, tokens, acc?[V,C]
 *   out dtable[V,C] */
typedef struct qfw_embed_bwd_params {
    uint32_t size, rsv;
    int64_t vocab;
} qfw_embed_bwd_params;
QFW_SEALED(qfw_embed_bwd_params, vocab);

static inline QFW_CHECKED qfw_status qfw_embed(
    qfw_graph *g, qfw_val table, qfw_val tokens, qfw_val *y) {
    const qfw_val in[2] = {table, tokens};
    return g->api->op(g, QFW_OP_EMBED, in, 2, NULL, 0, NULL, y, 1);
}

/* TOKEN_LOGPROB: with z = hidden[n] * w^T (never stored whole) and t = labels[n]:
 *   logp = z[t] - lse, lse = log sum exp z. Rows whose label is QFW_IGNORE_LABEL are not computed:
 *   all their outputs are 0 (argmax -1).
 *   in hidden[N,C], w[V,C], labels I32[N]
 *   out logp[N], lse[N], argmax? I32[N] (lowest index wins), entropy?[N] (nats), mean?[N] (of z
 *   over V), lse2?[N] (log sum exp 2z). Only logp has a gradient.
 * TOKEN_LOGPROB_BWD: dz = coef[n] * (onehot(t) - softmax(z)), 0 on ignored rows; dhidden = dz * w,
 *   dw = dz^T * hidden.   in coef[N] (dL/dlogp), hidden, w, labels, lse, acc?[V,C] (to dw)
 *   out dhidden[N,C], dw?[V,C] */
typedef struct qfw_logprob_vals {
    qfw_val logp, argmax, entropy, mean, lse2;
} qfw_logprob_vals;

/* `want`: bit 0 argmax, 1 entropy, 2 mean, 3 lse2. */
static inline QFW_CHECKED qfw_status qfw_token_logprob(qfw_graph *g, qfw_val hidden, qfw_val w,
    qfw_val labels, uint32_t want, qfw_logprob_vals *vals) {
    const qfw_val in[3] = {hidden, w, labels};
    const uint8_t keep[6] = {1, 1, (uint8_t)(want & 1), (uint8_t)(want >> 1 & 1),
        (uint8_t)(want >> 2 & 1), (uint8_t)(want >> 3 & 1)};
    qfw_val out[6] = {0, 0, 0, 0, 0, 0};
    const qfw_status s = g->api->op(g, QFW_OP_TOKEN_LOGPROB, in, 3, NULL, 0, keep, out, 6);
    vals->logp = out[0];
    vals->argmax = out[2];
    vals->entropy = out[3];
    vals->mean = out[4];
    vals->lse2 = out[5];
    return s;
}

/* XENT: TOKEN_LOGPROB on logits that exist.   in logits[N,V], labels   out as TOKEN_LOGPROB
 * XENT_BWD:   in coef[N], logits, labels, lse   out dlogits[N,V] (in place with logits) */

/* ADAMW (torch.optim.AdamW), with s = scalars F32[3] = {1 - lr*wd, lr / (1 - b1^t), sqrt(1 - b2^t)}
 * and g' = g * coef:  p *= s0;  m += (g' - m) * (1 - b1);  v = b2*v + (1 - b2)*g'*g';
 *   p -= s1 * m / (sqrt(v) / s2 + eps).
 *   in p, g, m, v, scalars, coef?[1]   out p', m', v' (in place with p, m, v) */
typedef struct qfw_adamw_params {
    uint32_t size, rsv;
    double beta1, beta2, eps;
} qfw_adamw_params;
QFW_SEALED(qfw_adamw_params, eps);

#endif
