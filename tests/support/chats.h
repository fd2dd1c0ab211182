/* chats.h -- conversations as the models' own templates render them (tests/golden/tokenizer). */
#ifndef SUPPORT_CHATS_H
#define SUPPORT_CHATS_H

#include "files/json.h"
#include "text/chat.h"

/* All rows of chat.json under `key`: the text and, where t is not NULL, the ids. `prompt` asks for
 * the assistant's turn. How many rows; *specials grows by those with special tokens typed in. */
size_t chats_check(qfw_doc *fixture, const chat_template *c, const char *key, int prompt,
    const tokenizer *t, int *specials);

#endif
