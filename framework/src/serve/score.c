/* score.c -- see score.h.
 *
 * Chunks take seats, as many as there are slots; all questions about the chunk of a seat are asked
 * in its slot, one after another: the slot keeps what they have in common and only the rest is
 * read anew. Where there are fewer chunks than slots, a chunk takes several: copies of what is
 * common, each with a question of its own.
 */
#include "serve/score.h"

#include <string.h>

#include "base/error.h"
#include "base/mem.h"
#include "plugin/host.h"

enum { LEAST_ROOM = 16 };

const qfw_option score_options[N_SCORE_OPTIONS] = {
    QFW_OPTION(QFW_OPT_PATH, "input", "", 0, 0, NULL,
        "JSONL, one document a line, or a folder of text files; task = score needs it"),
    QFW_OPTION(QFW_OPT_STR, "id_field", "id", 0, 0, NULL,
        "a row's key of the name, a text or a number; rows without it are named by their line"),
    QFW_OPTION(QFW_OPT_STR, "text_field", "text", 0, 0, NULL, "a row's key of the document"),
    QFW_OPTION(QFW_OPT_INT, "chunk_overlap", "64", 0, 1 << 20, NULL,
        "tokens of whole sentences that two chunks of a long document share at most"),
    QFW_OPTION(QFW_OPT_ENUM, "aggregate", "max_evidence", 0, 0, "max_evidence|mean|last",
        "what scores a document: its best chunk, the mean of all, the last one"),
    QFW_OPTION(QFW_OPT_INT, "max_reason_tokens", "64", 0, 1 << 16, NULL, "0: no reasons"),
    QFW_OPTION(QFW_OPT_FLOAT, "abstain_below", "0", 0, 1, NULL,
        "abstain where the score's probability is below"),
    QFW_OPTION(QFW_OPT_INT, "per_device_batch_size", "8", 1, 1024, NULL, "chunks at a time"),
};

/* A document on its way. */
typedef struct document {
    scored pub;
    char *id, *text;
    chunk *chunks;
    reading *evidence;
    char *reason[MAX_SKILLS];
    size_t n_asked; /* chunks that have had a seat */
    struct document *next;
} document;

/* A chunk that is being asked about. */
typedef struct seat {
    document *d;
    size_t chunk;
    uint32_t skill[MAX_SKILLS], n_skills, next; /* asked here, in this order */
    ids question[MAX_SKILLS];                   /* by place in `skill` */
    int64_t shared;                             /* tokens that the questions begin with */
} seat;

/* A slot at work. */
typedef struct lane {
    uint32_t slot;
    seat *seat;
    uint32_t skill;
    int busy;
    ids said; /* tokens of a reason */
} lane;

struct scorer {
    score_opts o;
    engine *e;
    score_sink sink;
    void *arg;
    int64_t room, reserve; /* tokens of a chunk; of what follows a question */
    ids scratch;
    document *first, *last;
    size_t n_waiting; /* chunks that have had no seat */
    seat *seats;
    uint32_t n_seats;
    lane *lanes;
    engine_append *appends;
    float *logits;
};

/* --- asking --- */

/* Tokens of `t` that a slot holds already, but for the last one, whose logits are wanted. */
static int64_t held(const scorer *s, uint32_t slot, const ids *t) {
    int64_t n = 0, i = 0;
    const int32_t *tokens = engine_tokens(s->e, slot, &n);
    while (i < n && i + 1 < (int64_t)t->n && tokens[i] == t->id[i]) i++;
    return i;
}

/* What makes a slot the first n tokens of `t`; nothing (n 0) where it is that already. */
static engine_append append_up_to(scorer *s, uint32_t slot, const ids *t, int64_t n) {
    int64_t at = held(s, slot, t);
    engine_cut(s->e, slot, at < n ? at : n);
    (void)engine_tokens(s->e, slot, &at); /* a cut may drop more */
    return (engine_append){slot, t->id + at, n - at};
}

static void find_shared(seat *t) {
    size_t shared = t->question[0].n - 1;
    for (uint32_t i = 1; i < t->n_skills; i++) {
        const ids *a = &t->question[0], *b = &t->question[i];
        size_t k = 0;
        while (k < shared && k + 1 < b->n && a->id[k] == b->id[k]) k++;
        shared = k;
    }
    t->shared = (int64_t)shared;
}

