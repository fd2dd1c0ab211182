/* dpo.c -- direct preference optimisation (Rafailov et al., 2023) and its relatives: pairs of a
 * chosen and a rejected completion of one prompt, compared with a frozen reference.
 *
 * A row is "prompt", "chosen", "rejected": strings, or lists of messages. The reference is the
 * adapter as it was when training began (the bare model, if that is fresh), on the same weights, so
 * at first all margins are exactly 0 and sigmoid's loss is ln 2.
 */
#include "dpo.h"

#include <string.h>

#include "qfw/plugin.h"

struct qfw_inst {
    const qfw_host *host;
    const qfw_encoder_api *encoder;
    const qfw_doc_api *doc;
    dpo_settings s;
};

/* --- settings --- */

static qfw_status refuse(const qfw_host *h, const char *key, const char *text) {
    return qfw_fail(h, QFW_E_CONFIG, "trainer.dpo.%s: %s", key, text);
}

static qfw_status find_loss(const qfw_host *h, const char *name, size_t n, dpo_loss *out) {
    const char *known;
    for (uint32_t i = 0; (known = dpo_loss_name(i)) != NULL; i++) {
        if (strlen(known) != n || strncmp(known, name, n)) continue;
        *out = (dpo_loss)i;
        return QFW_OK;
    }
    return qfw_fail(h, QFW_E_CONFIG,
        "trainer.dpo.loss_type: '%.*s', wanted sigmoid, hinge, ipo, exo_pair, nca_pair, robust, "
        "bco_pair, sppo_hard, aot, aot_unpaired, apo_zero, apo_down, discopop, sft or sigmoid_norm",
        (int)n, name);
}

static qfw_status read_losses(const qfw_host *h, const char *list, dpo_settings *s) {
    for (const char *at = list; *at;) {
        const size_t n = strcspn(at, ",");
        if (s->n_losses == MAX_LOSSES) return refuse(h, "loss_type", "more than 15 losses");
        s->weight[s->n_losses] = 1;
        QFW_TRY(find_loss(h, at, n, &s->loss[s->n_losses++]));
        at += n + (at[n] == ',');
    }
    return s->n_losses ? QFW_OK : refuse(h, "loss_type", "no loss is named");
}

/* A decimal number such as 0.25; *end is past it. No exponent: weights are small and plain. */
static int read_number(const char *at, const char **end, double *out) {
    double value = 0, unit = 1;
    int digits = 0;
    for (; *at >= '0' && *at <= '9'; at++, digits++) value = 10 * value + (*at - '0');
    if (*at == '.')
        for (at++; *at >= '0' && *at <= '9'; at++, digits++) value += (unit /= 10) * (*at - '0');
    *end = at;
    *out = value;
    return digits > 0;
}

static qfw_status read_weights(const qfw_host *h, const char *list, dpo_settings *s) {
    uint32_t n = 0;
    for (const char *at = list; *at; n++) {
        if (n == s->n_losses || !read_number(at, &at, &s->weight[n]) || (*at && *at != ','))
            return refuse(h, "loss_weights", "wanted one number such as 0.5 for each loss_type");
        at += *at == ',';
    }
    return !n || n == s->n_losses
               ? QFW_OK
               : refuse(h, "loss_weights", "wanted one number such as 0.5 for each loss_type");
}

static qfw_status check_losses(const qfw_host *h, const dpo_settings *s) {
    for (uint32_t i = 0; i < s->n_losses; i++) {
        if (s->divergence != REVERSE_KL && !dpo_takes_divergence(s->loss[i]))
            return refuse(h, "f_divergence_type",
                "wanted reverse_kl: one of the losses is defined for no other");
        if (s->loss[i] == LOSS_EXO_PAIR && s->label_smoothing <= 0)
            return refuse(h, "label_smoothing", "0, but exo_pair takes its logarithm");
        if (s->loss[i] == LOSS_ROBUST && s->label_smoothing >= 0.5)
            return refuse(h, "label_smoothing", "robust divides by 1 - 2 * label_smoothing");
    }
    return QFW_OK;
}

