/* liveness.c -- a place in the arenas for every value, by when it is made and last read.
 *
 * A buffer is a piece of an arena over a span of steps; values that follow each other in place
 * share one. Buffers get their offsets one after another, each in the tightest gap between those
 * that live at the same time; three orders are tried, and the one that needs the least is taken.
 */
#include <string.h>

#include "base/error.h"
#include "base/mem.h"
#include "graph/program.h"

typedef struct buffer {
    uint64_t bytes, offset;
    size_t first, last; /* steps, both included */
} buffer;

typedef struct span { /* one value on one side */
    size_t first, last;
    size_t buffer; /* 1-based; 0: none yet */
} span;

typedef struct memory_plan {
    plan *p;
    plan_steps *s;
    uint32_t side;
    span *spans; /* by value */
    buffer *buffers;
    size_t n_buffers, cap_buffers;
    uint64_t block_bytes;
} memory_plan;

/* --- spans --- */

static int in_arena(const memory_plan *m, qfw_val v) {
    const plan_value *value = &m->s->values[v];
    const uint32_t kind = m->s->g->values[v].kind;
    if (!value->on[m->side]) return 0;
    return (kind == VALUE_OP && !value->lands) || (kind == VALUE_INPUT && m->side == SIDE_HOST);
}

static void touch(memory_plan *m, qfw_val v, size_t step) {
    if (!v) return;
    span *s = &m->spans[plan_base(m->s->g, v)];
    if (s->first > step) s->first = step;
    if (s->last < step) s->last = step;
}

/* Steps count from 1: 0 is before the run, n_steps + 1 after it. */
static void find_spans(memory_plan *m) {
    const plan_steps *s = m->s;
    const graph *g = s->g;
    for (qfw_val v = 1; v <= g->n_values; v++) m->spans[v] = (span){SIZE_MAX, 0, 0};
    for (size_t i = 0; i < s->n_steps; i++) {
        const plan_step *step = &s->steps[i];
        if (step->kind != STEP_OP) {
            touch(m, step->value, i + 1);
            continue;
        }
        if (plan_side(s, step->node) != m->side) continue;
        for (uint32_t k = 0; k < QFW_MAX_IN; k++) touch(m, g->nodes[step->node].in[k], i + 1);
        for (uint32_t k = 0; k < QFW_MAX_OUT; k++) touch(m, g->nodes[step->node].out[k], i + 1);
    }
    for (qfw_val v = 1; v <= g->n_values; v++) {
        if (g->values[v].kind ==
            VALUE_INPUT) { /* written before the run; others' reads may follow */
            touch(m, v, 0);
            touch(m, v, s->n_steps + 1);
        }
        if (s->values[v].root && s->values[v].home == m->side) touch(m, v, s->n_steps + 1);
    }
}

/* --- buffers --- */

/* Input i of the node dies there, and no other operand lies in its memory: its buffer is free. */
static size_t free_buffer(
    const memory_plan *m, const graph_node *node, uint32_t o, uint32_t i, size_t step) {
    const graph *g = m->s->g;
    const qfw_val v = node->in[i];
    if (!v || g->values[v].kind != VALUE_OP || !in_arena(m, v) || m->spans[v].last != step)
        return 0;
    const graph_value *from = &g->values[v], *to = &g->values[node->out[o]];
    if (from->shape.dtype != to->shape.dtype || plan_bytes(from) != plan_bytes(to)) return 0;
    for (uint32_t k = 0; k < QFW_MAX_IN; k++)
        if (k != i && node->in[k] && plan_base(g, node->in[k]) == v) return 0;
    for (uint32_t k = 0; k < QFW_MAX_OUT; k++)
        if (node->out[k] && m->spans[node->out[k]].buffer == m->spans[v].buffer) return 0;
    return m->spans[v].buffer;
}

static qfw_status new_buffer(memory_plan *m, qfw_val v) {
    const uint64_t bytes = plan_aligned(plan_bytes(&m->s->g->values[v]));
    if (bytes > m->block_bytes)
        return err_fail("E_DEV_MEM", QFW_E_DEVICE_OOM,
            "plan: value %u has %llu bytes, the device allows %llu in one piece; hint: a shorter "
            "max_length, or a smaller batch",
            v, (unsigned long long)bytes, (unsigned long long)m->block_bytes);
    if (mem_grow(&m->buffers, &m->cap_buffers, m->n_buffers + 1, sizeof *m->buffers))
        return QFW_E_NOMEM;
    m->buffers[m->n_buffers++] = (buffer){bytes, 0, m->spans[v].first, m->spans[v].last};
    m->spans[v].buffer = m->n_buffers;
    return QFW_OK;
}

static qfw_status place_output(memory_plan *m, const graph_node *node, uint32_t o, size_t step) {
    const qfw_val v = node->out[o];
    size_t reused = 0;
    for (uint32_t k = 0; k < 2 && !reused; k++)
        if (node->def->inplace[o][k])
            reused = free_buffer(m, node, o, node->def->inplace[o][k] - 1u, step);
    if (!reused) return new_buffer(m, v);
    m->spans[v].buffer = reused;
    if (m->buffers[reused - 1].last < m->spans[v].last)
        m->buffers[reused - 1].last = m->spans[v].last;
    return QFW_OK;
}

