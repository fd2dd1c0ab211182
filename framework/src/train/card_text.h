/* card_text.h -- any text where a model card holds it: it stays text, whoever wrote it. */
#ifndef TRAIN_CARD_TEXT_H
#define TRAIN_CARD_TEXT_H

#include <stdio.h>

/* prefix and text as one YAML scalar in double quotes, on one line. Bytes that are no UTF-8 and
 * characters that YAML does not hold as they are become escapes or U+FFFD. */
void card_yaml(FILE *out, const char *prefix, const char *text);
/* One cell of a Markdown table: no markup, no link, no HTML, no second line. */
void card_markdown(FILE *out, const char *text);
/* As the Hub names it ("cc-by-4.0"), in any case of letters; NULL: it has no name there. */
const char *card_licence(const char *text);

#endif
