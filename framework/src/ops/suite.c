/* suite.c -- runs the cases on a target and holds what comes back against the reference. */
#include "ops/suite.h"

#include "base/error.h"
#include "base/mem.h"
#include "ops/ref.h"
#include "ops/suite_setup.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

/* What is allowed, as a part of the greatest value of the output: max |a-b| / max |b|. F32 leaves
 * room for fp32 accumulation in another order; the narrow dtypes for one rounding of each result
 * and, in composites, one of each intermediate. Integers must be equal. */
static const struct tolerance {
    uint32_t code;
    double f32, bf16, f16;
} tolerances[] = {
    {QFW_OP_GEMM, 5e-6, 1e-2, 2e-3},
    {QFW_OP_QMATMUL, 5e-6, 1e-2, 2e-3},
    {QFW_OP_QMATMUL_DX, 5e-6, 1e-2, 2e-3},
    {QFW_OP_LORA, 5e-6, 2e-2, 4e-3},
    {QFW_OP_LORA_BWD, 1e-5, 2e-2, 4e-3},
    {QFW_OP_RMSNORM, 2e-6, 1e-2, 2e-3},
    {QFW_OP_RMSNORM_BWD, 1e-5, 2e-2, 4e-3},
    {QFW_OP_ROPE, 1e-6, 1e-2, 2e-3},
    {QFW_OP_SWIGLU, 2e-6, 1e-2, 2e-3},
    {QFW_OP_SWIGLU_BWD, 5e-6, 1e-2, 2e-3},
    {QFW_OP_ATTN, 2e-5, 2e-2, 4e-3}, /* exp turns the error of large scores into a factor */
    {QFW_OP_ATTN_BWD, 1e-4, 4e-2, 1e-2},
    {QFW_OP_EMBED, 0, 0, 0},
    {QFW_OP_EMBED_BWD, 2e-6, 1e-2, 2e-3},
    {QFW_OP_TOKEN_LOGPROB, 1e-4, 2e-2, 4e-3},
    {QFW_OP_TOKEN_LOGPROB_BWD, 1e-4, 2e-2, 4e-3},
    {QFW_OP_XENT, 2e-5, 2e-2, 4e-3},
    {QFW_OP_XENT_BWD, 2e-5, 1e-2, 2e-3},
    {QFW_OP_ADAMW, 2e-6, 1e-2, 2e-3},
    {QFW_OP_DEQUANT4, 0, 0, 0},
    {QFW_OP_COPY, 0, 0, 0},
    {QFW_OP_UNVIEW, 2e-6, 1e-2, 2e-3},
    {QFW_OP_CONCAT, 0, 0, 0},
    {QFW_OP_FILL, 0, 0, 0},
    {QFW_OP_SCALE, 1e-6, 1e-2, 2e-3},
    {QFW_OP_UNARY, 2e-6, 1e-2, 2e-3},
    {QFW_OP_BINARY, 1e-6, 1e-2, 2e-3},
    {QFW_OP_REDUCE, 5e-6, 1e-2, 2e-3},
    {QFW_OP_SELECT, 0, 0, 0},
    {QFW_OP_SEGMENT_SUM, 2e-6, 1e-2, 2e-3},
    {QFW_OP_GATHER_ROWS, 0, 0, 0},
    {QFW_OP_SORT, 0, 0, 0},
    {QFW_OP_SOFTMAX, 5e-6, 1e-2, 2e-3},
    {QFW_OP_SOFTMAX_BWD, 1e-5, 2e-2, 4e-3},
    {QFW_OP_DROPOUT, 1e-6, 1e-2, 2e-3},
    {QFW_OP_QUANT8, 0, 0, 0},
    {QFW_OP_DEQUANT8, 1e-6, 1e-2, 2e-3},
};

static double allowed(uint32_t code, uint32_t dtype) {
    for (size_t i = 0; i < sizeof tolerances / sizeof *tolerances; i++)
        if (tolerances[i].code == code)
            return dtype == QFW_BF16  ? tolerances[i].bf16
                   : dtype == QFW_F16 ? tolerances[i].f16
                                      : tolerances[i].f32;
    return 0;
}

/* How one case is run: what its floats are, and which output takes the place of which input. */
typedef struct variant {
    const char *name;
    uint32_t dtype, layout, data, seal;
    uint32_t out, in; /* in: 1-based, 0: nothing is in place */
} variant;

