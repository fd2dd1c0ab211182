/* chats.h -- conversations as the models' own templates render them (tests/golden/tokenizer). */
#ifndef SUPPORT_CHATS_H
#define SUPPORT_CHATS_H

#include "files/json.h"
#include "text/chat.h"

/* The test fails unless all rows of chat.json, rendered by c, have the fixture's digests: of the
 * texts and, where t is not NULL, of the ids (of rows in which special tokens are typed only with
 * ids_of_specials). `prompt` asks for the assistant's turn. How many rows have such tokens. */
size_t chats_check(
    qfw_doc *fixture, const chat_template *c, int prompt, const tokenizer *t, int ids_of_specials);

#endif
