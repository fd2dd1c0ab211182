/* layer.c -- the forward of Phi-3: h += attention(norm(h)); h += mlp(norm(h)), layer by layer.
 *
 * Each layer is one recompute segment. qkv stays fused through the rotary embedding and the
 * attention, gate and up stay fused through SwiGLU, so nothing is split or copied.
 */
#include <math.h>
#include <stdio.h>

#include "phi3.h"

typedef struct inputs {
    qfw_val segments, cos, sin;
} inputs;

/* The parameter model.layers.<layer>.<module>.weight. */
static qfw_status layer_param(qfw_graph *g, int64_t layer, const char *module, qfw_val *out) {
    char name[96];
    snprintf(name, sizeof name, "model.layers.%lld.%s.weight", (long long)layer, module);
    return g->api->param(g, name, out);
}

/* y = linear(x) with the layer's weight `module` and its adapter. */
static qfw_status layer_linear(
    qfw_graph *g, int64_t layer, const char *module, qfw_val x, qfw_val *y) {
    qfw_val w;
    QFW_TRY(layer_param(g, layer, module, &w));
    return g->api->linear(g, x, w, y);
}

static qfw_status layer_norm(
    qfw_inst *m, qfw_graph *g, int64_t layer, const char *module, qfw_val x, qfw_val *y) {
    qfw_val w;
    QFW_TRY(layer_param(g, layer, module, &w));
    return qfw_rmsnorm(g, x, w, (float)m->config.rms_eps, y);
}

/* *h [N,C] is replaced by h + attention(norm(h)). */
static qfw_status emit_attention(
    qfw_inst *m, qfw_graph *g, int64_t layer, const inputs *in, qfw_val *h) {
    const phi3_config *c = &m->config;
    const qfw_attn_params p = {sizeof p, (float)(1.0 / sqrt((double)c->head_dim)), c->n_heads,
        c->n_kv_heads, c->head_dim, c->window};
    qfw_val x, qkv, o;
    QFW_TRY(layer_norm(m, g, layer, "input_layernorm", *h, &x));
    QFW_TRY(layer_linear(g, layer, "self_attn.qkv_proj", x, &qkv));
    QFW_TRY(qfw_rope(
        g, qkv, in->cos, in->sin, c->head_dim, c->rotary_dim, c->n_heads + c->n_kv_heads, &qkv));
    QFW_TRY(qfw_attn(g, qkv, 0, 0, in->segments, &p, &o));
    QFW_TRY(layer_linear(g, layer, "self_attn.o_proj", o, &x));
    return qfw_binary(g, QFW_ADD, *h, x, h);
}

static qfw_status emit_mlp(qfw_inst *m, qfw_graph *g, int64_t layer, qfw_val *h) {
    qfw_val x, gate_up, mid;
    QFW_TRY(layer_norm(m, g, layer, "post_attention_layernorm", *h, &x));
    QFW_TRY(layer_linear(g, layer, "mlp.gate_up_proj", x, &gate_up));
    QFW_TRY(qfw_swiglu(g, gate_up, 0, &mid));
    QFW_TRY(layer_linear(g, layer, "mlp.down_proj", mid, &x));
    return qfw_binary(g, QFW_ADD, *h, x, h);
}

qfw_status phi3_forward(qfw_inst *m, qfw_graph *g, const qfw_batch_shape *shape, qfw_lm_vals *out) {
    const phi3_config *c = &m->config;
    const int64_t rows[1] = {shape->n_rows};
    const int64_t table[2] = {shape->n_rows, c->rotary_dim / 2};
    const int64_t segments[2] = {shape->n_segments, 5};
    qfw_val tokens, embed, norm, head, h;
    inputs in;
    QFW_TRY(g->api->input(g, "tokens", QFW_I32, 1, rows, &tokens));
    QFW_TRY(g->api->input(g, "segments", QFW_I32, 2, segments, &in.segments));
    QFW_TRY(g->api->input(g, "rope_cos", QFW_F32, 2, table, &in.cos));
    QFW_TRY(g->api->input(g, "rope_sin", QFW_F32, 2, table, &in.sin));
    QFW_TRY(g->api->param(g, "model.embed_tokens.weight", &embed));
    QFW_TRY(qfw_embed(g, embed, tokens, &h));
    for (int64_t layer = 0; layer < c->n_layers; layer++) {
        char name[32];
        snprintf(name, sizeof name, "layers.%lld", (long long)layer);
        QFW_TRY(g->api->segment(g, name));
        QFW_TRY(emit_attention(m, g, layer, &in, &h));
        QFW_TRY(emit_mlp(m, g, layer, &h));
    }
    QFW_TRY(g->api->segment(g, "head"));
    QFW_TRY(g->api->param(g, "model.norm.weight", &norm));
    QFW_TRY(qfw_rmsnorm(g, h, norm, (float)c->rms_eps, &h));
    QFW_TRY(g->api->param(g, "lm_head.weight", &head));
    out->hidden = h;
    out->lm_head = head;
    return QFW_OK;
}
