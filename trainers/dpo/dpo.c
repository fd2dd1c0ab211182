/* dpo.c -- direct preference optimisation (Rafailov et al., 2023) and its relatives: pairs of a
 * chosen and a rejected completion of one prompt, compared with a frozen reference.
 *
 * A row is "prompt", "chosen", "rejected": strings, or lists of messages; or "chosen" and
 * "rejected" alone, which begin alike; or already tokens. The reference is the adapter as it was
 * when training began (the bare model, if that is fresh), on the same weights, so at first all
 * margins are exactly 0 and sigmoid's loss is ln 2.
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
    int64_t use_weighting = 0;
    QFW_TRY(h->cfg_f64(h, cfg, "beta", &s->beta));
    QFW_TRY(h->cfg_f64(h, cfg, "label_smoothing", &s->label_smoothing));
    QFW_TRY(h->cfg_f64(h, cfg, "discopop_tau", &s->discopop_tau));
    QFW_TRY(h->cfg_f64(h, cfg, "f_alpha_divergence_coef", &s->alpha));
    QFW_TRY(h->cfg_f64(h, cfg, "ld_alpha", &s->ld_alpha));
    QFW_TRY(h->cfg_i64(h, cfg, "use_weighting", &use_weighting));
    QFW_TRY(h->cfg_str(h, cfg, "f_divergence_type", &divergence));
    QFW_TRY(h->cfg_str(h, cfg, "loss_type", &losses));
    QFW_TRY(h->cfg_str(h, cfg, "loss_weights", &weights));
    if (use_weighting) return refuse(h, "use_weighting", "true is not supported yet");
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
    return *text ? QFW_OK : t->doc->fail(row, ptr, QFW_E_DATA, "E_DATA_PAIR: empty");
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
    const qfw_doc *row = t->encoder->row(e);
    if (t->doc->kind(row, "/chosen_ids") != QFW_DOC_ABSENT) { /* already tokens, with labels */
        QFW_TRY(t->encoder->tokens(e, "/chosen_ids", "/chosen_labels"));
        return t->encoder->tokens(e, "/rejected_ids", "/rejected_labels");
    }
    QFW_TRY(check_field(t, row, "/chosen"));
    QFW_TRY(check_field(t, row, "/rejected"));
    QFW_TRY(check_pair(t, row));
    return t->encoder->preference(e, "/prompt", "/chosen", "/rejected");
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

/* "tail_weight" F32[N]: ld_alpha on the rows of a completion past the length of the shorter of the
 * two, else 1. */
static void fill_tail(const qfw_inst *t, const qfw_batch *b, float *weight) {
    for (int64_t n = 0; n < b->shape.n_rows; n++) weight[n] = 1;
    for (int64_t s = 0; s < 2 * b->n_examples; s++) {
        const int32_t *rows = b->segments + s * 5;
        int32_t left = trained_tokens(b, s ^ 1);
        for (int32_t n = rows[0]; n < rows[1]; n++)
            if (b->labels[n] != QFW_IGNORE_LABEL && left-- <= 0) weight[n] = (float)t->s.ld_alpha;
    }
}

/* "is_pair" F32[E]; "chosen_segment", "rejected_segment" I32[E], -1 for none; "chosen_length",
 * "rejected_length" F32[E]. */
static void fill_pairs(const qfw_batch *b, const char *input, void *dst) {
    const int rejected = !strncmp(input, "rejected", 8);
    for (int64_t i = 0; i < b->shape.n_examples; i++) {
        const int there = i < b->n_examples;
        const int64_t segment = there ? 2 * i + rejected : -1;
        if (strstr(input, "_segment")) {
            ((int32_t *)dst)[i] = (int32_t)segment;
        } else if (strstr(input, "_length")) {
            const int32_t tokens = there ? trained_tokens(b, segment) : 0;
            ((float *)dst)[i] = (float)(tokens ? tokens : 1);
        } else {
            ((float *)dst)[i] = (float)there;
        }
    }
}

static qfw_status dpo_fill(
    qfw_inst *t, const qfw_batch *batch, const char *input, void *dst, uint64_t bytes) {
    static const char *const of_pairs[] = {
        "is_pair", "chosen_segment", "rejected_segment", "chosen_length", "rejected_length"};
    if (!strcmp(input, "tail_weight") && bytes == (uint64_t)batch->shape.n_rows * 4) {
        fill_tail(t, batch, (float *)dst);
        return QFW_OK;
    }
    for (size_t i = 0; i < sizeof of_pairs / sizeof of_pairs[0]; i++) {
        if (strcmp(input, of_pairs[i]) || bytes != (uint64_t)batch->shape.n_examples * 4) continue;
        fill_pairs(batch, input, dst);
        return QFW_OK;
    }
    return qfw_fail(t->host, QFW_E_INVALID, "dpo: no input '%s' of %llu bytes", input,
        (unsigned long long)bytes);
}

/* --- the loss --- */

static qfw_status dpo_loss_graph(qfw_inst *t, qfw_graph *g, const qfw_batch_shape *shape,
    const qfw_lm_vals *lm, qfw_val ref_hidden, qfw_val *loss) {
    const int64_t one[1] = {1};
    dpo_pairs p = {.n = shape->n_examples};
    qfw_val inv_weight;
    QFW_TRY(g->api->input(g, "inv_weight", QFW_F32, 1, one, &inv_weight));
    QFW_TRY(dpo_emit_pairs(g, &t->s, shape, lm, ref_hidden, &p));
    QFW_TRY(dpo_emit_loss(g, &t->s, &p, inv_weight, loss));
    return dpo_emit_metrics(g, &t->s, shape, &p);
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
    QFW_OPTION(QFW_OPT_FLOAT, "ld_alpha", "1", 0, 1, NULL,
        "weight of a completion's tokens past the length of the shorter one"),
    QFW_OPTION(QFW_OPT_BOOL, "use_weighting", "false", 0, 0, NULL, "true is not supported yet"),
    QFW_OPTION(QFW_OPT_BOOL, "precompute_ref_log_probs", "false", 0, 0, NULL,
        "run the reference once, before the first step, and not in each pass"),
    QFW_OPTION(QFW_OPT_PATH, "ref_cache", "", 0, 0, NULL,
        "the file that keeps what is precomputed; empty: ref_logps.safetensors in output_dir"),
    QFW_OPTION(QFW_OPT_BOOL, "share_prompt", "true", 0, 0, NULL,
        "compute a prompt once for chosen and rejected"),
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