static qfw_status read_settings(const qfw_host *h, const qfw_cfg *cfg, dpo_settings *s) {
    const char *losses = NULL, *weights = NULL, *divergence = NULL;
    QFW_TRY(h->cfg_f64(h, cfg, "beta", &s->beta));
    QFW_TRY(h->cfg_f64(h, cfg, "label_smoothing", &s->label_smoothing));
    QFW_TRY(h->cfg_f64(h, cfg, "discopop_tau", &s->discopop_tau));
    QFW_TRY(h->cfg_f64(h, cfg, "f_alpha_divergence_coef", &s->alpha));
    QFW_TRY(h->cfg_str(h, cfg, "f_divergence_type", &divergence));
    QFW_TRY(h->cfg_str(h, cfg, "loss_type", &losses));
    QFW_TRY(h->cfg_str(h, cfg, "loss_weights", &weights));
    s->divergence = !strcmp(divergence, "forward_kl")         ? FORWARD_KL
                    : !strcmp(divergence, "js_divergence")    ? JS_DIVERGENCE
                    : !strcmp(divergence, "alpha_divergence") ? ALPHA_DIVERGENCE
                                                              : REVERSE_KL;
    QFW_TRY(read_losses(h, losses, s));
    QFW_TRY(read_weights(h, weights, s));
    return check_losses(h, s);
}

/* --- life --- */

static void dpo_destroy(qfw_inst *t) {
    if (t) t->host->heap_free(t->host, t);
}

static qfw_status dpo_create(const qfw_host *h, const qfw_cfg *cfg, qfw_inst **out) {
    *out = NULL;
    qfw_inst *t = (qfw_inst *)h->heap_alloc(h, sizeof *t, 16);
    if (!t) return qfw_fail(h, QFW_E_NOMEM, "dpo: no memory");
    memset(t, 0, sizeof *t);
    t->host = h;
    t->encoder = (const qfw_encoder_api *)h->extension(h, "qfw.encoder/1");
    t->doc = (const qfw_doc_api *)h->extension(h, "qfw.doc/1");
    qfw_status status =
        t->encoder && t->doc
            ? QFW_OK
            : qfw_fail(h, QFW_E_ABI, "dpo: the host lacks qfw.encoder/1 or qfw.doc/1");
    if (status == QFW_OK) status = read_settings(h, cfg, &t->s);
    if (status == QFW_OK)
        *out = t;
    else
        dpo_destroy(t);
    return status;
}

/* --- rows --- */

static qfw_status check_field(const qfw_inst *t, const qfw_doc *row, const char *ptr) {
    const char *text = NULL;
    if (t->doc->kind(row, ptr) == QFW_DOC_ABSENT)
        return t->doc->fail(row, ptr, QFW_E_DATA,
            "E_DATA_FIELD: missing; a row for dpo has \"prompt\", \"chosen\" and \"rejected\"");
    if (t->doc->kind(row, ptr) != QFW_DOC_STRING) return QFW_OK;
    QFW_TRY(t->doc->str(row, ptr, &text));
    return *text || !strcmp(ptr, "/prompt")
               ? QFW_OK
               : t->doc->fail(row, ptr, QFW_E_DATA, "E_DATA_PAIR: empty");
}

/* A pair whose sides are equal teaches nothing. */
static qfw_status check_pair(const qfw_inst *t, const qfw_doc *row) {
    const int lists = t->doc->kind(row, "/chosen") == QFW_DOC_ARRAY;
    const char *chosen = NULL, *rejected = NULL;
    if (lists && (t->doc->count(row, "/chosen") != 1 || t->doc->count(row, "/rejected") != 1))
        return QFW_OK;
    QFW_TRY(t->doc->str(row, lists ? "/chosen/0/content" : "/chosen", &chosen));
    QFW_TRY(t->doc->str(row, lists ? "/rejected/0/content" : "/rejected", &rejected));
    return strcmp(chosen, rejected)
               ? QFW_OK
               : t->doc->fail(row, "/rejected", QFW_E_DATA,
                     "E_DATA_PAIR: the same as /chosen; hint: leave the row out");
}

