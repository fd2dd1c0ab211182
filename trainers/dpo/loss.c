/* loss.c -- the preference losses, pair by pair, from log-probabilities.
 *
 * With r = log pi - log pi_ref of a sequence, s = f(r) under the f-divergence (reverse KL: s = r),
 * d = s_w - s_l, b = beta, e = label_smoothing, S = sigmoid, |y| = tokens of a completion:
 * the formulas stand beside each loss. They are TRL 1.16's, but that sigmoid with e > 0 is
 * conservative DPO (Mitchell 2023), which TRL ignores.
 */
#include <math.h>
#include <string.h>

#include "dpo.h"

/* One batch at work. A failed step leaves its status; the steps that follow do nothing. */
typedef struct maker {
    qfw_graph *g;
    const dpo_settings *s;
    const dpo_pairs *p;
    qfw_val r_w, r_l, s_w, s_l, d;
    qfw_status status;
} maker;

static qfw_val binary(maker *m, uint32_t kind, qfw_val a, qfw_val b) {
    qfw_val y = 0;
    if (m->status == QFW_OK) m->status = qfw_binary(m->g, kind, a, b, &y);
    return y;
}

static qfw_val unary(maker *m, uint32_t kind, qfw_val x) {
    qfw_val y = 0;
    if (m->status == QFW_OK) m->status = qfw_unary(m->g, kind, x, &y);
    return y;
}

/* a * x + c */
static qfw_val affine(maker *m, double a, qfw_val x, double c) {
    qfw_val y = 0;
    if (m->status == QFW_OK) m->status = qfw_scale(m->g, x, (float)a, (float)c, &y);
    return y;
}

static qfw_val times(maker *m, double a, qfw_val x) { return affine(m, a, x, 0); }
static qfw_val add(maker *m, qfw_val a, qfw_val b) { return binary(m, QFW_ADD, a, b); }
static qfw_val sub(maker *m, qfw_val a, qfw_val b) { return binary(m, QFW_SUB, a, b); }
static qfw_val mul(maker *m, qfw_val a, qfw_val b) { return binary(m, QFW_MUL, a, b); }
static qfw_val square(maker *m, qfw_val x) { return mul(m, x, x); }
static qfw_val sigmoid(maker *m, double a, qfw_val x) {
    return unary(m, QFW_SIGMOID, times(m, a, x));
}
static qfw_val log_sigmoid(maker *m, double a, qfw_val x) {
    return unary(m, QFW_LOGSIGMOID, times(m, a, x));
}

/* (exp(a r) - 1) / a; the exponent is kept from overflowing. */
static qfw_val alpha_divergence(maker *m, double a, qfw_val r) {
    const int64_t one[1] = {1};
    qfw_val most = 0;
    if (fabs(a) < 1e-6) return r;
    if (m->status == QFW_OK) m->status = qfw_fill(m->g, 80, 1, one, &most);
    const qfw_val power = binary(m, QFW_MIN, times(m, a, r), most);
    return affine(m, 1 / a, unary(m, QFW_EXP, power), -1 / a);
}

/* f(r) of the divergence; what is constant cancels in d. */
static qfw_val divergence(maker *m, qfw_val r) {
    switch (m->s->divergence) {
    case FORWARD_KL: return affine(m, -1, unary(m, QFW_EXP, times(m, -1, r)), 1);
    case JS_DIVERGENCE: return affine(m, 1, log_sigmoid(m, 1, r), log(2));
    case ALPHA_DIVERGENCE: return alpha_divergence(m, m->s->alpha - 1, r);
    default: return r;
    }
}

/* -(1-e) log S(b x) - e log S(-b x) */
static qfw_val smoothed(maker *m, qfw_val x) {
    const double b = m->s->beta, e = m->s->label_smoothing;
    const qfw_val plain = times(m, -(1 - e), log_sigmoid(m, b, x));
    return e > 0 ? add(m, plain, times(m, -e, log_sigmoid(m, -b, x))) : plain;
}

/* S(bd) (log S(bd) - log(1-e)) + S(-bd) (log S(-bd) - log e) */
static qfw_val exo_pair(maker *m) {
    const double b = m->s->beta, e = m->s->label_smoothing;
    const qfw_val up = affine(m, 1, log_sigmoid(m, b, m->d), -log(1 - e));
    const qfw_val down = affine(m, 1, log_sigmoid(m, -b, m->d), -log(e));
    return add(m, mul(m, sigmoid(m, b, m->d), up), mul(m, sigmoid(m, -b, m->d), down));
}

