/* encoder.c -- the encoder service: sequences of tokens, with their masks, out of one row.
 *
 * It owns what a trainer should not have to know: the tokenizer, the chat template, EOS, and the
 * length limit.
 */
#include <inttypes.h>
#include <string.h>

#include "base/error.h"
#include "base/log.h"
#include "base/mem.h"
#include "text/rows.h"

enum { PLACE_BYTES = 160 };

/* --- places and their errors --- */

/* Remember that the member of the row in which `ptr` lies is read. */
static void note_key(qfw_encoder *e, const char *ptr) {
    const size_t n = *ptr ? strcspn(ptr + 1, "/") : 0;
    if (n == 0 || n >= KEY_BYTES || e->n_keys == MAX_KEYS) return;
    for (uint32_t i = 0; i < e->n_keys; i++)
        if (strlen(e->key[i]) == n && !memcmp(e->key[i], ptr + 1, n)) return;
    memcpy(e->key[e->n_keys], ptr + 1, n);
    e->key[e->n_keys++][n] = 0;
}

int encoder_knows_key(const qfw_encoder *e, const char *key) {
    if (!strcmp(key, "provenance")) return 1; /* where a row is from: for people and tools */
    for (uint32_t i = 0; i < e->n_keys; i++)
        if (!strcmp(e->key[i], key)) return 1;
    return 0;
}

/* An error of the tokenizer or of a template: say where its text stands. */
static qfw_status at_place(const qfw_encoder *e, const char *ptr, qfw_status status) {
    if (status != QFW_OK && status != QFW_E_NOMEM)
        err_prefix("%s:%" PRIu64 ": %s", e->path, e->line, ptr);
    return status;
}

static qfw_status fail_at(const qfw_encoder *e, const char *ptr, const char *text) {
    return json_doc_api.fail(e->row, ptr, QFW_E_DATA, text);
}

/* --- one sequence into the store --- */

/* What is to become a sequence. */
typedef struct draft {
    const char *ptr; /* its place, for messages */
    const int32_t *token;
    const uint8_t *trained; /* NULL: all */
    size_t n, first;        /* of them, those from `first` on */
    int keep_last;          /* the last token ends the text: truncation keeps it */
} draft;

static int is_trained(const draft *d, size_t t) {
    if (t == 0 || t < d->first) return 0; /* nothing predicts token 0 */
    return d->trained ? d->trained[t] : 1;
}

static int store_room(row_store *s, size_t n) {
    return mem_grow(&s->token, &s->token_cap, s->n + n, sizeof *s->token) ||
           mem_grow(&s->trained, &s->trained_cap, s->n + n, 1) ||
           mem_grow(&s->seq, &s->seq_cap, s->n_seqs + 1, sizeof *s->seq);
}

static void store_token(row_store *s, const draft *d, size_t t) {
    s->token[s->n] = d->token[t];
    s->trained[s->n++] = (uint8_t)is_trained(d, t);
}

static qfw_status add_sequence(qfw_encoder *e, const draft *d) {
    row_store *s = e->store;
    const size_t limit = (size_t)e->o->max_length, cut = d->n > limit ? d->n - limit : 0;
    const int keep = cut && d->keep_last;
    const size_t head = d->n - cut - (keep ? 1 : 0);
    if (cut && e->o->overlong == OVERLONG_ERROR)
        return err_fail("E_DATA_LONG", QFW_E_DATA,
            "%s:%" PRIu64 ": %s: %zu tokens, at most %zu (%s overlong = truncate or drop", e->path,
            e->line, d->ptr, d->n, limit,
            e->o->max_length == e->o->model_length ? "the model's limit); hint: set"
                                                   : "[data] max_length); hint: raise it, or set");
    if (cut && e->o->overlong == OVERLONG_DROP) e->too_long = 1;
    if (store_room(s, d->n - cut)) return QFW_E_NOMEM;
    qfw_seq *seq = &s->seq[s->n_seqs++];
    *seq = (qfw_seq){.size = sizeof *seq, .n = (uint32_t)(d->n - cut), .truncated = (uint32_t)cut};
    for (size_t t = 0; t < head; t++) {
        seq->n_trained += (uint32_t)is_trained(d, t);
        store_token(s, d, t);
    }
    /* An end mark after a text whose trained part is cut off would teach to stop anywhere. */
    if (keep && seq->n_trained == 0) e->untrained = 1;
    if (keep) {
        seq->n_trained += (uint32_t)is_trained(d, d->n - 1);
        store_token(s, d, d->n - 1);
    }
    if (seq->n_trained == 0) e->untrained = 1;
    return QFW_OK;
}

