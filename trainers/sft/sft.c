/* sft.c -- supervised fine-tuning: the mean negative log-likelihood of the trained tokens of a
 * window.
 *
 * A row is "messages" or "conversations", "prompt" + "completion", "instruction" (+ "input") +
 * "output", "text", or already tokens: "input_ids" with "labels"; one row is one sequence. The loss
 * of a micro-batch is its sum over trained tokens times 1/(trained tokens of the whole accumulation
 * window), so how a window is cut into micro-batches does not matter.
 */
#include <string.h>

#include "qfw/plugin.h"
#include "qfw/trainer.h"

struct qfw_inst {
    const qfw_host *host;
    const qfw_encoder_api *encoder;
    const qfw_doc_api *doc;
    enum { COMPLETION_AUTO, COMPLETION_ONLY, COMPLETION_AND_PROMPT } completion;
    int assistant_only;
};

static qfw_status sft_create(const qfw_host *h, const qfw_cfg *cfg, qfw_inst **out) {
    const char *completion = NULL;
    int64_t assistant_only = 0;
    *out = NULL;
    QFW_TRY(h->cfg_str(h, cfg, "completion_only_loss", &completion));
    QFW_TRY(h->cfg_i64(h, cfg, "assistant_only_loss", &assistant_only));
    qfw_inst *t = (qfw_inst *)h->heap_alloc(h, sizeof *t, 16);
    if (!t) return qfw_fail(h, QFW_E_NOMEM, "sft: no memory");
    t->host = h;
    t->encoder = (const qfw_encoder_api *)h->extension(h, "qfw.encoder/1");
    t->doc = (const qfw_doc_api *)h->extension(h, "qfw.doc/1");
    t->assistant_only = (int)assistant_only;
    t->completion = !strcmp(completion, "auto")   ? COMPLETION_AUTO
                    : !strcmp(completion, "true") ? COMPLETION_ONLY
                                                  : COMPLETION_AND_PROMPT;
    if (!t->encoder || !t->doc) {
        h->heap_free(h, t);
        return qfw_fail(h, QFW_E_ABI, "sft: the host lacks qfw.encoder/1 or qfw.doc/1");
    }
    *out = t;
    return QFW_OK;
}

static void sft_destroy(qfw_inst *t) {
    if (t) t->host->heap_free(t->host, t);
}

static int has(const qfw_inst *t, const qfw_doc *row, const char *ptr) {
    return t->doc->kind(row, ptr) != QFW_DOC_ABSENT;
}

/* Of a row that has a prompt and an answer to it. */
static uint32_t trained_of_answer(const qfw_inst *t) {
    const uint32_t train =
        t->completion == COMPLETION_AND_PROMPT ? QFW_TRAIN_ALL : QFW_TRAIN_COMPLETION;
    return t->assistant_only ? train | QFW_TRAIN_ASSISTANT : train;
}

static qfw_status fail_row(const qfw_inst *t, const qfw_doc *row, const char *ptr) {
    return t->doc->fail(row, ptr, QFW_E_DATA,
        "E_DATA_FIELD: missing; a row for sft has \"messages\", \"conversations\", \"prompt\" and "
        "\"completion\", \"instruction\" and \"output\", \"text\" or \"input_ids\"");
}

/* A row that is one whole: no answer apart from what it answers. */
static qfw_status encode_whole(qfw_inst *t, qfw_encoder *e, const char *ptr, int of_messages) {
    const qfw_doc *row = t->encoder->row(e);
    if (t->completion == COMPLETION_ONLY && strcmp(ptr, "/input_ids"))
        return t->doc->fail(row, ptr, QFW_E_DATA,
            "E_DATA_FIELD: the row has no completion, but [trainer.sft] completion_only_loss = "
            "true; hint: give \"prompt\" and \"completion\", or leave the key out");
    if (of_messages)
        return t->encoder->messages(
            e, ptr, t->assistant_only ? QFW_TRAIN_ASSISTANT : QFW_TRAIN_ALL);
    if (t->assistant_only)
        return t->doc->fail(row, ptr, QFW_E_DATA,
            "E_DATA_FIELD: the row has no turns of an assistant, but [trainer.sft] "
            "assistant_only_loss = true; hint: give \"messages\", or leave the key out");
    return strcmp(ptr, "/text") ? t->encoder->tokens(e, ptr, "/labels") : t->encoder->text(e, ptr);
}

static qfw_status sft_encode(qfw_inst *t, qfw_encoder *e) {
    const qfw_doc *row = t->encoder->row(e);
    if (has(t, row, "/input_ids")) return encode_whole(t, e, "/input_ids", 0);
    const int has_prompt = has(t, row, "/prompt"), asks = has(t, row, "/instruction");
    if (has_prompt && has(t, row, "/completion"))
        return t->encoder->pair(e, "/prompt", "/completion", trained_of_answer(t));
    if (has(t, row, "/messages")) return encode_whole(t, e, "/messages", 1);
    if (has(t, row, "/conversations")) return encode_whole(t, e, "/conversations", 1);
    if (asks && has(t, row, "/output"))
        return t->encoder->instruction(
            e, "/instruction", "/input", "/output", trained_of_answer(t));
    if (has(t, row, "/text")) return encode_whole(t, e, "/text", 0);
    return fail_row(t, row, has_prompt ? "/completion" : asks ? "/output" : "");
}