/* Lane i belongs to seat i, its slot the one that holds the seat's text already if one does; the
 * lanes that are left go round the seats. */
static void give_slots(scorer *s) {
    uint32_t n_taken = 0;
    uint8_t taken[1024] = {0};
    for (uint32_t i = 0; i < s->o.n_slots; i++) {
        lane *l = &s->lanes[i];
        l->seat = &s->seats[i % s->n_seats];
        l->slot = s->o.n_slots;
        for (uint32_t k = 0; i < s->n_seats && k < s->o.n_slots && l->slot == s->o.n_slots; k++)
            if (!taken[k] && held(s, k, &l->seat->question[0]) >= l->seat->shared) l->slot = k;
        if (l->slot < s->o.n_slots) taken[l->slot] = 1;
    }
    for (uint32_t i = 0; i < s->o.n_slots; i++) {
        if (s->lanes[i].slot < s->o.n_slots) continue;
        while (taken[n_taken]) n_taken++;
        s->lanes[i].slot = n_taken;
        taken[n_taken] = 1;
    }
}

static uint32_t lanes_of(const scorer *s, uint32_t i) { /* before lane i, at its seat */
    return i / s->n_seats;
}

/* The common tokens of every seat: read into its first lane, copied into its others. */
static qfw_status read_shared(scorer *s) {
    uint32_t n = 0;
    give_slots(s);
    for (uint32_t i = 0; i < s->n_seats; i++) {
        const seat *t = s->lanes[i].seat;
        const engine_append a = append_up_to(s, s->lanes[i].slot, &t->question[0], t->shared);
        if (a.n > 0) s->appends[n++] = a;
    }
    if (n > 0) QFW_TRY(engine_read(s->e, s->appends, n, NULL));
    for (uint32_t i = s->n_seats; i < s->o.n_slots; i++) {
        const lane *l = &s->lanes[i];
        if (lanes_of(s, i) < l->seat->n_skills && l->seat->shared > 0)
            QFW_TRY(engine_fork(s->e, s->lanes[i % s->n_seats].slot, l->slot, l->seat->shared));
    }
    return QFW_OK;
}

/* Give every lane the next question of its seat and read it; *n_busy of them have one, and row i of
 * the logits is that of the i-th of these. */
static qfw_status ask_next(scorer *s, uint32_t *n_busy) {
    *n_busy = 0;
    for (uint32_t i = 0; i < s->o.n_slots; i++) {
        lane *l = &s->lanes[i];
        l->busy = l->seat->next < l->seat->n_skills;
        if (!l->busy) continue;
        const ids *question = &l->seat->question[l->seat->next];
        l->skill = l->seat->skill[l->seat->next++];
        s->appends[(*n_busy)++] = append_up_to(s, l->slot, question, (int64_t)question->n);
    }
    return *n_busy ? engine_read(s->e, s->appends, *n_busy, s->logits) : QFW_OK;
}

/* --- scores --- */

static qfw_status read_scores(scorer *s) {
    const int64_t vocab = engine_vocab(s->e);
    const scale levels = rubric_scale(s->o.rubric);
    int32_t tokens[MAX_LEVELS];
    uint32_t n_busy = 0;
    QFW_TRY(read_shared(s));
    for (;;) {
        const float *row = s->logits;
        QFW_TRY(ask_next(s, &n_busy));
        if (n_busy == 0) return QFW_OK;
        for (const lane *l = s->lanes; l < s->lanes + s->o.n_slots; l++) {
            if (!l->busy) continue;
            const seat *t = l->seat;
            for (uint32_t i = 0; i < levels.n_levels; i++)
                tokens[i] = rubric_level(s->o.rubric, l->skill, i);
            const qfw_status status = score_read(row, vocab, tokens, levels,
                &t->d->evidence[t->chunk * t->d->pub.n_skills + l->skill]);
            if (status != QFW_OK) {
                err_prefix("document '%s'", t->d->id);
                return status;
            }
            row += vocab;
        }
    }
}

