/* pairs.c -- from the rows of a batch to its pairs: log-probabilities of both sides under policy
 * and reference, and the metrics that TRL logs.
 */
#include "dpo.h"

static qfw_status own_input(
    qfw_graph *g, const char *name, uint32_t dtype, int64_t n, qfw_val *out) {
    return g->api->input(g, name, dtype, 1, &n, out);
}

/* Where the rows of a batch belong. */
typedef struct sides {
    qfw_val row_segment, chosen, rejected; /* indexes */
    int64_t n_segments;
} sides;

/* w, l F32[E] = the sums of x[N] over the chosen and the rejected sequences. */
static qfw_status sum_sides(qfw_graph *g, const sides *s, qfw_val x, qfw_val *w, qfw_val *l) {
    qfw_val sums;
    QFW_TRY(qfw_segment_sum(g, x, s->row_segment, s->n_segments, &sums));
    QFW_TRY(qfw_gather_rows(g, sums, s->chosen, w));
    return qfw_gather_rows(g, sums, s->rejected, l);
}

/* match F32[N]: 1 where the label is the most probable token. */
static qfw_status match_labels(qfw_graph *g, qfw_val argmax, qfw_val labels, qfw_val *match) {
    const qfw_copy_params p = {sizeof p, QFW_F32};
    const int64_t one[1] = {1};
    qfw_val guess, wanted, half;
    QFW_TRY(g->api->op(g, QFW_OP_COPY, &argmax, 1, &p, sizeof p, NULL, &guess, 1));
    QFW_TRY(g->api->op(g, QFW_OP_COPY, &labels, 1, &p, sizeof p, NULL, &wanted, 1));
    QFW_TRY(qfw_binary(g, QFW_SUB, guess, wanted, match));
    QFW_TRY(qfw_unary(g, QFW_ABS, *match, match));
    QFW_TRY(qfw_fill(g, 0.5, 1, one, &half));
    return qfw_binary(g, QFW_GT, half, *match, match);
}

static qfw_status emit_policy(qfw_graph *g, const sides *s, const qfw_lm_vals *lm, qfw_val labels,
    qfw_val *logp, dpo_pairs *p) {
    qfw_logprob_vals v;
    qfw_val match, unused;
    QFW_TRY(qfw_token_logprob(g, lm->hidden, lm->lm_head, labels, 1u | 2u | 4u, &v));
    QFW_TRY(match_labels(g, v.argmax, labels, &match));
    QFW_TRY(sum_sides(g, s, match, &p->right_w, &unused));
    QFW_TRY(sum_sides(g, s, v.entropy, &p->entropy_w, &p->entropy_l));
    QFW_TRY(sum_sides(g, s, v.mean, &p->logits_w, &p->logits_l));
    *logp = v.logp;
    return QFW_OK;
}

static qfw_status emit_reference(qfw_graph *g, const qfw_lm_vals *lm, qfw_val hidden,
    qfw_val labels, int64_t n_rows, qfw_val *logp) {
    qfw_logprob_vals v;
    if (!hidden) return own_input(g, "ref_logp", QFW_F32, n_rows, logp);
    QFW_TRY(qfw_token_logprob(g, hidden, lm->lm_head, labels, 0, &v));
    *logp = v.logp;
    return QFW_OK;
}

static qfw_status open_inputs(
    qfw_graph *g, const qfw_batch_shape *shape, sides *s, dpo_pairs *p, qfw_val *labels) {
    s->n_segments = shape->n_segments;
    QFW_TRY(own_input(g, "labels", QFW_I32, shape->n_rows, labels));
    QFW_TRY(own_input(g, "row_segment", QFW_I32, shape->n_rows, &s->row_segment));
    QFW_TRY(own_input(g, "chosen_segment", QFW_I32, p->n, &s->chosen));
    QFW_TRY(own_input(g, "rejected_segment", QFW_I32, p->n, &s->rejected));
    QFW_TRY(own_input(g, "is_pair", QFW_F32, p->n, &p->is_pair));
    QFW_TRY(own_input(g, "chosen_length", QFW_F32, p->n, &p->length_w));
    QFW_TRY(own_input(g, "rejected_length", QFW_F32, p->n, &p->length_l));
    return qfw_reduce_all(g, QFW_SUM, p->is_pair, &p->count);
}

