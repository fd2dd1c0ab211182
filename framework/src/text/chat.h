/* chat.h -- the chat templates that qfw knows, by name, and those that an INI declares: they are
 * strings here, a model's Jinja is never run.
 *
 * A template is chosen by the SHA-256 of the Jinja text that it mirrors, or by name in the INI.
 */
#ifndef TEXT_CHAT_H
#define TEXT_CHAT_H

#include "text/tokenizer.h"

typedef struct chat_message {
    const char *role, *content; /* "system", "user", "assistant" */
} chat_message;

/* What happens to a system turn where the template has none: never dropped silently. */
enum { CHAT_SYSTEM_ERROR = 0, CHAT_SYSTEM_FOLD = 1 };

typedef struct chat_template chat_template;
/* "phi3-mini", "phi3-medium", "phi3-april", "phi3.5", "phi4", "phi4-mini"; NULL: unknown. */
const chat_template *chat_by_name(const char *name);
/* By the Jinja text of a tokenizer's files; NULL: not one of ours. */
const chat_template *chat_by_jinja(const char *jinja);
/* Of a declared one "declared-" and 12 digits of what it says. */
const char *chat_name(const chat_template *c);
int chat_is_declared(const chat_template *c);

/* A template as an INI declares it. A turn is a text around one "{content}"; a system turn that is
 * "" is none. `prompt` invites the assistant, `end` ends what is not to be continued. */
typedef struct chat_declaration {
    const char *start, *system, *user, *assistant, *prompt, *end;
} chat_declaration;
/* How often a turn's text says "{content}". */
size_t chat_contents(const char *turn);
/* The turns say it once each. chat_undeclare frees. */
qfw_status chat_declare(const chat_declaration *d, chat_template **out);
void chat_undeclare(chat_template *c);

/* One rendered piece: template text (special-aware) or a message's content (plain text), and
 * whether the model is to learn it when only the assistant is trained. */
typedef struct chat_piece {
    const char *text;
    size_t n;
    int special;   /* for tokenizer_encode_parts */
    int assistant; /* belongs to an assistant turn's content or its end mark */
} chat_piece;
typedef struct chat_render {
    chat_piece *piece; /* texts are the template's, the caller's messages, and eos */
    size_t n, cap;
} chat_render;

/* Whether the template can render these messages: an optional system turn, then user and assistant
 * in turn. If not, what is wrong with which message. */
typedef struct chat_problem {
    size_t message;
    char text[256];
} chat_problem;
int chat_check(const chat_template *c, const chat_message *m, size_t n, int system_policy,
    chat_problem *problem);

/* How a conversation is rendered. */
typedef struct chat_opts {
    const char *bos, *eos; /* the tokenizer's; NULL: it has none */
    int generation_prompt; /* 1: end ready for the assistant */
    int system_policy; /* CHAT_SYSTEM_*; folded: before the user's content, a blank line between */
    int allow_special; /* 1: contents are special-aware too */
} chat_opts;
/* Append the pieces of messages that chat_check accepts, else E_DATA_FIELD; E_TOK_SPECIAL where the
 * template needs a token that the tokenizer does not name. */
qfw_status chat_apply(
    const chat_template *c, const chat_message *m, size_t n, const chat_opts *o, chat_render *out);
void chat_render_free(chat_render *r);

#endif
