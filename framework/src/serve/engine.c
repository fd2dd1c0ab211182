/* engine.c -- passes over the cache: what is appended is cut into passes of at most pass_rows, each
 * a stretch of some slots' sequences, and the graph's segments say where in the cache they stand.
 *
 * Slot s owns rows s * slot_tokens .. of each cache; token t of its sequence lies in row t of them.
 */
#include "serve/engine.h"

#include <string.h>

#include "base/error.h"
#include "base/mem.h"
#include "graph/attention.h"
#include "qfw/ops_prim.h"

enum { FORK_ROWS = 256 };

typedef struct slot {
    int32_t *tokens;
    int64_t n;
} slot;

/* What of an append is still to be read: tokens [next, end) of the slot's sequence. */
typedef struct stretch {
    int64_t next, end;
} stretch;

typedef struct reader { /* a graph with its plan and, once memory is there, its executor */
    graph_env env;
    graph *g;
    plan *p;
    exec *e;
    int64_t n_rows;
    qfw_val logits; /* [n_slots, V] */
} reader;

struct engine {
    run *r;
    engine_opts o;
    reader **readers; /* the largest first */
    size_t n_readers, cap_readers;
    reader fork;
    uint32_t n_caches;
    exec_arena *arena;
    uint64_t step_bytes, host_bytes, input_bytes, scratch_bytes;
    void *scratch;
    slot *slots;
    stretch *work; /* by append */
    /* one pass: arrays of as many rows as the largest has */
    qfw_batch batch;
    int32_t *tokens, *labels, *positions, *row_key, *row_segment, *row_length, *cache_rows;
    int32_t *segments, *segment_example, *logit_rows,
        *answers;  /* by segment; answers: append + 1 */
    float *logits; /* [n_slots, V] */
};

/* --- graphs --- */

static graph_env engine_env(const engine *e) {
    graph_env env = graphs_env(e->r, 0);
    env.cache_rows = (int64_t)e->o.n_slots * e->o.slot_tokens;
    return env;
}

static void close_reader(reader *p) {
    if (!p) return;
    exec_destroy(p->e);
    plan_destroy(p->p);
    graph_destroy(p->g);
}

/* The model over n_rows, then the logits of one row a segment: input "logit_rows". */
static qfw_status build_reader(engine *e, int64_t n_rows, reader *p) {
    const qfw_copy_params wide = {sizeof wide, QFW_F32};
    const run *r = e->r;
    const int64_t slots = e->o.n_slots;
    const qfw_batch_shape shape = {sizeof shape, 0, n_rows, slots, slots};
    qfw_lm_vals lm = {.size = sizeof lm};
    qfw_val rows, hidden;
    p->n_rows = n_rows;
    p->env = engine_env(e);
    QFW_TRY(graph_create(&p->env, &p->g));
    qfw_graph *g = &p->g->pub;
    QFW_TRY(r->model->forward(r->model_inst, g, &shape, &lm));
    if (!p->g->n_caches)
        return err_fail("E_UNSUPPORTED", QFW_E_UNSUPPORTED,
            "model %s: it emits ATTN itself, so nothing can be kept of what was read; hint: "
            "qfw_attn() goes through the graph service",
            r->model_component->name);
    e->n_caches = p->g->n_caches;
    QFW_TRY(g->api->input(g, "logit_rows", QFW_I32, 1, &slots, &rows));
    QFW_TRY(qfw_gather_rows(g, lm.hidden, rows, &hidden));
    /* In fp32 whatever the run computes in: 16 bits are too few for probabilities. */
    if (graph_get(p->g, hidden)->shape.dtype != QFW_F32)
        QFW_TRY(g->api->op(g, QFW_OP_COPY, &hidden, 1, &wide, sizeof wide, NULL, &hidden, 1));
    QFW_TRY(qfw_gemm(g, hidden, 0, lm.lm_head, 1, 1.0f, &p->logits));
    return graphs_place(r, p->g, &p->logits, 1, &p->p);
}

