/* value.c -- the grammar of option values. Numbers are read by rules of our own before libc sees
 * them, and never under the process's locale: a plugin may have called setlocale. */
#define _GNU_SOURCE /* strtod_l */
#include "base/value.h"

#include <locale.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/mem.h"

enum { MAX_VALUE = 4096 };

static size_t digits(const char *text) { return strspn(text, "0123456789"); }

qfw_status option_parse_i64(const char *text, int64_t *out) {
    const int negative = *text == '-';
    const char *p = text + (*text == '-' || *text == '+');
    uint64_t value = 0;
    const uint64_t limit = (uint64_t)INT64_MAX + (uint64_t)negative;
    if (!*p || p[digits(p)]) return QFW_E_CONFIG;
    for (; *p; p++) {
        const uint64_t digit = (uint64_t)(*p - '0');
        if (value > (limit - digit) / 10) return QFW_E_CONFIG;
        value = value * 10 + digit;
    }
    *out = negative ? -(int64_t)(value / 2) - (int64_t)(value - value / 2) : (int64_t)value;
    return QFW_OK;
}

/* [+-] digits [. digits] [e [+-] digits], with a digit before the exponent. */
static int is_decimal(const char *p) {
    p += *p == '-' || *p == '+';
    const size_t whole = digits(p);
    p += whole;
    size_t part = 0;
    if (*p == '.') part = digits(++p);
    p += part;
    if (whole + part == 0) return 0;
    if (*p == 'e' || *p == 'E') {
        p++;
        p += *p == '-' || *p == '+';
        if (!digits(p)) return 0;
        p += digits(p);
    }
    return *p == 0;
}

qfw_status option_parse_f64(const char *text, double *out) {
    if (!is_decimal(text)) return QFW_E_CONFIG;
    const locale_t c = newlocale(LC_ALL_MASK, "C", (locale_t)0);
    if (!c) return QFW_E_NOMEM;
    const double value = strtod_l(text, NULL, c);
    freelocale(c);
    /* Too large, or a number that is not 0 but so small that it would become 0. */
    const char *first = text + strcspn(text, "123456789eE");
    if (!isfinite(value) || (value == 0.0 && *first >= '1' && *first <= '9')) return QFW_E_CONFIG;
    *out = value;
    return QFW_OK;
}

/* 512MiB, 12GiB, plain bytes, or "auto" for 0. */
static int parse_bytes(const char *text, int64_t *out) {
    static const char *const units[] = {"", "KiB", "MiB", "GiB", "TiB"};
    char number[24];
    const size_t n = digits(text);
    if (strcmp(text, "auto") == 0) {
        *out = 0;
        return 1;
    }
    if (n == 0 || n >= sizeof number) return 0;
    memcpy(number, text, n);
    number[n] = 0;
    const char *unit = text + n + (text[n] == ' ');
    for (unsigned i = 0; i < sizeof units / sizeof *units; i++) {
        int64_t value;
        if (strcmp(unit, units[i]) != 0 || option_parse_i64(number, &value) != QFW_OK) continue;
        if (value > INT64_MAX >> 10 * i) return 0;
        *out = value << 10 * i;
        return 1;
    }
    return 0;
}

static int is_choice(const char *choices, const char *text) {
    const size_t n = strlen(text);
    for (const char *at = choices; n > 0 && at && *at;) {
        const size_t length = strcspn(at, "|");
        if (length == n && memcmp(at, text, n) == 0) return 1;
        at += length + (at[length] == '|');
    }
    return 0;
}

/* Words between commas, trimmed and joined by ','; `out` has room for text. 0 when a word is
 * empty. */
static int join_list(const char *text, char *out) {
    char *to = out;
    *out = 0;
    if (!text[strspn(text, " \t")]) return 1;
    for (;;) {
        text += strspn(text, " \t");
        size_t n = strcspn(text, ",");
        const char *next = text + n;
        while (n > 0 && (text[n - 1] == ' ' || text[n - 1] == '\t')) n--;
        if (n == 0) return 0;
        memmove(to, text, n);
        to += n;
        *to = 0;
        if (!*next) return 1;
        *to++ = ',';
        text = next + 1;
    }
}

const char *value_type(const qfw_option *o) {
    switch (o->type) {
    case QFW_OPT_BOOL: return "true or false";
    case QFW_OPT_INT: return "an integer";
    case QFW_OPT_FLOAT: return "a decimal number such as 2e-4";
    case QFW_OPT_STR: return "text";
    case QFW_OPT_PATH: return "a path";
    case QFW_OPT_BYTES: return "bytes such as 512MiB or 12GiB, or auto";
    case QFW_OPT_ENUM: return "a word";
    case QFW_OPT_LIST: return "words with commas between them";
    default: return "nothing";
    }
}

