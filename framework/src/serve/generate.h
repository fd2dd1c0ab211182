/* generate.h -- sequences continued token by token: greedy or sampled, many at a time.
 *
 * As transformers' generate() does: repetition penalty, then temperature, top-k, top-p; a stop
 * token ends a sequence and belongs to it. A sequence's draws are keyed by (seed, its key, place),
 * so they depend neither on the batch nor on the order.
 */
#ifndef SERVE_GENERATE_H
#define SERVE_GENERATE_H

#include "serve/engine.h"

typedef struct sampling {
    uint32_t do_sample;        /* 0: greedy, the lowest index wins a tie */
    uint32_t top_k;            /* 0: off */
    double temperature;        /* > 0 */
    double top_p;              /* 1: off */
    double repetition_penalty; /* 1: off */
    uint64_t seed;
} sampling;

/* A token with what speaks for it. */
typedef struct candidate {
    float logit;
    int32_t token;
} candidate;
/* The next token of a sequence (its tokens so far are for the penalty). `work` has room for vocab
 * candidates. */
int32_t sample_token(const sampling *s, const float *logits, int64_t vocab, const int32_t *tokens,
    int64_t n_tokens, uint64_t key, int64_t place, candidate *work);

/* One sequence to be continued. */
typedef struct generation {
    const int32_t *prompt;
    int64_t n_prompt;
    uint64_t key;     /* of its draws: its index in the file, say */
    int64_t max_new;  /* tokens at most */
    int32_t *tokens;  /* room for max_new: what was generated, the stop token included */
    int64_t n_tokens; /* result */
    uint32_t stopped; /* result: 1 a stop token, 0 max_new or the slot's length */
    uint32_t done;    /* result: 0 where a signal came first */
    double mean_logp; /* result: of the tokens, under the model's own distribution */
} generation;

/* Continue all of them, engine's slots at a time; a finished one gives its slot to the next. A
 * signal ends it within one token, E_SIGNAL; what is done by then is. */
qfw_status generate_all(
    engine *e, const sampling *s, const int32_t *stops, uint32_t n_stops, generation *g, size_t n);

#endif
