/* bigram.c -- the smallest model: which token follows which, by way of a vector of `hidden_size`
 * numbers a token. It reads three keys of config.json and has three weights.
 */
#include <string.h>

#include "qfw/model.h"
#include "qfw/plugin.h"

struct qfw_inst {
    const qfw_host *host;
    int64_t vocab, width;
    qfw_source source[3]; /* where files hold each weight */
};

static const char *const names[] = {"embed.weight", "mix.weight", "head.weight"};
static const uint32_t roles[] = {QFW_ROLE_EMBED, QFW_ROLE_LINEAR, QFW_ROLE_HEAD};

static qfw_status read_size(const qfw_doc_api *doc, const qfw_doc *d, const char *at, int64_t *n) {
    QFW_TRY(doc->i64(d, at, n));
    if (*n < 1 || *n > 1 << 24) return doc->fail(d, at, QFW_E_DATA, "wanted 1 to 2^24");
    return QFW_OK;
}

static qfw_status check_keys(const qfw_doc_api *doc, const qfw_doc *d) {
    const char *key;
    for (uint64_t i = 0; (key = doc->key(d, "", i)) != NULL; i++)
        if (strcmp(key, "model_type") && strcmp(key, "vocab_size") && strcmp(key, "hidden_size"))
            return doc->fail(d, "", QFW_E_DATA, "a key that bigram does not know");
    return QFW_OK;
}

static qfw_status bigram_create(
    const qfw_host *h, const qfw_cfg *cfg, const qfw_doc *config, qfw_inst **out) {
    const qfw_doc_api *doc = (const qfw_doc_api *)h->extension(h, "qfw.doc/1");
    int64_t vocab, width;
    (void)cfg; /* no options of its own */
    *out = NULL;
    if (!doc) return qfw_fail(h, QFW_E_ABI, "bigram: the host lacks qfw.doc/1");
    QFW_TRY(check_keys(doc, config));
    QFW_TRY(read_size(doc, config, "/vocab_size", &vocab));
    QFW_TRY(read_size(doc, config, "/hidden_size", &width));
    qfw_inst *m = (qfw_inst *)h->heap_alloc(h, sizeof *m, 16);
    if (!m) return qfw_fail(h, QFW_E_NOMEM, "bigram: no memory");
    *m = (qfw_inst){.host = h, .vocab = vocab, .width = width};
    *out = m;
    return QFW_OK;
}

static void bigram_destroy(qfw_inst *m) {
    if (m) m->host->heap_free(m->host, m);
}

static qfw_status bigram_facts(qfw_inst *m, qfw_model_facts *out) {
    *out = (qfw_model_facts){.size = sizeof *out,
        .n_layers = 1,
        .vocab = m->vocab,
        .width = m->width,
        .max_positions = 1 << 20};
    return QFW_OK;
}

static qfw_status bigram_describe(qfw_inst *m, uint32_t i, qfw_param_desc *out) {
    if (i >= 3) return QFW_E_END;
    const int64_t rows = i == 1 ? m->width : m->vocab;
    m->source[i] = (qfw_source){names[i], 0, rows, 0, 0};
    *out = (qfw_param_desc){.size = sizeof *out,
        .role = roles[i],
        .flags = i == 1 ? QFW_PARAM_4BIT : 0,
        .rank = 2,
        .dim = {rows, m->width, 1, 1},
        .name = names[i],
        .module = i == 1 ? "mix" : NULL,
        .sources = &m->source[i],
        .n_sources = 1,
        .init = QFW_INIT_NORMAL,
        .init_std = 0.02};
    return QFW_OK;
}

/* hidden = x + x * mix^T, x a row of the embedding. */
static qfw_status bigram_forward(
    qfw_inst *m, qfw_graph *g, const qfw_batch_shape *shape, qfw_lm_vals *out) {
    const int64_t rows[1] = {shape->n_rows};
    qfw_val tokens, embed, mix, x, y;
    (void)m;
    QFW_TRY(g->api->input(g, "tokens", QFW_I32, 1, rows, &tokens));
    QFW_TRY(g->api->param(g, "embed.weight", &embed));
    QFW_TRY(g->api->param(g, "mix.weight", &mix));
    QFW_TRY(qfw_embed(g, embed, tokens, &x));
    QFW_TRY(g->api->linear(g, x, mix, &y));
    QFW_TRY(qfw_binary(g, QFW_ADD, x, y, &out->hidden));
    return g->api->param(g, "head.weight", &out->lm_head);
}

/* No input has a name of the model's own. */
static qfw_status bigram_fill(
    qfw_inst *m, const qfw_batch *batch, const char *input, void *dst, uint64_t bytes) {
    (void)batch;
    (void)dst;
    (void)bytes;
    return qfw_fail(m->host, QFW_E_INVALID, "bigram: no input '%s'", input);
}

static const qfw_model bigram_model = {
    .size = sizeof bigram_model,
    .create = bigram_create,
    .destroy = bigram_destroy,
    .facts = bigram_facts,
    .describe = bigram_describe,
    .forward = bigram_forward,
    .fill = bigram_fill,
};

static const qfw_component bigram_component = {
    .size = sizeof bigram_component,
    .kind = QFW_KIND_MODEL,
    .name = "bigram",
    .summary = "which token follows which",
    .iface = &bigram_model,
};
static const qfw_component *const bigram_components[] = {&bigram_component};

QFW_PLUGIN("bigram", "0.1.0", "qfw authors", "MIT", 1u << QFW_KIND_MODEL, bigram_components);