/* Where the completion starts: the first place at which the whole differs from the prompt. */
static size_t first_difference(const ids *prompt, const ids *whole) {
    size_t i = 0;
    while (i < prompt->n && i < whole->n && prompt->id[i] == whole->id[i]) i++;
    return i;
}

/* --- strings --- */

static const char *eos_text(const qfw_encoder *e) {
    const int32_t eos = tokenizer_eos(e->o->tok);
    return eos < 0 ? NULL : tokenizer_token(e->o->tok, eos);
}

static int ends_with(const char *text, const char *end) {
    const size_t n = strlen(text), n_end = strlen(end);
    return n >= n_end && !memcmp(text + n - n_end, end, n_end);
}

/* One or two strings as one text, BOS in front where the tokenizer adds it. */
static qfw_status encode_strings(
    qfw_encoder *e, const char *ptr, const char *first, const char *second, ids *out) {
    const text_part parts[2] = {{first, strlen(first), 1, 0}, {second, strlen(second), 1, 0}};
    const tokenizer *t = e->o->tok;
    out->n = 0;
    if (tokenizer_adds_bos(t) && ids_add(out, tokenizer_bos(t), 0)) return QFW_E_NOMEM;
    return at_place(e, ptr, tokenizer_encode_parts(t, parts, 2, out));
}

/* The same, with EOS at its end: as text, then, where that is no token in text, as an id. */
static qfw_status encode_ended(
    qfw_encoder *e, const char *ptr, const char *first, const char *second, ids *out) {
    const char *eos = eos_text(e);
    char *ended = NULL;
    if (!eos)
        return at_place(e, ptr,
            err_fail("E_TOK_SPECIAL", QFW_E_DATA,
                "a text ends in the EOS, and the tokenizer names no eos_token; hint: "
                "tokenizer_config.json"));
    if (!ends_with(second, eos)) {
        ended = mem_printf("%s%s", second, eos);
        if (!ended) return QFW_E_NOMEM;
    }
    qfw_status status = encode_strings(e, ptr, first, ended ? ended : second, out);
    mem_free(ended);
    const int32_t id = tokenizer_eos(e->o->tok);
    if (status == QFW_OK && (out->n == 0 || out->id[out->n - 1] != id) && ids_add(out, id, 0))
        status = QFW_E_NOMEM;
    return status;
}

static qfw_status encoder_text(qfw_encoder *e, const char *ptr) {
    const char *text = NULL;
    note_key(e, ptr);
    QFW_TRY(json_doc_api.str(e->row, ptr, &text));
    QFW_TRY(encode_ended(e, ptr, "", text, &e->whole));
    const draft d = {.ptr = ptr, .token = e->whole.id, .n = e->whole.n, .keep_last = 1};
    return add_sequence(e, &d);
}

static qfw_status pair_of_strings(
    qfw_encoder *e, const char *prompt, const char *completion, uint32_t train) {
    const char *first = NULL, *second = NULL;
    QFW_TRY(json_doc_api.str(e->row, prompt, &first));
    QFW_TRY(json_doc_api.str(e->row, completion, &second));
    QFW_TRY(encode_strings(e, prompt, first, "", &e->prompt));
    QFW_TRY(encode_ended(e, completion, first, second, &e->whole));
    const draft d = {.ptr = completion,
        .token = e->whole.id,
        .n = e->whole.n,
        .first = train & QFW_TRAIN_COMPLETION ? first_difference(&e->prompt, &e->whole) : 0,
        .keep_last = 1};
    return add_sequence(e, &d);
}

