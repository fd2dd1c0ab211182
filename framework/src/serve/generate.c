/* generate.c -- many sequences over the engine's slots: each round reads the new prompts and one
 * token of every other sequence, and draws one token for each.
 */
#include "serve/generate.h"

#include <math.h>

#include "base/error.h"
#include "base/mem.h"
#include "plugin/host.h"

/* The work of one call. */
typedef struct batcher {
    engine *e;
    const sampling *s;
    const int32_t *stops;
    uint32_t n_stops;
    generation *g;
    size_t n, next; /* g[next] is the first that has not begun */
    size_t *of;     /* by slot: which sequence + 1; 0 none */
    engine_append *append;
    float *logits;
    candidate *work;
    uint32_t n_slots;
} batcher;

static void close_batcher(batcher *b) {
    mem_free(b->of);
    mem_free(b->append);
    mem_free(b->logits);
    mem_free(b->work);
}

static qfw_status open_batcher(batcher *b) {
    const size_t vocab = (size_t)engine_vocab(b->e);
    b->n_slots = engine_slots(b->e);
    b->of = mem_alloc(b->n_slots, sizeof *b->of);
    b->append = mem_alloc(b->n_slots, sizeof *b->append);
    b->logits = mem_alloc(b->n_slots * vocab, sizeof *b->logits);
    b->work = mem_alloc(vocab, sizeof *b->work);
    return b->of && b->append && b->logits && b->work ? QFW_OK : QFW_E_NOMEM;
}

static int is_stop(const batcher *b, int32_t token) {
    for (uint32_t i = 0; i < b->n_stops; i++)
        if (b->stops[i] == token) return 1;
    return 0;
}

/* What each slot reads next: the prompt of a new sequence, or the last token of its own. */
static uint32_t collect(batcher *b) {
    uint32_t count = 0;
    for (uint32_t slot = 0; slot < b->n_slots; slot++) {
        while (!b->of[slot] && b->next < b->n) {
            generation *g = &b->g[b->next++];
            g->n_tokens = 0;
            g->stopped = 0;
            g->mean_logp = 0;
            g->done = g->max_new < 1;
            if (g->done) continue;
            engine_cut(b->e, slot, 0);
            b->of[slot] = b->next;
        }
        if (!b->of[slot]) continue;
        const generation *g = &b->g[b->of[slot] - 1];
        b->append[count++] = g->n_tokens ? (engine_append){slot, &g->tokens[g->n_tokens - 1], 1}
                                         : (engine_append){slot, g->prompt, g->n_prompt};
    }
    return count;
}

/* log softmax of one logit. */
static double log_probability(const float *logits, int64_t vocab, int32_t token) {
    double top = (double)logits[0], sum = 0;
    for (int64_t i = 1; i < vocab; i++)
        if ((double)logits[i] > top) top = (double)logits[i];
    for (int64_t i = 0; i < vocab; i++) sum += exp((double)logits[i] - top);
    return (double)logits[token] - top - log(sum);
}

/* One more token for the sequence of a slot; a sequence that ends gives the slot back. */
static void extend(batcher *b, uint32_t slot, const float *logits) {
    generation *g = &b->g[b->of[slot] - 1];
    const int64_t vocab = engine_vocab(b->e);
    int64_t length = 0;
    const int32_t *tokens = engine_tokens(b->e, slot, &length);
    const int32_t token =
        sample_token(b->s, logits, vocab, tokens, length, g->key, g->n_tokens, b->work);
    g->tokens[g->n_tokens++] = token;
    g->mean_logp += log_probability(logits, vocab, token);
    g->stopped = (uint32_t)is_stop(b, token);
    if (!g->stopped && g->n_tokens < g->max_new && length < engine_room(b->e)) return;
    g->mean_logp /= (double)g->n_tokens;
    g->done = 1;
    b->of[slot] = 0;
}

static qfw_status generate(batcher *b) {
    const qfw_host *h = host_table();
    for (size_t i = 0; i < b->n; i++) b->g[i].done = 0;
    QFW_TRY(open_batcher(b));
    for (;;) {
        const uint32_t n = collect(b);
        if (!n) return QFW_OK;
        if (h->cancelled(h))
            return err_fail("E_SIGNAL", QFW_E_CANCELLED,
                "stopped by a signal; nothing was written; hint: the same command begins anew");
        QFW_TRY(engine_read(b->e, b->append, n, b->logits));
        for (uint32_t i = 0; i < n; i++)
            extend(b, b->append[i].slot, b->logits + (int64_t)i * engine_vocab(b->e));
    }
}

qfw_status generate_all(
    engine *e, const sampling *s, const int32_t *stops, uint32_t n_stops, generation *g, size_t n) {
    batcher b = {.e = e, .s = s, .stops = stops, .n_stops = n_stops, .g = g, .n = n};
    const qfw_status status = generate(&b);
    close_batcher(&b);
    return status;
}
