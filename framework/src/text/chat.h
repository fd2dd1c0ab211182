/* chat.h -- the chat templates that qfw knows, by name: they are code here, a model's Jinja is
 * never run.
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
/* "phi3-mini", "phi3-medium"; NULL: unknown. */
const chat_template *chat_by_name(const char *name);
/* By the Jinja text of a tokenizer_config.json; NULL: not one of ours. */
const chat_template *chat_by_jinja(const char *jinja);
const char *chat_name(const chat_template *c);

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

/* Append the pieces of messages that chat_check accepts, else E_DATA_FIELD. generation_prompt = 1:
 * end ready for the assistant. eos: the tokenizer's, NULL if it has none. A folded system turn
 * stands in front of the user's content, a blank line between. allow_special = 1: contents are
 * special-aware too. */
qfw_status chat_apply(const chat_template *c, const chat_message *m, size_t n, const char *eos,
    int generation_prompt, int system_policy, int allow_special, chat_render *out);
void chat_render_free(chat_render *r);

#endif