/* Row to[i] of every cache becomes its row from[i]. */
static qfw_status build_fork(engine *e) {
    const int64_t n = FORK_ROWS;
    reader *p = &e->fork;
    qfw_val from, to;
    p->env = engine_env(e);
    QFW_TRY(graph_create(&p->env, &p->g));
    qfw_graph *g = &p->g->pub;
    QFW_TRY(g->api->input(g, "from", QFW_I32, 1, &n, &from));
    QFW_TRY(g->api->input(g, "to", QFW_I32, 1, &n, &to));
    for (uint32_t i = 0; i < 2 * e->n_caches; i++) {
        qfw_val cache, rows, after;
        store_entry *entry = attention_cache(e->r->store, i / 2, i % 2 ? "v" : "k");
        QFW_TRY(graph_store_value(p->g, entry, &cache));
        QFW_TRY(qfw_gather_rows(g, cache, from, &rows));
        QFW_TRY(qfw_scatter_rows(g, cache, rows, to, &after));
        QFW_TRY(g->api->assign(g, cache, after));
    }
    return graphs_place(e->r, p->g, NULL, 0, &p->p);
}

static qfw_status add_reader(engine *e, int64_t n_rows, reader **out) {
    if (mem_grow(&e->readers, &e->cap_readers, e->n_readers + 1, sizeof *e->readers))
        return QFW_E_NOMEM;
    reader *p = mem_alloc(1, sizeof *p);
    if (!p) return QFW_E_NOMEM;
    const qfw_status status = build_reader(e, n_rows, p);
    if (status != QFW_OK) {
        close_reader(p);
        mem_free(p);
        return status;
    }
    e->readers[e->n_readers++] = *out = p;
    return QFW_OK;
}

static int fits(const engine *e, const plan *p) {
    return p->step_bytes <= e->step_bytes && p->host_bytes <= e->host_bytes &&
           p->input_bytes <= e->input_bytes;
}

/* The pass for at least n_rows; where its plan would not fit the arena, the largest. */
static qfw_status find_reader(engine *e, int64_t n_rows, reader **out) {
    for (size_t i = 0; i < e->n_readers; i++) {
        *out = e->readers[i];
        if ((*out)->n_rows == n_rows) return QFW_OK;
    }
    QFW_TRY(add_reader(e, n_rows, out));
    if (fits(e, (*out)->p)) return exec_create((*out)->p, &e->r->dev, e->arena, &(*out)->e);
    close_reader(*out);
    mem_free(*out);
    e->n_readers--;
    *out = e->readers[0];
    return QFW_OK;
}

/* --- life --- */

static void note_need(engine *e, const reader *p) {
    if (p->p->step_bytes > e->step_bytes) e->step_bytes = p->p->step_bytes;
    if (p->p->host_bytes > e->host_bytes) e->host_bytes = p->p->host_bytes;
    if (p->p->input_bytes > e->input_bytes) e->input_bytes = p->p->input_bytes;
    const uint64_t most = graphs_largest_input(p->g);
    if (most > e->scratch_bytes) e->scratch_bytes = most;
}

static qfw_status take_rows(engine *e) {
    enum { ROW_ARRAYS = 8 }; /* row_key has two values a row */
    const size_t rows = (size_t)e->readers[0]->n_rows, slots = e->o.n_slots;
    e->tokens = mem_alloc(rows * ROW_ARRAYS, sizeof *e->tokens);
    e->segments = mem_alloc(slots * 8, sizeof *e->segments);
    e->logits = mem_alloc(slots * (size_t)e->r->facts.vocab, sizeof *e->logits);
    e->slots = mem_alloc(slots, sizeof *e->slots);
    e->work = mem_alloc(slots, sizeof *e->work);
    if (!e->tokens || !e->segments || !e->logits || !e->slots || !e->work) return QFW_E_NOMEM;
    e->labels = e->tokens + rows;
    e->positions = e->labels + rows;
    e->row_segment = e->positions + rows;
    e->row_length = e->row_segment + rows;
    e->cache_rows = e->row_length + rows;
    e->row_key = e->cache_rows + rows;
    e->segment_example = e->segments + slots * 5;
    e->logit_rows = e->segment_example + slots;
    e->answers = e->logit_rows + slots;
    for (size_t i = 0; i < rows; i++) e->labels[i] = QFW_IGNORE_LABEL;
    for (size_t i = 0; i < slots; i++) {
        e->segment_example[i] = -1;
        e->slots[i].tokens = mem_alloc((size_t)e->o.slot_tokens, sizeof(int32_t));
        if (!e->slots[i].tokens) return QFW_E_NOMEM;
    }
    return QFW_OK;
}

