/* ini.c -- the strict layer over inih.
 *
 * inih splits lines at 199 bytes, cuts section names at 49, takes an indented line for more of the
 * key above, ends a line at a NUL, accepts "key: value" and tells only the first bad line. So every
 * line is looked at here first: a bad one is reported with its line and column and withheld, a good
 * one is handed to inih, and where it does not fit inih's buffer the true value is carried around
 * it.
 */
#define _POSIX_C_SOURCE 200809L
#include "base/ini.h"

#include <errno.h>
#include <fcntl.h>
#include <ini.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/error.h"
#include "base/mem.h"

enum { MAX_LINE = 8192, MAX_VALUE = 4096, MAX_NAME = 49, MAX_FILE = 1 << 20, MAX_KEYS = 4096 };

typedef struct reader {
    ini *out;
    const char *at, *end;
    uint32_t n_line;
    int stop;                   /* memory has run out */
    qfw_status status;          /* of the first problem */
    char line[MAX_LINE + 1];    /* the current line, without its end */
    char section[MAX_NAME + 1]; /* "" before the first section and under a bad one */
    int any_section;
    ini_entry entry; /* where the key stands that inih is given */
    const char
        *carried; /* its value, in `line`, where inih's buffer has no room for it; else NULL */
} reader;

/* Report a problem at the current line. */
QFW_PRINTF(4, 5)
static void ini_problem(reader *r, const char *name, size_t col, const char *fmt, ...) {
    char text[512];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    const qfw_status status =
        err_also(name, QFW_E_CONFIG, "%s:%u:%zu: %s", r->out->path, r->n_line, col, text);
    if (r->status == QFW_OK) r->status = status;
}

static int ini_no_memory(reader *r) {
    r->status = QFW_E_NOMEM;
    r->stop = 1;
    return 0;
}

static int is_blank(char c) { return c == ' ' || c == '\t'; }

