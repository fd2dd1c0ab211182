/* tokenizer.h -- tokenizer.json, executed as it is written; what is not known is refused by name.
 *
 * Here: BPE with byte fallback (Llama, Phi-3) and byte-level BPE (GPT-2 family), added tokens with
 * their lstrip / rstrip / single_word / normalized flags, the normalizers and decoders these use.
 * Encoding is
 * O(n log n) on any text.
 */
#ifndef TEXT_TOKENIZER_H
#define TEXT_TOKENIZER_H

#include "qfw/doc.h"

typedef struct tokenizer tokenizer;

/* Read folder/tokenizer.json, and folder/tokenizer_config.json if there (bos, eos, pad, unk
 * tokens). vocab: the model's; 0 for no check (E_TOK_VOCAB). */
qfw_status tokenizer_open(const char *folder, int64_t vocab, tokenizer **out);
void tokenizer_close(tokenizer *t);

typedef struct ids {
    int32_t *id;
    uint8_t *mark; /* 1: some byte that the token stands for lies in a marked part */
    size_t n, cap, mark_cap;
} ids;
int ids_add(ids *v, int32_t id, uint8_t mark); /* -1 without memory */
void ids_free(ids *v);

/* Append the ids of `n` bytes of UTF-8. special = 1: added tokens in the text are recognised; 0:
 * text is only text (what stands in a message's content). Invalid UTF-8 is E_TOK_UTF8 with its
 * byte. [any]: a tokenizer is read-only; the scratch is the call's. */
qfw_status tokenizer_encode(const tokenizer *t, const char *text, size_t n, int special, ids *out);
/* A text made of parts, some of which are taken as special-aware and some as plain: the chat
 * templates. What is normalised together and split by added tokens is as if the whole had been one
 * text; an added token is found where all of it is special-aware. */
typedef struct text_part {
    const char *text;
    size_t n;
    int special, mark;
} text_part;
qfw_status tokenizer_encode_parts(
    const tokenizer *t, const text_part *parts, size_t n_parts, ids *out);
/* The text of n ids, through the decoder; mem_free. skip_special leaves special tokens out. A text
 * may hold NUL: n_bytes is its length. Ids that only the model has (tokenizer_limit) are no text;
 * others that are none are E_TOK_ID. */
qfw_status tokenizer_decode(const tokenizer *t, const int32_t *id, size_t n, int skip_special,
    char **text, size_t *n_bytes);
/* One token as it stands in the vocabulary, for printing; NULL for an id that is none. */
const char *tokenizer_token(const tokenizer *t, int32_t id);
int32_t tokenizer_id(const tokenizer *t, const char *token); /* -1: none */
int32_t tokenizer_bos(const tokenizer *t);                   /* -1: none */
int32_t tokenizer_eos(const tokenizer *t);                   /* -1: none */
int32_t tokenizer_pad(const tokenizer *t);
/* The post-processor puts the BOS in front of a text; the calls above leave that to the caller. */
int tokenizer_adds_bos(const tokenizer *t);
int tokenizer_is_special(const tokenizer *t, int32_t id);
int64_t tokenizer_size(const tokenizer *t);  /* largest id + 1 */
int64_t tokenizer_limit(const tokenizer *t); /* ids of data are below: the model's vocab, or size */
/* the Jinja text, never executed; NULL: none */
const char *tokenizer_chat_template(const tokenizer *t);

#endif
