/* rope.c -- the rotary tables of a batch.
 *
 * The angle is the fp32 product of the position and an fp32 frequency, as in the reference stack: a
 * "better" angle in double moves the logits. Longrope's long factors apply to a sequence that is
 * longer than the model's original length, sequence by sequence: what else stands in the batch must
 * not change a row. The attention factor multiplies both tables, with the short factors too.
 */
#include <math.h>
#include <string.h>

#include "phi3.h"

typedef struct job {
    const qfw_inst *m;
    const qfw_batch *batch;
    float *dst;
    int sine;
} job;

enum { ROWS_PER_ITEM = 64 };

static void fill_rows(void *arg, uint32_t item, uint32_t worker) {
    const job *j = (const job *)arg;
    const phi3_config *c = &j->m->config;
    const int64_t half = c->rotary_dim / 2, n_rows = j->batch->shape.n_rows;
    const int64_t first = (int64_t)item * ROWS_PER_ITEM;
    const int64_t past = first + ROWS_PER_ITEM < n_rows ? first + ROWS_PER_ITEM : n_rows;
    const float scale = (float)c->attention_factor;
    (void)worker;
    for (int64_t n = first; n < past; n++) {
        const int is_long = j->batch->row_length[n] > c->original_max;
        const float *freq = is_long ? j->m->long_freq : j->m->short_freq;
        const float position = (float)j->batch->positions[n];
        for (int64_t k = 0; k < half; k++) {
            const float angle = position * freq[k];
            j->dst[n * half + k] = (j->sine ? sinf(angle) : cosf(angle)) * scale;
        }
    }
}

qfw_status phi3_fill(
    qfw_inst *m, const qfw_batch *batch, const char *input, void *dst, uint64_t bytes) {
    const int sine = !strcmp(input, "rope_sin");
    const int64_t n_rows = batch->shape.n_rows;
    if (!sine && strcmp(input, "rope_cos"))
        return qfw_fail(m->host, QFW_E_INVALID, "phi3: no input is called '%s'", input);
    if (bytes != (uint64_t)(n_rows * (m->config.rotary_dim / 2)) * sizeof(float))
        return qfw_fail(m->host, QFW_E_SHAPE, "phi3: %s has %llu bytes, wanted %lld rows of %lld",
            input, (unsigned long long)bytes, (long long)n_rows,
            (long long)(m->config.rotary_dim / 2));
    job j = {m, batch, (float *)dst, sine};
    m->host->parallel(
        m->host, (uint32_t)((n_rows + ROWS_PER_ITEM - 1) / ROWS_PER_ITEM), fill_rows, &j);
    return QFW_OK;
}
