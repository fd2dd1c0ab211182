/* orpo.c -- ORPO as a trainer plugin: preference pairs without a reference model.
 *
 * loss = nll(chosen) - beta * mean over pairs of log sigmoid(log odds), where
 *   log odds = (c - r) - (log(1 - e^c) - log(1 - e^r)),
 * c and r the mean log-probabilities of the two answers' tokens. nll is the mean over all tokens of
 * the chosen sequences, prompts included, as in TRL; so a row of the batch has a label here that it
 * does not have for the host, and the labels are an input of this plugin's own.
 */
#include <string.h>

#include "qfw/plugin.h"
#include "qfw/trainer.h"

struct qfw_inst {
    const qfw_host *host;
    const qfw_encoder_api *encoder;
    double beta;
};

static qfw_status orpo_create(const qfw_host *h, const qfw_cfg *cfg, qfw_inst **out) {
    double beta;
    *out = NULL;
    QFW_TRY(h->cfg_f64(h, cfg, "beta", &beta));
    const qfw_encoder_api *encoder = (const qfw_encoder_api *)h->extension(h, "qfw.encoder/1");
    if (!encoder) return qfw_fail(h, QFW_E_ABI, "orpo: the host lacks qfw.encoder/1");
    qfw_inst *t = (qfw_inst *)h->heap_alloc(h, sizeof *t, 16);
    if (!t) return qfw_fail(h, QFW_E_NOMEM, "orpo: no memory");
    *t = (qfw_inst){h, encoder, beta};
    *out = t;
    return QFW_OK;
}

static void orpo_destroy(qfw_inst *t) {
    if (t) t->host->heap_free(t->host, t);
}

/* --- from rows to batches --- */

/* Sequence 0 is prompt + chosen, sequence 1 prompt + rejected. */
static qfw_status orpo_encode(qfw_inst *t, qfw_encoder *e) {
    return t->encoder->preference(e, "/prompt", "/chosen", "/rejected");
}

static qfw_status orpo_collate(qfw_inst *t, const qfw_example *const *examples, uint32_t n,
    qfw_seq_ref *refs, uint32_t *n_refs, double *weight) {
    (void)t;
    (void)examples;
    for (uint32_t i = 0; i < n; i++) {
        refs[2 * i] = (qfw_seq_ref){i, 0};
        refs[2 * i + 1] = (qfw_seq_ref){i, 1};
    }
    *n_refs = 2 * n;
    *weight = n;
    return QFW_OK;
}

/* Collate put the chosen sequence of each example first. */
static int is_chosen(int64_t segment) { return segment % 2 == 0; }

/* The token that row n must predict: every next one of a chosen sequence, of a rejected one those
 * of the answer. */
static int32_t label_of(const qfw_batch *b, int64_t n) {
    const int32_t s = b->row_segment[n];
    const int64_t next = n + 1 < b->n_tokens ? n + 1 : n;
    if (s < 0 || next == n || b->row_segment[next] != s) return QFW_IGNORE_LABEL;
    return is_chosen(s) ? b->tokens[next] : b->labels[n];
}

static qfw_status fill_rows(const qfw_batch *b, const char *input, void *dst) {
    int32_t *labels = (int32_t *)dst;
    float *flags = (float *)dst;
    for (int64_t n = 0; n < b->shape.n_rows; n++) {
        const int has_label = label_of(b, n) != QFW_IGNORE_LABEL;
        if (!strcmp(input, "next_token"))
            labels[n] = label_of(b, n);
        else if (!strcmp(input, "in_answer"))
            flags[n] = b->labels[n] != QFW_IGNORE_LABEL ? 1.0f : 0.0f;
        else
            flags[n] = has_label && is_chosen(b->row_segment[n]) ? 1.0f : 0.0f;
    }
    return QFW_OK;
}

/* "chosen", "rejected": the segment of example i, -1 past the last; "is_pair": 1 or 0. */
static qfw_status fill_examples(const qfw_batch *b, const char *input, void *dst) {
    int32_t *segments = (int32_t *)dst;
    float *flags = (float *)dst;
    for (int32_t i = 0; i < b->shape.n_examples; i++) {
        const int there = i < b->n_examples;
        if (!strcmp(input, "is_pair"))
            flags[i] = there ? 1.0f : 0.0f;
        else
            segments[i] = there ? 2 * i + (input[0] == 'r') : -1;
    }
    return QFW_OK;
}

static qfw_status orpo_fill(
    qfw_inst *t, const qfw_batch *b, const char *input, void *dst, uint64_t bytes) {
    static const char *const by_row[] = {"next_token", "in_answer", "in_chosen"};
    static const char *const by_example[] = {"chosen", "rejected", "is_pair"};
    for (int i = 0; i < 3; i++) {
        if (!strcmp(input, by_row[i]) && bytes == (uint64_t)b->shape.n_rows * 4)
            return fill_rows(b, input, dst);
        if (!strcmp(input, by_example[i]) && bytes == (uint64_t)b->shape.n_examples * 4)
            return fill_examples(b, input, dst);
    }
    return qfw_fail(t->host, QFW_E_INVALID, "orpo: no input '%s' of %llu bytes", input,
        (unsigned long long)bytes);
}

