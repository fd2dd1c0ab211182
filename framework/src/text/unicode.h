/* unicode.h -- UTF-8, and what Unicode says of a character: the way to utf8proc. */
#ifndef TEXT_UNICODE_H
#define TEXT_UNICODE_H

#include "qfw/status.h"
#include "text/tagged.h"

/* The character at s, of n bytes: how many bytes it has; 0 where they are not well-formed UTF-8. */
size_t utf8_read(const char *s, size_t n, uint32_t *c);
size_t utf8_write(uint32_t c, char out[4]);
/* The first byte that is not well-formed; n where all are. */
size_t utf8_check(const char *s, size_t n);

int unicode_is_space(uint32_t c); /* White_Space */
int unicode_is_word(uint32_t c);  /* \w: alphabetic, mark, decimal digit, connector, joiner */
int unicode_width(uint32_t c);    /* columns on a terminal */

enum { UNICODE_NFC = 0, UNICODE_NFD, UNICODE_NFKC, UNICODE_NFKD };
/* Append `in` in a normal form, in linear time. A composed character has its first part's tag. */
qfw_status unicode_normalize(tagged_view in, int form, tagged *out);

#endif
