/* rubric.c -- see rubric.h: wordings are cut at their {names} once, then filled for a question. */
#include "serve/rubric.h"

#include <stdio.h>
#include <string.h>

#include "base/error.h"
#include "base/mem.h"
#include "files/file.h"
#include "files/json.h"

enum { MAX_DEFINITIONS = 1 << 20, MAX_PROMPT = 1 << 20, PROBLEM_BYTES = 400 };

const qfw_option rubric_options[N_RUBRIC_OPTIONS] = {
    QFW_OPTION(QFW_OPT_LIST, "skills", "", 0, 0, NULL, "what is scored, 32 at most"),
    QFW_OPTION(QFW_OPT_STR, "scale", "0-5", 0, 0, NULL, "LOW-HIGH, whole numbers, 16 at most"),
    QFW_OPTION(QFW_OPT_STR, "prompt", "{document}\\nScore for {skill}:", 0, 0, NULL,
        "with {document} {skill} {definition} {low} {high}; \\n \\t \\s (a blank) \\\\"),
    QFW_OPTION(QFW_OPT_PATH, "prompt_file", "", 0, 0, NULL,
        "the prompt as a file, instead; its last line end is left out"),
    QFW_OPTION(QFW_OPT_STR, "answer", "\\s{score} {reason}", 0, 0, NULL,
        "what follows the prompt, as in the rows of training; {reason} may be left out"),
    QFW_OPTION(QFW_OPT_PATH, "definitions", "", 0, 0, NULL,
        "JSON, {\"<skill>\": \"<text>\"}, for {definition}"),
    QFW_OPTION(QFW_OPT_BOOL, "chat", "false", 0, 0, NULL,
        "the prompt is a user turn of the chat template, the answer the assistant's"),
};

/* --- wordings --- */

enum { TEXT, DOCUMENT, SKILL, DEFINITION, LOW, HIGH, SCORE, REASON, PLACES };
static const char *const place_names[PLACES] = {
    "", "document", "skill", "definition", "low", "high", "score", "reason"};
enum {
    PROMPT_PLACES = 1 << DOCUMENT | 1 << SKILL | 1 << DEFINITION | 1 << LOW | 1 << HIGH,
    ANSWER_PLACES = 1 << SCORE | 1 << REASON,
};

typedef struct piece {
    int place; /* TEXT: the n bytes of text; else what is filled in */
    const char *text;
    size_t n;
} piece;

/* A text with places. */
typedef struct wording {
    char *text;
    piece *piece;
    size_t n, cap;
    uint32_t count[PLACES];
} wording;

struct rubric {
    rubric_opts o; /* its texts are this rubric's */
    char *texts[5];
    char *names, *skill[MAX_SKILLS], *definition[MAX_SKILLS];
    uint32_t n_skills;
    scale scale;
    char level[MAX_LEVELS][12];
    wording prompt, answer;
    int32_t token[MAX_SKILLS][MAX_LEVELS];
    size_t tail[MAX_SKILLS]; /* tokens from the score on, when the lowest level is filled in */
};

QFW_PRINTF(3, 4)
static qfw_status problem(const rubric *r, const char *key, const char *fmt, ...) {
    char text[PROBLEM_BYTES];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    if (r->o.ini) return cfg_problem(r->o.ini, r->o.section, key, "%s", text);
    return err_also("E_CONFIG_RUBRIC", QFW_E_CONFIG, "rubric.%s: %s", key, text);
}

static int add_piece(wording *w, int place, const char *text, size_t n) {
    if (place == TEXT && n == 0) return 0;
    if (mem_grow(&w->piece, &w->cap, w->n + 1, sizeof *w->piece)) return -1;
    w->piece[w->n++] = (piece){place, text, n};
    w->count[place]++;
    return 0;
}

/* The place that is called so; TEXT: none. */
static int find_place(const char *name, size_t n, uint32_t allowed) {
    for (int i = 1; i < PLACES; i++)
        if (allowed >> i & 1 && strlen(place_names[i]) == n && !memcmp(place_names[i], name, n))
            return i;
    return TEXT;
}

