/* rubric.h -- what is scored, on which scale, and in which words the model is asked.
 *
 * The score is one token: the one that stands at {score} of the answer. Where that is and which
 * token says which level is found by encoding the answer with every level, so that it is what a
 * model has learnt from rows of prompt and completion with the same words.
 */
#ifndef SERVE_RUBRIC_H
#define SERVE_RUBRIC_H

#include "base/option.h"
#include "serve/evaluation.h"
#include "text/chat.h"

enum { N_RUBRIC_OPTIONS = 7 };
extern const qfw_option rubric_options[N_RUBRIC_OPTIONS]; /* [rubric] */

typedef struct rubric_opts {
    const char *skills;      /* names with ',' between them */
    const char *scale;       /* "0-5" */
    const char *prompt;      /* with {document} {skill} {definition} {low} {high} */
    const char *answer;      /* with {score} {reason} */
    const char *definitions; /* a JSON file, {"<skill>": "<text>"}; "": none */
    int chat;                /* the prompt is a user turn, the answer the assistant's */
    const tokenizer *tok;
    const chat_template *template; /* NULL: the tokenizer's is not known */
    const ini *ini;                /* of `section`, for the place of a problem; NULL: none */
    const qfw_cfg *section;
} rubric_opts;

typedef struct rubric rubric;
/* What rubric_options say, escapes resolved and prompt_file read. The texts belong to the rubric:
 * with other words in *o, rubric_create makes another one. */
qfw_status rubric_read(const ini *i, const qfw_cfg *section, const tokenizer *tok,
    const chat_template *template, rubric **out);
/* A rubric that is complete and whose levels are told apart by one token; else every problem, by
 * its key. The texts of `o` are copied. */
qfw_status rubric_create(const rubric_opts *o, rubric **out);
void rubric_destroy(rubric *r); /* NULL is ignored */
const rubric_opts *rubric_says(const rubric *r);

uint32_t rubric_skills(const rubric *r);
const char *rubric_skill(const rubric *r, uint32_t i);
scale rubric_scale(const rubric *r);
int rubric_has_reason(const rubric *r); /* the answer has a {reason} */

/* The question about one skill of a document of n bytes: all tokens before that of the score,
 * replacing what `out` holds. Blanks and line ends around the document are left out; what looks
 * like a special token in it is plain text. [any] */
qfw_status rubric_ask(const rubric *r, uint32_t skill, const char *document, size_t n, ids *out);
/* The token that says level i of the scale, after the question about that skill. */
int32_t rubric_level(const rubric *r, uint32_t skill, uint32_t i);
/* The question and the answer with level i, up to where its reason begins. [any] */
qfw_status rubric_ask_reason(
    const rubric *r, uint32_t skill, uint32_t i, const char *document, size_t n, ids *out);
/* The question as text, for a person; mem_free. NULL without memory. */
char *rubric_text(const rubric *r, uint32_t skill, const char *document, size_t n);
/* The same without a chat template's marks: what a row's prompt says. mem_free; NULL: no memory. */
char *rubric_prompt(const rubric *r, uint32_t skill, const char *document, size_t n);
/* An answer in the rubric's words: level i and a reason. mem_free; NULL: no memory. */
char *rubric_answer(const rubric *r, uint32_t i, const char *reason);
/* The reason of an answer's text from its score on ("3. knows it well"), saying level i: a place
 * in `text`, its end if the answer has no reason; NULL where it does not go as the rubric's do. */
const char *rubric_reason(const rubric *r, uint32_t i, const char *text);
/* A SHA-256 over all that a score depends on here, definitions included. */
void rubric_digest(const rubric *r, char hex[65]);

#endif
