/* dpo.h -- what the files of the dpo trainer share. */
#ifndef DPO_H
#define DPO_H

#include "qfw/trainer.h"

enum { MAX_LOSSES = 15 };

/* The losses, by the names that TRL gives them. */
typedef enum dpo_loss {
    LOSS_SIGMOID,
    LOSS_HINGE,
    LOSS_IPO,
    LOSS_EXO_PAIR,
    LOSS_NCA_PAIR,
    LOSS_ROBUST,
    LOSS_BCO_PAIR,
    LOSS_SPPO_HARD,
    LOSS_AOT,
    LOSS_AOT_UNPAIRED,
    LOSS_APO_ZERO,
    LOSS_APO_DOWN,
    LOSS_DISCOPOP,
    LOSS_SFT,
    LOSS_SIGMOID_NORM,
    LOSS_END
} dpo_loss;

typedef enum dpo_divergence {
    REVERSE_KL,
    FORWARD_KL,
    JS_DIVERGENCE,
    ALPHA_DIVERGENCE
} dpo_divergence;

/* What [trainer.dpo] says. */
typedef struct dpo_settings {
    double beta, label_smoothing, discopop_tau, alpha, ld_alpha;
    dpo_divergence divergence;
    uint32_t n_losses;
    dpo_loss loss[MAX_LOSSES];
    double weight[MAX_LOSSES];
} dpo_settings;

/* Of a batch of E pairs, all F32[E]; what belongs to no pair is 0. */
typedef struct dpo_pairs {
    int64_t n;
    qfw_val is_pair; /* 1 where there is a pair */
    qfw_val count;   /* F32[1]: pairs */
    /* Log-probability of chosen and rejected: sums over their tokens, the tail by ld_alpha. */
    qfw_val policy_w, policy_l, ref_w, ref_l;
    qfw_val plain_w;            /* the policy's of chosen, each token once */
    qfw_val length_w, length_l; /* tokens of them, at least 1 */
    /* Sums over tokens, for metrics alone. */
    qfw_val logits_w, logits_l, entropy_w, entropy_l, right_w;
} dpo_pairs;

/* pairs.c: everything of dpo_pairs but n, and its means. ref_hidden 0: the core gives the
 * reference's log-probabilities. */
qfw_status dpo_emit_pairs(qfw_graph *g, const dpo_settings *s, const qfw_batch_shape *shape,
    const qfw_lm_vals *lm, qfw_val ref_hidden, dpo_pairs *p);
qfw_status dpo_emit_metrics(
    qfw_graph *g, const dpo_settings *s, const qfw_batch_shape *shape, const dpo_pairs *p);

/* loss F32[1]: the weighted sum of the losses, each the mean over pairs times the window's share;
 * inv_weight is 1/(pairs of the micro-batch * micro-batches). */
qfw_status dpo_emit_loss(
    qfw_graph *g, const dpo_settings *s, const dpo_pairs *p, qfw_val inv_weight, qfw_val *loss);

const char *dpo_loss_name(uint32_t i);   /* NULL past the last */
int dpo_takes_divergence(dpo_loss loss); /* another one than reverse KL */

#endif