static qfw_status unknown_place(
    const rubric *r, const char *key, const char *name, size_t n, uint32_t allowed) {
    const char *known[PLACES];
    char word[64], all[128] = "";
    uint32_t n_known = 0;
    for (int i = 1; i < PLACES; i++) {
        if (!(allowed >> i & 1)) continue;
        const size_t used = strlen(all);
        snprintf(all + used, sizeof all - used, "%s{%s}", n_known ? " " : "", place_names[i]);
        known[n_known++] = place_names[i];
    }
    snprintf(word, sizeof word, "%.*s", (int)n, name);
    const char *near = err_nearest(word, known, n_known);
    return problem(r, key, "found {%s}, wanted %s%s%s%s", word, all, near ? "; did you mean {" : "",
        near ? near : "", near ? "}?" : "");
}

/* Cut a text at its {name}s; other braces are text. */
static qfw_status wording_parse(
    const rubric *r, const char *key, const char *text, uint32_t allowed, wording *w) {
    const char *from = w->text = mem_strdup(text);
    if (!from) return QFW_E_NOMEM;
    for (const char *at = from; (at = strchr(at, '{')) != NULL;) {
        const size_t n = strspn(at + 1, "abcdefghijklmnopqrstuvwxyz_");
        if (n == 0 || at[n + 1] != '}') {
            at++;
            continue;
        }
        const int place = find_place(at + 1, n, allowed);
        if (place == TEXT) return unknown_place(r, key, at + 1, n, allowed);
        if (add_piece(w, TEXT, from, (size_t)(at - from)) || add_piece(w, place, NULL, 0))
            return QFW_E_NOMEM;
        from = at += n + 2;
    }
    return add_piece(w, TEXT, from, strlen(from)) ? QFW_E_NOMEM : QFW_OK;
}

static void wording_free(wording *w) {
    mem_free(w->text);
    mem_free(w->piece);
}

static qfw_status read_prompt(rubric *r) {
    QFW_TRY(wording_parse(r, "prompt", r->o.prompt, PROMPT_PLACES, &r->prompt));
    if (r->prompt.count[DOCUMENT] != 1)
        return problem(r, "prompt", "{document} stands in it %u times, wanted once",
            r->prompt.count[DOCUMENT]);
    if (r->prompt.count[SKILL] == 0) return problem(r, "prompt", "{skill} is missing");
    return QFW_OK;
}

static qfw_status read_answer(rubric *r) {
    uint32_t seen = 0;
    QFW_TRY(wording_parse(r, "answer", r->o.answer, ANSWER_PLACES, &r->answer));
    if (r->answer.count[SCORE] != 1 || r->answer.count[REASON] > 1)
        return problem(r, "answer",
            "{score} stands in it %u times and {reason} %u times, wanted "
            "once and at most once",
            r->answer.count[SCORE], r->answer.count[REASON]);
    for (size_t i = 0; i < r->answer.n; i++) {
        seen |= 1u << r->answer.piece[i].place;
        if (seen >> REASON & 1 && !(seen >> SCORE & 1))
            return problem(r, "answer",
                "{reason} stands before {score}, wanted after it: the score is read from the "
                "model's probabilities before it writes anything");
    }
    return QFW_OK;
}

/* --- skills, scale, definitions --- */

static qfw_status read_skills(rubric *r) {
    r->names = mem_strdup(r->o.skills);
    if (!r->names) return QFW_E_NOMEM;
    if (!*r->names) return problem(r, "skills", "missing, wanted names with ',' between them");
    for (char *at = r->names, *end; at; at = end) {
        end = strchr(at, ',');
        if (end) *end++ = 0;
        for (uint32_t i = 0; i < r->n_skills; i++)
            if (!strcmp(r->skill[i], at))
                return problem(r, "skills", "'%s' stands there twice", at);
        if (r->n_skills == MAX_SKILLS)
            return problem(r, "skills", "more than %d of them", MAX_SKILLS);
        r->skill[r->n_skills++] = at;
    }
    return QFW_OK;
}

