/* chat.c -- see chat.h. A template is a row of strings around the contents. */
#include "text/chat.h"

#include <stdio.h>
#include <string.h>

#include "base/error.h"
#include "base/mem.h"
#include "files/file.h"

enum { ROLE_SYSTEM, ROLE_USER, ROLE_ASSISTANT, ROLES };
static const char *const role_names[ROLES] = {"system", "user", "assistant"};

struct chat_template {
    const char *name, *jinja_sha256;
    const char *before[ROLES], *after[ROLES]; /* NULL: the template has no such turn */
    const char *prompt;                       /* at the end, when the assistant is to answer */
    int flags;
    const char *start, *end; /* of one that is declared; else NULL */
    char *owned[6], made_name[24];
};

enum { BEGINS_WITH_BOS = 1, ENDS_IN_EOS = 2 /* when not prompting */, SKIPS_EMPTY_SYSTEM = 4 };

#define PHI3_TURNS                                                                                 \
    .before = {"<|system|>\n", "<|user|>\n", "<|assistant|>\n"},                                   \
    .after = {"<|end|>\n", "<|end|>\n", "<|end|>\n"}, .prompt = "<|assistant|>\n"

/* Medium, and the first revision of mini: the user's turn opens the assistant's. */
#define PHI3_OPENED_TURNS                                                                          \
    .before = {NULL, "<|user|>\n", ""}, .after = {NULL, "<|end|>\n<|assistant|>\n", "<|end|>\n"},  \
    .prompt = ""

static const chat_template templates[] = {
    {.name = "phi3-mini",
        .jinja_sha256 = "dcaee66df77bfbb789ec541fe713218da30225a526f1db97138fc39ee6dc56aa",
        PHI3_TURNS,
        .flags = ENDS_IN_EOS},
    {.name = "phi3-medium",
        .jinja_sha256 = "605841622bcb6572225608f09ec2afcdfb9fb50844ef52715a12689f7b9278b1",
        PHI3_OPENED_TURNS},
    {.name = "phi3-april",
        .jinja_sha256 = "268b6082ceb7176dc6ed80557a2f7837f9f0339592fbee677d405a553af15f88",
        PHI3_OPENED_TURNS,
        .flags = BEGINS_WITH_BOS},
    {.name = "phi3.5",
        .jinja_sha256 = "78d976a442bcde2f0be15aafbb8e3050e1104f86732266f68403251b89982a90",
        PHI3_TURNS,
        .flags = ENDS_IN_EOS | SKIPS_EMPTY_SYSTEM},
    {.name = "phi4",
        .jinja_sha256 = "fe4120415a3858b873955c92ce3a103a95bc97c2cb00b72e62659aaf0f891ee5",
        .before = {"<|im_start|>system<|im_sep|>", "<|im_start|>user<|im_sep|>",
            "<|im_start|>assistant<|im_sep|>"},
        .after = {"<|im_end|>", "<|im_end|>", "<|im_end|>"},
        .prompt = "<|im_start|>assistant<|im_sep|>"},
    {.name = "phi4-mini",
        .jinja_sha256 = "febf589225c9728ab791f52e8897d7607a823d45368f0a4c92fa68997b40cce9",
        .before = {"<|system|>", "<|user|>", "<|assistant|>"},
        .after = {"<|end|>", "<|end|>", "<|end|>"},
        .prompt = "<|assistant|>",
        .flags = ENDS_IN_EOS},
};
enum { N_TEMPLATES = sizeof templates / sizeof templates[0] };

const chat_template *chat_by_name(const char *name) {
    for (size_t i = 0; i < N_TEMPLATES; i++)
        if (!strcmp(templates[i].name, name)) return &templates[i];
    return NULL;
}

/* The digest of the Jinja text, a line break written as \n taken as one, and without the one at its
 * end, which Jinja drops. */
