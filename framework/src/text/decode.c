/* decode.c -- the decoder of a tokenizer.json: from the strings of tokens back to a text. */
#include <string.h>

#include "base/error.h"
#include "base/mem.h"
#include "text/parts.h"
#include "text/unicode.h"

enum {
    DECODE_REPLACE,
    DECODE_BYTE_FALLBACK,
    DECODE_FUSE,
    DECODE_STRIP,
    DECODE_BYTE_LEVEL,
    DECODE_METASPACE
};
enum { MAX_STEPS = 16 };

static const char replacement[] = "\xef\xbf\xbd"; /* U+FFFD */

/* --- loading --- */

static qfw_status load_values(decoder_step *s, const json_node *v, const char *file) {
    const char *from = part_str(v, "content"), *to = "";
    if (s->kind == DECODE_REPLACE) {
        to = from;
        from = part_str(json_node_member(v, "pattern"), "String");
    }
    if (!from || !*from || !to)
        return part_unsupported(file, "decoder", "Replace or Strip without its strings");
    s->start = json_node_i64(json_node_member(v, "start"));
    s->stop = json_node_i64(json_node_member(v, "stop"));
    s->from = mem_strdup(from);
    s->to = mem_strdup(to);
    return s->from && s->to ? QFW_OK : QFW_E_NOMEM;
}

/* start = 1: the first token loses its blanks, for one was put in front. */
static qfw_status load_metaspace(decoder_step *s, const json_node *v, const char *file) {
    const char *blank = part_str(v, "replacement"), *scheme = part_str(v, "prepend_scheme");
    if (!blank || !*blank) return part_unsupported(file, "decoder", "Metaspace without its string");
    s->start = !scheme || strcmp(scheme, "never") != 0;
    s->from = mem_strdup(blank);
    s->to = mem_strdup(" ");
    return s->from && s->to ? QFW_OK : QFW_E_NOMEM;
}

static qfw_status load_step(const json_node *v, const char *file, decoder *out) {
    static const char *const types[] = {
        "Replace", "ByteFallback", "Fuse", "Strip", "ByteLevel", "Metaspace"};
    for (int kind = DECODE_REPLACE; kind <= DECODE_METASPACE; kind++) {
        if (strcmp(part_type(v), types[kind]) != 0) continue;
        if (out->n >= MAX_STEPS) return part_unsupported(file, "decoder", "so many steps");
        if (mem_grow(&out->step, &out->cap, out->n + 1, sizeof *out->step)) return QFW_E_NOMEM;
        decoder_step *s = &out->step[out->n++];
        *s = (decoder_step){.kind = kind};
        if (kind == DECODE_REPLACE || kind == DECODE_STRIP) return load_values(s, v, file);
        if (kind == DECODE_METASPACE) return load_metaspace(s, v, file);
        return QFW_OK;
    }
    return part_unsupported(file, "decoder", part_type(v));
}

qfw_status decoder_load(const json_node *v, const char *file, decoder *out) {
    if (json_node_kind(v) <= QFW_DOC_NULL) return QFW_OK;
    if (strcmp(part_type(v), "Sequence") != 0) return load_step(v, file, out);
    const json_node *list = json_node_member(v, "decoders");
    for (uint64_t i = 0; i < json_node_count(list); i++)
        QFW_TRY(load_step(json_node_item(list, i), file, out));
    return QFW_OK;
}

void decoder_free(decoder *d) {
    for (size_t i = 0; i < d->n; i++) {
        mem_free(d->step[i].from);
        mem_free(d->step[i].to);
    }
    mem_free(d->step);
    *d = (decoder){0};
}

/* --- running --- */

/* Strings one after another; string i ends at end[i]. */
typedef struct strings {
    tagged text;
    size_t *end;
    size_t n, cap;
} strings;

static int end_string(strings *s) {
    if (mem_grow(&s->end, &s->cap, s->n + 1, sizeof *s->end)) return -1;
    s->end[s->n++] = s->text.n;
    return 0;
}

static tagged_view string_at(const strings *s, size_t i) {
    const size_t from = i ? s->end[i - 1] : 0;
    return tagged_part(tagged_all(&s->text), from, s->end[i]);
}

static int add(strings *s, const char *text, size_t n) { return tagged_add(&s->text, text, n, 0); }

/* The byte that "<0x0A>" stands for, or -1. */
static int hex_byte(tagged_view v) {
    static const char digits[] = "0123456789ABCDEFabcdef";
    int byte = 0;
    if (v.n != 6 || memcmp(v.s, "<0x", 3) != 0 || v.s[5] != '>') return -1;
    for (int i = 3; i < 5; i++) {
        const char *digit = v.s[i] ? strchr(digits, v.s[i]) : NULL;
        if (!digit) return -1;
        byte = 16 * byte + (int)(digit - digits < 16 ? digit - digits : digit - digits - 6);
    }
    return byte;
}

/* A run of bytes: their text, or one U+FFFD a byte where it is no UTF-8. */
static int flush_bytes(strings *out, tagged *bytes) {
    const size_t n = bytes->n;
    bytes->n = 0;
    if (n == 0) return 0;
    if (utf8_check(bytes->s, n) == n) return add(out, bytes->s, n) || end_string(out);
    for (size_t i = 0; i < n; i++)
        if (add(out, replacement, sizeof replacement - 1) || end_string(out)) return -1;
    return 0;
}