const char *value_allowed(const qfw_option *o, char *buf, size_t cap) {
    size_t used = 0;
    if (cap > 0) buf[0] = 0;
    if (o->type == QFW_OPT_ENUM) {
        for (const char *at = o->choices ? o->choices : ""; *at && used + 4 < cap; at++)
            used += (size_t)snprintf(buf + used, cap - used, *at == '|' ? " %c " : "%c", *at);
        return buf;
    }
    const double lo = o->lo, hi = o->hi;
    const char *fmt = o->flags & QFW_OPT_LO_OPEN ? "above %.*g, at most %.*g" : "%.*g .. %.*g";
    const int n_digits = o->type == QFW_OPT_FLOAT ? 9 : 19; /* whole bounds are shown whole */
    if (lo != 0.0 || hi != 0.0) snprintf(buf, cap, fmt, n_digits, lo, n_digits, hi);
    return buf;
}

/* Whether a number is inside lo..hi. */
static int in_range(const qfw_option *o, double value) {
    if (o->lo == 0.0 && o->hi == 0.0) return 1;
    return value <= o->hi && (o->flags & QFW_OPT_LO_OPEN ? value > o->lo : value >= o->lo);
}

/* 1 when `text` is a number or a truth value of o's type; v->i or v->f then holds it. */
static int parse_scalar(const qfw_option *o, const char *text, struct cfg_value *v) {
    switch (o->type) {
    case QFW_OPT_BOOL: v->i = strcmp(text, "true") == 0; return v->i || strcmp(text, "false") == 0;
    case QFW_OPT_INT: return option_parse_i64(text, &v->i) == QFW_OK;
    case QFW_OPT_BYTES: return parse_bytes(text, &v->i);
    default: return option_parse_f64(text, &v->f) == QFW_OK;
    }
}

/* The canonical text of a value that is a string: in `text`, or made in `made` (MAX_VALUE + 1
 * bytes). NULL with the reason in why. */
static const char *parse_text(
    const qfw_option *o, const char *text, const char *folder, char *made, char *why, size_t cap) {
    if (o->type == QFW_OPT_ENUM) {
        char allowed[256];
        if (is_choice(o->choices, text)) return text;
        snprintf(
            why, cap, "'%.100s', allowed: %s", text, value_allowed(o, allowed, sizeof allowed));
        return NULL;
    }
    if (o->type == QFW_OPT_LIST) {
        if (strlen(text) <= MAX_VALUE && join_list(text, made)) return made;
        snprintf(why, cap, "'%.100s' has an empty word, wanted %s", text, value_type(o));
        return NULL;
    }
    if (o->type != QFW_OPT_PATH || !*text || *text == '/') return text;
    const int n = snprintf(made, MAX_VALUE + 1, "%s/%s", folder, text);
    if (n < 0 || n > MAX_VALUE)
        snprintf(
            why, cap, "'%.100s' is a path of more than %d bytes from the root", text, MAX_VALUE);
    else if (strstr(made, " ;") || strstr(made, "\t;"))
        snprintf(why, cap, "'%.400s' holds ' ;', which an INI cannot", made);
    else
        return made;
    return NULL;
}

static int is_text(const qfw_option *o) {
    return o->type == QFW_OPT_STR || o->type == QFW_OPT_PATH || o->type == QFW_OPT_ENUM ||
           o->type == QFW_OPT_LIST;
}

int value_parse(const qfw_option *o, const char *text, const char *folder, int is_default,
    struct cfg_value *v, char *why, size_t cap) {
    char made[MAX_VALUE + 1], allowed[256];
    struct cfg_value parsed = *v;
    const char *canonical = text;
    if (is_text(o)) {
        if (!*text && !is_default && o->flags & QFW_OPT_REQUIRED && o->type != QFW_OPT_ENUM) {
            snprintf(why, cap, "nothing, wanted %s", value_type(o));
            return 0;
        }
        if (!(is_default && !*text)) canonical = parse_text(o, text, folder, made, why, cap);
        if (!canonical) return 0;
    } else if (!(is_default && !*text)) {
        if (!parse_scalar(o, text, &parsed)) {
            snprintf(why, cap, "'%.100s', wanted %s", text, value_type(o));
            return 0;
        }
        const double number = o->type == QFW_OPT_FLOAT ? parsed.f : (double)parsed.i;
        if (!is_default && o->type != QFW_OPT_BOOL && !in_range(o, number)) {
            snprintf(
                why, cap, "%.100s, allowed: %s", text, value_allowed(o, allowed, sizeof allowed));
            return 0;
        }
    }
    parsed.s = mem_strdup(canonical);
    if (!parsed.s) return -1;
    *v = parsed;
    return 1;
}