static void jinja_digest(const char *jinja, char hex[65]) {
    sha256 digest;
    size_t n = strlen(jinja);
    if (n > 0 && jinja[n - 1] == '\n') n--;
    sha256_init(&digest);
    for (size_t i = 0; i < n; i++) {
        const int is_break = jinja[i] == '\\' && i + 1 < n && jinja[i + 1] == 'n';
        sha256_add(&digest, is_break ? "\n" : jinja + i, 1);
        i += (size_t)is_break;
    }
    sha256_hex(&digest, hex);
}

const chat_template *chat_by_jinja(const char *jinja) {
    char hex[65];
    jinja_digest(jinja, hex);
    for (size_t i = 0; i < N_TEMPLATES; i++)
        if (!strcmp(templates[i].jinja_sha256, hex)) return &templates[i];
    return NULL;
}

const char *chat_name(const chat_template *c) { return c->name; }
int chat_is_declared(const chat_template *c) { return c->jinja_sha256 == NULL; }

/* --- what an INI declares --- */

static const char content_mark[] = "{content}";

size_t chat_contents(const char *turn) {
    size_t n = 0;
    for (; (turn = strstr(turn, content_mark)) != NULL; turn += sizeof content_mark - 1) n++;
    return n;
}

/* Cut a turn's text, which is owned, at its {content}. */
static void cut_turn(chat_template *c, int role) {
    char *mark = strstr(c->owned[role], content_mark);
    if (!mark) return;
    *mark = 0;
    c->before[role] = c->owned[role];
    c->after[role] = mark + sizeof content_mark - 1;
}

qfw_status chat_declare(const chat_declaration *d, chat_template **out) {
    const char *const text[6] = {d->system, d->user, d->assistant, d->start, d->prompt, d->end};
    chat_template *c = mem_alloc(1, sizeof *c);
    sha256 digest;
    char hex[65];
    qfw_status status = c ? QFW_OK : QFW_E_NOMEM;
    *out = NULL;
    sha256_init(&digest);
    for (size_t i = 0; status == QFW_OK && i < 6; i++) {
        sha256_add(&digest, text[i], strlen(text[i]) + 1);
        c->owned[i] = mem_strdup(text[i]);
        if (!c->owned[i]) status = QFW_E_NOMEM;
    }
    if (status != QFW_OK) {
        chat_undeclare(c);
        return status;
    }
    for (int role = 0; role < ROLES; role++) cut_turn(c, role);
    sha256_hex(&digest, hex);
    snprintf(c->made_name, sizeof c->made_name, "declared-%.12s", hex);
    c->name = c->made_name;
    c->start = c->owned[ROLES];
    c->prompt = c->owned[ROLES + 1];
    c->end = c->owned[ROLES + 2];
    *out = c;
    return QFW_OK;
}

void chat_undeclare(chat_template *c) {
    if (!c) return;
    for (size_t i = 0; i < sizeof c->owned / sizeof c->owned[0]; i++) mem_free(c->owned[i]);
    mem_free(c);
}

/* --- what can be rendered --- */

static int role_of(const char *role) {
    int i = 0;
    while (i < ROLES && strcmp(role_names[i], role) != 0) i++;
    return i;
}

/* What is wrong with a message after those before it, or NULL. `wanted` is whose turn it is. */
static const char *turn_problem(
    const chat_template *c, int role, size_t i, int wanted, int system_policy) {
    if (role == ROLES) return "wanted system, user or assistant";
    if (role == ROLE_SYSTEM && i > 0) return "a system turn may only be the first";
    if (role == ROLE_SYSTEM && !c->before[ROLE_SYSTEM] && system_policy != CHAT_SYSTEM_FOLD)
        return "the chat template has no system turn and would drop it; hint: [data] system_turn = "
               "fold puts it into the user turn";
    if (role == ROLE_SYSTEM || role == wanted) return NULL;
    return wanted == ROLE_USER ? "wanted user: user and assistant take turns, the user first"
                               : "wanted assistant: user and assistant take turns";
}