static size_t name_length(const char *text) {
    return strspn(text, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.-");
}

/* Bytes of `text` before a comment (a ';' after a blank) and the blanks before that. */
static size_t value_length(const char *text) {
    size_t n = 0;
    while (text[n] && !(text[n] == ';' && n > 0 && is_blank(text[n - 1]))) n++;
    while (n > 0 && is_blank(text[n - 1])) n--;
    return n;
}

/* The first byte of text[n] that is no text, n when there is none; text[n] is 0. */
static size_t text_length(const char *text, size_t n) {
    size_t i = 0;
    while (i < n) {
        const size_t step = text[i] == '\t' ? 1 : err_printable(text + i);
        if (!step) break;
        i += step;
    }
    return i;
}

/* Take the next line into r->line: 1, 0 past the last, -1 for one that was reported. */
static int next_line(reader *r) {
    const size_t left = (size_t)(r->end - r->at);
    if (left == 0) return 0;
    const char *text = r->at, *newline = memchr(text, '\n', left);
    size_t n = newline ? (size_t)(newline - text) : left;
    r->at += newline ? n + 1 : n;
    r->n_line++;
    if (n > 0 && text[n - 1] == '\r') n--;
    if (n > MAX_LINE) {
        ini_problem(r, "E_INI_LIMIT", MAX_LINE + 1, "a line of %zu bytes, at most %d are allowed",
            n, MAX_LINE);
        return -1;
    }
    memcpy(r->line, text, n);
    r->line[n] = 0;
    const size_t bad = text_length(r->line, n);
    if (bad == n) return 1;
    const unsigned byte = (unsigned char)r->line[bad];
    if (byte >= 0x80)
        ini_problem(r, "E_INI_TEXT", bad + 1,
            "byte 0x%02x is no UTF-8 text; hint: save the file as UTF-8", byte);
    else
        ini_problem(r, "E_INI_TEXT", bad + 1, "control character 0x%02x%s, wanted text", byte,
            byte ? "" : " (NUL)");
    return -1;
}

/* Whether a name of n bytes at column at + 1 has a length that may be. */
static int name_fits(reader *r, const char *what, size_t at, size_t n) {
    if (n == 0) ini_problem(r, "E_INI_SYNTAX", at + 1, "a %s without a name", what);
    if (n > MAX_NAME)
        ini_problem(r, "E_INI_LIMIT", at + 1, "a %s name of %zu bytes, at most %d are allowed",
            what, n, MAX_NAME);
    return n > 0 && n <= MAX_NAME;
}

static void bad_name(reader *r, const char *what, size_t at) {
    const char *found = r->line + at;
    const int width = *found == '\t' ? 1 : (int)err_printable(found);
    ini_problem(r, "E_INI_SYNTAX", at + 1,
        "'%.*s' in a %s name, which is made of letters, digits, '_', '.' and '-'", width, found,
        what);
}

static int section_add(ini *i, const char *name, uint32_t line) {
    for (size_t s = 0; s < i->n_sections; s++)
        if (strcmp(i->sections[s].name, name) == 0) return 0;
    if (mem_grow(&i->sections, &i->cap_sections, i->n_sections + 1, sizeof *i->sections)) return -1;
    const char *copy = mem_strdup(name);
    if (!copy) return -1;
    i->sections[i->n_sections].name = copy;
    i->sections[i->n_sections].line = line;
    i->n_sections++;
    return 0;
}

/* "[name]", then nothing or a comment. 1 when it is good. */
static int check_section(reader *r) {
    const size_t n = name_length(r->line + 1);
    const char *close = r->line + 1 + n, *rest = close + 1;
    r->section[0] = 0;
    r->any_section = 1;
    if (!strchr(r->line, ']')) {
        ini_problem(r, "E_INI_SYNTAX", 1, "a section without its closing ']'");
        return 0;
    }
    if (*close != ']') {
        bad_name(r, "section", n + 1);
        return 0;
    }
    if (!name_fits(r, "section", 1, n)) return 0;
    if (*rest && (!is_blank(*rest) || value_length(rest) > 0)) {
        ini_problem(
            r, "E_INI_SYNTAX", n + 3, "text after a section's ']', wanted a line of its own");
        return 0;
    }
    if (r->out->n_sections == MAX_KEYS) {
        ini_problem(r, "E_INI_LIMIT", 1, "more than %d sections", MAX_KEYS);
        r->stop = 1;
        return 0;
    }
    memcpy(r->section, r->line + 1, n);
    r->section[n] = 0;
    return section_add(r->out, r->section, r->n_line) == 0 || ini_no_memory(r);
}

/* The bytes of the key's name, 0 after a problem. */
static size_t check_key(reader *r) {
    const size_t n = name_length(r->line), gap = strspn(r->line + n, " \t");
    if (r->line[n + gap] == '=') return name_fits(r, "key", 0, n) ? n : 0;
    if (n > 0 && r->line[n + gap] == ':')
        ini_problem(r, "E_INI_SYNTAX", n + gap + 1, "':' after a key; hint: write 'key = value'");
    else if (!strchr(r->line, '='))
        ini_problem(r, "E_INI_SYNTAX", 1,
            "'%.60s' has no '='; wanted '[section]', 'key = value' or a comment", r->line);
    else
        bad_name(r, "key", n);
    return 0;
}

/* "key = value". The bytes of the key when inih is to have it, else 0. */
static size_t check_pair(reader *r) {
    const size_t n_key = check_key(r);
    if (!n_key) return 0;
    char *after = strchr(r->line, '=') + 1;
    const size_t gap = strspn(after, " \t"), n = value_length(after);
    char *value = n > gap ? after + gap : after;
    const size_t length = n > gap ? n - gap : 0, col = (size_t)(value - r->line) + 1;
    if (length > MAX_VALUE) {
        ini_problem(r, "E_INI_LIMIT", col, "a value of %zu bytes, at most %d are allowed", length,
            MAX_VALUE);
        return 0;
    }
    if (!r->any_section)
        ini_problem(
            r, "E_INI_SYNTAX", 1, "key '%.*s' stands before any [section]", (int)n_key, r->line);
    if (!r->section[0]) return 0;
    r->entry = (ini_entry){.line = r->n_line, .key_col = 1, .value_col = (uint32_t)col};
    r->carried = value;
    return n_key;
}

/* inih's line reader: the next good line, in at most `room` bytes. */
static char *ini_feed(char *line, int room, void *user) {
    reader *r = user;
    for (int got; !r->stop && (got = next_line(r)) != 0;) {
        const char first = r->line[strspn(r->line, " \t")];
        if (got < 0 || first == 0 || first == ';' || first == '#') continue;
        if (is_blank(r->line[0])) {
            ini_problem(r, "E_INI_SYNTAX", 1,
                "an indented line; hint: a value does not go on in the next line, and keys begin "
                "in column 1");
        } else if (first == '[') {
            if (!check_section(r)) continue;
            snprintf(line, (size_t)room, "[%s]\n", r->section);
            return line;
        } else {
            const size_t n_key = check_pair(r);
            if (!n_key) continue;
            const int fits = strlen(r->line) + 2 <= (size_t)room;
            if (fits)
                snprintf(line, (size_t)room, "%s\n", r->line);
            else
                snprintf(line, (size_t)room, "%.*s = carried\n", (int)n_key, r->line);
            if (fits) r->carried = NULL;
            return line;
        }
    }
    return NULL;
}

static int ini_append(
    ini *i, ini_entry place, const char *section, const char *key, const char *value) {
    if (mem_grow(&i->entries, &i->cap, i->n + 1, sizeof *i->entries)) return -1;
    for (size_t s = 0; s < i->n_sections; s++)
        if (strcmp(i->sections[s].name, section) == 0) place.section = i->sections[s].name;
    place.key = mem_strdup(key);
    place.value = mem_strdup(value);
    if (!place.key || !place.value) {
        mem_free((void *)place.key);
        mem_free((void *)place.value);
        return -1;
    }
    i->entries[i->n++] = place;
    return 0;
}

/* inih's handler: one pair. Always 1: problems are ours to tell. */
static int ini_take(void *user, const char *section, const char *key, const char *value) {
    reader *r = user;
    const ini_entry *first = ini_find(r->out, section, key);
    char carried[MAX_VALUE + 1];
    if (first) {
        ini_problem(r, "E_INI_DUP", 1, "key '%s' of [%s] is a duplicate, first given in line %u",
            key, section, first->line);
        return 1;
    }
    if (r->out->n == MAX_KEYS) {
        ini_problem(r, "E_INI_LIMIT", 1, "more than %d keys", MAX_KEYS);
        r->stop = 1;
        return 1;
    }
    if (r->carried) {
        snprintf(carried, sizeof carried, "%.*s", (int)value_length(r->carried), r->carried);
        value = carried;
    }
    if (ini_append(r->out, r->entry, section, key, value)) ini_no_memory(r);
    return 1;
}

static int is_utf16(const char *text, size_t n) {
    if (n < 2) return 0;
    return memcmp(text, "\xff\xfe", 2) == 0 || memcmp(text, "\xfe\xff", 2) == 0 ||
           (text[0] == 0) != (text[1] == 0);
}

static void ini_run(reader *r) {
    const size_t n = (size_t)(r->end - r->at);
    if (n > MAX_FILE || is_utf16(r->at, n)) {
        r->n_line = 1;
        if (n > MAX_FILE)
            ini_problem(
                r, "E_INI_LIMIT", 1, "a file of %zu bytes, at most %d are allowed", n, MAX_FILE);
        else
            ini_problem(r, "E_INI_TEXT", 1, "the file is UTF-16; hint: save it as UTF-8");
        return;
    }
    if (n >= 3 && memcmp(r->at, "\xef\xbb\xbf", 3) == 0) r->at += 3;
    const int refused = ini_parse_stream(ini_feed, r, ini_take, r);
    if (refused && r->status == QFW_OK)
        ini_problem(r, "E_INI_SYNTAX", 1, "a line that cannot be read (%d)", refused);
}

/* What can be read comes out even where lines are bad, unless memory has run out. */
static qfw_status parse(const char *text, size_t n, const char *path, ini **out) {
    *out = NULL;
    err_clear();
    ini *i = mem_alloc(1, sizeof *i);
    reader *r = mem_alloc(1, sizeof *r);
    if (i) i->path = mem_strdup(path);
    qfw_status status = QFW_E_NOMEM;
    if (r && i && i->path) {
        *r = (reader){.out = i, .at = text, .end = text + n};
        ini_run(r);
        status = r->status;
    }
    mem_free(r);
    if (i) i->damaged = status != QFW_OK;
    if (status == QFW_E_NOMEM)
        ini_destroy(i);
    else
        *out = i;
    return status;
}

static qfw_status drop_damaged(qfw_status status, ini **out) {
    if (status != QFW_OK) {
        ini_destroy(*out);
        *out = NULL;
    }
    return status;
}

qfw_status ini_parse_text(const char *text, size_t n, const char *path, ini **out) {
    return drop_damaged(parse(text, n, path, out), out);
}

/* Read a regular file whole, or one byte more than may be. */
static qfw_status ini_slurp(const char *path, char **text, size_t *n) {
    struct stat info;
    qfw_status status = QFW_OK;
    const int fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC | O_NOCTTY);
    if (fd < 0)
        return err_fail("E_NOINPUT", QFW_E_IO, "%s: cannot be opened (%s)", path, strerror(errno));
    if (fstat(fd, &info) != 0 || !S_ISREG(info.st_mode)) {
        close(fd);
        return err_fail("E_NOINPUT", QFW_E_IO, "%s: %s, wanted a file", path,
            S_ISDIR(info.st_mode) ? "a folder" : "no regular file");
    }
    if (info.st_size > MAX_FILE)
        status = err_fail("E_INI_LIMIT", QFW_E_CONFIG,
            "%s:1:1: a file of %lld bytes, at most %d are allowed", path, (long long)info.st_size,
            MAX_FILE);
    else if (!(*text = mem_alloc(MAX_FILE + 1, 1)))
        status = QFW_E_NOMEM;
    while (status == QFW_OK && *n <= MAX_FILE) {
        const ssize_t got = read(fd, *text + *n, MAX_FILE + 1 - *n);
        if (got == 0) break;
        if (got > 0)
            *n += (size_t)got;
        else if (errno != EINTR)
            status =
                err_fail("E_IO_READ", QFW_E_IO, "%s: cannot be read (%s)", path, strerror(errno));
    }
    close(fd);
    return status;
}