static qfw_status dpo_encode(qfw_inst *t, qfw_encoder *e) {
    static const char *const fields[] = {"/prompt", "/chosen", "/rejected"};
    const qfw_doc *row = t->encoder->row(e);
    if (t->doc->kind(row, "/chosen_ids") != QFW_DOC_ABSENT) { /* already tokens, with labels */
        QFW_TRY(t->encoder->tokens(e, "/chosen_ids", "/chosen_labels"));
        return t->encoder->tokens(e, "/rejected_ids", "/rejected_labels");
    }
    for (int i = 0; i < 3; i++) QFW_TRY(check_field(t, row, fields[i]));
    QFW_TRY(check_pair(t, row));
    QFW_TRY(t->encoder->pair(e, "/prompt", "/chosen", QFW_TRAIN_COMPLETION));
    return t->encoder->pair(e, "/prompt", "/rejected", QFW_TRAIN_COMPLETION);
}

/* Chosen and rejected side by side: pair i stands in segments 2i and 2i + 1. */
static qfw_status dpo_collate(qfw_inst *t, const qfw_example *const *examples, uint32_t n,
    qfw_seq_ref *refs, uint32_t *n_refs, double *weight) {
    (void)t;
    (void)examples;
    for (uint32_t i = 0; i < 2 * n; i++) refs[i] = (qfw_seq_ref){i / 2, i % 2};
    *n_refs = 2 * n;
    *weight = n;
    return QFW_OK;
}

/* --- inputs of its own --- */

static int32_t trained_tokens(const qfw_batch *b, int64_t segment) {
    const int32_t *s = b->segments + segment * 5;
    int32_t n = 0;
    for (int32_t row = s[0]; row < s[1]; row++) n += b->labels[row] != QFW_IGNORE_LABEL;
    return n;
}

/* "is_pair" F32[E]; "chosen_segment", "rejected_segment" I32[E], -1 for none; "chosen_length",
 * "rejected_length" F32[E]. */
static qfw_status dpo_fill(
    qfw_inst *t, const qfw_batch *batch, const char *input, void *dst, uint64_t bytes) {
    const int64_t n = batch->shape.n_examples;
    const int rejected = !strncmp(input, "rejected", 8);
    const int is_length = strstr(input, "_length") != NULL;
    const int is_segment = strstr(input, "_segment") != NULL;
    if (bytes != (uint64_t)n * sizeof(float) ||
        (!is_length && !is_segment && strcmp(input, "is_pair")))
        return qfw_fail(t->host, QFW_E_INVALID, "dpo: no input '%s' of %llu bytes", input,
            (unsigned long long)bytes);
    for (int64_t i = 0; i < n; i++) {
        const int there = i < batch->n_examples;
        const int32_t segment = there ? (int32_t)(2 * i + rejected) : -1;
        const int32_t tokens = there && is_length ? trained_tokens(batch, segment) : 0;
        if (is_segment)
            ((int32_t *)dst)[i] = segment;
        else
            ((float *)dst)[i] = is_length ? (float)(tokens ? tokens : 1) : (float)there;
    }
    return QFW_OK;
}

/* --- the loss --- */

static qfw_status own_input(
    qfw_graph *g, const char *name, uint32_t dtype, int64_t n, qfw_val *out) {
    return g->api->input(g, name, dtype, 1, &n, out);
}

/* What the log-probabilities of a batch's rows come to by pair. */
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