/* --- messages --- */

/* The place of message i's member: `name`, or where messages are {"from", "value"}, `other`. */
static void message_place(const qfw_encoder *e, const char *list, uint64_t i, const char *name,
    const char *other, char place[PLACE_BYTES]) {
    snprintf(place, PLACE_BYTES, "%s/%" PRIu64 "/from", list, i);
    const int is_from = json_doc_api.kind(e->row, place) != QFW_DOC_ABSENT;
    snprintf(place, PLACE_BYTES, "%s/%" PRIu64 "/%s", list, i, is_from ? other : name);
}

/* human and gpt under the names that templates know. */
static const char *role_of(const char *from) {
    if (!strcmp(from, "human")) return "user";
    return strcmp(from, "gpt") ? from : "assistant";
}

static qfw_status read_message(
    const qfw_encoder *e, const char *list, uint64_t i, chat_message *m) {
    char place[PLACE_BYTES];
    message_place(e, list, i, "role", "from", place);
    QFW_TRY(json_doc_api.str(e->row, place, &m->role));
    if (place[strlen(place) - 1] == 'm') m->role = role_of(m->role); /* "from" */
    message_place(e, list, i, "content", "value", place);
    return json_doc_api.str(e->row, place, &m->content);
}

/* Append the messages of the list at ptr to e->message. */
static qfw_status read_messages(qfw_encoder *e, const char *ptr) {
    note_key(e, ptr);
    e->of_messages = 1;
    if (json_doc_api.kind(e->row, ptr) != QFW_DOC_ARRAY)
        return fail_at(e, ptr, "wanted a list of messages, {\"role\": ..., \"content\": ...}");
    const uint64_t n = json_doc_api.count(e->row, ptr);
    if (n == 0) return fail_at(e, ptr, "no messages");
    if (mem_grow(&e->message, &e->message_cap, e->n_messages + n, sizeof *e->message))
        return QFW_E_NOMEM;
    for (uint64_t i = 0; i < n; i++) QFW_TRY(read_message(e, ptr, i, &e->message[e->n_messages++]));
    return QFW_OK;
}

/* The template in use, against the tokenizer's own: once a file. */
static qfw_status check_template(qfw_encoder *e, const char *ptr) {
    const char *jinja = tokenizer_chat_template(e->o->tok);
    if (!e->o->chat)
        return fail_at(e, ptr,
            "a list of messages, but the tokenizer's chat template is not one that is known here; "
            "hint: [data] chat_template, or rows of text");
    if (!e->template_checked && jinja && !chat_is_declared(e->o->chat) &&
        chat_by_jinja(jinja) != e->o->chat)
        log_line(QFW_LOG_WARN,
            "%s: messages are rendered by the template %s; the tokenizer's own is another", e->path,
            chat_name(e->o->chat));
    e->template_checked = 1;
    return QFW_OK;
}

/* Check the messages; those from n_first on stand in the list `second`. */
static qfw_status check_messages(
    const qfw_encoder *e, const char *first, size_t n_first, const char *second) {
    char place[PLACE_BYTES];
    chat_problem problem;
    if (chat_check(e->o->chat, e->message, e->n_messages, e->o->system_policy, &problem))
        return QFW_OK;
    const int in_first = problem.message < n_first;
    message_place(e, in_first ? first : second,
        in_first ? problem.message : problem.message - n_first, "role", "from", place);
    return fail_at(e, place, problem.text);
}