int chat_check(const chat_template *c, const chat_message *m, size_t n, int system_policy,
    chat_problem *problem) {
    int wanted = ROLE_USER;
    problem->message = 0;
    for (size_t i = 0; i < n; i++) {
        const int role = role_of(m[i].role);
        const char *what = turn_problem(c, role, i, wanted, system_policy);
        if (what) {
            problem->message = i;
            snprintf(problem->text, sizeof problem->text, "found '%.40s', %s", m[i].role, what);
            return 0;
        }
        if (role != ROLE_SYSTEM) wanted = role == ROLE_USER ? ROLE_ASSISTANT : ROLE_USER;
    }
    if (n > 1 || (n == 1 && role_of(m[0].role) != ROLE_SYSTEM)) return 1;
    snprintf(problem->text, sizeof problem->text, "%s",
        n ? "a system turn alone, wanted a user turn after it" : "no messages");
    return 0;
}

/* --- rendering --- */

static int add_piece(chat_render *r, const char *text, int special, int assistant) {
    const size_t n = strlen(text);
    if (n == 0) return 0;
    if (mem_grow(&r->piece, &r->cap, r->n + 1, sizeof *r->piece)) return -1;
    r->piece[r->n++] = (chat_piece){text, n, special, assistant};
    return 0;
}

/* Message i; *folded is a system turn that waits for the user's. */
static int add_message(const chat_template *c, const chat_message *m, int allow_special,
    const char **folded, chat_render *out) {
    const int role = role_of(m->role), assistant = role == ROLE_ASSISTANT;
    const char *system = *folded;
    if (role == ROLE_SYSTEM && c->flags & SKIPS_EMPTY_SYSTEM && !*m->content) return 0;
    if (!c->before[role]) {
        *folded = m->content;
        return 0;
    }
    *folded = NULL;
    if (add_piece(out, c->before[role], 1, 0)) return -1;
    if (system && (add_piece(out, system, allow_special, 0) || add_piece(out, "\n\n", 0, 0)))
        return -1;
    return add_piece(out, m->content, allow_special, assistant) ||
                   add_piece(out, c->after[role], 1, assistant)
               ? -1
               : 0;
}

static qfw_status needed(const chat_template *c, const char *what, const char *token) {
    if (token) return QFW_OK;
    return err_fail("E_TOK_SPECIAL", QFW_E_DATA,
        "chat template %s has the %s in it, and the tokenizer names no %s_token; hint: "
        "tokenizer_config.json",
        c->name, !strcmp(what, "bos") ? "BOS" : "EOS", what);
}

/* What stands before and after the turns. */
static qfw_status find_ends(
    const chat_template *c, const chat_opts *o, const char **start, const char **end) {
    *start = c->start ? c->start : "";
    *end = o->generation_prompt ? c->prompt : c->end ? c->end : "";
    if (c->flags & BEGINS_WITH_BOS) {
        QFW_TRY(needed(c, "bos", o->bos));
        *start = o->bos;
    }
    if (c->flags & ENDS_IN_EOS && !o->generation_prompt) {
        QFW_TRY(needed(c, "eos", o->eos));
        *end = o->eos;
    }
    return QFW_OK;
}

qfw_status chat_apply(
    const chat_template *c, const chat_message *m, size_t n, const chat_opts *o, chat_render *out) {
    const char *folded = NULL, *start = NULL, *end = NULL;
    chat_problem problem;
    if (!chat_check(c, m, n, o->system_policy, &problem))
        return err_fail(
            "E_DATA_FIELD", QFW_E_DATA, "message %zu: %s", problem.message, problem.text);
    QFW_TRY(find_ends(c, o, &start, &end));
    int bad = add_piece(out, start, 1, 0);
    for (size_t i = 0; !bad && i < n; i++)
        bad = add_message(c, &m[i], o->allow_special, &folded, out);
    const int answered = role_of(m[n - 1].role) == ROLE_ASSISTANT && !o->generation_prompt;
    if (!bad) bad = add_piece(out, end, 1, answered);
    if (bad) chat_render_free(out);
    return bad ? QFW_E_NOMEM : QFW_OK;
}

void chat_render_free(chat_render *r) {
    mem_free(r->piece);
    *r = (chat_render){0};
}
