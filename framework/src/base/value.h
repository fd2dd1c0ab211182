/* value.h -- one option's value: from the text of the INI to what the option's type says. */
#ifndef BASE_VALUE_H
#define BASE_VALUE_H

#include "base/option.h"

/* Parse `text` as `o` demands into v->i, v->f and v->s, a copy in the spelling that parses to
 * the same value from any folder (mem_free). 1 when it is good; 0 with the reason in why[cap]:
 * what was found and what is allowed; -1 after err_fail when there is no memory. On 0 and -1 *v
 * is as it was. The default of the table is parsed with `is_default`: it may lie outside the
 * range. */
int value_parse(const qfw_option *o, const char *text, const char *folder, int is_default,
    struct cfg_value *v, char *why, size_t cap);
/* "0 .. 1", "above 0, at most 1", "adamw | sgd": what the option allows, into buf; "" for
 * anything. */
const char *value_allowed(const qfw_option *o, char *buf, size_t cap);
/* "an integer": the option's type in words. */
const char *value_type(const qfw_option *o);

#endif