/* The ids of the first n messages. */
static qfw_status encode_messages(
    qfw_encoder *e, const char *ptr, size_t n, int generation_prompt, ids *out) {
    chat_render r = {0};
    out->n = 0;
    const chat_opts o = {.bos = tokenizer_token(e->o->tok, tokenizer_bos(e->o->tok)),
        .eos = eos_text(e),
        .generation_prompt = generation_prompt,
        .system_policy = e->o->system_policy,
        .allow_special = e->o->allow_special};
    qfw_status status = chat_apply(e->o->chat, e->message, n, &o, &r);
    if (status == QFW_OK && mem_grow(&e->part, &e->part_cap, r.n, sizeof *e->part))
        status = QFW_E_NOMEM;
    for (size_t i = 0; status == QFW_OK && i < r.n; i++)
        e->part[i] =
            (text_part){r.piece[i].text, r.piece[i].n, r.piece[i].special, r.piece[i].assistant};
    if (status == QFW_OK) status = tokenizer_encode_parts(e->o->tok, e->part, r.n, out);
    chat_render_free(&r);
    return at_place(e, ptr, status);
}

/* Whether the last token ends the text: the EOS, or the mark that ends an assistant's turn. */
static int ends_text(const qfw_encoder *e, const ids *v) {
    if (v->n == 0) return 0;
    const int32_t last = v->id[v->n - 1];
    return last == tokenizer_eos(e->o->tok) ||
           (v->mark[v->n - 1] && tokenizer_is_special(e->o->tok, last));
}

static qfw_status encoder_messages(qfw_encoder *e, const char *ptr, uint32_t train) {
    e->n_messages = 0;
    QFW_TRY(read_messages(e, ptr));
    QFW_TRY(check_template(e, ptr));
    QFW_TRY(check_messages(e, ptr, e->n_messages, ptr));
    QFW_TRY(encode_messages(e, ptr, e->n_messages, 0, &e->whole));
    const draft d = {.ptr = ptr,
        .token = e->whole.id,
        .trained = train & (QFW_TRAIN_COMPLETION | QFW_TRAIN_ASSISTANT) ? e->whole.mark : NULL,
        .n = e->whole.n,
        .keep_last = ends_text(e, &e->whole)};
    return add_sequence(e, &d);
}

/* The ids of the conversation prompt + answer; without a prompt (NULL) the answer is all of it, and
 * its first n_prompt messages are the prompt. */
static qfw_status encode_answer(
    qfw_encoder *e, const char *prompt, size_t n_prompt, const char *answer, ids *out) {
    char place[PLACE_BYTES];
    e->n_messages = 0;
    if (prompt) QFW_TRY(read_messages(e, prompt));
    QFW_TRY(read_messages(e, answer));
    QFW_TRY(check_template(e, prompt ? prompt : answer));
    QFW_TRY(check_messages(e, prompt ? prompt : answer, prompt ? n_prompt : e->n_messages, answer));
    if (strcmp(e->message[n_prompt].role, "assistant") != 0) {
        message_place(e, answer, prompt ? 0 : n_prompt, "role", "from", place);
        return fail_at(e, place, "wanted assistant: a completion answers the prompt's last turn");
    }
    return encode_messages(e, answer, e->n_messages, 0, out);
}

static qfw_status pair_of_messages(
    qfw_encoder *e, const char *prompt, const char *completion, uint32_t train) {
    const size_t n_prompt = json_doc_api.count(e->row, prompt);
    QFW_TRY(encode_answer(e, prompt, n_prompt, completion, &e->whole));
    QFW_TRY(encode_messages(e, prompt, n_prompt, 1, &e->prompt));
    const draft d = {.ptr = completion,
        .token = e->whole.id,
        .trained = train & QFW_TRAIN_ASSISTANT ? e->whole.mark : NULL,
        .n = e->whole.n,
        .first = train & QFW_TRAIN_COMPLETION ? first_difference(&e->prompt, &e->whole) : 0,
        .keep_last = ends_text(e, &e->whole)};
    return add_sequence(e, &d);
}

