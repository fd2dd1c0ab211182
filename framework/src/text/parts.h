/* parts.h -- the parts of a tokenizer, in the order in which a text passes through them.
 *
 * A text is split at added tokens (added.c), each segment is normalised (normalize.c), split at the
 * added tokens that match normalised text, cut into words (pretokenize.c), and each word is merged
 * into tokens (bpe.c). decode.c is the way back. Every loader refuses by name what it does not
 * know: E_TOK_UNSUPPORTED.
 */
#ifndef TEXT_PARTS_H
#define TEXT_PARTS_H

#include "files/json.h"
#include "text/pattern.h"
#include "text/tagged.h"
#include "text/tokenizer.h"

/* --- vocab.c: strings and their ids --- */
typedef struct vocabulary {
    const char **text; /* by id, the base vocabulary and the added tokens; NULL: a hole */
    char *arena;
    struct vocab_slot { /* hash table of the base vocabulary */
        uint32_t hash;
        int32_t next_id; /* id + 1; 0: empty */
    } * slot;
    size_t n, n_base, n_slots, longest;
} vocabulary;

/* n is the largest id + 1, hardly more than there are tokens; an id is one token's: E_TOK_ID. */
qfw_status vocab_load(
    const json_node *base, const json_node *added, const char *file, vocabulary *out);
void vocab_free(vocabulary *v);
int32_t vocab_find(
    const vocabulary *v, const char *s, size_t n); /* in the base vocabulary; -1: none */

/* --- normalize.c --- */

typedef struct norm_step {
    int kind;
    char *from, *to; /* Replace; Prepend has only `to` */
} norm_step;

typedef struct normalizer {
    norm_step *step;
    size_t n, cap;
} normalizer;

qfw_status normalizer_load(const json_node *v, const char *file, normalizer *out);
void normalizer_free(normalizer *z);
/* Rewrite *text; *spare is scratch. */
qfw_status normalizer_run(const normalizer *z, tagged *text, tagged *spare);
/* Append `in` with every `from` replaced by `to`. */
int text_replace(tagged_view in, const char *from, const char *to, tagged *out);

/* --- added.c: added tokens, found in a text --- */

typedef struct added_token {
    char *content;
    int32_t id;
    int single_word, lstrip, rstrip, normalized, special;
} added_token;

typedef struct trie_node {
    int32_t child, sibling; /* 0: none */
    int32_t token;          /* index + 1; 0: none ends here */
    uint8_t byte;
} trie_node;

typedef struct trie {
    trie_node *node;
    size_t n, cap;
    int32_t first[256]; /* the root's children */
} trie;

typedef struct added_set {
    added_token *token;
    size_t n;
    trie raw, normal; /* found before and after normalisation */
} added_set;

qfw_status added_load(const json_node *list, const char *file, const vocabulary *v,
    const normalizer *z, added_set *out);
void added_free(added_set *a);
const added_token *added_find(const added_set *a, const char *content); /* NULL: none */
const added_token *added_by_id(const added_set *a, int32_t id);         /* NULL: none */

typedef struct added_match {
    size_t start, stop; /* with the white space that the token swallows */
    uint8_t tag;        /* of the token's own bytes */
    const added_token *token;
} added_match;
/* The next match from *scan on; what it swallows may lie in the match before. 0: no more. */
int added_next(const added_set *a, const trie *t, tagged_view text, size_t *scan, added_match *m);

/* --- bpe.c --- */

typedef struct bpe_merge {
    uint64_t pair; /* left id, right id; ~0: an empty slot */
    uint32_t rank;
    int32_t id;
} bpe_merge;

typedef struct bpe {
    const vocabulary *words;
    bpe_merge *merge; /* a hash table */
    size_t n_slots;
    int32_t unk; /* -1: none */
    int fuse_unk, byte_fallback, ignore_merges;
    int32_t byte[256]; /* ids of <0x00> .. <0xFF>; -1: none */
    uint8_t *whole;    /* by id: its own text is merged into the token */
    int cuts;          /* no merge reaches over the place before a "\u2581": words are cut there */
} bpe;

typedef struct bpe_work { /* scratch of one call */
    struct bpe_symbol {
        int32_t id, prev, next; /* id -1: merged away */
        uint32_t n;             /* bytes */
    } * symbol;
    struct bpe_candidate {
        uint32_t rank, at;
        int32_t id;
        uint64_t pair;
    } * heap;
    size_t n_symbols, symbol_cap, n_heap, heap_cap;
} bpe_work;

/* Whether it is a BPE that is built here. */
qfw_status bpe_check(const json_node *model, const char *file);
qfw_status bpe_load(const json_node *model, const char *file, const vocabulary *v, bpe *out);
void bpe_free(bpe *b);
/* Append the tokens of one word, of less than 2^31 bytes. */
qfw_status bpe_encode(const bpe *b, bpe_work *w, tagged_view word, ids *out);
void bpe_work_free(bpe_work *w);

/* --- pretokenize.c --- */

typedef struct pre_step {
    pattern *cut;
    int removed, invert; /* what matches, or what does not, is thrown away */
} pre_step;

/* Where Metaspace puts a blank in front: before no piece, the text's first, each. */
enum { PREPEND_NEVER = 0, PREPEND_FIRST, PREPEND_ALWAYS };

typedef struct pretokenizer {
    pre_step *step;
    size_t n, cap;
    int byte_level, prefix_space;
    pattern *words; /* of ByteLevel with use_regex; else NULL */
    char *blank;    /* of Metaspace: the character for a blank; else NULL */
    int prepend, cut_blanks;
} pretokenizer;

qfw_status pretokenizer_load(const json_node *v, const char *file, pretokenizer *out);
void pretokenizer_free(pretokenizer *p);
/* Cut and encode one piece of normalised text; first: the whole text begins with it. */
qfw_status pretokenizer_run(
    const pretokenizer *p, const bpe *b, bpe_work *w, tagged_view piece, int first, ids *out);
/* The byte that a character stands for in byte-level text, or -1; and the other way round. */
int byte_of_char(uint32_t c);
uint32_t char_of_byte(uint8_t byte);

/* --- decode.c --- */

typedef struct decoder_step {
    int kind;
    char *from, *to; /* Replace; Strip's character is `from` */
    int64_t start, stop;
} decoder_step;

typedef struct decoder {
    decoder_step *step; /* none: tokens are joined with blanks */
    size_t n, cap;
} decoder;

qfw_status decoder_load(const json_node *v, const char *file, decoder *out);
void decoder_free(decoder *d);
qfw_status decoder_run(
    const decoder *d, const char *const *tokens, size_t n, char **text, size_t *n_bytes);

/* --- load.c --- */

struct tokenizer {
    vocabulary words;
    normalizer norm;
    added_set extra;
    pretokenizer pre;
    bpe model;
    decoder back;
    int32_t bos, eos, pad;
    int adds_bos;
    int64_t limit;
    char *chat_template;
};

/* What every loader asks of a node. */
const char *part_type(const json_node *v);                      /* "type", or "" */
int part_flag(const json_node *v, const char *key, int absent); /* a boolean */
const char *part_str(const json_node *v, const char *key);      /* NULL: no string */
qfw_status part_unsupported(const char *file, const char *place, const char *what);

#endif