qfw_status dpo_emit_pairs(qfw_graph *g, const dpo_settings *s, const qfw_batch_shape *shape,
    const qfw_lm_vals *lm, qfw_val ref_hidden, dpo_pairs *p) {
    sides at;
    qfw_val labels, policy, ref, tail, unused;
    QFW_TRY(open_inputs(g, shape, &at, p, &labels));
    QFW_TRY(emit_reference(g, lm, ref_hidden, labels, shape->n_rows, &ref));
    QFW_TRY(emit_policy(g, &at, lm, labels, &policy, p));
    QFW_TRY(sum_sides(g, &at, policy, &p->plain_w, &unused));
    if (s->ld_alpha < 1) {
        QFW_TRY(own_input(g, "tail_weight", QFW_F32, shape->n_rows, &tail));
        QFW_TRY(qfw_binary(g, QFW_MUL, policy, tail, &policy));
        QFW_TRY(qfw_binary(g, QFW_MUL, ref, tail, &ref));
    }
    QFW_TRY(sum_sides(g, &at, policy, &p->policy_w, &p->policy_l));
    return sum_sides(g, &at, ref, &p->ref_w, &p->ref_l);
}

/* --- metrics --- */

static qfw_status over_pairs(qfw_graph *g, const dpo_pairs *p, qfw_val x, qfw_val *sum) {
    QFW_TRY(qfw_binary(g, QFW_MUL, x, p->is_pair, &x));
    return qfw_reduce_all(g, QFW_SUM, x, sum);
}

/* sum / count: in training each micro-batch counts once, as in TRL; over an evaluation set what is
 * summed counts, so that it does not matter how the set is cut. */
static qfw_status quotient(
    qfw_graph *g, const qfw_batch_shape *shape, const char *name, qfw_val sum, qfw_val count) {
    if (!shape->training) return g->api->metric(g, name, sum, count);
    QFW_TRY(qfw_binary(g, QFW_DIV, sum, count, &sum));
    return g->api->metric(g, name, sum, 0);
}

/* The mean over pairs of scale * (a - b), or a where b is 0. */
static qfw_status mean_metric(qfw_graph *g, const qfw_batch_shape *shape, const char *name,
    const dpo_pairs *p, double scale, qfw_val a, qfw_val b) {
    qfw_val x = a;
    if (b) QFW_TRY(qfw_binary(g, QFW_SUB, a, b, &x));
    QFW_TRY(over_pairs(g, p, x, &x));
    QFW_TRY(qfw_scale(g, x, (float)scale, 0, &x));
    return quotient(g, shape, name, x, p->count);
}

/* The mean over the tokens of the pairs: a and, where it is not 0, b are sums over tokens. */
static qfw_status token_metric(qfw_graph *g, const qfw_batch_shape *shape, const char *name,
    const dpo_pairs *p, qfw_val a, qfw_val length_a, qfw_val b, qfw_val length_b) {
    qfw_val sum, count, more;
    QFW_TRY(over_pairs(g, p, a, &sum));
    QFW_TRY(over_pairs(g, p, length_a, &count));
    if (b) {
        QFW_TRY(over_pairs(g, p, b, &more));
        QFW_TRY(qfw_binary(g, QFW_ADD, sum, more, &sum));
        QFW_TRY(over_pairs(g, p, length_b, &more));
        QFW_TRY(qfw_binary(g, QFW_ADD, count, more, &count));
    }
    return quotient(g, shape, name, sum, count);
}

static qfw_status reward_metrics(
    qfw_graph *g, const dpo_settings *s, const qfw_batch_shape *shape, const dpo_pairs *p) {
    const double beta = s->beta;
    qfw_val w, l, wins;
    QFW_TRY(qfw_binary(g, QFW_SUB, p->policy_w, p->ref_w, &w));
    QFW_TRY(qfw_binary(g, QFW_SUB, p->policy_l, p->ref_l, &l));
    QFW_TRY(qfw_binary(g, QFW_GT, w, l, &wins));
    QFW_TRY(mean_metric(g, shape, "rewards/chosen", p, beta, w, 0));
    QFW_TRY(mean_metric(g, shape, "rewards/rejected", p, beta, l, 0));
    QFW_TRY(mean_metric(g, shape, "rewards/accuracies", p, 1, wins, 0));
    return mean_metric(g, shape, "rewards/margins", p, beta, w, l);
}

qfw_status dpo_emit_metrics(
    qfw_graph *g, const dpo_settings *s, const qfw_batch_shape *shape, const dpo_pairs *p) {
    const qfw_val n_w = p->length_w, n_l = p->length_l;
    QFW_TRY(reward_metrics(g, s, shape, p));
    QFW_TRY(mean_metric(g, shape, "logps/chosen", p, 1, p->policy_w, 0));
    QFW_TRY(mean_metric(g, shape, "logps/rejected", p, 1, p->policy_l, 0));
    QFW_TRY(token_metric(g, shape, "logits/chosen", p, p->logits_w, n_w, 0, 0));
    QFW_TRY(token_metric(g, shape, "logits/rejected", p, p->logits_l, n_l, 0, 0));
    QFW_TRY(token_metric(g, shape, "entropy", p, p->entropy_w, n_w, p->entropy_l, n_l));
    return token_metric(g, shape, "mean_token_accuracy", p, p->right_w, n_w, 0, 0);
}