static qfw_status encoder_pair(
    qfw_encoder *e, const char *prompt, const char *completion, uint32_t train) {
    const uint32_t first = json_doc_api.kind(e->row, prompt);
    const uint32_t second = json_doc_api.kind(e->row, completion);
    note_key(e, prompt);
    note_key(e, completion);
    if (first == QFW_DOC_ARRAY && second == QFW_DOC_ARRAY)
        return pair_of_messages(e, prompt, completion, train);
    if (first == QFW_DOC_ARRAY && second == QFW_DOC_STRING)
        return fail_at(e, completion,
            "a string after a prompt that is a list of messages, wanted "
            "both alike");
    if (train & QFW_TRAIN_ASSISTANT)
        return fail_at(
            e, prompt, "wanted a list of messages: the assistant's turns alone are trained");
    return pair_of_strings(e, prompt, completion, train);
}

/* A conversation of two turns: ids of the whole, and of the question ready to be answered. */
static qfw_status encode_turns(
    qfw_encoder *e, const char *ptr, const char *user, const char *assistant) {
    if (mem_grow(&e->message, &e->message_cap, 2, sizeof *e->message)) return QFW_E_NOMEM;
    e->message[0] = (chat_message){"user", user};
    e->message[1] = (chat_message){"assistant", assistant};
    e->n_messages = 2;
    QFW_TRY(encode_messages(e, ptr, 2, 0, &e->whole));
    return encode_messages(e, ptr, 1, 1, &e->prompt);
}

static qfw_status encoder_instruction(qfw_encoder *e, const char *instruction, const char *input,
    const char *answer, uint32_t train) {
    const char *user = NULL, *more = "", *assistant = NULL;
    note_key(e, instruction);
    note_key(e, input);
    note_key(e, answer);
    e->of_messages = 1;
    QFW_TRY(json_doc_api.str(e->row, instruction, &user));
    if (json_doc_api.kind(e->row, input) != QFW_DOC_ABSENT)
        QFW_TRY(json_doc_api.str(e->row, input, &more));
    QFW_TRY(json_doc_api.str(e->row, answer, &assistant));
    QFW_TRY(check_template(e, instruction));
    char *joined = *more ? mem_printf("%s\n%s", user, more) : mem_strdup(user);
    const qfw_status status = joined ? encode_turns(e, answer, joined, assistant) : QFW_E_NOMEM;
    mem_free(joined);
    e->n_messages = 0;
    QFW_TRY(status);
    const draft d = {.ptr = answer,
        .token = e->whole.id,
        .trained = train & QFW_TRAIN_ASSISTANT ? e->whole.mark : NULL,
        .n = e->whole.n,
        .first = train & QFW_TRAIN_COMPLETION ? first_difference(&e->prompt, &e->whole) : 0,
        .keep_last = ends_text(e, &e->whole)};
    return add_sequence(e, &d);
}

/* --- preferences --- */

/* How many messages the two lists begin with alike. */
static qfw_status common_messages(
    qfw_encoder *e, const char *chosen, const char *rejected, size_t *common) {
    e->n_messages = *common = 0;
    QFW_TRY(read_messages(e, chosen));
    const size_t n = e->n_messages;
    QFW_TRY(read_messages(e, rejected));
    const chat_message *a = e->message, *b = e->message + n;
    const size_t most = (n < e->n_messages - n ? n : e->n_messages - n) - 1;
    while (*common <= most && !strcmp(a[*common].role, b[*common].role) &&
           !strcmp(a[*common].content, b[*common].content))
        ++*common;
    if (*common > 0 && *common <= most) return QFW_OK;
    return fail_at(e, rejected,
        "no prompt in the row, and chosen and rejected do not begin with the same messages before "
        "they part");
}

static qfw_status preference_of_messages(
    qfw_encoder *e, const char *prompt, const char *chosen, const char *rejected) {
    size_t n_prompt = prompt ? json_doc_api.count(e->row, prompt) : 0;
    if (!prompt) QFW_TRY(common_messages(e, chosen, rejected, &n_prompt));
    QFW_TRY(encode_answer(e, prompt, n_prompt, chosen, &e->whole));
    QFW_TRY(encode_answer(e, prompt, n_prompt, rejected, &e->other));
    return encode_messages(e, prompt ? prompt : chosen, n_prompt, 1, &e->prompt);
}