/* name = sum over the pairs of scale * (a - b, or a where b is 0) / pairs. */
static qfw_status mean_metric(qfw_graph *g, const char *name, const dpo_pairs *p, double scale,
    qfw_val a, qfw_val b, qfw_val n_pairs) {
    qfw_val x = a;
    if (b) QFW_TRY(qfw_binary(g, QFW_SUB, a, b, &x));
    QFW_TRY(qfw_binary(g, QFW_MUL, x, p->is_pair, &x));
    QFW_TRY(qfw_reduce_all(g, QFW_SUM, x, &x));
    QFW_TRY(qfw_scale(g, x, (float)scale, 0, &x));
    return g->api->metric(g, name, x, n_pairs);
}

static qfw_status reward_metrics(
    qfw_graph *g, const dpo_settings *s, const dpo_pairs *p, qfw_val n_pairs) {
    qfw_val r_w, r_l, wins;
    QFW_TRY(qfw_binary(g, QFW_SUB, p->policy_w, p->ref_w, &r_w));
    QFW_TRY(qfw_binary(g, QFW_SUB, p->policy_l, p->ref_l, &r_l));
    QFW_TRY(mean_metric(g, "rewards/chosen", p, s->beta, r_w, 0, n_pairs));
    QFW_TRY(mean_metric(g, "rewards/rejected", p, s->beta, r_l, 0, n_pairs));
    QFW_TRY(qfw_binary(g, QFW_GT, r_w, r_l, &wins));
    QFW_TRY(mean_metric(g, "rewards/accuracies", p, 1, wins, 0, n_pairs));
    QFW_TRY(mean_metric(g, "rewards/margins", p, s->beta, r_w, r_l, n_pairs));
    QFW_TRY(mean_metric(g, "logps/chosen", p, 1, p->policy_w, 0, n_pairs));
    return mean_metric(g, "logps/rejected", p, 1, p->policy_l, 0, n_pairs);
}

/* name = sum over the pairs of sums / sum over the pairs of their tokens. */
static qfw_status token_metric(
    qfw_graph *g, const char *name, const dpo_pairs *p, qfw_val sums, qfw_val lengths) {
    qfw_val x, n;
    QFW_TRY(qfw_binary(g, QFW_MUL, sums, p->is_pair, &x));
    QFW_TRY(qfw_reduce_all(g, QFW_SUM, x, &x));
    QFW_TRY(qfw_binary(g, QFW_MUL, lengths, p->is_pair, &n));
    QFW_TRY(qfw_reduce_all(g, QFW_SUM, n, &n));
    return g->api->metric(g, name, x, n);
}

static qfw_status emit_pairs(qfw_graph *g, const qfw_batch_shape *shape, const qfw_lm_vals *lm,
    qfw_val ref_hidden, dpo_pairs *p, qfw_val *logits_w, qfw_val *logits_l) {
    const int64_t e = p->n;
    sides s = {.n_segments = shape->n_segments};
    qfw_val labels;
    qfw_logprob_vals policy, ref;
    QFW_TRY(own_input(g, "labels", QFW_I32, shape->n_rows, &labels));
    QFW_TRY(own_input(g, "row_segment", QFW_I32, shape->n_rows, &s.row_segment));
    QFW_TRY(own_input(g, "chosen_segment", QFW_I32, e, &s.chosen));
    QFW_TRY(own_input(g, "rejected_segment", QFW_I32, e, &s.rejected));
    QFW_TRY(own_input(g, "is_pair", QFW_F32, e, &p->is_pair));
    QFW_TRY(own_input(g, "chosen_length", QFW_F32, e, &p->length_w));
    QFW_TRY(own_input(g, "rejected_length", QFW_F32, e, &p->length_l));
    QFW_TRY(qfw_token_logprob(g, lm->hidden, lm->lm_head, labels, 4u, &policy));
    QFW_TRY(qfw_token_logprob(g, ref_hidden, lm->lm_head, labels, 0, &ref));
    QFW_TRY(sum_sides(g, &s, policy.logp, &p->policy_w, &p->policy_l));
    QFW_TRY(sum_sides(g, &s, ref.logp, &p->ref_w, &p->ref_l));
    return sum_sides(g, &s, policy.mean, logits_w, logits_l);
}