static qfw_status sft_collate(qfw_inst *t, const qfw_example *const *examples, uint32_t n,
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

static qfw_status as_float(qfw_graph *g, qfw_val x, qfw_val *y) {
    const qfw_copy_params p = {sizeof p, QFW_F32};
    return g->api->op(g, QFW_OP_COPY, &x, 1, &p, sizeof p, NULL, y, 1);
}

/* match F32[N]: 1 where argmax is the label; count F32[1]: rows that have a label. */
static qfw_status compare_labels(
    qfw_graph *g, qfw_val argmax, qfw_val labels, qfw_val *match, qfw_val *count) {
    const int64_t one[1] = {1};
    qfw_val half, floor, predicted, wanted, x;
    QFW_TRY(qfw_fill(g, 0.5, 1, one, &half));
    QFW_TRY(qfw_fill(g, -0.5, 1, one, &floor));
    QFW_TRY(as_float(g, argmax, &predicted));
    QFW_TRY(as_float(g, labels, &wanted));
    QFW_TRY(qfw_binary(g, QFW_SUB, predicted, wanted, &x));
    QFW_TRY(qfw_unary(g, QFW_ABS, x, &x));
    QFW_TRY(qfw_binary(g, QFW_GT, half, x, match));
    QFW_TRY(qfw_binary(g, QFW_GT, wanted, floor, &x));
    return qfw_reduce_all(g, QFW_SUM, x, count);
}

/* Accuracy over all trained tokens, and over the first one of each row: where a scorer says its
 * score. */
static qfw_status emit_metrics(
    qfw_graph *g, const qfw_batch_shape *shape, qfw_val labels, const qfw_logprob_vals *lp) {
    const int64_t rows[1] = {shape->n_rows};
    qfw_val match, count, first, x, entropy;
    QFW_TRY(compare_labels(g, lp->argmax, labels, &match, &count));
    QFW_TRY(qfw_reduce_all(g, QFW_SUM, match, &x));
    QFW_TRY(g->api->metric(g, "mean_token_accuracy", x, count));
    QFW_TRY(qfw_reduce_all(g, QFW_SUM, lp->entropy, &entropy));
    QFW_TRY(g->api->metric(g, "entropy", entropy, count));
    QFW_TRY(g->api->input(g, "first_trained", QFW_F32, 1, rows, &first));
    QFW_TRY(qfw_binary(g, QFW_MUL, match, first, &x));
    QFW_TRY(qfw_reduce_all(g, QFW_SUM, x, &x));
    QFW_TRY(qfw_reduce_all(g, QFW_SUM, first, &count));
    return g->api->metric(g, "first_token_accuracy", x, count);
}

/* "first_trained": 1 on the row that predicts the first trained token of its sequence. */
static qfw_status sft_fill(
    qfw_inst *t, const qfw_batch *batch, const char *input, void *dst, uint64_t bytes) {
    float *first = (float *)dst;
    int32_t last = -1;
    const int64_t n_rows = batch->shape.n_rows;
    if (strcmp(input, "first_trained") || bytes != (uint64_t)n_rows * sizeof *first)
        return qfw_fail(t->host, QFW_E_INVALID, "sft: no input '%s' of %llu bytes", input,
            (unsigned long long)bytes);
    for (int64_t n = 0; n < n_rows; n++) {
        const int trained = batch->labels[n] != QFW_IGNORE_LABEL;
        first[n] = trained && batch->row_segment[n] != last ? 1.0f : 0.0f;
        if (trained) last = batch->row_segment[n];
    }
    return QFW_OK;
}

static qfw_status sft_loss(qfw_inst *t, qfw_graph *g, const qfw_batch_shape *shape,
    const qfw_lm_vals *lm, qfw_val ref_hidden, qfw_val *loss) {
    const int64_t rows[1] = {shape->n_rows}, one[1] = {1};
    qfw_val labels, inv_weight, sum;
    qfw_logprob_vals lp;
    (void)t;
    (void)ref_hidden;
    QFW_TRY(g->api->input(g, "labels", QFW_I32, 1, rows, &labels));
    QFW_TRY(g->api->input(g, "inv_weight", QFW_F32, 1, one, &inv_weight));
    QFW_TRY(qfw_token_logprob(g, lm->hidden, lm->lm_head, labels, 1u | 2u, &lp));
    QFW_TRY(qfw_reduce_all(g, QFW_SUM, lp.logp, &sum));
    QFW_TRY(qfw_binary(g, QFW_MUL, sum, inv_weight, loss));
    QFW_TRY(qfw_unary(g, QFW_NEG, *loss, loss));
    return emit_metrics(g, shape, labels, &lp);
}

static const qfw_option sft_options[] = {
    QFW_OPTION(QFW_OPT_ENUM, "completion_only_loss", "auto", 0, 0, "auto|true|false",
        "train the completion alone; auto: wherever a row has prompt and completion"),
    QFW_OPTION(QFW_OPT_BOOL, "assistant_only_loss", "false", 0, 0, NULL,
        "train the assistant's turns alone, contents and end marks; rows are messages"),
};

static const qfw_trainer sft_trainer = {
    .size = sizeof sft_trainer,
    .flags = QFW_TRAINER_ROWS_INDEPENDENT,
    .create = sft_create,
    .destroy = sft_destroy,
    .encode = sft_encode,
    .collate = sft_collate,
    .loss = sft_loss,
    .fill = sft_fill,
};

static const qfw_component sft_component = {
    .size = sizeof sft_component,
    .kind = QFW_KIND_TRAINER,
    .name = "sft",
    .summary = "supervised fine-tuning on messages, prompt and completion, instructions, or text",
    .options = sft_options,
    .n_options = sizeof sft_options / sizeof sft_options[0],
    .iface = &sft_trainer,
};
static const qfw_component *const sft_components[] = {&sft_component};

QFW_PLUGIN("sft", "0.1.0", "qfw authors", "MIT", 1u << QFW_KIND_TRAINER, sft_components);