static int run_byte_fallback(const strings *in, strings *out) {
    tagged bytes = {0};
    int bad = 0;
    for (size_t i = 0; !bad && i < in->n; i++) {
        const tagged_view v = string_at(in, i);
        const int byte = hex_byte(v);
        const char c = (char)byte;
        if (byte >= 0)
            bad = tagged_add(&bytes, &c, 1, 0);
        else
            bad = flush_bytes(out, &bytes) || tagged_copy(&out->text, v) || end_string(out);
    }
    if (!bad) bad = flush_bytes(out, &bytes);
    tagged_free(&bytes);
    return bad ? -1 : 0;
}

/* Bytes that may not be UTF-8, each broken sequence as one U+FFFD: the longest start of a character
 * that is well-formed so far counts as one. */
static int add_lossy(strings *out, const char *s, size_t n) {
    for (size_t i = 0; i < n;) {
        const size_t good = utf8_check(s + i, n - i);
        if (add(out, s + i, good)) return -1;
        i += good;
        if (i == n) break;
        const unsigned char lead = (unsigned char)s[i++], next = i < n ? (unsigned char)s[i] : 0;
        size_t more = lead >= 0xf0 && lead <= 0xf4 ? 2 : lead >= 0xe0 && lead <= 0xef ? 1 : 0;
        if ((lead == 0xe0 && next < 0xa0) || (lead == 0xed && next > 0x9f) ||
            (lead == 0xf0 && next < 0x90) || (lead == 0xf4 && next > 0x8f))
            more = 0;
        for (; more > 0 && i < n && ((unsigned char)s[i] & 0xc0) == 0x80; more--) i++;
        if (add(out, replacement, sizeof replacement - 1)) return -1;
    }
    return 0;
}

/* The bytes of a token's characters; a token with a character that is no byte stays as it is. */
static int add_byte_level(tagged *bytes, tagged_view v) {
    const size_t before = bytes->n;
    uint32_t c = 0;
    for (size_t i = 0, n; i < v.n; i += n) {
        n = utf8_read(v.s + i, v.n - i, &c);
        const int byte = byte_of_char(c);
        const char one = (char)byte;
        if (byte < 0) {
            bytes->n = before;
            return tagged_copy(bytes, v);
        }
        if (tagged_add(bytes, &one, 1, 0)) return -1;
    }
    return 0;
}

static int run_byte_level(const strings *in, strings *out) {
    tagged bytes = {0};
    int bad = 0;
    for (size_t i = 0; !bad && i < in->n; i++) bad = add_byte_level(&bytes, string_at(in, i));
    if (!bad) bad = add_lossy(out, bytes.s, bytes.n) || end_string(out);
    tagged_free(&bytes);
    return bad ? -1 : 0;
}

static int run_fuse(const strings *in, strings *out) {
    return tagged_copy(&out->text, tagged_all(&in->text)) || end_string(out);
}

/* `start` and `stop` characters at most from the ends of each string. */
static tagged_view strip(const decoder_step *s, tagged_view v) {
    const size_t n = strlen(s->from);
    for (int64_t k = 0; k < s->start && v.n >= n && !memcmp(v.s, s->from, n); k++)
        v = tagged_part(v, n, v.n);
    for (int64_t k = 0; k < s->stop && v.n >= n && !memcmp(v.s + v.n - n, s->from, n); k++)
        v = tagged_part(v, 0, v.n - n);
    return v;
}

static int run_step(const decoder_step *s, const strings *in, strings *out) {
    if (s->kind == DECODE_BYTE_FALLBACK) return run_byte_fallback(in, out);
    if (s->kind == DECODE_BYTE_LEVEL) return run_byte_level(in, out);
    if (s->kind == DECODE_FUSE) return run_fuse(in, out);
    for (size_t i = 0; i < in->n; i++) {
        const tagged_view v = string_at(in, i);
        const int bare = s->kind == DECODE_METASPACE && s->start && i == 0;
        const int bad = s->kind == DECODE_STRIP
                            ? tagged_copy(&out->text, strip(s, v))
                            : text_replace(v, s->from, bare ? "" : s->to, &out->text);
        if (bad || end_string(out)) return -1;
    }
    return 0;
}

static void strings_free(strings *s) {
    tagged_free(&s->text);
    mem_free(s->end);
}

qfw_status decoder_run(
    const decoder *d, const char *const *tokens, size_t n, char **text, size_t *n_bytes) {
    strings now = {0}, next = {0};
    int bad = 0;
    *text = NULL;
    for (size_t i = 0; !bad && i < n; i++)
        bad = (d->n == 0 && i > 0 && add(&now, " ", 1)) ||
              add(&now, tokens[i], strlen(tokens[i])) || end_string(&now);
    for (size_t i = 0; !bad && i < d->n; i++) {
        next.text.n = next.n = 0;
        bad = run_step(&d->step[i], &now, &next);
        const strings swap = now;
        now = next;
        next = swap;
    }
    if (!bad) bad = add(&now, "", 1);
    if (!bad) {
        *n_bytes = now.text.n - 1;
        *text = now.text.s;
        now.text.s = NULL;
    }
    strings_free(&now);
    strings_free(&next);
    return bad ? QFW_E_NOMEM : QFW_OK;
}
