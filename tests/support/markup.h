/* markup.h -- is a text well-formed markup, and does it ask for anything from elsewhere? */
#ifndef SUPPORT_MARKUP_H
#define SUPPORT_MARKUP_H

/* NULL, or (static) what is wrong: elements that do not nest, attributes without quotes or twice,
 * bare & and <, control characters. is_xml 0: HTML, where some elements have no end and a
 * <!doctype html> may lead. */
const char *markup_problem(const char *text, int is_xml);
/* NULL, or the place in `text` where it names something outside of itself, or a script. */
const char *markup_loads(const char *text);

#endif