/* --- the loss --- */

typedef struct pairs {                 /* all F32[n_examples] */
    qfw_val is_pair, chosen, rejected; /* the last two: mean log-probabilities */
    qfw_val log_odds, log_ratio;
    qfw_val count; /* F32[1] */
} pairs;

/* The mean of logp over the answer's rows of each segment; 0 for a segment without. */
static qfw_status answer_means(
    qfw_graph *g, const qfw_batch_shape *shape, qfw_val logp, qfw_val *mean) {
    const int64_t rows[1] = {shape->n_rows}, one[1] = {1};
    qfw_val in_answer, segment, at_least, sum, count;
    QFW_TRY(g->api->input(g, "in_answer", QFW_F32, 1, rows, &in_answer));
    QFW_TRY(g->api->input(g, "row_segment", QFW_I32, 1, rows, &segment));
    QFW_TRY(qfw_binary(g, QFW_MUL, logp, in_answer, &sum));
    QFW_TRY(qfw_segment_sum(g, sum, segment, shape->n_segments, &sum));
    QFW_TRY(qfw_segment_sum(g, in_answer, segment, shape->n_segments, &count));
    QFW_TRY(qfw_fill(g, 1, 1, one, &at_least));
    QFW_TRY(qfw_binary(g, QFW_MAX, count, at_least, &count));
    return qfw_binary(g, QFW_DIV, sum, count, mean);
}

/* The answer called `which` of each example. Places without an example get -1, and no mean comes
 * nearer to 0 than -1e-6: log(1 - e^0) is -inf, and its gradient would not stay in its place. */
static qfw_status answer_of(qfw_graph *g, const qfw_batch_shape *shape, const char *which,
    qfw_val means, qfw_val is_pair, qfw_val *mean) {
    const int64_t examples[1] = {shape->n_examples}, one[1] = {1};
    qfw_val segment, nothing, most;
    QFW_TRY(g->api->input(g, which, QFW_I32, 1, examples, &segment));
    QFW_TRY(qfw_gather_rows(g, means, segment, mean));
    QFW_TRY(qfw_fill(g, -1, 1, examples, &nothing));
    QFW_TRY(qfw_select(g, is_pair, *mean, nothing, mean));
    QFW_TRY(qfw_fill(g, -1e-6, 1, one, &most));
    return qfw_binary(g, QFW_MIN, *mean, most, mean);
}

/* log(1 - e^x) for x < 0 */
static qfw_status log_rest(qfw_graph *g, qfw_val x, qfw_val *y) {
    QFW_TRY(qfw_unary(g, QFW_EXPM1, x, y));
    QFW_TRY(qfw_unary(g, QFW_NEG, *y, y));
    return qfw_unary(g, QFW_LOG, *y, y);
}

static qfw_status emit_pairs(qfw_graph *g, const qfw_batch_shape *shape, qfw_val logp, pairs *p) {
    const int64_t examples[1] = {shape->n_examples};
    qfw_val means, rest_chosen, rest_rejected;
    QFW_TRY(g->api->input(g, "is_pair", QFW_F32, 1, examples, &p->is_pair));
    QFW_TRY(qfw_reduce_all(g, QFW_SUM, p->is_pair, &p->count));
    QFW_TRY(answer_means(g, shape, logp, &means));
    QFW_TRY(answer_of(g, shape, "chosen", means, p->is_pair, &p->chosen));
    QFW_TRY(answer_of(g, shape, "rejected", means, p->is_pair, &p->rejected));
    QFW_TRY(log_rest(g, p->chosen, &rest_chosen));
    QFW_TRY(log_rest(g, p->rejected, &rest_rejected));
    QFW_TRY(qfw_binary(g, QFW_SUB, rest_chosen, rest_rejected, &rest_chosen));
    QFW_TRY(qfw_binary(g, QFW_SUB, p->chosen, p->rejected, &p->log_odds));
    QFW_TRY(qfw_binary(g, QFW_SUB, p->log_odds, rest_chosen, &p->log_odds));
    return qfw_unary(g, QFW_LOGSIGMOID, p->log_odds, &p->log_ratio);
}

/* The sum of x over the pairs that are there. */
static qfw_status sum_of(qfw_graph *g, const pairs *p, qfw_val x, qfw_val *sum) {
    QFW_TRY(qfw_binary(g, QFW_MUL, x, p->is_pair, &x));
    return qfw_reduce_all(g, QFW_SUM, x, sum);
}

static qfw_status mean_metric(
    qfw_graph *g, const char *name, const pairs *p, float factor, qfw_val x) {
    qfw_val sum;
    QFW_TRY(sum_of(g, p, x, &sum));
    QFW_TRY(qfw_scale(g, sum, factor, 0, &sum));
    return g->api->metric(g, name, sum, p->count);
}

