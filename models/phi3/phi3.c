/* phi3.c -- the Phi-3 family as a plugin: mini and medium, 4k and 128k, and what shares their
 * arithmetic.
 *
 * The plugin reads config.json (config.c), names its weights (weights.c), emits its forward
 * (layer.c) and makes its rotary tables (rope.c). It knows nothing of devices, files or adapters.
 */
#include "phi3.h"

#include <string.h>

#include "qfw/plugin.h"

static void phi3_destroy(qfw_inst *m) {
    if (!m) return;
    const qfw_host *h = m->host;
    h->heap_free(h, m->short_freq);
    h->heap_free(h, m->long_freq);
    h->heap_free(h, m->params);
    h->heap_free(h, m->names);
    h->heap_free(h, m->slices);
    h->heap_free(h, m->sources);
    h->heap_free(h, m);
}

static qfw_status phi3_create(
    const qfw_host *h, const qfw_cfg *cfg, const qfw_doc *config, qfw_inst **out) {
    (void)cfg;
    *out = NULL;
    qfw_inst *m = (qfw_inst *)h->heap_alloc(h, sizeof *m, 16);
    if (!m) return qfw_fail(h, QFW_E_NOMEM, "phi3: no memory");
    m->host = h;
    qfw_status status = phi3_read_config(m, config);
    if (status == QFW_OK) status = phi3_make_params(m);
    if (status != QFW_OK) {
        phi3_destroy(m);
        return status;
    }
    *out = m;
    return QFW_OK;
}

static qfw_status phi3_facts(qfw_inst *m, qfw_model_facts *out) {
    const phi3_config *c = &m->config;
    *out = (qfw_model_facts){.size = sizeof *out,
        .n_layers = (uint32_t)c->n_layers,
        .vocab = c->vocab,
        .width = c->width,
        .max_positions = c->max_positions,
        .rope_switch = c->original_max < c->max_positions ? c->original_max : 0};
    return QFW_OK;
}

static qfw_status phi3_describe(qfw_inst *m, uint32_t i, qfw_param_desc *out) {
    if (i >= m->n_params) return QFW_E_END;
    *out = m->params[i];
    return QFW_OK;
}

static const qfw_model phi3_model = {
    .size = sizeof phi3_model,
    .create = phi3_create,
    .destroy = phi3_destroy,
    .facts = phi3_facts,
    .describe = phi3_describe,
    .forward = phi3_forward,
    .fill = phi3_fill,
};

static const qfw_component phi3_component = {
    .size = sizeof phi3_component,
    .kind = QFW_KIND_MODEL,
    .name = "phi3",
    .summary =
        "Phi-3: mini and medium, 4k and 128k (longrope), GQA, sliding window, tied embeddings",
    .iface = &phi3_model,
};
static const qfw_component *const phi3_components[] = {&phi3_component};

QFW_PLUGIN("phi3", "0.1.0", "qfw authors", "MIT", 1u << QFW_KIND_MODEL, phi3_components);