static qfw_status read_scale(rubric *r) {
    char low[16] = "";
    int64_t from = -1, to = -1;
    const char *text = r->o.scale, *dash = strchr(text, '-');
    if (dash) snprintf(low, sizeof low, "%.*s", (int)(dash - text), text);
    if (!dash || option_parse_i64(low, &from) != QFW_OK ||
        option_parse_i64(dash + 1, &to) != QFW_OK)
        return problem(r, "scale", "'%.40s', wanted LOW-HIGH, such as 0-5", text);
    if (from < 0 || to <= from || to - from >= MAX_LEVELS || to > 1000000)
        return problem(r, "scale", "'%.40s', wanted two to %d levels, 0 or above, the lowest first",
            text, MAX_LEVELS);
    r->scale = (scale){(int32_t)from, (uint32_t)(to - from + 1)};
    for (uint32_t i = 0; i < r->scale.n_levels; i++)
        snprintf(r->level[i], sizeof r->level[i], "%d", (int)from + (int)i);
    return QFW_OK;
}

/* One member of the definitions' file. */
static qfw_status take_definition(rubric *r, const json_member *m) {
    uint32_t i = 0;
    const char *text = json_node_str(m->value);
    while (i < r->n_skills && strcmp(r->skill[i], m->key)) i++;
    if (i == r->n_skills) {
        const char *near = err_nearest(m->key, (const char *const *)r->skill, r->n_skills);
        return problem(r, "definitions", "%s: '%.80s' is not one of the skills%s%s%s",
            r->o.definitions, m->key, near ? "; did you mean '" : "", near ? near : "",
            near ? "'?" : "");
    }
    if (!text)
        return problem(
            r, "definitions", "%s: '%.80s' is no text, wanted one", r->o.definitions, m->key);
    r->definition[i] = mem_strdup(text);
    return r->definition[i] ? QFW_OK : QFW_E_NOMEM;
}

static qfw_status read_definitions(rubric *r) {
    qfw_doc *doc = NULL;
    qfw_status status = QFW_OK;
    if (*r->o.definitions) {
        QFW_TRY(json_read(r->o.definitions, MAX_DEFINITIONS, NULL, &doc));
        const json_node *root = json_root(doc);
        for (json_member m = json_first(root); m.key && status == QFW_OK; m = json_next(root, m))
            status = take_definition(r, &m);
        json_destroy(doc);
    }
    for (uint32_t i = 0; status == QFW_OK && r->prompt.count[DEFINITION] && i < r->n_skills; i++)
        if (!r->definition[i])
            status = problem(r, "definitions",
                "the prompt has a {definition}, and there is none for '%s'; hint: a JSON file, "
                "{\"%s\": \"...\"}",
                r->skill[i], r->skill[i]);
    return status;
}

/* --- questions --- */

/* A question about to be encoded. */
typedef struct question {
    uint32_t skill, level;
    const char *document;
    size_t n;
    int to_reason; /* 1: the answer ends where its reason begins; 0: a reason stands in */
} question;

typedef struct parts {
    text_part *part;
    size_t n, cap;
} parts;

static int add_part(parts *p, const char *text, size_t n, int special) {
    if (n == 0) return 0;
    if (mem_grow(&p->part, &p->cap, p->n + 1, sizeof *p->part)) return -1;
    p->part[p->n++] = (text_part){text, n, special, 0};
    return 0;
}

static int is_blank(char c) { return c == ' ' || c == '\t' || c == '\n' || c == '\r'; }

static int add_document(parts *p, const char *text, size_t n) {
    while (n > 0 && is_blank(text[n - 1])) n--;
    while (n > 0 && is_blank(*text)) {
        text++;
        n--;
    }
    return add_part(p, text, n, 0);
}

static const char *value_of(const rubric *r, const question *q, int place) {
    switch (place) {
    case SKILL: return r->skill[q->skill];
    case DEFINITION: return r->definition[q->skill];
    case LOW: return r->level[0];
    case HIGH: return r->level[r->scale.n_levels - 1];
    case SCORE: return r->level[q->level];
    default: return "a"; /* any word: what follows the score is part of how it is cut into tokens */
    }
}

