/* score.h -- documents x skills -> a probability for every level of the scale, with what it rests
 * on.
 *
 * The model is asked about each skill of each chunk of a document (rubric.h, chunk.h) and never
 * writes a score: it is read from the logits at the score's place, in one pass. What the questions
 * about one chunk have in common, the document above all, is read once.
 *
 * Documents go in one after another and come out in the same order; what is held is the documents
 * of one batch. A score depends on its document alone: on the cpu backend it has the same bits
 * whatever the number of slots and threads, and whatever else is scored.
 */
#ifndef SERVE_SCORE_H
#define SERVE_SCORE_H

#include "serve/chunk.h"
#include "serve/engine.h"
#include "serve/rubric.h"

/* How the chunks of a document become its score. */
enum {
    /* The chunk with the highest expected score decides, the first of equal ones. The default:
     * evidence of a skill often stands in one place, and what is silent elsewhere does not speak
     * against it; a mean would give less for the same evidence in a longer document. Its price: the
     * more chunks, the likelier that one of them is overrated; the evidence shows which one. */
    AGGREGATE_MAX_EVIDENCE,
    AGGREGATE_MEAN, /* the mean of the chunks' probabilities, weighted by their bytes */
    AGGREGATE_LAST, /* the last chunk decides: for documents whose end says what holds */
};

enum { N_SCORE_OPTIONS = 8 };
extern const qfw_option score_options[N_SCORE_OPTIONS]; /* [score] */

typedef struct score_opts {
    const rubric *rubric;
    const tokenizer *tok;
    uint32_t n_slots;
    int64_t max_length;                       /* tokens of a question with its answer: a slot's */
    int64_t chunk_overlap, max_reason_tokens; /* max_reason_tokens 0: no reasons */
    int aggregate;
    double abstain_below; /* abstain where the confidence is below */
    int skip_reasons;     /* 1: chunks are cut as with reasons, but none is asked for */
} score_opts;

/* What the model says of one skill after one text. */
typedef struct reading {
    double p[MAX_LEVELS]; /* of each level, given that it is one of them: sums to 1 */
    double mass;          /* of all levels together among all tokens: small where the model would
                             say something else */
    double expected;      /* sum of level * p */
} reading;

typedef struct skill_score {
    reading of;        /* the document */
    int32_t score;     /* the most probable level, the lowest of equal ones */
    double confidence; /* its probability */
    uint32_t abstained;
    size_t chunk;       /* that decided, or with AGGREGATE_MEAN has the highest expected score */
    const char *reason; /* of that chunk; "" none */
} skill_score;

typedef struct scored {
    const char *id, *text;
    size_t n; /* bytes of text */
    uint64_t line;
    const chunk *chunks;
    size_t n_chunks;
    uint32_t n_skills;
    const reading *evidence; /* [n_chunks, n_skills] */
    skill_score skills[MAX_SKILLS];
} scored;

/* Takes a document that is done; what it points to is gone after the call. */
typedef qfw_status (*score_sink)(void *arg, const scored *d);

typedef struct scorer scorer;
/* E_CONFIG_ROOM where max_length leaves no room for a document. `e` NULL: only scorer_chunks. */
qfw_status scorer_create(const score_opts *o, engine *e, score_sink sink, void *arg, scorer **out);
void scorer_destroy(scorer *s); /* NULL is ignored; documents that are not done are dropped */
/* Score a document of n bytes of UTF-8 (copied), now or with later ones. */
qfw_status scorer_add(scorer *s, const char *id, uint64_t line, const char *text, size_t n);
qfw_status scorer_finish(scorer *s); /* what is left; E_SIGNAL between two batches */
/* How a document would be cut; mem_free. */
qfw_status scorer_chunks(const scorer *s, const char *text, size_t n, chunk **out, size_t *n_out);

/* The parts of it that are only arithmetic. E_NUM_LOGIT where a logit is not finite. */
qfw_status score_read(
    const float *logits, int64_t vocab, const int32_t *levels, scale s, reading *out);
/* evidence[i * stride]: of chunk i. All of *out but the reason. */
void score_aggregate(const score_opts *o, const reading *evidence, size_t stride,
    const chunk *chunks, size_t n_chunks, skill_score *out);

#endif
