/* exec.c -- the plan's steps with real memory behind them.
 *
 * exec_create resolves every tensor once; a run walks the steps and hands each stretch of native
 * ops to the backend in one call. A reference kernel waits for the device first, then works in its
 * memory (host_ptr) or on the host's side of the plan.
 */
#define _POSIX_C_SOURCE 200809L
#include <string.h>
#include <time.h>

#include "base/error.h"
#include "base/log.h"
#include "base/mem.h"
#include "graph/arena.h"
#include "graph/program.h"

typedef struct exec_row { /* of one node, over all profiled runs */
    uint64_t calls, ns, bytes;
    uint32_t refused; /* the backend took it back: the reference kernel runs it from then on */
} exec_row;

struct exec {
    const plan *p;
    const plan_steps *s;
    const device *dev;
    exec_arena *arena;
    qfw_tensor *tensor[SIDES]; /* by value */
    qfw_quant *quant;          /* by value: the host's view of a packed weight's scales */
    qfw_op *ops;               /* by node */
    const qfw_op **list;       /* by step; NULL for transfers */
    qfw_val *inputs;           /* in order of declaration */
    exec_row *rows;            /* by node */
    size_t n_inputs;
    uint32_t profiles;
    uint32_t pending; /* the device may still be at work */
};

/* --- tensors --- */

/* Where the host sees a piece of the device's memory. */
static qfw_status see(const exec *e, qfw_mem **mem) {
    if (!*mem) return QFW_OK;
    void *host = e->dev->be->host_ptr(e->dev->inst, *mem);
    if (!host)
        return err_fail("E_DEV_FAULT", QFW_E_DEVICE,
            "backend %s: host_ptr gives an address for some memory and none for other",
            e->dev->name);
    *mem = (qfw_mem *)host;
    return QFW_OK;
}

/* The device's tensor as reference kernels read it: mem are host addresses. */
static qfw_status see_tensor(const exec *e, qfw_val v, qfw_tensor *t) {
    *t = e->tensor[SIDE_DEVICE][v];
    QFW_TRY(see(e, &t->mem));
    if (!t->quant) return QFW_OK;
    qfw_quant *q = &e->quant[v];
    *q = *t->quant;
    t->quant = q;
    QFW_TRY(see(e, &q->absmax_mem));
    QFW_TRY(see(e, &q->nested_mem));
    return see(e, &q->map_mem);
}

static void bind_device(const exec *e, qfw_val v) {
    const plan_place *place = &e->s->values[v].place[SIDE_DEVICE];
    qfw_tensor *t = &e->tensor[SIDE_DEVICE][v];
    uint64_t offset = place->offset;
    if (place->at == AT_ARENA) t->mem = arena_at(&e->arena->step, &offset);
    if (place->at == AT_INPUT) t->mem = arena_at(&e->arena->input, &offset);
    t->offset = offset;
    if (place->at != AT_ENTRY) return;
    t->mem = place->entry->t.mem;
    t->offset = place->entry->t.offset;
}

static qfw_status bind_host(const exec *e, qfw_val v) {
    const plan_value *value = &e->s->values[v];
    const plan_place *place = &value->place[SIDE_HOST];
    qfw_tensor *t = &e->tensor[SIDE_HOST][v];
    if (!e->s->two_sided) return see_tensor(e, v, t);
    if (place->at == AT_ARENA) t->mem = (qfw_mem *)(void *)(e->arena->host + place->offset);
    if (place->at != AT_ENTRY || !value->on[SIDE_HOST]) return QFW_OK;
    QFW_TRY(store_host_alloc(e->dev, place->entry));
    const qfw_tensor copy = store_host_tensor(place->entry, &e->quant[v]);
    t->mem = copy.mem;
    t->quant = copy.quant;
    return QFW_OK;
}

static void bind_view(const exec *e, qfw_val v, uint32_t side) {
    const graph_value *value = &e->s->g->values[v];
    const qfw_tensor *base = &e->tensor[side][value->base];
    qfw_tensor *t = &e->tensor[side][v];
    t->mem = base->mem;
    t->offset = base->offset + (uint64_t)value->offset * qfw_dtype_bytes(value->shape.dtype);
}

static qfw_status bind_values(exec *e) {
    const graph *g = e->s->g;
    for (qfw_val v = 1; v <= g->n_values; v++) {
        for (uint32_t side = 0; side < SIDES; side++) e->tensor[side][v] = plan_tensor(g, v);
        if (!g->values[v].kind || g->values[v].kind == VALUE_VIEW) continue;
        bind_device(e, v);
        QFW_TRY(bind_host(e, v));
    }
    for (qfw_val v = 1; v <= g->n_values; v++)
        for (uint32_t side = 0; side < SIDES && g->values[v].kind == VALUE_VIEW; side++)
            bind_view(e, v, side);
    return QFW_OK;
}

