/* error.c -- the thread's record of what went wrong.
 *
 * The record is thread-local storage of a fixed size, so that running out of memory can be reported
 * without memory. Names and values in the text come from strangers: whatever a terminal could act
 * on is escaped here, once, for every message of the program.
 */
#include "base/error.h"

#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* "qfw: ", one sentence and the newline make a line of at most 512 bytes. */
enum { SENTENCE_BYTES = 507, MAX_SENTENCES = 50, RAW_BYTES = 2048, MAX_WORD = 64 };

typedef struct sentence {
    const char *name;
    qfw_status status;
    char text[SENTENCE_BYTES];
} sentence;

typedef struct err_record {
    uint32_t n, n_unsaid;
    sentence said[MAX_SENTENCES];
} err_record;

static _Thread_local err_record record, held;

/* The longest matching prefix decides; what matches none is our own bug or a plugin's. */
static const struct {
    const char *prefix;
    int code;
} exit_codes[] = {
    {"E_ST_", EXIT_DATA},
    {"E_IDX_", EXIT_DATA},
    {"E_JSON", EXIT_DATA},
    {"E_CFG_", EXIT_DATA},
    {"E_MODEL_", EXIT_DATA},
    {"E_GGUF_", EXIT_DATA},
    {"E_TOK_", EXIT_DATA},
    {"E_DATA_", EXIT_DATA},
    {"E_QUANT_", EXIT_DATA},
    {"E_NOINPUT", EXIT_NOINPUT},
    {"E_USAGE", EXIT_USAGE},
    {"E_INI_", EXIT_CONFIG},
    {"E_CONFIG_", EXIT_CONFIG},
    {"E_PLUG_", EXIT_PLUGIN},
    {"E_DEV_MEM", EXIT_MEMORY},
    {"E_DEV_", EXIT_PLUGIN},
    {"E_MEM", EXIT_MEMORY},
    {"E_LIMIT", EXIT_MEMORY},
    {"E_PLAN_", EXIT_MEMORY},
    {"E_OUT_", EXIT_OUTPUT},
    {"E_IO_", EXIT_IOERR},
    {"E_CKPT_", EXIT_DATA},
    {"E_SIGNAL", EXIT_SIGNAL},
    {"E_NUM_", EXIT_NUMERIC},
};

size_t err_printable(const char *text) {
    const unsigned char *p = (const unsigned char *)text;
    if (p[0] < 0x80) return p[0] >= 0x20 && p[0] != 0x7f;
    const size_t n = p[0] >= 0xf0 ? 4 : p[0] >= 0xe0 ? 3 : 2;
    if (p[0] < 0xc2 || p[0] > 0xf4) return 0;
    for (size_t i = 1; i < n; i++)
        if ((p[i] & 0xc0) != 0x80) return 0;
    if (p[0] == 0xc2 && p[1] < 0xa0) return 0; /* U+0080..U+009F control terminals too */
    if ((p[0] == 0xe0 && p[1] < 0xa0) || (p[0] == 0xed && p[1] > 0x9f)) return 0;
    if ((p[0] == 0xf0 && p[1] < 0x90) || (p[0] == 0xf4 && p[1] > 0x8f)) return 0;
    return n;
}

void err_escape(char *dst, size_t cap, const char *text) {
    static const char hex[] = "0123456789abcdef";
    size_t used = 0, keep = 0; /* keep: the last end of a character that leaves room for "..." */
    while (*text) {
        const size_t n = err_printable(text), width = n ? n : 4;
        if (used + width >= cap) {
            memcpy(dst + keep, "...", 4);
            return;
        }
        const unsigned char byte = (unsigned char)*text;
        const char escaped[4] = {'\\', 'x', hex[byte >> 4], hex[byte & 15]};
        memcpy(dst + used, n ? text : escaped, width);
        used += width;
        text += n ? n : 1;
        if (used + 3 < cap) keep = used;
    }
    dst[used] = 0;
}

static void err_keep(const char *name, qfw_status status, const char *fmt, va_list args) {
    char raw[RAW_BYTES];
    if (record.n == MAX_SENTENCES) {
        record.n_unsaid++;
        return;
    }
    const int head = snprintf(raw, sizeof raw, "error[%s] ", name);
    if (head > 0 && (size_t)head < sizeof raw)
        vsnprintf(raw + head, sizeof raw - (size_t)head, fmt, args);
    sentence *s = &record.said[record.n++];
    s->name = name;
    s->status = status;
    err_escape(s->text, sizeof s->text, raw);
}

qfw_status err_fail(const char *name, qfw_status code, const char *fmt, ...) {
    va_list args;
    va_start(args, fmt);
    /* The arguments may point into the record (err_text): it is emptied but not yet overwritten
     * while err_keep formats into its own buffer. */
    record.n = record.n_unsaid = 0;
    err_keep(name, code, fmt, args);
    va_end(args);
    return code;
}