static int add_wording(
    const rubric *r, const wording *w, const question *q, int special, parts *out) {
    for (size_t i = 0; i < w->n; i++) {
        const piece *at = &w->piece[i];
        size_t n = at->n;
        const char *text = at->text;
        if (at->place == REASON && q->to_reason) return 0;
        if (at->place == DOCUMENT) {
            if (add_document(out, q->document, q->n)) return -1;
            continue;
        }
        if (at->place != TEXT) n = strlen(text = value_of(r, q, at->place));
        if (q->to_reason && i + 1 < w->n && at[1].place == REASON)
            while (n > 0 && text[n - 1] == ' ') n--; /* a blank belongs to the word after it */
        if (add_part(out, text, n, special)) return -1;
    }
    return 0;
}

static char *join(const parts *p) {
    size_t n = 0;
    for (size_t i = 0; i < p->n; i++) n += p->part[i].n;
    char *text = mem_alloc(n + 1, 1), *to = text;
    for (size_t i = 0; text && i < p->n; i++) {
        memcpy(to, p->part[i].text, p->part[i].n);
        to += p->part[i].n;
    }
    return text;
}

/* The prompt as a user turn; *content, which the parts point into, is mem_free. */
static qfw_status add_turn(const rubric *r, const question *q, char **content, parts *out) {
    parts inside = {0};
    chat_render turn = {0};
    int bad = add_wording(r, &r->prompt, q, 0, &inside);
    *content = bad ? NULL : join(&inside);
    mem_free(inside.part);
    if (!*content) return QFW_E_NOMEM;
    const chat_message m = {"user", *content};
    const chat_opts o = {
        .bos = tokenizer_token(r->o.tok, tokenizer_bos(r->o.tok)), .generation_prompt = 1};
    QFW_TRY(chat_apply(r->o.template, &m, 1, &o, &turn));
    for (size_t i = 0; !bad && i < turn.n; i++)
        bad = add_part(out, turn.piece[i].text, turn.piece[i].n, turn.piece[i].special);
    chat_render_free(&turn);
    return bad ? QFW_E_NOMEM : QFW_OK;
}

static qfw_status add_prompt(const rubric *r, const question *q, char **content, parts *out) {
    *content = NULL;
    if (r->o.chat) return add_turn(r, q, content, out);
    return add_wording(r, &r->prompt, q, 1, out) ? QFW_E_NOMEM : QFW_OK;
}

static qfw_status encode(const rubric *r, const question *q, ids *out) {
    parts p = {0};
    char *content = NULL;
    const tokenizer *t = r->o.tok;
    out->n = 0;
    if (!r->o.chat && tokenizer_adds_bos(t) && ids_add(out, tokenizer_bos(t), 0))
        return QFW_E_NOMEM;
    qfw_status status = add_prompt(r, q, &content, &p);
    if (status == QFW_OK && add_wording(r, &r->answer, q, !r->o.chat, &p)) status = QFW_E_NOMEM;
    if (status == QFW_OK) status = tokenizer_encode_parts(t, p.part, p.n, out);
    mem_free(p.part);
    mem_free(content);
    return status;
}

qfw_status rubric_ask(const rubric *r, uint32_t skill, const char *document, size_t n, ids *out) {
    const question q = {.skill = skill, .document = document, .n = n};
    QFW_TRY(encode(r, &q, out));
    const size_t at = out->n - r->tail[skill];
    if (out->n > r->tail[skill] && out->id[at] == r->token[skill][0]) {
        out->n = at;
        return QFW_OK;
    }
    return problem(r, "prompt",
        "the end of a document changes the token that is to say the score; hint: text between "
        "{document} and the answer");
}

qfw_status rubric_ask_reason(
    const rubric *r, uint32_t skill, uint32_t i, const char *document, size_t n, ids *out) {
    const question q = {skill, i, document, n, 1};
    return encode(r, &q, out);
}

char *rubric_text(const rubric *r, uint32_t skill, const char *document, size_t n) {
    const question q = {.skill = skill, .document = document, .n = n};
    parts p = {0};
    char *content = NULL, *text = NULL;
    if (add_prompt(r, &q, &content, &p) == QFW_OK) text = join(&p);
    mem_free(p.part);
    mem_free(content);
    return text;
}

