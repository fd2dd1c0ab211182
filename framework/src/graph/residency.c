/* residency.c -- the order of ops and transfers.
 *
 * On a device that the host cannot look into, every value is valid on one side or on both. A
 * transfer stands in front of the first op that needs a value on the side where it is not: so
 * neighbouring reference kernels share one download, and where all ops are the host's nothing moves
 * but states. Inputs are written to each side that reads them. Store entries live on the device;
 * reference kernels read their host_copy, which is refreshed only when it is out of date.
 */
#include "base/mem.h"
#include "graph/program.h"

typedef struct course {
    plan *p;
    plan_steps *s;
    uint8_t (*valid)[SIDES]; /* per value, now */
} course;

static qfw_status add_step(course *c, uint32_t kind, size_t node, qfw_val v) {
    plan_steps *s = c->s;
    if (mem_grow(&s->steps, &s->cap_steps, s->n_steps + 1, sizeof *s->steps)) return QFW_E_NOMEM;
    s->steps[s->n_steps++] = (plan_step){kind, (uint32_t)node, v};
    return QFW_OK;
}

static qfw_status need(course *c, qfw_val v, uint32_t side) {
    const graph_value *value = &c->s->g->values[v];
    uint8_t *valid = c->valid[v];
    c->s->values[v].on[side] = 1;
    if (valid[side]) return QFW_OK;
    valid[side] = 1;
    if (value->kind == VALUE_INPUT || (value->kind == VALUE_STORE && side == SIDE_DEVICE))
        return QFW_OK;
    if (value->kind == VALUE_STORE) {
        if (value->entry->usage == QFW_MEM_RUN) c->p->moved_bytes += plan_bytes(value);
        return add_step(c, STEP_REFRESH, 0, v);
    }
    c->p->moved_bytes += plan_bytes(value);
    return add_step(c, side == SIDE_DEVICE ? STEP_UPLOAD : STEP_DOWNLOAD, 0, v);
}

static qfw_status add_node(course *c, size_t k) {
    const graph *g = c->s->g;
    const graph_node *node = &g->nodes[k];
    const uint32_t side = plan_side(c->s, k);
    for (uint32_t i = 0; i < node->def->n_in; i++)
        if (node->in[i]) QFW_TRY(need(c, plan_base(g, node->in[i]), side));
    for (uint32_t o = 0; o < node->def->n_out; o++) {
        if (!node->out[o]) continue;
        c->valid[node->out[o]][side] = 1;
        c->s->values[node->out[o]].on[side] = 1;
        c->s->values[node->out[o]].home = (uint8_t)side;
    }
    return add_step(c, STEP_OP, k, 0);
}

/* States are the device's in the end; other roots stay where they were made. */
static qfw_status finish(course *c) {
    plan_steps *s = c->s;
    for (size_t i = 0; i < s->n_roots; i++) {
        const qfw_val v = s->roots[i].value;
        s->values[v].root = 1;
        if (s->g->values[v].kind == VALUE_INPUT && !s->values[v].on[SIDE_HOST])
            QFW_TRY(need(c, v, SIDE_DEVICE));
        if (s->g->values[v].kind == VALUE_INPUT)
            s->values[v].home = s->values[v].on[SIDE_HOST] ? SIDE_HOST : SIDE_DEVICE;
    }
    for (qfw_val v = 1; v <= s->g->n_values; v++) {
        if (s->values[v].lands) QFW_TRY(need(c, v, SIDE_DEVICE));
        for (uint32_t side = 0; side < SIDES; side++)
            s->values[v].valid_at_end[side] = c->valid[v][side];
    }
    return QFW_OK;
}

qfw_status plan_residency(plan *p) {
    course c = {.p = p, .s = p->steps};
    c.valid = mem_alloc(c.s->g->n_values + 1, sizeof *c.valid);
    if (!c.valid) return QFW_E_NOMEM;
    qfw_status status = QFW_OK;
    for (size_t k = 0; k < c.s->g->n_nodes && status == QFW_OK; k++) status = add_node(&c, k);
    if (status == QFW_OK) status = finish(&c);
    mem_free(c.valid);
    return status;
}