static uint64_t tensor_bytes(const graph *g, qfw_val v) {
    const graph_value *value = &g->values[v];
    return value->kind == VALUE_STORE ? value->entry->bytes : plan_bytes(value);
}

static void bind_operands(exec *e, size_t k, uint32_t side) {
    const graph_node *node = &e->s->g->nodes[k];
    qfw_op *op = &e->ops[k];
    for (uint32_t i = 0; i < op->n_in; i++)
        if (node->in[i]) op->in[i] = &e->tensor[side][node->in[i]];
    for (uint32_t o = 0; o < op->n_out; o++)
        if (node->out[o]) op->out[o] = &e->tensor[side][node->out[o]];
}

static void bind_node(exec *e, size_t k) {
    const graph *g = e->s->g;
    const graph_node *node = &g->nodes[k];
    qfw_tensor unused[QFW_MAX_IN + QFW_MAX_OUT];
    e->ops[k] = plan_op(g, node, unused);
    bind_operands(e, k, e->s->placement[k] == PLACE_REFERENCE ? SIDE_HOST : SIDE_DEVICE);
    for (uint32_t i = 0; i < QFW_MAX_IN; i++)
        if (node->in[i]) e->rows[k].bytes += tensor_bytes(g, node->in[i]);
    for (uint32_t o = 0; o < QFW_MAX_OUT; o++)
        if (node->out[o]) e->rows[k].bytes += tensor_bytes(g, node->out[o]);
}

/* --- life --- */

static qfw_status take_tables(exec *e) {
    const graph *g = e->s->g;
    for (uint32_t side = 0; side < SIDES; side++) {
        e->tensor[side] = mem_alloc(g->n_values + 1, sizeof *e->tensor[side]);
        if (!e->tensor[side]) return QFW_E_NOMEM;
    }
    e->quant = mem_alloc(g->n_values + 1, sizeof *e->quant);
    e->inputs = mem_alloc(g->n_values + 1, sizeof *e->inputs);
    e->ops = mem_alloc(g->n_nodes, sizeof *e->ops);
    e->rows = mem_alloc(g->n_nodes, sizeof *e->rows);
    e->list = mem_alloc(e->s->n_steps, sizeof *e->list);
    return e->quant && e->inputs && e->ops && e->rows && e->list ? QFW_OK : QFW_E_NOMEM;
}

static qfw_status check_arena(const plan *p, const exec_arena *a) {
    if (p->step_bytes <= a->step.bytes && p->input_bytes <= a->input.bytes &&
        p->host_bytes <= a->host_bytes)
        return QFW_OK;
    return err_fail("E_INTERNAL", QFW_E_INVALID,
        "exec: the plan needs %llu + %llu + %llu bytes, the arena has %llu + %llu + %llu",
        (unsigned long long)p->step_bytes, (unsigned long long)p->input_bytes,
        (unsigned long long)p->host_bytes, (unsigned long long)a->step.bytes,
        (unsigned long long)a->input.bytes, (unsigned long long)a->host_bytes);
}

static qfw_status fill_tables(exec *e) {
    const graph *g = e->s->g;
    QFW_TRY(take_tables(e));
    QFW_TRY(bind_values(e));
    for (size_t k = 0; k < g->n_nodes; k++) bind_node(e, k);
    for (size_t i = 0; i < e->s->n_steps; i++)
        if (e->s->steps[i].kind == STEP_OP) e->list[i] = &e->ops[e->s->steps[i].node];
    for (qfw_val v = 1; v <= g->n_values; v++)
        if (g->values[v].kind == VALUE_INPUT) e->inputs[e->n_inputs++] = v;
    return QFW_OK;
}

/* Frozen weights that reference kernels read are brought to the host once. */
static qfw_status fetch_frozen(exec *e) {
    uint64_t moved = 0;
    for (qfw_val v = 1; v <= e->s->g->n_values && e->s->two_sided; v++) {
        const graph_value *value = &e->s->g->values[v];
        if (value->kind == VALUE_STORE && e->s->values[v].on[SIDE_HOST] &&
            value->entry->usage == QFW_MEM_FROZEN)
            QFW_TRY(store_host_refresh(e->dev, value->entry, &moved));
    }
    return QFW_OK;
}