static qfw_status plan_all(engine *e) {
    reader *unused;
    const int64_t most = batch_bucket(e->o.pass_rows), least = batch_bucket(e->o.n_slots);
    QFW_TRY(add_reader(e, most, &unused));
    if (least < most) QFW_TRY(add_reader(e, least, &unused));
    QFW_TRY(build_fork(e));
    for (size_t i = 0; i < e->n_readers; i++) note_need(e, e->readers[i]);
    note_need(e, &e->fork);
    return take_rows(e);
}

qfw_status engine_plan(run *r, const engine_opts *o, engine **out) {
    engine *e = mem_alloc(1, sizeof *e);
    *out = NULL;
    if (!e) return QFW_E_NOMEM;
    e->r = r;
    e->o = *o;
    if (e->o.pass_rows < o->n_slots) e->o.pass_rows = o->n_slots;
    const qfw_status status = plan_all(e);
    if (status == QFW_OK)
        *out = e;
    else
        engine_destroy(e);
    return status;
}

qfw_status engine_alloc(engine *e) {
    const device *dev = &e->r->dev;
    QFW_TRY(exec_arena_create(dev, e->step_bytes, e->host_bytes, e->input_bytes, &e->arena));
    for (size_t i = 0; i < e->n_readers; i++)
        QFW_TRY(exec_create(e->readers[i]->p, dev, e->arena, &e->readers[i]->e));
    QFW_TRY(exec_create(e->fork.p, dev, e->arena, &e->fork.e));
    e->scratch = mem_alloc_aligned((size_t)e->scratch_bytes + 64, 64);
    return e->scratch ? QFW_OK : QFW_E_NOMEM;
}

uint32_t engine_plans(const engine *e, const plan **out, uint32_t cap) {
    uint32_t n = 0;
    for (size_t i = 0; i < e->n_readers && n < cap; i++) out[n++] = e->readers[i]->p;
    return n;
}

void engine_destroy(engine *e) {
    if (!e) return;
    for (size_t i = 0; i < e->n_readers; i++) {
        close_reader(e->readers[i]);
        mem_free(e->readers[i]);
    }
    mem_free(e->readers);
    close_reader(&e->fork);
    exec_arena_destroy(e->arena);
    for (uint32_t i = 0; i < e->o.n_slots && e->slots; i++) mem_free(e->slots[i].tokens);
    mem_free(e->slots);
    mem_free(e->work);
    mem_free(e->tokens);
    mem_free(e->segments);
    mem_free(e->logits);
    mem_free(e->scratch);
    mem_free(e);
}

plan_need engine_need(const engine *e) {
    plan_need need = {.main = e->readers[0]->p,
        .n_rows = e->readers[0]->n_rows,
        .step_bytes = e->step_bytes,
        .input_bytes = e->input_bytes,
        .host_bytes = e->host_bytes,
        .scratch_bytes = e->scratch_bytes};
    for (uint32_t i = 0; i < 2 * e->n_caches; i++)
        need.cache_bytes += attention_cache(e->r->store, i / 2, i % 2 ? "v" : "k")->bytes;
    snprintf(need.cache_note, sizeof need.cache_note, "%u sequences of %lld tokens", e->o.n_slots,
        (long long)e->o.slot_tokens);
    if (e->o.n_slots > 1)
        snprintf(need.smaller, sizeof need.smaller, "per_device_batch_size = %u", e->o.n_slots / 2);
    return need;
}

int64_t engine_vocab(const engine *e) { return e->r->facts.vocab; }
uint32_t engine_slots(const engine *e) { return e->o.n_slots; }
int64_t engine_room(const engine *e) {
    const int64_t most = e->r->facts.max_positions;
    return most < e->o.slot_tokens ? most : e->o.slot_tokens;
}

const int32_t *engine_tokens(const engine *e, uint32_t slot_number, int64_t *n) {
    *n = e->slots[slot_number].n;
    return e->slots[slot_number].tokens;
}

void engine_cut(engine *e, uint32_t slot_number, int64_t n) {
    slot *s = &e->slots[slot_number];
    const int64_t change = e->r->facts.rope_switch;
    if (n >= s->n) return;
    s->n = change && s->n > change && n <= change ? 0 : n; /* what was kept is void there, too */
}

void engine_forget(engine *e) {
    for (uint32_t i = 0; i < e->o.n_slots; i++) e->slots[i].n = 0;
}

/* --- a pass --- */

