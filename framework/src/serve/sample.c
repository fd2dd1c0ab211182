/* sample.c -- from logits to one token. Order and edges are transformers': the penalty divides a
 * positive logit and multiplies a negative one; top-k keeps what ties with the k-th; top-p keeps
 * the fewest of the most probable that reach it, and always one.
 */
#include <math.h>
#include <stdlib.h>

#include "base/rng.h"
#include "serve/generate.h"

static int by_logit(const void *a, const void *b) {
    const candidate *x = a, *y = b;
    if (x->logit != y->logit) return x->logit > y->logit ? -1 : 1;
    return (x->token > y->token) - (x->token < y->token);
}

static void penalise(
    const sampling *s, const float *logits, const int32_t *tokens, int64_t n_tokens, candidate *c) {
    const float penalty = (float)s->repetition_penalty;
    for (int64_t i = 0; i < n_tokens; i++) { /* from the model's logit: once, however often */
        const float logit = logits[tokens[i]];
        c[tokens[i]].logit = logit < 0 ? logit * penalty : logit / penalty;
    }
}

static int32_t best(const candidate *c, int64_t n) {
    int64_t first = 0;
    for (int64_t i = 1; i < n; i++)
        if (c[i].logit > c[first].logit) first = i;
    return c[first].token;
}

/* How many of the sorted candidates top-k leaves. */
static int64_t keep_top_k(const sampling *s, const candidate *c, int64_t n) {
    int64_t kept = s->top_k;
    if (!kept || kept >= n) return n;
    while (kept < n && c[kept].logit == c[kept - 1].logit) kept++;
    return kept;
}

static double weight(const sampling *s, const candidate *c, int64_t i) {
    return exp(((double)c[i].logit - (double)c[0].logit) / s->temperature);
}

/* Of n sorted candidates those that top-p leaves, with their weight together. */
static int64_t keep_top_p(const sampling *s, const candidate *c, int64_t n, double *total) {
    double all = 0;
    for (int64_t i = 0; i < n; i++) all += weight(s, c, i);
    *total = all;
    if (s->top_p >= 1) return n;
    int64_t kept = 0;
    for (*total = 0; kept < n && (!kept || *total < s->top_p * all); kept++)
        *total += weight(s, c, kept);
    return kept;
}

/* Uniform in [0, 1) with 53 bits, at this place of this sequence. */
static double draw(const sampling *s, uint64_t key, int64_t place) {
    const uint32_t counter[4] = {
        (uint32_t)place, (uint32_t)((uint64_t)place >> 32), (uint32_t)key, (uint32_t)(key >> 32)};
    const uint32_t seed[2] = {(uint32_t)s->seed, (uint32_t)(s->seed >> 32)};
    uint32_t word[4];
    philox4x32(counter, seed, word);
    return ((double)(word[0] >> 5) * 67108864.0 + (double)(word[1] >> 6)) / 9007199254740992.0;
}

int32_t sample_token(const sampling *s, const float *logits, int64_t vocab, const int32_t *tokens,
    int64_t n_tokens, uint64_t key, int64_t place, candidate *work) {
    double total = 0;
    for (int64_t i = 0; i < vocab; i++) work[i] = (candidate){logits[i], (int32_t)i};
    if (s->repetition_penalty != 1) penalise(s, logits, tokens, n_tokens, work);
    if (!s->do_sample) return best(work, vocab);
    qsort(work, (size_t)vocab, sizeof *work, by_logit);
    const int64_t n = keep_top_p(s, work, keep_top_k(s, work, vocab), &total);
    double left = draw(s, key, place) * total;
    int64_t i = 0;
    for (; i + 1 < n; i++) {
        left -= weight(s, work, i);
        if (left < 0) break;
    }
    return work[i].token;
}