qfw_status exec_create(const plan *p, const device *dev, exec_arena *arena, exec **out) {
    *out = NULL;
    QFW_TRY(check_arena(p, arena));
    exec *e = mem_alloc(1, sizeof *e);
    if (!e) return QFW_E_NOMEM;
    e->p = p;
    e->s = p->steps;
    e->dev = dev;
    e->arena = arena;
    qfw_status status = fill_tables(e);
    if (status == QFW_OK) status = fetch_frozen(e);
    if (status != QFW_OK) {
        exec_destroy(e);
        return status;
    }
    *out = e;
    return QFW_OK;
}

void exec_destroy(exec *e) {
    if (!e) return;
    for (uint32_t side = 0; side < SIDES; side++) mem_free(e->tensor[side]);
    mem_free(e->quant);
    mem_free(e->inputs);
    mem_free(e->ops);
    mem_free(e->rows);
    mem_free(e->list);
    mem_free(e);
}

/* --- in and out --- */

const char *exec_input(const exec *e, uint32_t i, qfw_val *value) {
    *value = i < e->n_inputs ? e->inputs[i] : 0;
    return *value ? e->s->g->values[*value].name : NULL;
}

static qfw_status check_bytes(const exec *e, qfw_val v, const char *call, uint64_t bytes) {
    const graph_value *value = &e->s->g->values[v];
    const uint64_t wanted = plan_bytes(value);
    if (bytes == wanted) return QFW_OK;
    return err_fail("E_INTERNAL", QFW_E_SHAPE, "%s: value %u%s%s: %llu bytes, wanted %llu", call, v,
        value->name ? ", " : "", value->name ? value->name : "", (unsigned long long)bytes,
        (unsigned long long)wanted);
}

static qfw_status write_device(exec *e, qfw_val v, const void *data, uint64_t bytes) {
    const qfw_tensor *t = &e->tensor[SIDE_DEVICE][v];
    if (!bytes) return QFW_OK;
    return e->dev->be->mem_write(e->dev->inst, NULL, t->mem, t->offset, data, bytes);
}

static qfw_status read_device(exec *e, qfw_val v, void *data, uint64_t bytes) {
    const qfw_tensor *t = &e->tensor[SIDE_DEVICE][v];
    if (!bytes) return QFW_OK;
    return e->dev->be->mem_read(e->dev->inst, NULL, t->mem, t->offset, data, bytes);
}

static char *host_bytes(const exec *e, qfw_val v) {
    const qfw_tensor *t = &e->tensor[SIDE_HOST][v];
    return (char *)(void *)t->mem + t->offset;
}

qfw_status exec_write(exec *e, const char *input, const void *data, uint64_t bytes) {
    size_t i = 0;
    while (i < e->n_inputs && strcmp(e->s->g->values[e->inputs[i]].name, input)) i++;
    if (i == e->n_inputs)
        return err_fail("E_INTERNAL", QFW_E_INVALID, "exec: the graph has no input '%s'", input);
    const qfw_val v = e->inputs[i];
    const plan_value *value = &e->s->values[v];
    QFW_TRY(check_bytes(e, v, "exec_write", bytes));
    if (value->on[SIDE_HOST] && bytes) memcpy(host_bytes(e, v), data, bytes);
    return value->on[SIDE_DEVICE] ? write_device(e, v, data, bytes) : QFW_OK;
}

qfw_status exec_read(exec *e, qfw_val v, void *data, uint64_t bytes) {
    const plan_steps *s = e->s;
    qfw_val held = 0;
    for (size_t i = 0; i < s->n_roots && !held; i++)
        if (s->roots[i].asked == v) held = s->roots[i].value;
    if (!held && v && v <= s->g->n_values && s->g->values[v].kind == VALUE_STORE) held = v;
    if (!held) return err_fail("E_INTERNAL", QFW_E_INVALID, "exec: value %u is not kept", v);
    QFW_TRY(check_bytes(e, held, "exec_read", bytes));
    if (s->values[held].home != SIDE_HOST) return read_device(e, held, data, bytes);
    if (bytes) memcpy(data, host_bytes(e, held), bytes);
    return QFW_OK;
}

/* --- running --- */

static qfw_status wait(exec *e) {
    const qfw_backend *be = e->dev->be;
    if (!e->pending) return QFW_OK;
    e->pending = 0;
    return QFW_HAS(be, qfw_backend, sync) ? be->sync(e->dev->inst, NULL) : QFW_OK;
}

static qfw_status blame(const exec *e, const qfw_op *op, qfw_status status, const char *who) {
    if (!err_count()) (void)err_fail("E_PLUGIN", status, "failed with status %d", status);
    err_prefix("%s %s: %s at %s", who, e->dev->name, op_find(op->code)->name,
        *op->label ? op->label : "no label");
    return status;
}