/* Let the next chunks of the queue take seats, all skills to be asked. */
static qfw_status seat_chunks(scorer *s) {
    const uint32_t n_skills = rubric_skills(s->o.rubric);
    s->n_seats = 0;
    for (document *d = s->first; d; d = d->next)
        for (; d->n_asked < d->pub.n_chunks && s->n_seats < s->o.n_slots; d->n_asked++) {
            seat *t = &s->seats[s->n_seats++];
            const chunk c = d->chunks[d->n_asked];
            t->d = d;
            t->chunk = d->n_asked;
            t->n_skills = n_skills;
            t->next = 0;
            for (uint32_t i = 0; i < n_skills; i++) {
                t->skill[i] = i;
                QFW_TRY(
                    rubric_ask(s->o.rubric, i, d->text + c.from, c.to - c.from, &t->question[i]));
            }
            find_shared(t);
            s->n_waiting--;
        }
    return QFW_OK;
}

/* --- reasons --- */

static int32_t most_probable(const float *logits, int64_t vocab) {
    int64_t best = 0;
    for (int64_t i = 1; i < vocab; i++)
        if (logits[i] > logits[best]) best = i;
    return (int32_t)best;
}

/* Take the next token of a lane; 0 when its reason is over. */
static int say_more(scorer *s, lane *l, const float *logits, int *bad) {
    int64_t n = 0;
    const int32_t token = most_probable(logits, engine_vocab(s->e));
    (void)engine_tokens(s->e, l->slot, &n);
    if (token == tokenizer_eos(s->o.tok) || tokenizer_is_special(s->o.tok, token) ||
        !tokenizer_token(s->o.tok, token)) /* a model may know more than its tokenizer */
        return 0;
    *bad |= ids_add(&l->said, token, 0);
    return (int64_t)l->said.n < s->o.max_reason_tokens && n < s->o.max_length;
}

static qfw_status keep_reason(const scorer *s, const lane *l) {
    char *text = NULL;
    size_t n = 0, from = 0;
    QFW_TRY(tokenizer_decode(s->o.tok, l->said.id, l->said.n, 1, &text, &n));
    n = strlen(text); /* up to a NUL, if there is one */
    while (from < n && strchr(" \t\r\n", text[from])) from++;
    while (n > from && strchr(" \t\r\n", text[n - 1])) text[--n] = 0;
    char *reason = l->seat->d->reason[l->skill] = mem_strdup(text + from);
    mem_free(text);
    l->seat->d->pub.skills[l->skill].reason = reason;
    return reason ? QFW_OK : QFW_E_NOMEM;
}

static qfw_status check_signal(void) {
    const qfw_host *h = host_table();
    return h->cancelled(h) ? err_fail("E_SIGNAL", QFW_E_CANCELLED, "stopped by a signal") : QFW_OK;
}

/* From the logits after every busy lane's question to its whole reason. */
static qfw_status say_reasons(scorer *s) {
    const int64_t vocab = engine_vocab(s->e);
    uint32_t n = 1;
    for (uint32_t i = 0; i < s->o.n_slots; i++) s->lanes[i].said.n = 0;
    while (n > 0) {
        const float *row = s->logits;
        int bad = 0;
        n = 0;
        for (lane *l = s->lanes; l < s->lanes + s->o.n_slots; l++) {
            if (!l->busy) continue;
            l->busy = say_more(s, l, row, &bad);
            row += vocab;
            if (bad) return QFW_E_NOMEM;
            if (l->busy)
                s->appends[n++] = (engine_append){l->slot, &l->said.id[l->said.n - 1], 1};
            else
                QFW_TRY(keep_reason(s, l));
        }
        if (n > 0) QFW_TRY(engine_read(s->e, s->appends, n, s->logits));
        QFW_TRY(check_signal());
    }
    return QFW_OK;
}

static qfw_status run_reasons(scorer *s) {
    uint32_t n_busy = 1;
    if (s->n_seats == 0) return QFW_OK;
    for (uint32_t i = 0; i < s->n_seats; i++) find_shared(&s->seats[i]);
    QFW_TRY(read_shared(s));
    while (n_busy) {
        QFW_TRY(ask_next(s, &n_busy));
        if (n_busy) QFW_TRY(say_reasons(s));
    }
    s->n_seats = 0;
    return QFW_OK;
}

/* The seat of a chunk that decided a skill. When none is free, those that are taken are run. */
static qfw_status find_seat(scorer *s, document *d, size_t at, seat **out) {
    for (uint32_t i = 0; i < s->n_seats; i++) {
        *out = &s->seats[i];
        if ((*out)->d == d && (*out)->chunk == at) return QFW_OK;
    }
    if (s->n_seats == s->o.n_slots) QFW_TRY(run_reasons(s));
    *out = &s->seats[s->n_seats++];
    (*out)->d = d;
    (*out)->chunk = at;
    (*out)->n_skills = (*out)->next = 0;
    return QFW_OK;
}