/* (s_w/|y_w| - s_l/|y_l| - 1/(2b))^2 */
static qfw_val ipo(maker *m) {
    const qfw_val w = binary(m, QFW_DIV, m->s_w, m->p->length_w);
    const qfw_val l = binary(m, QFW_DIV, m->s_l, m->p->length_l);
    return square(m, affine(m, 1, sub(m, w, l), -1 / (2 * m->s->beta)));
}

/* -log S(b (s_w/|y_w| - s_l/|y_l|)) */
static qfw_val sigmoid_norm(maker *m) {
    const qfw_val w = binary(m, QFW_DIV, m->s_w, m->p->length_w);
    const qfw_val l = binary(m, QFW_DIV, m->s_l, m->p->length_l);
    return times(m, -1, log_sigmoid(m, m->s->beta, sub(m, w, l)));
}

/* -log S(b r_w) - .5 log S(-b r_w) - .5 log S(-b r_l) */
static qfw_val nca_pair(maker *m) {
    const double b = m->s->beta;
    const qfw_val far = add(m, log_sigmoid(m, -b, m->r_w), log_sigmoid(m, -b, m->r_l));
    return times(m, -1, add(m, log_sigmoid(m, b, m->r_w), times(m, 0.5, far)));
}

/* [-(1-e) log S(bd) + e log S(-bd)] / (1-2e) */
static qfw_val robust(maker *m) {
    const double b = m->s->beta, e = m->s->label_smoothing;
    const qfw_val near = times(m, -(1 - e), log_sigmoid(m, b, m->d));
    return times(m, 1 / (1 - 2 * e), add(m, near, times(m, e, log_sigmoid(m, -b, m->d))));
}

/* -log S(b r_w) - log S(-b r_l) */
static qfw_val bco_pair(maker *m) {
    const double b = m->s->beta;
    return times(m, -1, add(m, log_sigmoid(m, b, m->r_w), log_sigmoid(m, -b, m->r_l)));
}

/* (r_w - .5/b)^2 + (r_l + .5/b)^2 */
static qfw_val sppo_hard(maker *m) {
    const double half = 0.5 / m->s->beta;
    return add(m, square(m, affine(m, 1, m->r_w, -half)), square(m, affine(m, 1, m->r_l, half)));
}

/* x sorted over the pairs; places without a pair come last. */
static qfw_val sorted(maker *m, qfw_val x) {
    static const double past_all = 1e30;
    qfw_val last = 0, y = 0, order = 0;
    if (m->status == QFW_OK) m->status = qfw_fill(m->g, past_all, 1, &m->p->n, &last);
    if (m->status == QFW_OK) m->status = qfw_select(m->g, m->p->is_pair, x, last, &x);
    if (m->status == QFW_OK) m->status = qfw_sort(m->g, x, &y, &order);
    return y;
}

/* smoothed(sort(policy_w - policy_l) - sort(ref_w - ref_l)) */
static qfw_val aot(maker *m) {
    const dpo_pairs *p = m->p;
    const qfw_val policy = sorted(m, sub(m, p->policy_w, p->policy_l));
    return smoothed(m, sub(m, policy, sorted(m, sub(m, p->ref_w, p->ref_l))));
}

/* smoothed(sort(r_w) - sort(r_l)) */
static qfw_val aot_unpaired(maker *m) {
    return smoothed(m, sub(m, sorted(m, m->r_w), sorted(m, m->r_l)));
}

/* 1 - S(b r_w) + S(b r_l) */
static qfw_val apo_zero(maker *m) {
    const double b = m->s->beta;
    return affine(m, 1, sub(m, sigmoid(m, b, m->r_l), sigmoid(m, b, m->r_w)), 1);
}

/* S(b r_w) + 1 - S(b (r_w - r_l)) */
static qfw_val apo_down(maker *m) {
    const double b = m->s->beta;
    const qfw_val gap = sigmoid(m, b, sub(m, m->r_w, m->r_l));
    return affine(m, 1, sub(m, sigmoid(m, b, m->r_w), gap), 1);
}

