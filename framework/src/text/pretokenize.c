/* pretokenize.c -- the pre-tokenizer of a tokenizer.json: Split, then ByteLevel, which writes each
 * byte as a printable character, or Metaspace, which writes a blank as one. */
#include <string.h>

#include "base/error.h"
#include "base/mem.h"
#include "text/parts.h"
#include "text/unicode.h"

enum { MAX_STEPS = 16 };

static const char gpt2_words[] =
    "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";

/* --- bytes as characters --- */

/* Bytes that Latin-1 prints stand for themselves; the others follow from U+0100 on. */
static int stands_for_itself(uint32_t c) {
    return (c >= '!' && c <= '~') || (c >= 0xa1 && c <= 0xac) || (c >= 0xae && c <= 0xff);
}

uint32_t char_of_byte(uint8_t byte) {
    if (stands_for_itself(byte)) return byte;
    if (byte <= ' ') return 0x100u + byte;
    return byte == 0xad ? 0x143 : 0x121u + (byte - 0x7fu);
}

int byte_of_char(uint32_t c) {
    if (stands_for_itself(c)) return (int)c;
    if (c >= 0x100 && c <= 0x120) return (int)(c - 0x100);
    if (c >= 0x121 && c <= 0x142) return (int)(c - 0x121 + 0x7f);
    return c == 0x143 ? 0xad : -1;
}

/* --- loading --- */

static qfw_status load_split(const json_node *v, const char *file, pretokenizer *out) {
    const json_node *cut = json_node_member(v, "pattern");
    const char *behavior = part_str(v, "behavior"), *regex = part_str(cut, "Regex");
    const char *text = regex ? regex : part_str(cut, "String");
    if (!text || !*text) return part_unsupported(file, "pre_tokenizer", "Split without a pattern");
    const int removed = behavior && !strcmp(behavior, "Removed");
    if (!behavior || (!removed && strcmp(behavior, "Isolated") != 0))
        return part_unsupported(file, "pre_tokenizer", "a Split behavior but Isolated or Removed");
    if (mem_grow(&out->step, &out->cap, out->n + 1, sizeof *out->step)) return QFW_E_NOMEM;
    pre_step *s = &out->step[out->n];
    *s = (pre_step){.removed = removed, .invert = part_flag(v, "invert", 0)};
    QFW_TRY(pattern_compile(text, !regex, file, &s->cut));
    out->n++;
    return QFW_OK;
}

static qfw_status load_byte_level(const json_node *v, const char *file, pretokenizer *out) {
    out->byte_level = 1;
    out->prefix_space = part_flag(v, "add_prefix_space", 1);
    if (!part_flag(v, "use_regex", 1)) return QFW_OK;
    return pattern_compile(gpt2_words, 0, file, &out->words);
}

/* Files older than prepend_scheme have add_prefix_space, which is always. */
static qfw_status load_metaspace(const json_node *v, const char *file, pretokenizer *out) {
    static const char *const schemes[] = {"never", "first", "always"};
    const char *blank = part_str(v, "replacement"), *scheme = part_str(v, "prepend_scheme");
    uint32_t c = 0;
    if (!blank || !*blank || utf8_read(blank, strlen(blank), &c) != strlen(blank))
        return part_unsupported(
            file, "pre_tokenizer", "Metaspace whose replacement is not one character");
    out->prepend = PREPEND_ALWAYS;
    if (scheme) {
        int i = PREPEND_NEVER;
        while (i <= PREPEND_ALWAYS && strcmp(schemes[i], scheme) != 0) i++;
        if (i > PREPEND_ALWAYS) return part_unsupported(file, "pre_tokenizer", scheme);
        out->prepend = i;
    }
    if (!part_flag(v, "add_prefix_space", 1) && out->prepend != PREPEND_NEVER)
        return part_unsupported(file, "pre_tokenizer",
            "Metaspace with add_prefix_space = false and a prepend_scheme but never");
    out->cut_blanks = part_flag(v, "split", 1);
    out->blank = mem_strdup(blank);
    return out->blank ? QFW_OK : QFW_E_NOMEM;
}

static qfw_status load_step(const json_node *v, const char *file, pretokenizer *out) {
    const char *type = part_type(v);
    if (out->byte_level || out->blank)
        return part_unsupported(file, "pre_tokenizer", "a step after ByteLevel or Metaspace");
    if (out->n >= MAX_STEPS) return part_unsupported(file, "pre_tokenizer", "so many steps");
    if (!strcmp(type, "Split")) return load_split(v, file, out);
    if (!strcmp(type, "ByteLevel")) return load_byte_level(v, file, out);
    if (!strcmp(type, "Metaspace")) return load_metaspace(v, file, out);
    return part_unsupported(file, "pre_tokenizer", type);
}

qfw_status pretokenizer_load(const json_node *v, const char *file, pretokenizer *out) {
    if (json_node_kind(v) <= QFW_DOC_NULL) return QFW_OK;
    if (strcmp(part_type(v), "Sequence") != 0) return load_step(v, file, out);
    const json_node *list = json_node_member(v, "pretokenizers");
    for (uint64_t i = 0; i < json_node_count(list); i++)
        QFW_TRY(load_step(json_node_item(list, i), file, out));
    return QFW_OK;
}

