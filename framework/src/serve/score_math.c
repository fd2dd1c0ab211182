/* score_math.c -- from logits to probabilities of levels, from chunks to a document. */
#include <math.h>

#include "base/error.h"
#include "serve/score.h"

qfw_status score_read(
    const float *logits, int64_t vocab, const int32_t *levels, scale s, reading *out) {
    double most = -HUGE_VAL, best = -HUGE_VAL, all = 0, sum = 0;
    for (int64_t i = 0; i < vocab; i++) {
        if (!isfinite(logits[i]))
            return err_fail("E_NUM_LOGIT", QFW_E_NUMERIC,
                "the model's logit of token %lld is not finite", (long long)i);
        if ((double)logits[i] > most) most = (double)logits[i];
    }
    for (int64_t i = 0; i < vocab; i++) all += exp((double)logits[i] - most);
    for (uint32_t i = 0; i < s.n_levels; i++)
        if ((double)logits[levels[i]] > best) best = (double)logits[levels[i]];
    *out = (reading){.mass = 0};
    for (uint32_t i = 0; i < s.n_levels; i++) {
        out->mass += exp((double)logits[levels[i]] - most) / all;
        sum += out->p[i] = exp((double)logits[levels[i]] - best);
    }
    for (uint32_t i = 0; i < s.n_levels; i++) {
        out->p[i] /= sum;
        out->expected += out->p[i] * ((double)s.low + i);
    }
    return QFW_OK;
}

/* The weighted mean of all chunks. */
static reading mean_reading(
    const reading *evidence, size_t stride, const chunk *chunks, size_t n_chunks) {
    reading mean = {.mass = 0};
    double all = 0;
    for (size_t i = 0; i < n_chunks; i++) all += (double)(chunks[i].to - chunks[i].from);
    for (size_t i = 0; i < n_chunks; i++) {
        const reading *r = &evidence[i * stride];
        const double w = all > 0 ? (double)(chunks[i].to - chunks[i].from) / all : 1;
        mean.mass += w * r->mass;
        mean.expected += w * r->expected;
        for (uint32_t k = 0; k < MAX_LEVELS; k++) mean.p[k] += w * r->p[k];
    }
    return mean;
}

void score_aggregate(const score_opts *o, const reading *evidence, size_t stride,
    const chunk *chunks, size_t n_chunks, skill_score *out) {
    const scale s = rubric_scale(o->rubric);
    uint32_t best = 0;
    out->chunk = o->aggregate == AGGREGATE_LAST ? n_chunks - 1 : 0;
    for (size_t i = 1; o->aggregate != AGGREGATE_LAST && i < n_chunks; i++)
        if (evidence[i * stride].expected > evidence[out->chunk * stride].expected) out->chunk = i;
    out->of = o->aggregate == AGGREGATE_MEAN ? mean_reading(evidence, stride, chunks, n_chunks)
                                             : evidence[out->chunk * stride];
    for (uint32_t i = 1; i < s.n_levels; i++)
        if (out->of.p[i] > out->of.p[best]) best = i;
    out->score = s.low + (int32_t)best;
    out->confidence = out->of.p[best];
    out->abstained = out->confidence < o->abstain_below;
}