static qfw_status dpo_loss_graph(qfw_inst *t, qfw_graph *g, const qfw_batch_shape *shape,
    const qfw_lm_vals *lm, qfw_val ref_hidden, qfw_val *loss) {
    dpo_pairs p = {.n = shape->n_examples};
    qfw_val inv_weight, n_pairs, logits_w, logits_l;
    QFW_TRY(emit_pairs(g, shape, lm, ref_hidden, &p, &logits_w, &logits_l));
    QFW_TRY(own_input(g, "inv_weight", QFW_F32, 1, &inv_weight));
    QFW_TRY(qfw_reduce_all(g, QFW_SUM, p.is_pair, &n_pairs));
    QFW_TRY(dpo_emit_loss(g, &t->s, &p, inv_weight, loss));
    QFW_TRY(reward_metrics(g, &t->s, &p, n_pairs));
    QFW_TRY(token_metric(g, "logits/chosen", &p, logits_w, p.length_w));
    return token_metric(g, "logits/rejected", &p, logits_l, p.length_l);
}

static const qfw_option dpo_options[] = {
    QFW_OPTION_FLAGS(QFW_OPT_FLOAT, QFW_OPT_LO_OPEN, "beta", "0.1", 0, 1e6, NULL,
        "how dearly a distance from the reference is paid"),
    QFW_OPTION(QFW_OPT_LIST, "loss_type", "sigmoid", 0, 0, NULL,
        "sigmoid, hinge, ipo, exo_pair, nca_pair, robust, bco_pair, sppo_hard, aot, aot_unpaired, "
        "apo_zero, apo_down, discopop, sft, sigmoid_norm; several are added up"),
    QFW_OPTION(QFW_OPT_LIST, "loss_weights", "", 0, 0, NULL, "one for each loss; empty: all 1"),
    QFW_OPTION(QFW_OPT_FLOAT, "label_smoothing", "0", 0, 0.9999, NULL,
        "the share of pairs taken to be the wrong way round; with sigmoid: conservative DPO"),
    QFW_OPTION(QFW_OPT_ENUM, "f_divergence_type", "reverse_kl", 0, 0,
        "reverse_kl|forward_kl|js_divergence|alpha_divergence", "the distance from the reference"),
    QFW_OPTION(
        QFW_OPT_FLOAT, "f_alpha_divergence_coef", "0.5", -100, 100, NULL, "of alpha_divergence"),
    QFW_OPTION_FLAGS(
        QFW_OPT_FLOAT, QFW_OPT_LO_OPEN, "discopop_tau", "0.05", 0, 1e3, NULL, "of discopop"),
    QFW_OPTION(QFW_OPT_BOOL, "disable_dropout", "true", 0, 0, NULL,
        "train without the adapter's dropout, as TRL does"),
};

static const qfw_trainer dpo_trainer = {
    .size = sizeof dpo_trainer,
    .flags = QFW_TRAINER_NEEDS_REF | QFW_TRAINER_MICRO_MEAN,
    .create = dpo_create,
    .destroy = dpo_destroy,
    .encode = dpo_encode,
    .collate = dpo_collate,
    .loss = dpo_loss_graph,
    .fill = dpo_fill,
};

static const qfw_component dpo_component = {
    .size = sizeof dpo_component,
    .kind = QFW_KIND_TRAINER,
    .name = "dpo",
    .summary = "preference optimisation on prompt, chosen and rejected",
    .options = dpo_options,
    .n_options = sizeof dpo_options / sizeof dpo_options[0],
    .iface = &dpo_trainer,
};
static const qfw_component *const dpo_components[] = {&dpo_component};

QFW_PLUGIN("dpo", "0.1.0", "qfw authors", "MIT", 1u << QFW_KIND_TRAINER, dpo_components);