void pretokenizer_free(pretokenizer *p) {
    for (size_t i = 0; i < p->n; i++) pattern_free(p->step[i].cut);
    pattern_free(p->words);
    mem_free(p->blank);
    mem_free(p->step);
    *p = (pretokenizer){0};
}

/* --- running --- */

typedef struct pre_run {
    const pretokenizer *p;
    const bpe *b;
    bpe_work *w;
    const char *first; /* where the text begins; NULL: not here */
    ids *out;
} pre_run;

/* A word, its bytes written as characters if the tokenizer is byte-level. */
static qfw_status run_word(const pre_run *r, tagged_view word, tagged *bytes) {
    char c[4];
    if (!r->p->byte_level) return bpe_encode(r->b, r->w, word, r->out);
    bytes->n = 0;
    for (size_t i = 0; i < word.n; i++) {
        const size_t n = utf8_write(char_of_byte((uint8_t)word.s[i]), c);
        if (tagged_add(bytes, c, n, word.tag[i])) return QFW_E_NOMEM;
    }
    return bpe_encode(r->b, r->w, tagged_all(bytes), r->out);
}

/* The words that `cut` (NULL: none) makes of a piece. */
static qfw_status run_words(const pre_run *r, const pattern *cut, tagged_view piece) {
    tagged bytes = {0};
    pattern_spans spans = {0};
    size_t from = 0;
    qfw_status status = QFW_OK;
    if (!cut) {
        status = run_word(r, piece, &bytes);
    } else {
        status = pattern_split(cut, piece.s, piece.n, &spans);
        for (size_t i = 0; status == QFW_OK && i < spans.n; i++) {
            status = run_word(r, tagged_part(piece, from, spans.at[i].end), &bytes);
            from = spans.at[i].end;
        }
    }
    mem_free(spans.at);
    tagged_free(&bytes);
    return status;
}

/* The words of a piece whose blanks are written: each begins with one, but the first. */
static qfw_status run_blanks(const pre_run *r, tagged_view piece) {
    const size_t n = strlen(r->p->blank);
    size_t from = 0;
    for (size_t i = 1; r->p->cut_blanks && i + n <= piece.n; i++) {
        if (memcmp(piece.s + i, r->p->blank, n) != 0) continue;
        QFW_TRY(bpe_encode(r->b, r->w, tagged_part(piece, from, i), r->out));
        from = i;
    }
    return bpe_encode(r->b, r->w, tagged_part(piece, from, piece.n), r->out);
}

static qfw_status run_metaspace(const pre_run *r, tagged_view piece) {
    const char *blank = r->p->blank;
    const size_t n = strlen(blank);
    const int leads =
        piece.s[0] == ' ' || (piece.n >= n && !memcmp(piece.s, blank, n)); /* one is there */
    const int wanted =
        r->p->prepend == PREPEND_ALWAYS || (r->p->prepend == PREPEND_FIRST && piece.s == r->first);
    tagged text = {0};
    qfw_status status = QFW_E_NOMEM;
    if (!(wanted && !leads && tagged_add(&text, blank, n, piece.tag[0])) &&
        !text_replace(piece, " ", blank, &text))
        status = run_blanks(r, tagged_all(&text));
    tagged_free(&text);
    return status;
}

/* What comes after the last Split: ByteLevel, Metaspace, or neither. */
static qfw_status run_last(const pre_run *r, tagged_view piece) {
    tagged prefixed = {0};
    if (r->p->blank) return run_metaspace(r, piece);
    if (!r->p->prefix_space || piece.s[0] == ' ') return run_words(r, r->p->words, piece);
    qfw_status status = QFW_E_NOMEM;
    if (!tagged_add(&prefixed, " ", 1, piece.tag[0]) && !tagged_copy(&prefixed, piece))
        status = run_words(r, r->p->words, tagged_all(&prefixed));
    tagged_free(&prefixed);
    return status;
}

static qfw_status run_step(const pre_run *r, size_t step, tagged_view piece) {
    pattern_spans spans = {0};
    size_t from = 0;
    if (step == r->p->n) return run_last(r, piece);
    const pre_step *s = &r->p->step[step];
    qfw_status status = pattern_split(s->cut, piece.s, piece.n, &spans);
    for (size_t i = 0; status == QFW_OK && i < spans.n; i++) {
        const int thrown = s->removed && spans.at[i].match != s->invert;
        if (!thrown) status = run_step(r, step + 1, tagged_part(piece, from, spans.at[i].end));
        from = spans.at[i].end;
    }
    mem_free(spans.at);
    return status;
}

qfw_status pretokenizer_run(
    const pretokenizer *p, const bpe *b, bpe_work *w, tagged_view piece, int first, ids *out) {
    const pre_run r = {p, b, w, first ? piece.s : NULL, out};
    return piece.n ? run_step(&r, 0, piece) : QFW_OK;
}