/* With l = b d, k = S(l / tau):  -log S(l) (1 - k) + exp(-l) k, of which exp(-l) alone overflows
 * where rejected is far ahead. */
static qfw_val discopop(maker *m) {
    const double b = m->s->beta, steep = b / m->s->discopop_tau;
    const qfw_val k = sigmoid(m, steep, m->d);
    const qfw_val logistic = mul(m, log_sigmoid(m, b, m->d), affine(m, 1, k, -1));
    const qfw_val power = sub(m, log_sigmoid(m, steep, m->d), times(m, b, m->d));
    return add(m, logistic, unary(m, QFW_EXP, power));
}

/* max(0, 1 - b d) */
static qfw_val hinge(maker *m) { return unary(m, QFW_RELU, affine(m, -m->s->beta, m->d, 1)); }

static qfw_val sigmoid_loss(maker *m) { return smoothed(m, m->d); }

/* The pairs' losses; sft's is not one of them (emit_sft). */
static const struct {
    const char *name;
    qfw_val (*make)(maker *m);
    int any_divergence;
} losses[LOSS_END] = {
    [LOSS_SIGMOID] = {"sigmoid", sigmoid_loss, 1},
    [LOSS_HINGE] = {"hinge", hinge, 1},
    [LOSS_IPO] = {"ipo", ipo, 1},
    [LOSS_EXO_PAIR] = {"exo_pair", exo_pair, 1},
    [LOSS_NCA_PAIR] = {"nca_pair", nca_pair, 0},
    [LOSS_ROBUST] = {"robust", robust, 1},
    [LOSS_BCO_PAIR] = {"bco_pair", bco_pair, 0},
    [LOSS_SPPO_HARD] = {"sppo_hard", sppo_hard, 0},
    [LOSS_AOT] = {"aot", aot, 0},
    [LOSS_AOT_UNPAIRED] = {"aot_unpaired", aot_unpaired, 0},
    [LOSS_APO_ZERO] = {"apo_zero", apo_zero, 0},
    [LOSS_APO_DOWN] = {"apo_down", apo_down, 0},
    [LOSS_DISCOPOP] = {"discopop", discopop, 1},
    [LOSS_SFT] = {"sft", NULL, 1},
    [LOSS_SIGMOID_NORM] = {"sigmoid_norm", sigmoid_norm, 1},
};

const char *dpo_loss_name(uint32_t i) { return i < LOSS_END ? losses[i].name : NULL; }
int dpo_takes_divergence(dpo_loss loss) { return losses[loss].any_divergence; }

static qfw_val total(maker *m, qfw_val x) {
    qfw_val y = 0;
    if (m->status == QFW_OK) m->status = qfw_reduce_all(m->g, QFW_SUM, x, &y);
    return y;
}

/* Sum over the pairs of `x`. */
static qfw_val over_pairs(maker *m, qfw_val x) { return total(m, mul(m, x, m->p->is_pair)); }

/* Mean cross-entropy of all chosen tokens of the batch, as many times as there are pairs. */
static qfw_val emit_sft(maker *m) {
    const qfw_val tokens = over_pairs(m, m->p->length_w);
    const qfw_val mean = binary(m, QFW_DIV, over_pairs(m, m->p->plain_w), tokens);
    return times(m, -1, mul(m, mean, m->p->count));
}

qfw_status dpo_emit_loss(
    qfw_graph *g, const dpo_settings *s, const dpo_pairs *p, qfw_val inv_weight, qfw_val *loss) {
    maker m = {.g = g, .s = s, .p = p, .status = QFW_OK};
    qfw_val sum = 0;
    m.r_w = sub(&m, p->policy_w, p->ref_w);
    m.r_l = sub(&m, p->policy_l, p->ref_l);
    m.s_w = divergence(&m, m.r_w);
    m.s_l = divergence(&m, m.r_l);
    m.d = sub(&m, m.s_w, m.s_l);
    for (uint32_t i = 0; i < s->n_losses; i++) {
        const dpo_loss kind = s->loss[i];
        qfw_val one = kind == LOSS_SFT ? emit_sft(&m) : over_pairs(&m, losses[kind].make(&m));
        if (s->weight[i] != 1) one = times(&m, s->weight[i], one);
        sum = i ? add(&m, sum, one) : one;
    }
    *loss = mul(&m, sum, inv_weight);
    return m.status;
}