/* Ask for the reason of every skill of the documents up to `end`. */
static qfw_status read_reasons(scorer *s, document *end) {
    s->n_seats = 0;
    for (document *d = s->first; d != end; d = d->next)
        for (uint32_t i = 0; i < d->pub.n_skills; i++) {
            const skill_score *k = &d->pub.skills[i];
            const chunk c = d->chunks[k->chunk];
            const uint32_t level = (uint32_t)(k->score - rubric_scale(s->o.rubric).low);
            seat *t = NULL;
            QFW_TRY(find_seat(s, d, k->chunk, &t));
            t->skill[t->n_skills] = i;
            QFW_TRY(rubric_ask_reason(s->o.rubric, i, level, d->text + c.from, c.to - c.from,
                &t->question[t->n_skills++]));
        }
    return run_reasons(s);
}

/* --- documents --- */

static void document_free(document *d) {
    if (!d) return;
    for (uint32_t i = 0; i < MAX_SKILLS; i++) mem_free(d->reason[i]);
    mem_free(d->id);
    mem_free(d->text);
    mem_free(d->chunks);
    mem_free(d->evidence);
    mem_free(d);
}

/* The first document, all of whose chunks are read, goes out. */
static qfw_status send_first(scorer *s) {
    document *d = s->first;
    s->first = d->next;
    if (!s->first) s->last = NULL;
    const qfw_status status = s->sink(s->arg, &d->pub);
    document_free(d);
    return status;
}

static qfw_status run_batch(scorer *s) {
    QFW_TRY(check_signal());
    QFW_TRY(seat_chunks(s));
    QFW_TRY(read_scores(s));
    document *end = s->first;
    for (; end && end->n_asked == end->pub.n_chunks; end = end->next)
        for (uint32_t i = 0; i < end->pub.n_skills; i++)
            score_aggregate(&s->o, end->evidence + i, end->pub.n_skills, end->chunks,
                end->pub.n_chunks, &end->pub.skills[i]);
    const int asks = s->o.max_reason_tokens > 0 && !s->o.skip_reasons;
    if (asks && rubric_has_reason(s->o.rubric)) QFW_TRY(read_reasons(s, end));
    while (s->first != end) QFW_TRY(send_first(s));
    return QFW_OK;
}

static document *document_create(const scorer *s, const char *id, const char *text, size_t n) {
    document *d = mem_alloc(1, sizeof *d);
    if (!d) return NULL;
    d->id = mem_strdup(id);
    d->text = mem_alloc(n + 1, 1);
    if (!d->id || !d->text) {
        document_free(d);
        return NULL;
    }
    memcpy(d->text, text, n);
    d->pub = (scored){.id = d->id, .text = d->text, .n = n};
    d->pub.n_skills = rubric_skills(s->o.rubric);
    for (uint32_t i = 0; i < MAX_SKILLS; i++) d->pub.skills[i].reason = "";
    return d;
}

qfw_status scorer_add(scorer *s, const char *id, uint64_t line, const char *text, size_t n) {
    document *d = document_create(s, id, text, n);
    if (!d) return QFW_E_NOMEM;
    d->pub.line = line;
    qfw_status status = scorer_chunks(s, text, n, &d->chunks, &d->pub.n_chunks);
    d->pub.chunks = d->chunks;
    if (status == QFW_OK) {
        d->pub.evidence = d->evidence =
            mem_alloc(d->pub.n_chunks * d->pub.n_skills, sizeof *d->evidence);
        if (!d->evidence) status = QFW_E_NOMEM;
    }
    if (status != QFW_OK) {
        err_prefix("document '%s'", id);
        document_free(d);
        return status;
    }
    *(s->last ? &s->last->next : &s->first) = d;
    s->last = d;
    s->n_waiting += d->pub.n_chunks;
    while (s->n_waiting >= s->o.n_slots) QFW_TRY(run_batch(s));
    return QFW_OK;
}

qfw_status scorer_finish(scorer *s) {
    while (s->n_waiting > 0) QFW_TRY(run_batch(s));
    return QFW_OK;
}

/* --- chunks --- */