static qfw_status read_file(const char *path, ini **out) {
    char *text = NULL;
    size_t n = 0;
    *out = NULL;
    qfw_status status = ini_slurp(path, &text, &n);
    if (status == QFW_OK) status = parse(text, n, path, out);
    mem_free(text);
    return status;
}

qfw_status ini_read(const char *path, ini **out) { return drop_damaged(read_file(path, out), out); }

qfw_status ini_salvage(const char *path, ini **out) {
    const qfw_status status = read_file(path, out);
    return *out ? QFW_OK : status;
}

void ini_destroy(ini *i) {
    if (!i) return;
    for (size_t e = 0; e < i->n; e++) {
        mem_free((void *)i->entries[e].key);
        mem_free((void *)i->entries[e].value);
    }
    for (size_t s = 0; s < i->n_sections; s++) mem_free((void *)i->sections[s].name);
    mem_free(i->entries);
    mem_free(i->sections);
    mem_free((void *)i->path);
    mem_free(i);
}

static qfw_status bad_set(const char *assignment, const char *why) {
    return err_fail(
        "E_USAGE", QFW_E_CONFIG, "--set '%s': %s; hint: --set section.key=value", assignment, why);
}

/* Why `value` could not stand in a file; NULL when it could. */
static const char *value_problem(const char *value) {
    const size_t n = strlen(value);
    if (n > MAX_VALUE) return "the value has more than 4096 bytes";
    if (text_length(value, n) != n) return "the value holds control characters or is no UTF-8";
    if (value_length(value) != n) return "the value holds ' ;', which would start a comment";
    return NULL;
}

