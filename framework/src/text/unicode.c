/* unicode.c -- characters: the only file that knows utf8proc.
 *
 * Marks are ordered and composed here, not by utf8proc: tags have to follow their characters, and
 * its ordering takes quadratic time on a long run of marks.
 */
#include "text/unicode.h"

#include <string.h>
#include <utf8proc.h>

#include "base/mem.h"

enum { MAX_DECOMPOSED = 32, FIRST_COMPOSING = 0x300 };

/* --- UTF-8 --- */

size_t utf8_read(const char *s, size_t n, uint32_t *c) {
    utf8proc_int32_t got = 0;
    if (n == 0) return 0;
    const utf8proc_ssize_t size =
        utf8proc_iterate((const utf8proc_uint8_t *)s, n < 4 ? (utf8proc_ssize_t)n : 4, &got);
    if (size <= 0) return 0;
    *c = (uint32_t)got;
    return (size_t)size;
}

size_t utf8_write(uint32_t c, char out[4]) {
    return (size_t)utf8proc_encode_char((utf8proc_int32_t)c, (utf8proc_uint8_t *)out);
}

size_t utf8_check(const char *s, size_t n) {
    uint32_t c;
    for (size_t i = 0, size; i < n; i += size) {
        size = (unsigned char)s[i] < 0x80 ? 1 : utf8_read(s + i, n - i, &c);
        if (size == 0) return i;
    }
    return n;
}

/* --- properties --- */

int unicode_is_space(uint32_t c) {
    if (c < 0x80) return c == ' ' || (c >= '\t' && c <= '\r');
    if (c == 0x85) return 1;
    const utf8proc_category_t category = utf8proc_category((utf8proc_int32_t)c);
    return category == UTF8PROC_CATEGORY_ZS || category == UTF8PROC_CATEGORY_ZL ||
           category == UTF8PROC_CATEGORY_ZP;
}

int unicode_is_word(uint32_t c) {
    switch (utf8proc_category((utf8proc_int32_t)c)) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_MC:
    case UTF8PROC_CATEGORY_ME:
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_PC: return 1;
    default: break;
    }
    /* The joiners, and the symbols that are alphabetic: letters in circles and squares. */
    return c == 0x200c || c == 0x200d || (c >= 0x24b6 && c <= 0x24e9) ||
           (c >= 0x1f130 && c <= 0x1f149) || (c >= 0x1f150 && c <= 0x1f169) ||
           (c >= 0x1f170 && c <= 0x1f189);
}

int unicode_width(uint32_t c) { return utf8proc_charwidth((utf8proc_int32_t)c); }

/* --- normal forms --- */

typedef struct letter {
    utf8proc_int32_t c;
    uint8_t tag, class; /* canonical combining class; 0: a starter */
} letter;

typedef struct letters {
    letter *at;
    size_t n, cap;
} letters;

static int decompose(tagged_view in, utf8proc_option_t options, letters *out) {
    utf8proc_int32_t part[MAX_DECOMPOSED];
    uint32_t c = 0;
    for (size_t i = 0, size; i < in.n; i += size) {
        int boundary = 0;
        size = utf8_read(in.s + i, in.n - i, &c);
        if (size == 0) return -1;
        const utf8proc_ssize_t n =
            utf8proc_decompose_char((utf8proc_int32_t)c, part, MAX_DECOMPOSED, options, &boundary);
        if (n < 0 || n > MAX_DECOMPOSED) return -1;
        if (mem_grow(&out->at, &out->cap, out->n + (size_t)n, sizeof *out->at)) return -1;
        for (utf8proc_ssize_t k = 0; k < n; k++) {
            const utf8proc_propval_t class = utf8proc_get_property(part[k])->combining_class;
            out->at[out->n++] = (letter){part[k], in.tag[i], (uint8_t) class};
        }
    }
    return 0;
}

/* Sort run[0..n) by class, stably, by counting. */
static void order_marks(letter *run, size_t n, letter *spare) {
    size_t first[257] = {0};
    for (size_t i = 0; i < n; i++) first[run[i].class + 1]++;
    for (size_t k = 1; k < 257; k++) first[k] += first[k - 1];
    for (size_t i = 0; i < n; i++) spare[first[run[i].class]++] = run[i];
    memcpy(run, spare, n * sizeof *run);
}

/* Put each run of marks in canonical order. */
static int order(letters *text) {
    letter *spare = NULL;
    size_t cap = 0;
    for (size_t i = 0, end; i < text->n; i = end) {
        int sorted = 1;
        for (end = i + 1; end < text->n && text->at[i].class && text->at[end].class; end++)
            if (text->at[end].class < text->at[end - 1].class) sorted = 0;
        if (sorted) continue;
        if (mem_grow(&spare, &cap, end - i, sizeof *spare)) {
            mem_free(spare);
            return -1;
        }
        order_marks(text->at + i, end - i, spare);
    }
    mem_free(spare);
    return 0;
}

/* The character that a and b make together; 0: none. */
static utf8proc_int32_t compose_pair(utf8proc_int32_t a, utf8proc_int32_t b) {
    utf8proc_int32_t pair[2] = {a, b};
    if (b < FIRST_COMPOSING) return 0;
    return utf8proc_normalize_utf32(pair, 2, UTF8PROC_COMPOSE | UTF8PROC_STABLE) == 1 ? pair[0] : 0;
}

/* Unicode's canonical composition, in place. */
static void compose(letters *text) {
    size_t n = 0, starter = SIZE_MAX;
    for (size_t i = 0; i < text->n; i++) {
        const letter l = text->at[i];
        const int open =
            starter != SIZE_MAX && (n - 1 == starter || text->at[n - 1].class < l.class);
        const utf8proc_int32_t both = open ? compose_pair(text->at[starter].c, l.c) : 0;
        if (both) {
            text->at[starter].c = both;
            continue;
        }
        if (l.class == 0) starter = n;
        text->at[n++] = l;
    }
    text->n = n;
}

static int write_letters(const letters *text, tagged *out) {
    char bytes[4];
    for (size_t i = 0; i < text->n; i++) {
        const size_t size = utf8_write((uint32_t)text->at[i].c, bytes);
        if (tagged_add(out, bytes, size, text->at[i].tag)) return -1;
    }
    return 0;
}

qfw_status unicode_normalize(tagged_view in, int form, tagged *out) {
    letters text = {0};
    const int compat = form == UNICODE_NFKC || form == UNICODE_NFKD;
    size_t ascii = 0;
    while (ascii < in.n && (unsigned char)in.s[ascii] < 0x80) ascii++;
    if (ascii == in.n) return tagged_copy(out, in) ? QFW_E_NOMEM : QFW_OK;
    int bad =
        decompose(in, UTF8PROC_STABLE | UTF8PROC_DECOMPOSE | (compat ? UTF8PROC_COMPAT : 0), &text);
    if (!bad) bad = order(&text);
    if (!bad && (form == UNICODE_NFC || form == UNICODE_NFKC)) compose(&text);
    if (!bad) bad = write_letters(&text, out);
    mem_free(text.at);
    return bad ? QFW_E_NOMEM : QFW_OK;
}
