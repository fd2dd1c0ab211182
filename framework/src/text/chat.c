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
    int ends_in_eos;                          /* at the end, when not */
};

static const chat_template templates[] = {
    {"phi3-mini", "dcaee66df77bfbb789ec541fe713218da30225a526f1db97138fc39ee6dc56aa",
        {"<|system|>\n", "<|user|>\n", "<|assistant|>\n"}, {"<|end|>\n", "<|end|>\n", "<|end|>\n"},
        "<|assistant|>\n", 1},
    {"phi3-medium", "605841622bcb6572225608f09ec2afcdfb9fb50844ef52715a12689f7b9278b1",
        {NULL, "<|user|>\n", ""}, {NULL, "<|end|>\n<|assistant|>\n", "<|end|>\n"}, "", 0},
};
enum { N_TEMPLATES = sizeof templates / sizeof templates[0] };

const chat_template *chat_by_name(const char *name) {
    for (size_t i = 0; i < N_TEMPLATES; i++)
        if (!strcmp(templates[i].name, name)) return &templates[i];
    return NULL;
}

const chat_template *chat_by_jinja(const char *jinja) {
    sha256 digest;
    char hex[65];
    sha256_init(&digest);
    sha256_add(&digest, jinja, strlen(jinja));
    sha256_hex(&digest, hex);
    for (size_t i = 0; i < N_TEMPLATES; i++)
        if (!strcmp(templates[i].jinja_sha256, hex)) return &templates[i];
    return NULL;
}

const char *chat_name(const chat_template *c) { return c->name; }

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

qfw_status chat_apply(const chat_template *c, const chat_message *m, size_t n, const char *eos,
    int generation_prompt, int system_policy, int allow_special, chat_render *out) {
    const char *folded = NULL, *end = generation_prompt ? c->prompt : "";
    chat_problem problem;
    int bad = 0;
    if (!chat_check(c, m, n, system_policy, &problem))
        return err_fail(
            "E_DATA_FIELD", QFW_E_DATA, "message %zu: %s", problem.message, problem.text);
    if (!generation_prompt && c->ends_in_eos) {
        if (!eos)
            return err_fail("E_TOK_SPECIAL", QFW_E_DATA,
                "chat template %s ends in the EOS, and the tokenizer names no eos_token; hint: "
                "tokenizer_config.json",
                c->name);
        end = eos;
    }
    for (size_t i = 0; !bad && i < n; i++) bad = add_message(c, &m[i], allow_special, &folded, out);
    const int answered = role_of(m[n - 1].role) == ROLE_ASSISTANT && !generation_prompt;
    if (!bad) bad = add_piece(out, end, 1, answered);
    if (bad) chat_render_free(out);
    return bad ? QFW_E_NOMEM : QFW_OK;
}

void chat_render_free(chat_render *r) {
    mem_free(r->piece);
    *r = (chat_render){0};
}