static qfw_status make_buffers(memory_plan *m) {
    const plan_steps *s = m->s;
    for (qfw_val v = 1; v <= s->g->n_values; v++)
        if (s->g->values[v].kind == VALUE_INPUT && in_arena(m, v)) QFW_TRY(new_buffer(m, v));
    for (size_t i = 0; i < s->n_steps; i++) {
        const plan_step *step = &s->steps[i];
        if (step->kind != STEP_OP) {
            const qfw_val v = step->value;
            if (in_arena(m, v) && !m->spans[v].buffer) QFW_TRY(new_buffer(m, v));
            continue;
        }
        const graph_node *node = &s->g->nodes[step->node];
        for (uint32_t o = 0; o < QFW_MAX_OUT; o++)
            if (node->out[o] && plan_side(s, step->node) == m->side && in_arena(m, node->out[o]))
                QFW_TRY(place_output(m, node, o, i + 1));
    }
    return QFW_OK;
}

/* --- offsets --- */

static int larger(const buffer *a, const buffer *b) {
    if (a->bytes != b->bytes) return a->bytes > b->bytes;
    return a->first < b->first;
}
static int earlier(const buffer *a, const buffer *b) {
    if (a->first != b->first) return a->first < b->first;
    return a->bytes > b->bytes;
}
static int longer(const buffer *a, const buffer *b) {
    const size_t x = a->last - a->first, y = b->last - b->first;
    if (x != y) return x > y;
    return a->bytes > b->bytes;
}

typedef int (*before_fn)(const buffer *a, const buffer *b);

/* Sort order[lo .. hi) by `before`, the number of the buffer deciding between equals. */
static void sort_buffers(
    const buffer *b, size_t *order, size_t *scratch, size_t n, before_fn before) {
    for (size_t width = 1; width < n; width *= 2) {
        for (size_t lo = 0; lo < n; lo += 2 * width) {
            const size_t mid = lo + width < n ? lo + width : n;
            const size_t hi = lo + 2 * width < n ? lo + 2 * width : n;
            size_t x = lo, y = mid;
            for (size_t at = lo; at < hi; at++)
                scratch[at] = x < mid && (y >= hi || !before(&b[order[y]], &b[order[x]]))
                                  ? order[x++]
                                  : order[y++];
        }
        memcpy(order, scratch, n * sizeof *order);
    }
}

/* The first place at or after `offset` where `bytes` do not cross from one block into the next. */
static uint64_t inside_block(const memory_plan *m, uint64_t offset, uint64_t bytes) {
    if (!bytes || offset / m->block_bytes == (offset + bytes - 1) / m->block_bytes) return offset;
    return (offset / m->block_bytes + 1) * m->block_bytes;
}

/* The tightest gap for b among the n placed buffers, which are sorted by offset. */
static uint64_t find_gap(const memory_plan *m, const buffer *b, const size_t *placed, size_t n) {
    uint64_t end = 0, best = 0, best_gap = UINT64_MAX;
    for (size_t i = 0; i < n; i++) {
        const buffer *other = &m->buffers[placed[i]];
        if (other->first > b->last || b->first > other->last || !other->bytes) continue;
        const uint64_t at = inside_block(m, end, b->bytes);
        if (at + b->bytes <= other->offset && other->offset - at < best_gap) {
            best = at;
            best_gap = other->offset - at;
        }
        if (end < other->offset + other->bytes) end = other->offset + other->bytes;
    }
    return best_gap < UINT64_MAX ? best : inside_block(m, end, b->bytes);
}

/* Place all buffers in one order; what the arena then needs. */
static uint64_t pack(memory_plan *m, const size_t *order, size_t *placed) {
    uint64_t need = 0;
    for (size_t n = 0; n < m->n_buffers; n++) {
        buffer *b = &m->buffers[order[n]];
        b->offset = b->bytes ? find_gap(m, b, placed, n) : 0;
        size_t at = n;
        for (; at > 0 && m->buffers[placed[at - 1]].offset > b->offset; at--)
            placed[at] = placed[at - 1];
        placed[at] = order[n];
        if (need < b->offset + b->bytes) need = b->offset + b->bytes;
    }
    return need;
}

static qfw_status pack_best(memory_plan *m, uint64_t *need) {
    static const before_fn orders[] = {larger, longer, earlier};
    enum { ORDERS = sizeof orders / sizeof orders[0] };
    size_t *order = mem_alloc(m->n_buffers, 3 * sizeof *order), best = 0;
    if (!order) return QFW_E_NOMEM;
    size_t *scratch = order + m->n_buffers, *placed = scratch + m->n_buffers;
    *need = UINT64_MAX;
    for (size_t k = 0; k <= ORDERS; k++) { /* once more for the best, unless it was the last */
        if (k == ORDERS && best == ORDERS - 1) break;
        for (size_t i = 0; i < m->n_buffers; i++) order[i] = i;
        sort_buffers(m->buffers, order, scratch, m->n_buffers, orders[k < ORDERS ? k : best]);
        const uint64_t bytes = pack(m, order, placed);
        if (bytes >= *need) continue;
        *need = bytes;
        best = k;
    }
    mem_free(order);
    return QFW_OK;
}