static qfw_status run_reference(exec *e, const qfw_op *op) {
    QFW_TRY(wait(e));
    const qfw_status status = op_find(op->code)->ref(op);
    return status == QFW_OK ? QFW_OK : blame(e, op, status, "reference kernel, backend");
}

/* The backend had promised this op and refuses it now. Where the host sees the memory, the
 * reference kernel takes over for good. */
static qfw_status run_refused(exec *e, size_t node) {
    const graph_node *n = &e->s->g->nodes[node];
    qfw_op *op = &e->ops[node];
    if (e->s->two_sided || e->s->fallback == FALLBACK_ERROR || !n->def->ref)
        return blame(e, op, QFW_E_UNSUPPORTED, "backend");
    log_line(QFW_LOG_WARN,
        "backend %s: %s at %s: supported when asked, refused when run: the "
        "reference kernel runs it",
        e->dev->name, n->def->name, *op->label ? op->label : "no label");
    err_clear();
    e->rows[node].refused = 1;
    bind_operands(e, node, SIDE_HOST);
    return run_reference(e, op);
}

static qfw_status run_batch(exec *e, size_t first, size_t end) {
    uint64_t offset = e->s->workspace_offset;
    qfw_mem *workspace = e->p->workspace_bytes ? arena_at(&e->arena->step, &offset) : NULL;
    while (first < end) {
        uint32_t done = 0;
        e->pending = 1;
        const qfw_status status = e->dev->be->run(e->dev->inst, NULL, &e->list[first],
            (uint32_t)(end - first), workspace, workspace ? offset : 0, &done);
        if (status == QFW_OK) return QFW_OK;
        first += done < end - first ? done : end - first - 1;
        if (status != QFW_E_UNSUPPORTED) return blame(e, e->list[first], status, "backend");
        QFW_TRY(run_refused(e, e->s->steps[first].node));
        first++;
    }
    return QFW_OK;
}

static qfw_status transfer(exec *e, const plan_step *step) {
    const graph_value *value = &e->s->g->values[step->value];
    uint64_t moved = 0;
    if (step->kind == STEP_REFRESH) return store_host_refresh(e->dev, value->entry, &moved);
    char *host = host_bytes(e, step->value);
    const uint64_t bytes = plan_bytes(value);
    return step->kind == STEP_UPLOAD ? write_device(e, step->value, host, bytes)
                                     : read_device(e, step->value, host, bytes);
}

static int is_native(const exec *e, size_t i) {
    const plan_step *step = &e->s->steps[i];
    return step->kind == STEP_OP && e->s->placement[step->node] != PLACE_REFERENCE &&
           !e->rows[step->node].refused;
}

static uint64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static qfw_status run_stretch(exec *e, size_t first, size_t end) {
    const plan_step *step = &e->s->steps[first];
    const uint64_t began = e->profiles ? now_ns() : 0;
    if (step->kind != STEP_OP) return transfer(e, step);
    QFW_TRY(is_native(e, first) ? run_batch(e, first, end) : run_reference(e, e->list[first]));
    if (!e->profiles) return QFW_OK;
    QFW_TRY(wait(e));
    e->rows[step->node].ns += now_ns() - began;
    e->rows[step->node].calls++;
    return QFW_OK;
}

static qfw_status run_steps(exec *e) {
    const plan_steps *s = e->s;
    for (size_t i = 0; i < s->n_steps;) {
        size_t end = i + 1;
        while (!e->profiles && is_native(e, i) && end < s->n_steps && is_native(e, end)) end++;
        QFW_TRY(run_stretch(e, i, end));
        i = end;
    }
    return wait(e);
}

qfw_status exec_run(exec *e) {
    const plan_steps *s = e->s;
    const qfw_status status = run_steps(e);
    for (qfw_val v = 1; v <= s->g->n_values && s->two_sided; v++)
        if (s->values[v].lands)
            s->values[v].lands->host_fresh =
                status == QFW_OK && s->values[v].valid_at_end[SIDE_HOST];
    return status;
}

/* --- profile --- */

void exec_profile(exec *e, int on) { e->profiles = on != 0; }

int exec_profile_at(const exec *e, uint32_t i, exec_profile_row *out) {
    const graph *g = e->s->g;
    if (i >= g->n_nodes) return 0;
    const graph_node *node = &g->nodes[i];
    const exec_row *row = &e->rows[i];
    *out = (exec_profile_row){node->def->name, node->label ? node->label : "", node->phase,
        row->refused ? PLACE_REFERENCE : e->s->placement[i], row->calls, row->ns,
        row->calls * row->bytes};
    return 1;
}