static qfw_status count_alone(void *arg, const char *text, size_t n, int64_t *tokens) {
    scorer *s = arg;
    s->scratch.n = 0;
    QFW_TRY(tokenizer_encode(s->o.tok, text, n, 0, &s->scratch));
    *tokens = (int64_t)s->scratch.n;
    return QFW_OK;
}

/* Tokens of the longest question about a text. */
static qfw_status count_question(scorer *s, const char *text, size_t n, int64_t *most) {
    *most = 0;
    for (uint32_t i = 0; i < rubric_skills(s->o.rubric); i++) {
        QFW_TRY(rubric_ask(s->o.rubric, i, text, n, &s->scratch));
        if ((int64_t)s->scratch.n > *most) *most = (int64_t)s->scratch.n;
    }
    return QFW_OK;
}

static qfw_status question_fits(void *arg, const char *text, size_t n, int *yes) {
    scorer *s = arg;
    int64_t most = 0;
    QFW_TRY(count_question(s, text, n, &most));
    *yes = most + s->reserve <= s->o.max_length;
    return QFW_OK;
}

qfw_status scorer_chunks(const scorer *s, const char *text, size_t n, chunk **out, size_t *n_out) {
    const chunk_ruler ruler = {
        count_alone, question_fits, (void *)(uintptr_t)s, s->room, s->o.chunk_overlap};
    return chunk_text(text, n, &ruler, out, n_out);
}

/* What the answer takes beyond the question, and what is left for a document. */
static qfw_status measure(scorer *s) {
    const rubric *r = s->o.rubric;
    int64_t bare = 0;
    QFW_TRY(count_question(s, "", 0, &bare));
    for (uint32_t i = 0; s->o.max_reason_tokens > 0 && i < rubric_skills(r); i++) {
        QFW_TRY(rubric_ask(r, i, "", 0, &s->scratch));
        const int64_t question = (int64_t)s->scratch.n;
        QFW_TRY(rubric_ask_reason(r, i, rubric_scale(r).n_levels - 1, "", 0, &s->scratch));
        const int64_t more = (int64_t)s->scratch.n - question + s->o.max_reason_tokens;
        if (more > s->reserve) s->reserve = more;
    }
    s->room = s->o.max_length - bare - s->reserve;
    if (s->room >= LEAST_ROOM) return QFW_OK;
    return err_fail("E_CONFIG_ROOM", QFW_E_CONFIG,
        "[data] max_length: %lld tokens, of which the question takes %lld and its answer %lld, "
        "wanted at least %d more for the document; hint: raise it, or lower [score] "
        "max_reason_tokens",
        (long long)s->o.max_length, (long long)bare, (long long)s->reserve, LEAST_ROOM);
}

/* --- the scorer --- */

static qfw_status take_memory(scorer *s) {
    const size_t n = s->o.n_slots;
    s->seats = mem_alloc(n, sizeof *s->seats);
    s->lanes = mem_alloc(n, sizeof *s->lanes);
    s->appends = mem_alloc(n, sizeof *s->appends);
    s->logits = mem_alloc(n * (s->e ? (size_t)engine_vocab(s->e) : 1), sizeof *s->logits);
    return s->seats && s->lanes && s->appends && s->logits ? QFW_OK : QFW_E_NOMEM;
}

qfw_status scorer_create(const score_opts *o, engine *e, score_sink sink, void *arg, scorer **out) {
    scorer *s = mem_alloc(1, sizeof *s);
    *out = NULL;
    if (!s) return QFW_E_NOMEM;
    *s = (scorer){.o = *o, .e = e, .sink = sink, .arg = arg};
    qfw_status status = take_memory(s);
    if (status == QFW_OK) status = measure(s);
    if (status != QFW_OK) {
        scorer_destroy(s);
        return status;
    }
    *out = s;
    return QFW_OK;
}

void scorer_destroy(scorer *s) {
    if (!s) return;
    for (document *d = s->first, *next; d; d = next) {
        next = d->next;
        document_free(d);
    }
    for (uint32_t i = 0; i < s->o.n_slots; i++) {
        for (uint32_t k = 0; s->seats && k < MAX_SKILLS; k++) ids_free(&s->seats[i].question[k]);
        if (s->lanes) ids_free(&s->lanes[i].said);
    }
    ids_free(&s->scratch);
    mem_free(s->seats);
    mem_free(s->lanes);
    mem_free(s->appends);
    mem_free(s->logits);
    mem_free(s);
}