typedef struct trial {
    const suite_target *target;
    const suite_case *which;
    const variant *how;
    suite_report *report;
    suite_setup setup;
    const op_def *def;
    qfw_op op;
    qfw_tensor out[QFW_MAX_OUT], expected[QFW_MAX_OUT];
    uint8_t *before[SUITE_BLOCKS]; /* contents of the blocks before the run */
    uint32_t n_before;
} trial;

QFW_PRINTF(2, 3) static void failed(trial *t, const char *fmt, ...) {
    char what[256], text[512];
    va_list args;
    va_start(args, fmt);
    vsnprintf(what, sizeof what, fmt, args);
    va_end(args);
    snprintf(text, sizeof text, "%s, %s, %s: %s", t->def->name, t->which->name, t->how->name, what);
    t->report->row[t->which->code].failed++;
    t->report->failed++;
    if (t->report->on_failure) t->report->on_failure(t->report->arg, text);
}

/* The op with its inputs, params and outputs: a fresh block for each that is not in place. */
static qfw_status prepare(trial *t, const op_shape *shapes) {
    suite_setup *const s = &t->setup;
    t->op = (qfw_op){.size = sizeof t->op, .code = t->which->code, .n_in = s->n_in};
    t->op.n_out = s->n_out;
    t->op.params = s->param_bytes ? s->params : NULL;
    t->op.param_bytes = s->param_bytes;
    t->op.label = t->which->name;
    for (uint32_t i = 0; i < s->n_in; i++)
        if (s->have[i]) t->op.in[i] = &s->in[i];
    for (uint32_t o = 0; o < s->n_out; o++) {
        if (!s->want[o]) continue;
        QFW_TRY(setup_tensor(s, &shapes[o], QFW_MEM_STEP, &t->expected[o]));
        t->op.out[o] = &t->expected[o];
    }
    QFW_TRY(t->def->ref(&t->op));
    for (uint32_t o = 0; o < s->n_out; o++) {
        if (!s->want[o]) continue;
        if (t->how->in && t->how->out == o)
            t->out[o] = s->in[t->how->in - 1];
        else
            QFW_TRY(setup_tensor(s, &shapes[o], QFW_MEM_STEP, &t->out[o]));
        t->op.out[o] = &t->out[o];
    }
    return QFW_OK;
}

static uint64_t payload(const qfw_tensor *t) {
    return (uint64_t)qfw_tensor_count(t) * qfw_dtype_bytes(t->dtype);
}

/* NaN in every output that is not in place: a value left out is seen. */
static void poison(trial *t) {
    for (uint32_t o = 0; o < t->op.n_out; o++)
        if (t->op.out[o] && !(t->how->in && t->how->out == o))
            memset(ref_data(&t->out[o]), 0xff, (size_t)payload(&t->out[o]));
}

static qfw_status remember(trial *t) {
    for (uint32_t b = 0; b < t->setup.n_blocks; b++) {
        const suite_block *const block = &t->setup.blocks[b];
        t->before[b] = mem_alloc((size_t)block->bytes, 1);
        if (!t->before[b]) return QFW_E_NOMEM;
        memcpy(t->before[b], block->host, (size_t)block->bytes);
        t->n_before++;
    }
    return QFW_OK;
}

/* Everything outside of the outputs is as it was. */
static int untouched(trial *t) {
    for (uint32_t b = 0; b < t->setup.n_blocks; b++) {
        const suite_block *const block = &t->setup.blocks[b];
        uint64_t first = 0, last = 0; /* of the output that lies in it */
        for (uint32_t o = 0; o < t->op.n_out; o++)
            if (t->op.out[o] && (void *)t->out[o].mem == block->host) {
                first = t->out[o].offset;
                last = first + payload(&t->out[o]);
            }
        const uint8_t *const now = block->host;
        for (uint64_t i = 0; i < block->bytes; i++) {
            if (i >= first && i < last) i = last;
            if (i >= block->bytes || now[i] == t->before[b][i]) continue;
            failed(t,
                "a byte outside of the outputs was written (block %u, byte %" PRIu64 " of %" PRIu64
                ")",
                b, i, block->bytes);
            return 0;
        }
    }
    return 1;
}

static double greatest(const qfw_tensor *t) {
    double max = 0;
    for (int64_t i = 0; i < qfw_tensor_count(t); i++) {
        const double v = fabs(ref_load(t, i));
        if (isfinite(v)) max = fmax(max, v);
    }
    return max;
}