/* Bytes that both texts begin with, whole characters; a blank at their end goes with what
 * follows. */
static size_t common_text(const char *a, const char *b) {
    size_t n = 0;
    while (a[n] && a[n] == b[n]) n++;
    while (n > 0 && ((uint8_t)a[n] & 0xc0) == 0x80) n--;
    return n > 0 && a[n - 1] == ' ' ? n - 1 : n;
}

static qfw_status preference_of_strings(
    qfw_encoder *e, const char *prompt, const char *chosen, const char *rejected) {
    const char *first = "", *good = NULL, *bad = NULL;
    char *common = NULL;
    size_t n = 0;
    QFW_TRY(json_doc_api.str(e->row, chosen, &good));
    QFW_TRY(json_doc_api.str(e->row, rejected, &bad));
    if (prompt) {
        QFW_TRY(json_doc_api.str(e->row, prompt, &first));
    } else {
        n = common_text(good, bad);
        if (!good[n] || !bad[n])
            return fail_at(
                e, rejected, "no prompt in the row, and chosen and rejected do not part");
        first = common = mem_printf("%.*s", (int)n, good);
        if (!common) return QFW_E_NOMEM;
    }
    qfw_status status = encode_strings(e, prompt ? prompt : chosen, first, "", &e->prompt);
    if (status == QFW_OK) status = encode_ended(e, chosen, first, good + n, &e->whole);
    if (status == QFW_OK) status = encode_ended(e, rejected, first, bad + n, &e->other);
    mem_free(common);
    return status;
}

static qfw_status encoder_preference(
    qfw_encoder *e, const char *prompt, const char *chosen, const char *rejected) {
    const int is_list = json_doc_api.kind(e->row, chosen) == QFW_DOC_ARRAY;
    const uint32_t kind = json_doc_api.kind(e->row, prompt);
    if (kind == QFW_DOC_ABSENT) prompt = NULL;
    if (prompt) note_key(e, prompt);
    note_key(e, chosen);
    note_key(e, rejected);
    if (prompt && is_list != (kind == QFW_DOC_ARRAY))
        return fail_at(e, chosen, "a string and a list of messages, wanted the prompt alike");
    if (is_list)
        QFW_TRY(preference_of_messages(e, prompt, chosen, rejected));
    else
        QFW_TRY(preference_of_strings(e, prompt, chosen, rejected));
    const size_t a = first_difference(&e->prompt, &e->whole);
    const size_t b = first_difference(&e->prompt, &e->other);
    const draft good = {.ptr = chosen,
        .token = e->whole.id,
        .n = e->whole.n,
        .first = a < b ? a : b,
        .keep_last = !is_list || ends_text(e, &e->whole)};
    const draft bad = {.ptr = rejected,
        .token = e->other.id,
        .n = e->other.n,
        .first = good.first,
        .keep_last = !is_list || ends_text(e, &e->other)};
    QFW_TRY(add_sequence(e, &good));
    return add_sequence(e, &bad);
}

/* --- prompts --- */

static qfw_status prompt_of_messages(qfw_encoder *e, const char *ptr) {
    char place[PLACE_BYTES];
    e->n_messages = 0;
    QFW_TRY(read_messages(e, ptr));
    QFW_TRY(check_template(e, ptr));
    QFW_TRY(check_messages(e, ptr, e->n_messages, ptr));
    if (!strcmp(e->message[e->n_messages - 1].role, "user"))
        return encode_messages(e, ptr, e->n_messages, 1, &e->whole);
    message_place(e, ptr, e->n_messages - 1, "role", "from", place);
    return fail_at(e, place, "wanted user: the model is to answer the last turn");
}