/* --- the sides --- */

static void write_places(const memory_plan *m) {
    for (qfw_val v = 1; v <= m->s->g->n_values; v++) {
        plan_value *value = &m->s->values[v];
        if (value->lands && value->on[m->side])
            value->place[m->side] = (plan_place){AT_ENTRY, 0, value->lands};
        if (m->s->g->values[v].kind == VALUE_STORE)
            value->place[m->side] = (plan_place){AT_ENTRY, 0, m->s->g->values[v].entry};
        if (m->spans[v].buffer)
            value->place[m->side] =
                (plan_place){AT_ARENA, m->buffers[m->spans[v].buffer - 1].offset, NULL};
    }
}

/* Bytes that live on where the backward begins. */
static uint64_t bytes_saved(const memory_plan *m) {
    const plan_steps *s = m->s;
    size_t border = 0;
    uint64_t bytes = 0;
    for (size_t i = 0; i < s->n_steps && !border; i++) {
        const uint32_t phase =
            s->steps[i].kind == STEP_OP ? s->g->nodes[s->steps[i].node].phase : PHASE_FORWARD;
        if (phase == PHASE_RECOMPUTE || phase == PHASE_BACKWARD) border = i + 1;
    }
    for (size_t i = 0; i < m->n_buffers && border; i++)
        if (m->buffers[i].first < border && m->buffers[i].last >= border)
            bytes += m->buffers[i].bytes;
    return bytes;
}

static qfw_status plan_side_memory(memory_plan *m, uint32_t side, uint64_t *need) {
    m->side = side;
    m->n_buffers = 0;
    find_spans(m);
    QFW_TRY(make_buffers(m));
    QFW_TRY(pack_best(m, need));
    m->p->saved_bytes += bytes_saved(m);
    write_places(m);
    return QFW_OK;
}

/* Inputs have memory of their own on the device, one after another. */
static qfw_status place_inputs(memory_plan *m) {
    uint64_t end = 0;
    for (qfw_val v = 1; v <= m->s->g->n_values; v++) {
        plan_value *value = &m->s->values[v];
        if (m->s->g->values[v].kind != VALUE_INPUT || !value->on[SIDE_DEVICE]) continue;
        const uint64_t bytes = plan_aligned(plan_bytes(&m->s->g->values[v]));
        if (bytes > m->block_bytes)
            return err_fail("E_DEV_MEM", QFW_E_DEVICE_OOM,
                "plan: input '%s' has %llu bytes, the device allows %llu in one piece",
                m->s->g->values[v].name, (unsigned long long)bytes,
                (unsigned long long)m->block_bytes);
        end = inside_block(m, end, bytes);
        value->place[SIDE_DEVICE] = (plan_place){AT_INPUT, end, NULL};
        end += bytes;
    }
    m->p->input_bytes = end;
    return QFW_OK;
}

/* The most scratch that any native op asks for, behind the values. */
static void place_workspace(memory_plan *m, const device *dev, uint64_t arena) {
    const graph *g = m->s->g;
    uint64_t most = 0;
    for (size_t k = 0; k < g->n_nodes && QFW_HAS(dev->be, qfw_backend, workspace_size); k++) {
        qfw_tensor tensor[QFW_MAX_IN + QFW_MAX_OUT];
        if (m->s->placement[k] == PLACE_REFERENCE) continue;
        const qfw_op op = plan_op(g, &g->nodes[k], tensor);
        const uint64_t bytes = dev->be->workspace_size(dev->inst, &op);
        if (most < bytes) most = bytes;
    }
    m->p->workspace_bytes = plan_aligned(most);
    m->s->workspace_offset = inside_block(m, arena, m->p->workspace_bytes);
    m->p->step_bytes = most ? m->s->workspace_offset + m->p->workspace_bytes : arena;
}

qfw_status plan_memory(plan *p, const device *dev) {
    memory_plan m = {.p = p, .s = p->steps, .block_bytes = plan_block_bytes(dev)};
    uint64_t arena = 0;
    m.spans = mem_alloc(p->steps->g->n_values + 1, sizeof *m.spans);
    qfw_status status = m.spans ? plan_side_memory(&m, SIDE_DEVICE, &arena) : QFW_E_NOMEM;
    if (status == QFW_OK) place_workspace(&m, dev, arena);
    if (status == QFW_OK) status = place_inputs(&m);
    m.block_bytes = plan_aligned(UINT64_MAX / 8); /* the host's arena is one block */
    if (status == QFW_OK && p->steps->two_sided)
        status = plan_side_memory(&m, SIDE_HOST, &p->host_bytes);
    mem_free(m.spans);
    mem_free(m.buffers);
    return status;
}