static int compare(trial *t, uint32_t o) {
    const qfw_tensor *const got = &t->out[o], *const want = &t->expected[o];
    suite_row *const row = &t->report->row[t->which->code];
    const int exact = want->dtype == QFW_I32 || want->dtype == QFW_U8;
    const double scale = greatest(want), part = exact ? 0 : allowed(t->which->code, t->how->dtype);
    const double most = part * (scale > 0 ? scale : 1);
    for (int64_t i = 0; i < qfw_tensor_count(want); i++) {
        const double a = ref_load(got, i), b = ref_load(want, i), apart = fabs(a - b);
        if (a == b || (isnan(a) && isnan(b))) continue;
        if (apart <= most)
            row->worst = fmax(row->worst, apart / most);
        else {
            failed(t, "output %u holds %.9g at %" PRId64 ", the reference %.9g (allowed %.3g)", o,
                a, i, b, most);
            return 0;
        }
    }
    row->values += (uint64_t)qfw_tensor_count(want);
    return 1;
}

static qfw_status run_target(trial *t, int *taken) {
    const suite_call call = {&t->op, t->setup.blocks, t->setup.n_blocks, t->how->seal};
    *taken = 0;
    return t->target->run(t->target->arg, &call, taken);
}

/* Start again from what was remembered: the outputs must have the same bits as the first time. */
static int same_again(trial *t) {
    for (uint32_t b = 0; b < t->setup.n_blocks; b++) {
        uint8_t *const now = t->setup.blocks[b].host;
        for (uint64_t i = 0; i < t->setup.blocks[b].bytes; i++) {
            const uint8_t first = now[i];
            now[i] = t->before[b][i];
            t->before[b][i] = first;
        }
    }
    int taken;
    const qfw_status s = run_target(t, &taken);
    for (uint32_t b = 0; s == QFW_OK && taken && b < t->setup.n_blocks; b++)
        if (memcmp(t->setup.blocks[b].host, t->before[b], (size_t)t->setup.blocks[b].bytes) != 0) {
            failed(t, "a second run gave other bits");
            return 0;
        }
    if (s == QFW_OK && taken) return 1;
    failed(t, "a second run failed: %s", s ? err_text(0) : "it was refused");
    return 0;
}

static void judge(trial *t) {
    suite_row *const row = &t->report->row[t->which->code];
    const uint64_t values = row->values;
    int taken;
    err_clear();
    const qfw_status s = run_target(t, &taken);
    if (s != QFW_OK) {
        failed(t, "the run failed with status %d: %s", s, err_count() ? err_text(0) : "no message");
        err_clear();
        return;
    }
    if (!taken) {
        row->refused++;
        t->report->refused++;
        return;
    }
    if (!untouched(t)) return;
    for (uint32_t o = 0; o < t->op.n_out; o++)
        if (t->op.out[o] && !compare(t, o)) return;
    if (!same_again(t)) return;
    row->passed++;
    row->empty += row->values == values;
    t->report->passed++;
}

/* Whether the output has the shape and dtype of the input whose place it shall take. */
static int fits(const trial *t, const op_shape *made) {
    const qfw_tensor *const in = &t->setup.in[t->how->in - 1];
    if (t->how->in > t->setup.n_in || !t->setup.have[t->how->in - 1]) return 0;
    if (!t->setup.want[t->how->out] || made->dtype != in->dtype || made->rank != in->rank) return 0;
    for (uint32_t d = 0; d < made->rank; d++)
        if (made->dim[d] != in->dim[d]) return 0;
    return 1;
}

static qfw_status infer(trial *t, op_shape *made) {
    const suite_setup *const s = &t->setup;
    op_shape in[QFW_MAX_IN];
    const op_shape *given[QFW_MAX_IN] = {NULL};
    for (uint32_t i = 0; i < s->n_in; i++) {
        if (!s->have[i]) continue;
        const qfw_tensor *const x = &s->in[i];
        in[i] = (op_shape){x->dtype, x->rank, {x->dim[0], x->dim[1], x->dim[2], x->dim[3]}};
        given[i] = &in[i];
    }
    return op_infer_shapes(t->which->code, given, s->n_in, s->param_bytes ? s->params : NULL,
        s->param_bytes, s->want, made, s->n_out);
}

