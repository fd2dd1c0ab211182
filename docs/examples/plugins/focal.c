/* focal.c -- a trainer: the focal loss, -(1 - p)^gamma * log p of each trained token, so that what
 * is known already pulls less. gamma = 0 is the loss of sft.
 */
#include "qfw/plugin.h"
#include "qfw/trainer.h"

struct qfw_inst {
    const qfw_host *host;
    const qfw_encoder_api *encoder;
    double gamma;
};

static qfw_status focal_create(const qfw_host *h, const qfw_cfg *cfg, qfw_inst **out) {
    const qfw_encoder_api *encoder = (const qfw_encoder_api *)h->extension(h, "qfw.encoder/1");
    double gamma;
    *out = NULL;
    if (!encoder) return qfw_fail(h, QFW_E_ABI, "focal: the host lacks qfw.encoder/1");
    QFW_TRY(h->cfg_f64(h, cfg, "gamma", &gamma));
    qfw_inst *t = (qfw_inst *)h->heap_alloc(h, sizeof *t, 16);
    if (!t) return qfw_fail(h, QFW_E_NOMEM, "focal: no memory");
    *t = (qfw_inst){h, encoder, gamma};
    *out = t;
    return QFW_OK;
}

static void focal_destroy(qfw_inst *t) {
    if (t) t->host->heap_free(t->host, t);
}

/* One row, one sequence: token ids and their labels. */
static qfw_status focal_encode(qfw_inst *t, qfw_encoder *e) {
    return t->encoder->tokens(e, "/input_ids", "/labels");
}

static qfw_status focal_collate(qfw_inst *t, const qfw_example *const *examples, uint32_t n,
    qfw_seq_ref *refs, uint32_t *n_refs, double *weight) {
    (void)t;
    *weight = 0;
    for (uint32_t i = 0; i < n; i++) {
        refs[i] = (qfw_seq_ref){i, 0};
        *weight += examples[i]->seq[0].n_trained;
    }
    *n_refs = n;
    return QFW_OK;
}

/* (1 - p)^gamma = e^(gamma * log(1 - p)). logp is kept below 0: log(1 - e^0) is -inf, and rows
 * without a label, whose logp is 0, must not make a NaN of their gradient. */
static qfw_status emit_factor(qfw_inst *t, qfw_graph *g, qfw_val logp, qfw_val *factor) {
    const int64_t one[1] = {1};
    qfw_val most;
    QFW_TRY(qfw_fill(g, -1e-6, 1, one, &most));
    QFW_TRY(qfw_binary(g, QFW_MIN, logp, most, factor));
    QFW_TRY(qfw_unary(g, QFW_EXPM1, *factor, factor));
    QFW_TRY(qfw_unary(g, QFW_NEG, *factor, factor));
    QFW_TRY(qfw_unary(g, QFW_LOG, *factor, factor));
    QFW_TRY(qfw_scale(g, *factor, (float)t->gamma, 0, factor));
    return qfw_unary(g, QFW_EXP, *factor, factor);
}

static qfw_status focal_loss(qfw_inst *t, qfw_graph *g, const qfw_batch_shape *shape,
    const qfw_lm_vals *lm, qfw_val ref_hidden, qfw_val *loss) {
    const int64_t rows[1] = {shape->n_rows}, one[1] = {1};
    qfw_val labels, inv_weight, factor, sum;
    qfw_logprob_vals lp;
    (void)ref_hidden;
    QFW_TRY(g->api->input(g, "labels", QFW_I32, 1, rows, &labels));
    QFW_TRY(g->api->input(g, "inv_weight", QFW_F32, 1, one, &inv_weight));
    QFW_TRY(qfw_token_logprob(g, lm->hidden, lm->lm_head, labels, 0, &lp));
    QFW_TRY(emit_factor(t, g, lp.logp, &factor));
    QFW_TRY(qfw_binary(g, QFW_MUL, lp.logp, factor, &sum));
    QFW_TRY(qfw_reduce_all(g, QFW_SUM, sum, &sum));
    QFW_TRY(qfw_unary(g, QFW_NEG, sum, &sum));
    return qfw_binary(g, QFW_MUL, sum, inv_weight, loss);
}

static const qfw_option focal_options[] = {
    QFW_OPTION(QFW_OPT_FLOAT, "gamma", "2", 0, 10, NULL, "how much less a known token counts"),
};

static const qfw_trainer focal_trainer = {
    .size = sizeof focal_trainer,
    .flags = QFW_TRAINER_ROWS_INDEPENDENT,
    .create = focal_create,
    .destroy = focal_destroy,
    .encode = focal_encode,
    .collate = focal_collate,
    .loss = focal_loss,
};

static const qfw_component focal_component = {
    .size = sizeof focal_component,
    .kind = QFW_KIND_TRAINER,
    .name = "focal",
    .summary = "supervised, with the focal loss",
    .options = focal_options,
    .n_options = 1,
    .iface = &focal_trainer,
};
static const qfw_component *const focal_components[] = {&focal_component};

QFW_PLUGIN("focal", "0.1.0", "qfw authors", "MIT", 1u << QFW_KIND_TRAINER, focal_components);