/* Rows row .. of the pass: tokens [from, to) of slot `number`, as segment `at`. */
static void lay_stretch(
    engine *e, int64_t at, int64_t row, uint32_t number, int64_t from, int64_t to) {
    const slot *s = &e->slots[number];
    const int64_t first = (int64_t)number * e->o.slot_tokens;
    int32_t *segment = e->segments + at * 5;
    for (int64_t t = from; t < to; t++, row++) {
        e->tokens[row] = s->tokens[t];
        e->positions[row] = (int32_t)t;
        e->row_segment[row] = (int32_t)at;
        e->row_length[row] = (int32_t)s->n;
        e->cache_rows[row] = (int32_t)(first + t);
    }
    segment[0] = (int32_t)(row - (to - from));
    segment[1] = (int32_t)row;
    segment[2] = (int32_t)first;
    segment[3] = segment[4] = (int32_t)(first + from);
}

static void lay_padding(engine *e, int64_t row) {
    for (; row < e->readers[0]->n_rows; row++) {
        e->tokens[row] = e->positions[row] = e->row_length[row] = 0;
        e->row_segment[row] = e->cache_rows[row] = -1;
    }
}

/* As many of the stretches as a pass holds; returns its rows. */
static int64_t lay_pass(engine *e, const engine_append *appends, uint32_t n, int64_t *n_segments) {
    int64_t row = 0, at = 0;
    memset(e->segments, 0, e->o.n_slots * 5 * sizeof *e->segments);
    for (uint32_t i = 0; i < e->o.n_slots; i++) e->logit_rows[i] = -1;
    memset(e->answers, 0, e->o.n_slots * sizeof *e->answers);
    for (uint32_t i = 0; i < n && row < e->o.pass_rows; i++) {
        stretch *w = &e->work[i];
        int64_t count = w->end - w->next;
        if (!count) continue;
        if (count > e->o.pass_rows - row) count = e->o.pass_rows - row;
        lay_stretch(e, at, row, appends[i].slot, w->next, w->next + count);
        w->next += count;
        row += count;
        if (w->next == w->end) {
            e->logit_rows[at] = (int32_t)row - 1;
            e->answers[at] = (int32_t)i + 1;
        }
        at++;
    }
    lay_padding(e, row);
    *n_segments = at;
    return row;
}

static void publish(engine *e, int64_t n_rows, int64_t n_tokens, int64_t n_segments) {
    const int64_t slots = e->o.n_slots;
    e->batch = (qfw_batch){.size = sizeof e->batch,
        .shape = {sizeof e->batch.shape, 0, n_rows, slots, slots},
        .n_tokens = n_tokens,
        .n_seqs = n_segments,
        .tokens = e->tokens,
        .labels = e->labels,
        .positions = e->positions,
        .row_key = e->row_key,
        .segments = e->segments,
        .row_segment = e->row_segment,
        .segment_example = e->segment_example,
        .row_length = e->row_length};
}

static const void *own_input(const engine *e, const char *name) {
    const struct {
        const char *name;
        const void *data;
    } inputs[] = {{"tokens", e->tokens}, {"labels", e->labels}, {"positions", e->positions},
        {"row_key", e->row_key}, {"segments", e->segments}, {"row_segment", e->row_segment},
        {"segment_example", e->segment_example}, {"cache_rows", e->cache_rows},
        {"logit_rows", e->logit_rows}};
    for (size_t i = 0; i < sizeof inputs / sizeof inputs[0]; i++)
        if (!strcmp(inputs[i].name, name)) return inputs[i].data;
    return NULL;
}

static qfw_status write_inputs(engine *e, reader *p) {
    const char *name;
    qfw_val v;
    for (uint32_t i = 0; (name = exec_input(p->e, i, &v)) != NULL; i++) {
        const uint64_t bytes = graphs_value_bytes(p->g, v);
        const void *data = own_input(e, name);
        if (!data) {
            if (!e->r->model->fill)
                return err_fail("E_PLUG_INPUT", QFW_E_INTERNAL,
                    "plugin %s declares the input '%s' but has no fill",
                    e->r->model_component->name, name);
            QFW_TRY(e->r->model->fill(e->r->model_inst, &e->batch, name, e->scratch, bytes));
            data = e->scratch;
        }
        QFW_TRY(exec_write(p->e, name, data, bytes));
    }
    return QFW_OK;
}

