/* data.h -- rows, examples and batches: from one JSON line to the inputs of a graph.
 *
 * A row is a parsed JSON line. The trainer's `encode` turns it into an example: one or more token
 * sequences with a mask of trained tokens (sft: one; dpo: chosen and rejected), through the host's
 * encoder, which owns the tokenizer, the chat template, EOS and the length limit. The trainer's
 * `collate` then says in which order the sequences of some examples stand in a batch. Where they
 * share a prompt, its rows stand in a segment after those of the sequences.
 *
 * A batch has no padding between sequences: their tokens follow each other, N rows in all, rounded
 * up to the graph's bucket with rows that belong to no segment.
 */
#ifndef QFW_DATA_H
#define QFW_DATA_H

#include "qfw/doc.h"

/* One token sequence of an example. trained[t] is 1 where token t is learned (the label of t-1). */
typedef struct qfw_seq {
    uint32_t size, n;
    const int32_t *token;
    const uint8_t *trained;
    uint32_t n_trained; /* tokens t >= 1 with trained[t] */
    uint32_t truncated; /* tokens cut off */
} qfw_seq;
QFW_SEALED(qfw_seq, truncated);

typedef struct qfw_example {
    uint32_t size, n_seqs;
    const qfw_seq *seq;
    uint64_t line;   /* in the file, from 1 */
    uint64_t index;  /* in the set, from 0 */
    int32_t ordinal; /* place in the order of training: the dropout key; set when it is drawn */
    uint32_t rsv;
} qfw_example;
QFW_SEALED(qfw_example, rsv);

/* Which tokens of a sequence are trained: bits, and with more than one, those that all of them say.
 * QFW_TRAIN_ASSISTANT: what the assistant writes, its turns' contents and end marks; `pair` takes
 * it for lists of messages alone. For `messages`, QFW_TRAIN_COMPLETION says the same. */
enum { QFW_TRAIN_ALL = 1, QFW_TRAIN_COMPLETION = 2, QFW_TRAIN_ASSISTANT = 4 };

/* Host extension "qfw.encoder/1". Each call appends one sequence to the example that is being made.
 * A message is {"role", "content"}, or {"from", "value"} with human and gpt for user and assistant.
 * All rows of a file are read by the same calls with the same places, all of strings or all of
 * messages.
 * A place (ptr) is a JSON pointer into the row. Fails with QFW_E_DATA, naming file, line and
 * place. */
typedef struct qfw_encoder qfw_encoder;
typedef struct qfw_encoder_api {
    uint32_t size, rsv;
    const qfw_doc *(*row)(qfw_encoder *e);
    /* A string, already formatted: special tokens count as such; EOS is appended if missing. */
    qfw_status (*text)(qfw_encoder *e, const char *ptr);
    /* Prompt and completion, both strings or both lists of messages. Strings: EOS is ensured. */
    qfw_status (*pair)(qfw_encoder *e, const char *prompt, const char *completion, uint32_t train);
    /* A list of messages, rendered by the model's chat template, ending as the template ends it. */
    qfw_status (*messages)(qfw_encoder *e, const char *ptr, uint32_t train);
    /* A list of token ids, taken as it is, and a list as long of labels (the same ids, or
     * QFW_IGNORE_LABEL where a token is not trained); no `labels` there: all are trained. */
    qfw_status (*tokens)(qfw_encoder *e, const char *ids, const char *labels);
    /* A string, or a list of messages that ends in a user turn, ready to be continued: nothing in
     * it is trained. */
    qfw_status (*prompt)(qfw_encoder *e, const char *ptr);
    /* Two sequences, prompt + chosen and prompt + rejected, of which the completions are trained:
     * from where the ids of the prompt and those of both sequences first part. As in `pair`, all
     * strings or all lists of messages; without a prompt in the row it is what chosen and rejected
     * begin with alike. */
    qfw_status (*preference)(
        qfw_encoder *e, const char *prompt, const char *chosen, const char *rejected);
    /* Strings as a conversation of two turns: the instruction, and on the next line the input,
     * where the row has one that is not empty; and the answer. */
    qfw_status (*instruction)(qfw_encoder *e, const char *instruction, const char *input,
        const char *answer, uint32_t train);
} qfw_encoder_api;
QFW_SEALED(qfw_encoder_api, instruction);

/* What collate answers: sequences of the examples, in batch order. */
typedef struct qfw_seq_ref {
    uint32_t example, seq; /* indexes into collate's examples and their sequences */
} qfw_seq_ref;
QFW_SEALED(qfw_seq_ref, seq);

/* The shape that one graph is built for. */
typedef struct qfw_batch_shape {
    uint32_t size, training; /* training 0: evaluation, no dropout */
    int64_t n_rows;          /* N: a bucket */
    int64_t n_segments;      /* S: a bucket; the trainer's sequences stand in segments 0 .. */
    int64_t n_examples;      /* a bucket */
} qfw_batch_shape;
QFW_SEALED(qfw_batch_shape, n_examples);

/* A batch on the host. The core feeds the arrays under their names as graph inputs: "tokens",
 * "labels", "positions" (all I32[N]), "row_key" I32[N,2], "segments" I32[S,5], "row_segment" I32[N]
 * (-1: none), "segment_example" I32[S] (-1: none) and "inv_weight" F32[1]: 1 / the weight of the
 * window (or of the micro-batch, QFW_TRAINER_MICRO_MEAN). */
typedef struct qfw_batch {
    uint32_t size, rsv;
    qfw_batch_shape shape;
    int64_t n_tokens, n_seqs, n_examples; /* what is really there */
    const int32_t *tokens, *labels, *positions, *row_key, *segments, *row_segment, *segment_example;
    const int32_t *row_length; /* [N] tokens of the row's whole sequence; 0 on padding */
    const qfw_example *const *examples;
} qfw_batch;
QFW_SEALED(qfw_batch, examples);

#endif
