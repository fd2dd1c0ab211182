/* json_out.c -- writing JSON as python's json.dump does, so that files of both can be compared. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/mem.h"
#include "files/json.h"

enum { MAX_NESTING = 64, REAL_BYTES = 64, DIGITS = 24 };

struct json_out {
    char *text;
    size_t n, cap;
    int indent, depth, filled; /* filled: the innermost container has a value */
    qfw_status status;         /* the first failure; nothing is written after it */
    char close[MAX_NESTING];
};

json_out *json_out_create(int indent) {
    json_out *o = mem_alloc(1, sizeof *o);
    if (o) o->indent = indent;
    return o;
}

void json_out_destroy(json_out *o) {
    if (!o) return;
    mem_free(o->text);
    mem_free(o);
}

static void put(json_out *o, const char *bytes, size_t n) {
    if (o->status != QFW_OK) return;
    if (mem_grow(&o->text, &o->cap, o->n + n + 1, 1)) {
        o->status = QFW_E_NOMEM;
        return;
    }
    memcpy(o->text + o->n, bytes, n);
    o->n += n;
    o->text[o->n] = 0;
}

static void put_text(json_out *o, const char *text) { put(o, text, strlen(text)); }

static void put_line(json_out *o) {
    if (!o->indent) return;
    put(o, "\n", 1);
    for (int i = 0; i < o->indent * o->depth; i++) put(o, " ", 1);
}

static void put_string(json_out *o, const char *text) {
    char escape[8];
    put(o, "\"", 1);
    for (const unsigned char *p = (const unsigned char *)text; *p;) {
        static const char named[] = "\"\\\b\f\n\r\t", letters[] = "\"\\bfnrt";
        const size_t width = err_printable((const char *)p);
        const char *name = strchr(named, *p);
        size_t taken = 1;
        if (name) {
            snprintf(escape, sizeof escape, "\\%c", letters[name - named]);
        } else if (width) {
            put(o, (const char *)p, width);
            p += width;
            continue;
        } else if (*p < 0x80) {
            snprintf(escape, sizeof escape, "\\u%04x", *p);
        } else if (*p == 0xc2 && p[1] >= 0x80 && p[1] < 0xa0) { /* U+0080..U+009F */
            snprintf(escape, sizeof escape, "\\u%04x", p[1]);
            taken = 2;
        } else {
            snprintf(escape, sizeof escape, "\\ufffd");
        }
        put_text(o, escape);
        p += taken;
    }
    put(o, "\"", 1);
}

/* What stands in front of a value: a comma, a new line, its key. */
static void put_key(json_out *o, const char *key) {
    if (o->depth > 0) {
        if (o->filled) put_text(o, o->indent ? "," : ", ");
        put_line(o);
    }
    if (key) {
        put_string(o, key);
        put_text(o, ": ");
    }
    o->filled = 1;
}

void json_open(json_out *o, const char *key, char bracket) {
    if (!o) return;
    put_key(o, key);
    put(o, &bracket, 1);
    if (o->depth == MAX_NESTING) {
        if (o->status == QFW_OK)
            o->status = err_fail("E_INTERNAL", QFW_E_INTERNAL, "json: over %d deep", MAX_NESTING);
        return;
    }
    o->close[o->depth++] = bracket == '{' ? '}' : ']';
    o->filled = 0;
}

void json_close(json_out *o) {
    if (!o || o->depth == 0) return;
    o->depth--;
    if (o->filled) put_line(o);
    put(o, &o->close[o->depth], 1);
    o->filled = 1;
}

void json_end_line(json_out *o) {
    if (o) put(o, "\n", 1);
}

static void put_value(json_out *o, const char *key, const char *text) {
    if (!o) return;
    put_key(o, key);
    put_text(o, text);
}

void json_str(json_out *o, const char *key, const char *value) {
    if (!value) {
        put_value(o, key, "null");
        return;
    }
    put_value(o, key, "");
    if (o) put_string(o, value);
}

void json_int(json_out *o, const char *key, int64_t value) {
    char text[24];
    snprintf(text, sizeof text, "%lld", (long long)value);
    put_value(o, key, text);
}

void json_bool(json_out *o, const char *key, int value) {
    put_value(o, key, value ? "true" : "false");
}

/* The fewest digits that read back as |value| (no dot, no trailing zeros) and the power of ten of
 * the first. snprintf and strtod may both write a comma here: whatever it is, it is skipped. */
static int shortest_digits(double value, char digits[DIGITS]) {
    char text[REAL_BYTES];
    size_t n = 0;
    for (int precision = 0; precision < 17; precision++) {
        snprintf(text, sizeof text, "%.*e", precision, fabs(value));
        if (strtod(text, NULL) == fabs(value)) break;
    }
    const char *e = strchr(text, 'e');
    for (const char *p = text; p < e; p++)
        if (*p >= '0' && *p <= '9') digits[n++] = *p;
    while (n > 1 && digits[n - 1] == '0') n--;
    digits[n] = 0;
    return (int)strtol(e + 1, NULL, 10);
}

/* As python's repr: fixed for 1e-4 <= |value| < 1e16, else with an exponent of at least two
 * digits. */
static void format_real(double value, char out[REAL_BYTES]) {
    char digits[DIGITS];
    const int power = shortest_digits(value, digits), n = (int)strlen(digits);
    const char *sign = signbit(value) ? "-" : "";
    if (power < -4 || power >= 16)
        snprintf(out, REAL_BYTES, "%s%c%s%se%c%02d", sign, digits[0], n > 1 ? "." : "", digits + 1,
            power < 0 ? '-' : '+', abs(power));
    else if (power < 0)
        snprintf(out, REAL_BYTES, "%s0.%.*s%s", sign, -power - 1, "000", digits);
    else if (n <= power + 1)
        snprintf(out, REAL_BYTES, "%s%s%.*s.0", sign, digits, power + 1 - n, "000000000000000");
    else
        snprintf(out, REAL_BYTES, "%s%.*s.%s", sign, power + 1, digits, digits + power + 1);
}

void json_float(json_out *o, const char *key, double value) {
    char text[REAL_BYTES] = "null";
    if (isfinite(value)) format_real(value, text);
    put_value(o, key, text);
}

const char *json_out_text(json_out *o, size_t *n) {
    *n = 0;
    if (!o || o->status != QFW_OK) {
        if (!err_count()) /* told before, and forgotten by what went on since */
            (void)err_fail("E_MEM", QFW_E_NOMEM, "json: no memory for what is to be written");
        return NULL;
    }
    if (o->depth > 0 || !o->text) {
        (void)err_fail("E_INTERNAL", QFW_E_INTERNAL, "json: %d containers left open", o->depth);
        return NULL;
    }
    *n = o->n;
    return o->text;
}