static qfw_status encoder_prompt(qfw_encoder *e, const char *ptr) {
    const char *text = NULL;
    note_key(e, ptr);
    if (json_doc_api.kind(e->row, ptr) == QFW_DOC_ARRAY) {
        QFW_TRY(prompt_of_messages(e, ptr));
    } else {
        QFW_TRY(json_doc_api.str(e->row, ptr, &text));
        QFW_TRY(encode_strings(e, ptr, text, "", &e->whole));
    }
    if (!e->whole.n) return fail_at(e, ptr, "no tokens, wanted at least one");
    const draft d = {.ptr = ptr, .token = e->whole.id, .n = e->whole.n, .first = e->whole.n};
    const int untrained = e->untrained;
    QFW_TRY(add_sequence(e, &d));
    e->untrained = untrained; /* nor was it meant to be */
    return QFW_OK;
}

/* --- tokens --- */

/* Item i of a list of integers, which is `low` at least and below the limit of ids. */
static qfw_status read_id(
    const qfw_encoder *e, const char *list, uint64_t i, int64_t low, int32_t *out) {
    char place[PLACE_BYTES], text[128];
    int64_t id = 0;
    const int64_t limit = tokenizer_limit(e->o->tok);
    snprintf(place, sizeof place, "%s/%" PRIu64, list, i);
    QFW_TRY(json_doc_api.i64(e->row, place, &id));
    *out = (int32_t)id;
    if ((id >= 0 && id < limit) || (low < 0 && id == low)) return QFW_OK;
    snprintf(text, sizeof text, "%" PRId64 " is no token, wanted 0 .. %" PRId64, id, limit - 1);
    return fail_at(e, place, text);
}

static qfw_status read_label(const qfw_encoder *e, const char *labels, uint64_t i, ids *v) {
    char place[PLACE_BYTES];
    int32_t label = 0;
    QFW_TRY(read_id(e, labels, i, QFW_IGNORE_LABEL, &label));
    v->mark[i] = label != QFW_IGNORE_LABEL;
    if (!v->mark[i] || label == v->id[i]) return QFW_OK;
    snprintf(place, sizeof place, "%s/%" PRIu64, labels, i);
    return fail_at(e, place, "a label that is neither -100 nor the token itself");
}

static qfw_status encoder_tokens(qfw_encoder *e, const char *list, const char *labels) {
    const uint64_t n = json_doc_api.count(e->row, list);
    const uint32_t kind = json_doc_api.kind(e->row, labels);
    note_key(e, list);
    note_key(e, labels);
    if (json_doc_api.kind(e->row, list) != QFW_DOC_ARRAY)
        return fail_at(e, list, "wanted a list of token ids");
    if (kind != QFW_DOC_ABSENT &&
        (kind != QFW_DOC_ARRAY || json_doc_api.count(e->row, labels) != n))
        return fail_at(e, labels, "wanted a list as long as that of the tokens");
    e->whole.n = 0;
    for (uint64_t i = 0; i < n; i++) {
        int32_t id = 0;
        QFW_TRY(read_id(e, list, i, 0, &id));
        if (ids_add(&e->whole, id, 1)) return QFW_E_NOMEM;
        if (kind == QFW_DOC_ARRAY) QFW_TRY(read_label(e, labels, i, &e->whole));
    }
    const draft d = {.ptr = list,
        .token = e->whole.id,
        .trained = e->whole.mark,
        .n = e->whole.n,
        .keep_last = n && e->whole.id[n - 1] == tokenizer_eos(e->o->tok)};
    return add_sequence(e, &d);
}

/* --- the service --- */

static const qfw_doc *encoder_row(qfw_encoder *e) { return e->row; }

const qfw_encoder_api encoder_api = {
    .size = sizeof(qfw_encoder_api),
    .row = encoder_row,
    .text = encoder_text,
    .pair = encoder_pair,
    .messages = encoder_messages,
    .tokens = encoder_tokens,
    .prompt = encoder_prompt,
    .preference = encoder_preference,
    .instruction = encoder_instruction,
};