qfw_status ini_set(ini *i, const char *assignment) {
    char name[2 * MAX_NAME + 2], value[MAX_VALUE + 2];
    const char *equals = strchr(assignment, '=');
    const size_t n = name_length(assignment);
    if (!equals) return bad_set(assignment, "there is no '='");
    if (n != (size_t)(equals - assignment))
        return bad_set(assignment, "the name is not section.key");
    if (n >= sizeof name) return bad_set(assignment, "the name is too long");
    memcpy(name, assignment, n);
    name[n] = 0;
    char *dot = strrchr(name, '.');
    if (!dot || dot == name || !dot[1]) return bad_set(assignment, "the name is not section.key");
    *dot = 0;
    if (dot - name > MAX_NAME || strlen(dot + 1) > MAX_NAME)
        return bad_set(assignment, "the name is too long");
    const char *text = equals + 1 + strspn(equals + 1, " \t");
    snprintf(value, sizeof value, "%s", text);
    for (size_t end = strlen(value); end > 0 && is_blank(value[end - 1]);) value[--end] = 0;
    const char *why = value_problem(value);
    if (why) return bad_set(assignment, why);

    ini_entry *entry = ini_find(i, name, dot + 1);
    if (!entry) {
        if (i->n == MAX_KEYS) return bad_set(assignment, "there are 4096 keys already");
        if (section_add(i, name, 0)) return QFW_E_NOMEM;
        return ini_append(i, (ini_entry){0}, name, dot + 1, value) ? QFW_E_NOMEM : QFW_OK;
    }
    const char *copy = mem_strdup(value);
    if (!copy) return QFW_E_NOMEM;
    mem_free((void *)entry->value);
    entry->value = copy;
    entry->line = entry->key_col = entry->value_col = 0;
    return QFW_OK;
}

ini_entry *ini_find(const ini *i, const char *section, const char *key) {
    for (size_t e = 0; e < i->n; e++)
        if (strcmp(i->entries[e].key, key) == 0 && strcmp(i->entries[e].section, section) == 0)
            return &i->entries[e];
    return NULL;
}

const char *ini_place(const ini *i, const ini_entry *e, int value, char *buf, size_t cap) {
    if (e->line == 0)
        snprintf(buf, cap, "--set %s.%s", e->section, e->key);
    else
        snprintf(buf, cap, "%s:%u:%u", i->path, e->line, value ? e->value_col : e->key_col);
    return buf;
}

const char *ini_place_named(const ini *i, const ini_entry *e, char *buf, size_t cap) {
    if (e->line) return ini_place(i, e, 1, buf, cap);
    snprintf(buf, cap, "--set");
    return buf;
}