qfw_status err_also(const char *name, qfw_status code, const char *fmt, ...) {
    va_list args;
    va_start(args, fmt);
    err_keep(name, code, fmt, args);
    va_end(args);
    return code;
}

/* What stands behind "error[NAME] "; names hold no ']'. */
static char *err_body(char *text) {
    char *close = strchr(text, ']');
    return close ? close + 2 : text;
}

void err_prefix(const char *fmt, ...) {
    char raw[RAW_BYTES];
    va_list args;
    if (record.n == 0) return;
    char *text = record.said[record.n - 1].text, *body = err_body(text);
    const int head = snprintf(raw, sizeof raw, "%.*s", (int)(body - text), text);
    va_start(args, fmt);
    const int said = vsnprintf(raw + head, sizeof raw / 2, fmt, args);
    va_end(args);
    const size_t at = (size_t)head + (said < 0                           ? 0
                                         : (size_t)said < sizeof raw / 2 ? (size_t)said
                                                                         : sizeof raw / 2 - 1);
    snprintf(raw + at, sizeof raw - at, ": %s", body);
    err_escape(text, SENTENCE_BYTES, raw);
}

void err_clear(void) { record.n = record.n_unsaid = 0; }

void err_hold(void) {
    held = record;
    err_clear();
}

void err_join(void) {
    for (uint32_t i = 0; i < record.n; i++) {
        if (held.n < MAX_SENTENCES)
            held.said[held.n++] = record.said[i];
        else
            held.n_unsaid++;
    }
    held.n_unsaid += record.n_unsaid;
    record = held;
}

/* The line of `path` that the sentence is about; the largest number: none. */
static unsigned long err_line(sentence *s, const char *path) {
    const char *body = err_body(s->text);
    const size_t n = strlen(path);
    const int has =
        !strncmp(body, path, n) && body[n] == ':' && body[n + 1] >= '0' && body[n + 1] <= '9';
    return has ? strtoul(body + n + 1, NULL, 10) : ULONG_MAX;
}

void err_sort(const char *path) {
    for (uint32_t i = 1; i < record.n; i++) {
        const sentence s = record.said[i];
        const unsigned long line = err_line(&record.said[i], path);
        uint32_t at = i;
        for (; at > 0 && err_line(&record.said[at - 1], path) > line; at--)
            record.said[at] = record.said[at - 1];
        record.said[at] = s;
    }
}

uint32_t err_count(void) { return record.n; }
uint32_t err_unsaid(void) { return record.n_unsaid; }
const char *err_text(uint32_t i) { return i < record.n ? record.said[i].text : NULL; }
const char *err_name(void) { return record.n ? record.said[0].name : ""; }
qfw_status err_status(void) { return record.n ? record.said[0].status : QFW_OK; }

int err_exit_code(void) {
    const char *name = err_name();
    size_t longest = 0;
    int code = record.n ? EXIT_INTERNAL : EXIT_OK;
    for (size_t i = 0; i < sizeof exit_codes / sizeof *exit_codes; i++) {
        const size_t n = strlen(exit_codes[i].prefix);
        if (n > longest && strncmp(name, exit_codes[i].prefix, n) == 0) {
            longest = n;
            code = exit_codes[i].code;
        }
    }
    return code;
}

/* Insertions, deletions, replacements and swaps of neighbours that turn a into b; both under
 * MAX_WORD. */
static size_t err_distance(const char *a, const char *b) {
    size_t row[3][MAX_WORD], *before = row[0], *last = row[1], *now = row[2];
    const size_t n_a = strlen(a), n_b = strlen(b);
    for (size_t j = 0; j <= n_b; j++) before[j] = last[j] = j;
    for (size_t i = 1; i <= n_a; i++) {
        now[0] = i;
        for (size_t j = 1; j <= n_b; j++) {
            size_t best = last[j - 1] + (a[i - 1] != b[j - 1]);
            if (last[j] + 1 < best) best = last[j] + 1;
            if (now[j - 1] + 1 < best) best = now[j - 1] + 1;
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] &&
                before[j - 2] + 1 < best)
                best = before[j - 2] + 1;
            now[j] = best;
        }
        size_t *const free_row = before;
        before = last;
        last = now;
        now = free_row;
    }
    return last[n_b];
}

const char *err_nearest(const char *word, const char *const *words, uint32_t n) {
    const size_t length = strlen(word);
    /* One slip in a short word, a third of the letters in a long one; something must be left. */
    size_t limit = length < 2 ? length : length < 3 ? 2 : length / 3 + 1;
    const char *nearest = NULL;
    if (length >= MAX_WORD) return NULL;
    for (uint32_t i = 0; i < n; i++) {
        if (!words[i] || strlen(words[i]) >= MAX_WORD) continue;
        const size_t distance = err_distance(word, words[i]);
        if (distance >= limit) continue;
        limit = distance;
        nearest = words[i];
    }
    return nearest;
}