char *rubric_prompt(const rubric *r, uint32_t skill, const char *document, size_t n) {
    const question q = {.skill = skill, .document = document, .n = n};
    parts p = {0};
    char *text = add_wording(r, &r->prompt, &q, 0, &p) ? NULL : join(&p);
    mem_free(p.part);
    return text;
}

char *rubric_answer(const rubric *r, uint32_t i, const char *reason) {
    parts p = {0};
    int bad = 0;
    for (size_t k = 0; k < r->answer.n && !bad; k++) {
        const piece *at = &r->answer.piece[k];
        const char *text = at->place == SCORE    ? r->level[i]
                           : at->place == REASON ? reason
                                                 : at->text;
        bad = add_part(&p, text, at->place == TEXT ? at->n : strlen(text), 0);
    }
    char *answer = bad ? NULL : join(&p);
    mem_free(p.part);
    return answer;
}

const char *rubric_reason(const rubric *r, uint32_t i, const char *text) {
    size_t k = 0;
    while (k < r->answer.n && r->answer.piece[k].place != SCORE) k++;
    text += strspn(text, " ");
    if (strncmp(text, r->level[i], strlen(r->level[i]))) return NULL;
    text += strlen(r->level[i]);
    for (k++; k < r->answer.n && r->answer.piece[k].place == TEXT; k++) {
        const piece *at = &r->answer.piece[k];
        size_t n = at->n;
        while (n > 0 && at->text[n - 1] == ' ') n--; /* decoded text may end before a blank */
        if (strncmp(text, at->text, n)) return NULL;
        text += n;
    }
    return text + strspn(text, " ");
}

/* --- levels --- */

static size_t common_start(const ids *a, const ids *b, size_t limit) {
    size_t i = 0;
    while (i < a->n && i < b->n && i < limit && a->id[i] == b->id[i]) i++;
    return i;
}

/* The levels' tokens at the first place where any two answers differ. */
static qfw_status compare_levels(rubric *r, uint32_t skill, const ids *answers) {
    size_t at = SIZE_MAX;
    for (uint32_t i = 1; i < r->scale.n_levels; i++)
        at = common_start(&answers[0], &answers[i], at);
    for (uint32_t i = 0; i < r->scale.n_levels; i++) {
        const int32_t token = r->token[skill][i] = at < answers[i].n ? answers[i].id[at] : -1;
        for (uint32_t k = 0; k < i; k++)
            if (token == r->token[skill][k]) {
                const char *name = tokenizer_token(r->o.tok, token);
                return problem(r, "scale",
                    "the levels %s and %s begin with the same token ('%.40s'), wanted one for each "
                    "level; hint: single digits, such as 0-5, or an answer without a blank before "
                    "{score}",
                    r->level[k], r->level[i], name ? name : "");
            }
    }
    if (at == 0) return problem(r, "prompt", "nothing stands before the score");
    r->tail[skill] = answers[0].n - at;
    return QFW_OK;
}

static qfw_status find_levels(rubric *r, uint32_t skill) {
    ids answers[MAX_LEVELS] = {{0}};
    qfw_status status = QFW_OK;
    question q = {.skill = skill, .document = "A.", .n = 2};
    for (; status == QFW_OK && q.level < r->scale.n_levels; q.level++)
        status = encode(r, &q, &answers[q.level]);
    if (status == QFW_OK) status = compare_levels(r, skill, answers);
    for (uint32_t i = 0; i < MAX_LEVELS; i++) ids_free(&answers[i]);
    return status;
}

/* --- the rubric --- */

/* Problems of different keys in one go; what they are needed for, after them. */
static qfw_status complete(rubric *r) {
    qfw_status status = read_skills(r), later = read_scale(r);
    if (status == QFW_OK) status = later;
    if ((later = read_prompt(r)) != QFW_OK && status == QFW_OK) status = later;
    if ((later = read_answer(r)) != QFW_OK && status == QFW_OK) status = later;
    if (status != QFW_OK) return status;
    QFW_TRY(read_definitions(r));
    if (r->o.chat && !r->o.template)
        return problem(r, "chat",
            "true, but the tokenizer's chat template is not one that is known here; hint: [data] "
            "chat_template");
    for (uint32_t i = 0; i < r->n_skills; i++) QFW_TRY(find_levels(r, i));
    return QFW_OK;
}

