/* pattern.c -- regular expressions as the tokenizers library reads them: the only file that knows
 * PCRE2.
 *
 * The library uses Oniguruma. What both read alike is taken as it is; \s is written out, for
 * PCRE2's has one character more (U+180E); what differs further, or is not known not to, is
 * refused.
 */
#include <stdio.h>
#include <string.h>

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include "base/error.h"
#include "base/mem.h"
#include "text/parts.h"
#include "text/tagged.h"

enum { MAX_PATTERN = 16384, MATCH_LIMIT = 100000000, MATCH_KIB = 1 << 20 };

struct pattern {
    pcre2_code *code;
    pcre2_match_context *limits;
};

/* --- translation --- */

static const char spaces[] = "\\t-\\r\\x{85}\\p{Z}"; /* White_Space */

/* The bytes of the escape at p, which begins with a backslash: \p{L} and \x{1F} are one. */
static size_t escape_bytes(const char *p) {
    if (!strchr("pPx", p[1]) || p[2] != '{') return 2;
    const size_t n = strcspn(p, "}");
    return p[n] ? n + 1 : n;
}

/* Append the escape p[0..n) as PCRE2 is to read it; 0 where it is unknown, or without memory. */
static int translate_escape(const char *p, size_t n, int in_class, tagged *out) {
    const char c = p[1];
    const int letter = (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z');
    if (c == 's' && in_class) return !tagged_add(out, spaces, sizeof spaces - 1, 0);
    if (c == 's' || (c == 'S' && !in_class))
        return !(tagged_add(out, "[^", c == 's' ? 1 : 2, 0) ||
                 tagged_add(out, spaces, sizeof spaces - 1, 0) || tagged_add(out, "]", 1, 0));
    /* Properties, control characters, and punctuation that stands for itself. */
    if (letter ? !strchr("pPxrntfd", c) : c <= ' ' || (c >= '0' && c <= '9')) return 0;
    return !tagged_add(out, p, n, 0);
}

/* Whether what begins at p, outside of a class, means the same in both libraries. Ruby's anchors
 * are those of lines, its {1,3}+ is not possessive, and its options reach elsewhere. */
static int is_alike(const char *p) {
    static const char *const groups[] = {"(?:", "(?i:", "(?!", "(?=", "(?<!", "(?<="};
    if (strchr("^$.", *p)) return 0;
    if (*p == '}' && p[1] == '+') return 0;
    if (strncmp(p, "(?", 2) != 0) return *p != '(' || p[1] != '*';
    for (size_t i = 0; i < sizeof groups / sizeof groups[0]; i++)
        if (!strncmp(p, groups[i], strlen(groups[i]))) return 1;
    return 0;
}

static int translate(const char *text, tagged *out) {
    int in_class = 0;
    for (size_t i = 0, n; text[i]; i += n) {
        const char *p = text + i;
        n = 1;
        if (*p == '\\') {
            if (!p[1]) return 0;
            n = escape_bytes(p);
            if (!translate_escape(p, n, in_class, out)) return 0;
            continue;
        }
        if (in_class ? *p == '[' || !strncmp(p, "&&", 2) : !is_alike(p)) return 0;
        if (*p == '[') {
            in_class = 1;
            if (p[1] == '^') n = 2;
        } else if (*p == ']')
            in_class = 0;
        if (tagged_add(out, p, n, 0)) return 0;
    }
    return !in_class;
}

/* --- compiling --- */

static qfw_status compile(
    pattern *p, const char *text, size_t n, uint32_t options, const char *file) {
    int error = 0;
    size_t at = 0;
    PCRE2_UCHAR why[128];
    p->code = pcre2_compile((PCRE2_SPTR)text, n, options, &error, &at, NULL);
    p->limits = pcre2_match_context_create(NULL);
    if (p->code && p->limits) {
        pcre2_set_match_limit(p->limits, MATCH_LIMIT);
        pcre2_set_heap_limit(p->limits, MATCH_KIB);
        pcre2_jit_compile(p->code, PCRE2_JIT_COMPLETE); /* without it the same, only slower */
        return QFW_OK;
    }
    if (p->code) return err_fail("E_MEM", QFW_E_NOMEM, "%s: no memory for a pattern", file);
    pcre2_get_error_message(error, why, sizeof why);
    return err_fail("E_TOK_UNSUPPORTED", QFW_E_UNSUPPORTED, "%s: pre_tokenizer: pattern '%s': %s",
        file, text, (const char *)why);
}

qfw_status pattern_compile(const char *text, int literal, const char *file, pattern **out) {
    tagged translated = {0};
    const uint32_t options = PCRE2_UTF | PCRE2_NO_UTF_CHECK;
    *out = NULL;
    if (strlen(text) > MAX_PATTERN)
        return part_unsupported(file, "pre_tokenizer", "a pattern of so many bytes");
    pattern *p = mem_alloc(1, sizeof *p);
    if (!p) return QFW_E_NOMEM;
    qfw_status status = QFW_OK;
    if (literal) {
        status = compile(p, text, strlen(text), options | PCRE2_LITERAL, file);
    } else if (!translate(text, &translated)) {
        status = err_fail("E_TOK_UNSUPPORTED", QFW_E_UNSUPPORTED,
            "%s: pre_tokenizer: pattern '%s' uses what is not known to mean the same here", file,
            text);
    } else {
        status = compile(p, translated.s, translated.n, options | PCRE2_UCP, file);
    }
    tagged_free(&translated);
    if (status != QFW_OK) {
        pattern_free(p);
        return status;
    }
    *out = p;
    return QFW_OK;
}

void pattern_free(pattern *p) {
    if (!p) return;
    pcre2_code_free(p->code);
    pcre2_match_context_free(p->limits);
    mem_free(p);
}

/* --- matching --- */

static int add_span(pattern_spans *out, size_t end, int match) {
    if (mem_grow(&out->at, &out->cap, out->n + 1, sizeof *out->at)) return -1;
    out->at[out->n].end = end;
    out->at[out->n++].match = match;
    return 0;
}

/* The first match of some bytes from s[from] on: 1, and its ends in span; 0: none. */
static int find(
    const pattern *p, pcre2_match_data *m, const char *s, size_t n, size_t from, size_t span[2]) {
    int empty = 0;
    for (;;) {
        const uint32_t options = PCRE2_NO_UTF_CHECK | (empty ? PCRE2_NOTEMPTY : 0);
        int rc = pcre2_match(p->code, (PCRE2_SPTR)s, n, from, options, m, p->limits);
        if (rc == PCRE2_ERROR_JIT_STACKLIMIT)
            rc = pcre2_match(p->code, (PCRE2_SPTR)s, n, from, options | PCRE2_NO_JIT, m, p->limits);
        if (rc == PCRE2_ERROR_NOMATCH) return 0;
        if (rc < 0) return rc;
        const size_t *found = pcre2_get_ovector_pointer(m);
        span[0] = found[0];
        span[1] = found[1];
        if (span[1] > span[0]) return 1;
        empty = 1; /* an empty match cuts nothing: ask again for one that is not */
    }
}

qfw_status pattern_split(const pattern *p, const char *s, size_t n, pattern_spans *out) {
    size_t done = 0, span[2] = {0, 0};
    qfw_status status = QFW_OK;
    out->n = 0;
    pcre2_match_data *m = pcre2_match_data_create_from_pattern(p->code, NULL);
    if (!m) return err_fail("E_MEM", QFW_E_NOMEM, "tokenizer: no memory to match");
    while (status == QFW_OK && done < n) {
        const int found = find(p, m, s, n, done, span);
        if (found == 0) break;
        if (found < 0)
            status = err_fail("E_TOK_REGEX", QFW_E_DATA,
                "tokenizer: the pre-tokenizer's pattern gives up at byte %zu of a text (PCRE2 "
                "error %d)",
                done, found);
        else if ((span[0] > done && add_span(out, span[0], 0)) || add_span(out, span[1], 1))
            status = QFW_E_NOMEM;
        done = span[1];
    }
    pcre2_match_data_free(m);
    if (status == QFW_OK && done < n && add_span(out, n, 0)) status = QFW_E_NOMEM;
    return status;
}
