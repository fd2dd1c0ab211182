/* quant8.c -- blocks of values as 8-bit codes of a map and one scale each: optimizer state. */
#include "ops/check.h"
#include "ops/ref.h"

#include <math.h>

enum { MAP = 256 };

static qfw_status quant8_infer(op_infer *i) {
    const op_shape *const x = i->in[0];
    const qfw_block8_params *const p = i->params;
    QFW_TRY(check_param(p->block > 0, "quant8", "block", p->block, "1 or more"));
    QFW_TRY(check_operand("quant8", "x", x, DTYPES_FLOAT, 1, ANY_DIM, 0));
    QFW_TRY(check_operand("quant8", "map", i->in[1], DTYPES_FLOAT, 1, MAP, 0));
    i->out[0] = shape_1d(QFW_U8, x->dim[0]);
    i->out[1] = shape_1d(shape_stat_dtype(x->dtype), (x->dim[0] + p->block - 1) / p->block);
    return QFW_OK;
}

/* The nearest entry, the upper one at the same distance; 0 for NaN. */
static int nearest(const double *map, double x) {
    int low = 0, high = MAP - 1; /* map[low] <= x < map[high], where x lies inside */
    if (!(x >= map[0])) return 0;
    while (high - low > 1) {
        const int middle = (low + high) / 2;
        if (x < map[middle])
            high = middle;
        else
            low = middle;
    }
    return x - map[low] < map[high] - x ? low : high;
}

typedef struct quant8_job {
    const qfw_op *op;
    double map[MAP];
    int64_t n, block;
} quant8_job;

/* The quotient is taken in the scales' own precision, as a backend takes it. */
static void quantize_block(void *arg, int64_t b, double *scratch) {
    const quant8_job *const j = arg;
    const qfw_tensor *const x = j->op->in[0], *const code = j->op->out[0];
    const qfw_tensor *const absmax = j->op->out[1];
    const int64_t first = b * j->block, end = first + j->block < j->n ? first + j->block : j->n;
    double most = 0;
    (void)scratch;
    for (int64_t i = first; i < end; i++) {
        const double size = fabs(ref_load(x, ref_at(x, i)));
        if (size > most || isnan(size)) most = size;
        if (isnan(size)) break;
    }
    ref_store(absmax, ref_at(absmax, b), most);
    for (int64_t i = first; i < end; i++) {
        double q = most > 0 ? ref_load(x, ref_at(x, i)) / most : most;
        if (absmax->dtype == QFW_F32) q = (double)(float)q;
        ref_store(code, ref_at(code, i), nearest(j->map, q));
    }
}

static qfw_status quant8_ref(const qfw_op *op) {
    quant8_job j = {.op = op, .n = op->in[0]->dim[0]};
    j.block = ((const qfw_block8_params *)op->params)->block;
    ref_row(op->in[1], 0, j.map);
    return ref_each_row((j.n + j.block - 1) / j.block, 0, quantize_block, &j);
}

const op_def op_quant8 = {
    .name = "quant8",
    .code = QFW_OP_QUANT8,
    .param_bytes = sizeof(qfw_block8_params),
    .n_in = 2,
    .n_in_min = 2,
    .n_out = 2,
    .infer = quant8_infer,
    .ref = quant8_ref,
};