static qfw_status run_trial(trial *t) {
    op_shape made[QFW_MAX_OUT];
    t->setup.code = t->which->code;
    t->setup.dtype = t->how->dtype;
    t->setup.layout = t->how->layout;
    t->setup.data = t->how->data;
    t->setup.seed = 0x9e3779b97f4a7c15u ^ t->which->code;
    QFW_TRY(t->which->build(&t->setup, t->which->d));
    QFW_TRY(infer(t, made));
    if (t->how->in && !fits(t, &made[t->how->out])) return QFW_OK;
    QFW_TRY(prepare(t, made));
    poison(t);
    QFW_TRY(remember(t));
    judge(t);
    return QFW_OK;
}

static qfw_status run_variant(
    const suite_target *target, const suite_case *which, const variant *how, suite_report *report) {
    trial *const t = mem_alloc(1, sizeof *t);
    if (!t) return QFW_E_NOMEM;
    t->target = target;
    t->which = which;
    t->how = how;
    t->report = report;
    t->def = op_find(which->code);
    const qfw_status s = run_trial(t);
    if (s != QFW_OK) err_prefix("suite, case \"%s\" as %s", which->name, how->name);
    for (uint32_t b = 0; b < t->n_before; b++) mem_free(t->before[b]);
    setup_free(&t->setup);
    mem_free(t);
    return s;
}

static const variant variants[] = {
    {"f32", QFW_F32, LAYOUT_DENSE, DATA_RANDOM, 0, 0, 0},
    {"f32 with wide rows", QFW_F32, LAYOUT_WIDE, DATA_RANDOM, 0, 0, 0},
    {"f32 with spread values", QFW_F32, LAYOUT_SPREAD, DATA_RANDOM, 0, 0, 0},
    {"f32 zeros", QFW_F32, LAYOUT_DENSE, DATA_ZERO, 0, 0, 0},
    {"f32 large", QFW_F32, LAYOUT_DENSE, DATA_LARGE, 0, 0, 0},
    {"f32 with a sealed weight", QFW_F32, LAYOUT_DENSE, DATA_RANDOM, 1, 0, 0},
    {"bf16", QFW_BF16, LAYOUT_DENSE, DATA_RANDOM, 0, 0, 0},
    {"bf16 with wide rows", QFW_BF16, LAYOUT_WIDE, DATA_RANDOM, 0, 0, 0},
    {"f16", QFW_F16, LAYOUT_DENSE, DATA_RANDOM, 0, 0, 0},
};

static int reads_packed(uint32_t code) {
    return code == QFW_OP_QMATMUL || code == QFW_OP_QMATMUL_DX || code == QFW_OP_DEQUANT4;
}

static qfw_status run_case(const suite_target *target, const suite_case *c, suite_report *report) {
    const op_def *const def = op_find(c->code);
    for (size_t k = 0; k < sizeof variants / sizeof *variants; k++)
        if (!variants[k].seal || reads_packed(c->code))
            QFW_TRY(run_variant(target, c, &variants[k], report));
    for (uint32_t o = 0; o < def->n_out; o++)
        for (int k = 0; k < 2; k++) {
            const variant in_place = {
                "f32 in place", QFW_F32, LAYOUT_DENSE, DATA_RANDOM, 0, o, def->inplace[o][k]};
            if (in_place.in) QFW_TRY(run_variant(target, c, &in_place, report));
        }
    return QFW_OK;
}

static qfw_status run_table(const suite_target *target, uint32_t code, const suite_case *cases,
    uint32_t n, suite_report *report) {
    for (uint32_t i = 0; i < n; i++)
        if (code == 0 || cases[i].code == code) QFW_TRY(run_case(target, &cases[i], report));
    return QFW_OK;
}

qfw_status suite_run(const suite_target *target, uint32_t code, suite_report *report) {
    for (uint32_t i = 0; op_at(i); i++) report->row[op_at(i)->code].op = op_at(i)->name;
    QFW_TRY(run_table(target, code, suite_prim_cases, suite_prim_count, report));
    return run_table(target, code, suite_nn_cases, suite_nn_count, report);
}

static qfw_status run_reference(void *arg, const suite_call *call, int *taken) {
    (void)arg;
    *taken = 1;
    return op_find(call->op->code)->ref(call->op);
}

suite_target suite_reference(void) {
    const suite_target t = {"reference", run_reference, NULL};
    return t;
}