qfw_status rubric_create(const rubric_opts *o, rubric **out) {
    rubric *r = mem_alloc(1, sizeof *r);
    *out = NULL;
    if (!r) return QFW_E_NOMEM;
    r->o = *o;
    const char **texts[] = {
        &r->o.skills, &r->o.scale, &r->o.prompt, &r->o.answer, &r->o.definitions};
    qfw_status status = QFW_OK;
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        *texts[i] = r->texts[i] = mem_strdup(*texts[i]);
        if (!r->texts[i]) status = QFW_E_NOMEM;
    }
    err_clear();
    if (status == QFW_OK) status = complete(r);
    if (status != QFW_OK) {
        rubric_destroy(r);
        return status;
    }
    *out = r;
    return QFW_OK;
}

void rubric_destroy(rubric *r) {
    if (!r) return;
    wording_free(&r->prompt);
    wording_free(&r->answer);
    for (uint32_t i = 0; i < MAX_SKILLS; i++) mem_free(r->definition[i]);
    for (size_t i = 0; i < sizeof r->texts / sizeof r->texts[0]; i++) mem_free(r->texts[i]);
    mem_free(r->names);
    mem_free(r);
}

/* One of the two wordings; mem_free. */
static qfw_status read_wording(
    const ini *i, const qfw_cfg *section, const char *key, const char *file, char **out) {
    size_t n = 0;
    if (!*file) return cfg_unescaped(i, section, key, out);
    if (cfg_is_set(section, key))
        return cfg_problem(i, section, key, "set together with %s_file, wanted one of them", key);
    QFW_TRY(file_read(file, MAX_PROMPT, out, &n));
    if (strlen(*out) != n) return err_fail("E_DATA_UTF8", QFW_E_DATA, "%s: it holds a NUL", file);
    if (n > 0 && (*out)[n - 1] == '\n') (*out)[--n] = 0;
    if (n > 0 && (*out)[n - 1] == '\r') (*out)[--n] = 0;
    return QFW_OK;
}

qfw_status rubric_read(const ini *i, const qfw_cfg *section, const tokenizer *tok,
    const chat_template *template, rubric **out) {
    char *prompt = NULL, *answer = NULL;
    *out = NULL;
    err_clear();
    qfw_status status =
        read_wording(i, section, "prompt", cfg_text(section, "prompt_file"), &prompt);
    if (status == QFW_OK) status = read_wording(i, section, "answer", "", &answer);
    const rubric_opts o = {.skills = cfg_text(section, "skills"),
        .scale = cfg_text(section, "scale"),
        .prompt = prompt,
        .answer = answer,
        .definitions = cfg_text(section, "definitions"),
        .chat = (int)cfg_int(section, "chat"),
        .tok = tok,
        .template = template,
        .ini = i,
        .section = section};
    if (status == QFW_OK) status = rubric_create(&o, out);
    mem_free(prompt);
    mem_free(answer);
    return status;
}

const rubric_opts *rubric_says(const rubric *r) { return &r->o; }
uint32_t rubric_skills(const rubric *r) { return r->n_skills; }
const char *rubric_skill(const rubric *r, uint32_t i) { return r->skill[i]; }
scale rubric_scale(const rubric *r) { return r->scale; }
int rubric_has_reason(const rubric *r) { return r->answer.count[REASON] != 0; }
int32_t rubric_level(const rubric *r, uint32_t skill, uint32_t i) { return r->token[skill][i]; }

void rubric_digest(const rubric *r, char hex[65]) {
    sha256 s;
    sha256_init(&s);
    const char *const texts[] = {r->o.skills, r->o.scale, r->o.prompt, r->o.answer,
        r->o.chat ? chat_name(r->o.template) : ""};
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++)
        sha256_add(&s, texts[i], strlen(texts[i]) + 1);
    for (uint32_t i = 0; i < r->n_skills; i++) {
        const char *text = r->definition[i] ? r->definition[i] : "";
        sha256_add(&s, text, strlen(text) + 1);
    }
    sha256_hex(&s, hex);
}