static qfw_status emit_metrics(qfw_inst *t, qfw_graph *g, const pairs *p) {
    const float beta = (float)t->beta;
    qfw_val right, margin;
    QFW_TRY(qfw_binary(g, QFW_GT, p->chosen, p->rejected, &right));
    QFW_TRY(qfw_binary(g, QFW_SUB, p->chosen, p->rejected, &margin));
    QFW_TRY(mean_metric(g, "rewards/chosen", p, beta, p->chosen));
    QFW_TRY(mean_metric(g, "rewards/rejected", p, beta, p->rejected));
    QFW_TRY(mean_metric(g, "rewards/margins", p, beta, margin));
    QFW_TRY(mean_metric(g, "rewards/accuracies", p, 1, right));
    QFW_TRY(mean_metric(g, "logps/chosen", p, 1, p->chosen));
    QFW_TRY(mean_metric(g, "logps/rejected", p, 1, p->rejected));
    QFW_TRY(mean_metric(g, "log_odds_chosen", p, 1, p->log_odds));
    return mean_metric(g, "log_odds_ratio", p, 1, p->log_ratio);
}

/* The mean negative log-probability of all tokens of the chosen sequences. */
static qfw_status emit_nll(qfw_graph *g, const qfw_batch_shape *shape, qfw_val logp, qfw_val *nll) {
    const int64_t rows[1] = {shape->n_rows};
    qfw_val in_chosen, sum, count;
    QFW_TRY(g->api->input(g, "in_chosen", QFW_F32, 1, rows, &in_chosen));
    QFW_TRY(qfw_binary(g, QFW_MUL, logp, in_chosen, &sum));
    QFW_TRY(qfw_reduce_all(g, QFW_SUM, sum, &sum));
    QFW_TRY(qfw_reduce_all(g, QFW_SUM, in_chosen, &count));
    QFW_TRY(qfw_binary(g, QFW_DIV, sum, count, nll));
    QFW_TRY(qfw_unary(g, QFW_NEG, *nll, nll));
    return g->api->metric(g, "nll_loss", *nll, 0);
}

/* inv_weight is 1 / (pairs of this micro-batch * micro-batches): times the sum over pairs it gives
 * their mean, times the number of pairs it weighs a mean over the micro-batch. */
static qfw_status orpo_loss(qfw_inst *t, qfw_graph *g, const qfw_batch_shape *shape,
    const qfw_lm_vals *lm, qfw_val ref_hidden, qfw_val *loss) {
    const int64_t rows[1] = {shape->n_rows}, one[1] = {1};
    qfw_val labels, inv_weight, nll, ratio;
    qfw_logprob_vals lp;
    pairs p;
    (void)ref_hidden;
    QFW_TRY(g->api->input(g, "next_token", QFW_I32, 1, rows, &labels));
    QFW_TRY(g->api->input(g, "inv_weight", QFW_F32, 1, one, &inv_weight));
    QFW_TRY(qfw_token_logprob(g, lm->hidden, lm->lm_head, labels, 0, &lp));
    QFW_TRY(emit_pairs(g, shape, lp.logp, &p));
    QFW_TRY(emit_metrics(t, g, &p));
    QFW_TRY(emit_nll(g, shape, lp.logp, &nll));
    QFW_TRY(qfw_binary(g, QFW_MUL, nll, p.count, &nll));
    QFW_TRY(sum_of(g, &p, p.log_ratio, &ratio));
    QFW_TRY(qfw_scale(g, ratio, (float)-t->beta, 0, &ratio));
    QFW_TRY(qfw_binary(g, QFW_ADD, nll, ratio, loss));
    return qfw_binary(g, QFW_MUL, *loss, inv_weight, loss);
}

static const qfw_option orpo_options[] = {
    QFW_OPTION(QFW_OPT_FLOAT, "beta", "0.1", 0, 100, NULL, "weight of the odds ratio (lambda)"),
};

static const qfw_trainer orpo_trainer = {
    .size = sizeof orpo_trainer,
    .flags = QFW_TRAINER_MICRO_MEAN,
    .create = orpo_create,
    .destroy = orpo_destroy,
    .encode = orpo_encode,
    .collate = orpo_collate,
    .loss = orpo_loss,
    .fill = orpo_fill,
};

static const qfw_component orpo_component = {
    .size = sizeof orpo_component,
    .kind = QFW_KIND_TRAINER,
    .name = "orpo",
    .summary = "ORPO: preference pairs without a reference model",
    .options = orpo_options,
    .n_options = sizeof orpo_options / sizeof orpo_options[0],
    .iface = &orpo_trainer,
};
static const qfw_component *const orpo_components[] = {&orpo_component};

QFW_PLUGIN("orpo", "0.1.0", "qfw authors", "MIT", 1u << QFW_KIND_TRAINER, orpo_components);