static qfw_status run_pass(engine *e, const engine_append *appends, uint32_t n, float *logits) {
    const size_t vocab = (size_t)e->r->facts.vocab;
    int64_t n_segments = 0;
    reader *p = NULL;
    const int64_t n_tokens = lay_pass(e, appends, n, &n_segments);
    QFW_TRY(find_reader(e, batch_bucket(n_tokens), &p));
    publish(e, p->n_rows, n_tokens, n_segments);
    QFW_TRY(write_inputs(e, p));
    QFW_TRY(exec_run(p->e));
    if (!logits) return QFW_OK;
    QFW_TRY(exec_read(p->e, p->logits, e->logits, e->o.n_slots * vocab * sizeof *e->logits));
    for (int64_t at = 0; at < n_segments; at++)
        if (e->answers[at])
            memcpy(logits + (size_t)(e->answers[at] - 1) * vocab, e->logits + (size_t)at * vocab,
                vocab * sizeof *logits);
    return QFW_OK;
}

/* --- calls --- */

static qfw_status check_appends(const engine *e, const engine_append *appends, uint32_t n) {
    for (uint32_t i = 0; i < n; i++) {
        const engine_append *a = &appends[i];
        if (a->slot >= e->o.n_slots || a->n < 1)
            return err_fail("E_INTERNAL", QFW_E_INVALID, "engine: slot %u of %u, %lld tokens",
                a->slot, e->o.n_slots, (long long)a->n);
        for (uint32_t k = 0; k < i; k++)
            if (appends[k].slot == a->slot)
                return err_fail(
                    "E_INTERNAL", QFW_E_INVALID, "engine: slot %u stands twice", a->slot);
        if (e->slots[a->slot].n + a->n > engine_room(e))
            return err_fail("E_DATA_LENGTH", QFW_E_DATA,
                "a sequence of %lld tokens, at most %lld fit",
                (long long)(e->slots[a->slot].n + a->n), (long long)engine_room(e));
    }
    return QFW_OK;
}

/* Put the tokens into their slots; what must be read is what was not, or all where the rotary
 * embedding changes. */
static void take_tokens(engine *e, const engine_append *appends, uint32_t n) {
    const int64_t change = e->r->facts.rope_switch;
    for (uint32_t i = 0; i < n; i++) {
        slot *s = &e->slots[appends[i].slot];
        const int64_t before = s->n;
        memcpy(s->tokens + before, appends[i].tokens, (size_t)appends[i].n * sizeof(int32_t));
        s->n += appends[i].n;
        e->work[i] = (stretch){change && before <= change && s->n > change ? 0 : before, s->n};
    }
}

static int has_work(const engine *e, uint32_t n) {
    for (uint32_t i = 0; i < n; i++)
        if (e->work[i].next < e->work[i].end) return 1;
    return 0;
}

qfw_status engine_read(engine *e, const engine_append *appends, uint32_t n, float *logits) {
    QFW_TRY(check_appends(e, appends, n));
    take_tokens(e, appends, n);
    qfw_status status = QFW_OK;
    while (status == QFW_OK && has_work(e, n)) status = run_pass(e, appends, n, logits);
    for (uint32_t i = 0; i < n && status != QFW_OK; i++) e->slots[appends[i].slot].n = 0;
    return status;
}

qfw_status engine_fork(engine *e, uint32_t from, uint32_t to, int64_t n) {
    int32_t rows[2][FORK_ROWS];
    if (from == to || n > e->slots[from].n)
        return err_fail("E_INTERNAL", QFW_E_INVALID, "engine: fork of %lld tokens of slot %u to %u",
            (long long)n, from, to);
    e->slots[to].n = 0;
    const int64_t change = e->r->facts.rope_switch;
    if (change && e->slots[from].n > change && n <= change) { /* kept for a long sequence */
        const engine_append again = {to, e->slots[from].tokens, n};
        return n ? engine_read(e, &again, 1, NULL) : QFW_OK;
    }
    for (int64_t first = 0; first < n; first += FORK_ROWS) {
        for (int64_t i = 0; i < FORK_ROWS; i++) {
            const int64_t t = first + i;
            rows[0][i] = t < n ? (int32_t)((int64_t)from * e->o.slot_tokens + t) : -1;
            rows[1][i] = t < n ? (int32_t)((int64_t)to * e->o.slot_tokens + t) : -1;
        }
        QFW_TRY(exec_write(e->fork.e, "from", rows[0], sizeof rows[0]));
        QFW_TRY(exec_write(e->fork.e, "to", rows[1], sizeof rows[1]));
        QFW_TRY(exec_run(e->fork.e));
    }
    memcpy(e->slots[to].tokens, e->slots[from].tokens, (size_t)n * sizeof(int32_t));
    e->slots[to].n = n;
    return QFW_OK;
}
