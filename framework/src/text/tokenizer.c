/* tokenizer.c -- a text's way through the parts of a tokenizer (parts.h), and back. */
#include "text/tokenizer.h"

#include <string.h>

#include "base/error.h"
#include "base/mem.h"
#include "text/parts.h"
#include "text/unicode.h"

enum { MAX_TEXT = 1 << 28 }; /* bytes, so that no count of symbols leaves an int32 */

/* One call: scratch that its segments share. */
typedef struct encoding {
    const tokenizer *t;
    tagged text, segment, spare;
    bpe_work work;
    ids *out;
} encoding;

static qfw_status add_match(encoding *e, const added_match *m) {
    const uint8_t mark = (m->tag & TAG_MARK) != 0;
    return ids_add(e->out, m->token->id, mark) ? QFW_E_NOMEM : QFW_OK;
}

/* Normalised text between two added tokens: cut at those that match only now. first: the text that
 * is encoded begins here. */
static qfw_status encode_normal(encoding *e, tagged_view text, int first) {
    const tokenizer *t = e->t;
    size_t scan = 0, done = 0;
    added_match m;
    while (added_next(&t->extra, &t->extra.normal, text, &scan, &m)) {
        if (done < m.start)
            QFW_TRY(pretokenizer_run(&t->pre, &t->model, &e->work, tagged_part(text, done, m.start),
                first && done == 0, e->out));
        QFW_TRY(add_match(e, &m));
        done = m.stop;
    }
    if (done >= text.n) return QFW_OK;
    return pretokenizer_run(
        &t->pre, &t->model, &e->work, tagged_part(text, done, text.n), first && done == 0, e->out);
}

static qfw_status encode_segment(encoding *e, tagged_view text, int first) {
    e->segment.n = 0;
    if (tagged_copy(&e->segment, text)) return QFW_E_NOMEM;
    QFW_TRY(normalizer_run(&e->t->norm, &e->segment, &e->spare));
    return encode_normal(e, tagged_all(&e->segment), first);
}

static qfw_status encode_text(encoding *e) {
    const tagged_view text = tagged_all(&e->text);
    size_t scan = 0, done = 0;
    added_match m;
    while (added_next(&e->t->extra, &e->t->extra.raw, text, &scan, &m)) {
        if (done < m.start) QFW_TRY(encode_segment(e, tagged_part(text, done, m.start), done == 0));
        QFW_TRY(add_match(e, &m));
        done = m.stop;
    }
    return done < text.n ? encode_segment(e, tagged_part(text, done, text.n), done == 0) : QFW_OK;
}

static qfw_status join_parts(encoding *e, const text_part *parts, size_t n_parts) {
    for (size_t i = 0; i < n_parts; i++) {
        const text_part *p = &parts[i];
        const size_t bad = utf8_check(p->text, p->n);
        const uint8_t tag = (uint8_t)((p->special ? TAG_SPECIAL : 0) | (p->mark ? TAG_MARK : 0));
        if (bad < p->n)
            return err_fail("E_TOK_UTF8", QFW_E_DATA,
                "tokenizer: byte 0x%02x is not UTF-8 (byte %zu of the text)",
                (unsigned)(unsigned char)p->text[bad], bad);
        if (p->n > MAX_TEXT - e->text.n)
            return err_fail("E_TOK_LIMIT", QFW_E_DATA,
                "tokenizer: a text of more than %d bytes cannot be encoded at once", MAX_TEXT);
        if (tagged_add(&e->text, p->text, p->n, tag)) return QFW_E_NOMEM;
    }
    return QFW_OK;
}

qfw_status tokenizer_encode_parts(
    const tokenizer *t, const text_part *parts, size_t n_parts, ids *out) {
    encoding e = {.t = t, .out = out};
    const size_t before = out->n;
    qfw_status status = join_parts(&e, parts, n_parts);
    if (status == QFW_OK && e.text.n > 0) status = encode_text(&e);
    if (status != QFW_OK) out->n = before;
    tagged_free(&e.text);
    tagged_free(&e.segment);
    tagged_free(&e.spare);
    bpe_work_free(&e.work);
    return status;
}

qfw_status tokenizer_encode(const tokenizer *t, const char *text, size_t n, int special, ids *out) {
    const text_part part = {text, n, special, 0};
    return tokenizer_encode_parts(t, &part, 1, out);
}

void ids_free(ids *v) {
    mem_free(v->id);
    mem_free(v->mark);
    *v = (ids){0};
}

/* --- the way back --- */

qfw_status tokenizer_decode(const tokenizer *t, const int32_t *id, size_t n, int skip_special,
    char **text, size_t *n_bytes) {
    size_t kept = 0;
    *text = NULL;
    *n_bytes = 0;
    const char **tokens = mem_alloc(n, sizeof *tokens);
    if (!tokens) return QFW_E_NOMEM;
    qfw_status status = QFW_OK;
    for (size_t i = 0; status == QFW_OK && i < n; i++) {
        const char *token = tokenizer_token(t, id[i]);
        if (!token && id[i] >= 0 && id[i] < t->limit) continue; /* one that only the model has */
        if (!token)
            status =
                err_fail("E_TOK_ID", QFW_E_DATA, "tokenizer: %d is no token (ids[%zu])", id[i], i);
        else if (!skip_special || !tokenizer_is_special(t, id[i]))
            tokens[kept++] = token;
    }
    if (status == QFW_OK) status = decoder_run(&t->back, tokens, kept, text, n_bytes);
    mem_free(tokens);
    return status;
}

/* --- facts --- */

const char *tokenizer_token(const tokenizer *t, int32_t id) {
    return id >= 0 && (size_t)id < t->words.n ? t->words.text[id] : NULL;
}

int32_t tokenizer_id(const tokenizer *t, const char *token) {
    const added_token *extra = added_find(&t->extra, token);
    return extra ? extra->id : vocab_find(&t->words, token, strlen(token));
}

int tokenizer_is_special(const tokenizer *t, int32_t id) {
    const added_token *token = added_by_id(&t->extra, id);
    return token && token->special;
}

int32_t tokenizer_bos(const tokenizer *t) { return t->bos; }
int32_t tokenizer_eos(const tokenizer *t) { return t->eos; }
int32_t tokenizer_pad(const tokenizer *t) { return t->pad; }
int tokenizer_adds_bos(const tokenizer *t) { return t->adds_bos; }
int64_t tokenizer_size(const tokenizer *t) { return (int64_t)t->words.n; }
int64_t tokenizer_limit(const tokenizer *t) { return t->limit; }
const char *tokenizer_chat_template(const tokenizer *t) { return t->chat_template; }
