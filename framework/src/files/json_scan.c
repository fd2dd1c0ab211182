/* json_scan.c -- refuses what is too deep or too much before a parser spends memory on it.
 *
 * Only strings and brackets matter here. A byte in a string is skipped, whatever it is; everything
 * else that could be wrong is the parser's to find.
 */
#include "files/json_scan.h"

/* Just past the string that opens at text[at]. */
static size_t past_string(const char *text, size_t n, size_t at) {
    for (at++; at < n; at++) {
        if (text[at] == '"') return at + 1;
        if (text[at] == '\\') at++;
    }
    return n;
}

static int is_open(char c) { return c == '{' || c == '['; }
static int is_close(char c) { return c == '}' || c == ']'; }

int json_scan(const char *text, size_t n, const json_limits *limits, size_t *at, const char **what,
    uint64_t *limit) {
    uint64_t depth = 0, values = 0, members = 0;
    for (size_t i = 0; i < n; i++) {
        const char c = text[i];
        if (c == '"') {
            i = past_string(text, n, i) - 1;
            continue;
        }
        if (is_close(c)) depth -= depth > 0;
        if (is_open(c)) depth++;
        if (is_open(c) || c == ',' || c == ':') values++; /* a value starts here or just after */
        if (c == ':' && depth == 1) members++;
        *at = i;
        *what = "levels of nesting";
        *limit = limits->max_depth;
        if (depth > limits->max_depth) return 0;
        *what = "values";
        *limit = limits->max_values;
        if (values > limits->max_values) return 0;
        *what = "members of the root";
        *limit = limits->max_members;
        if (limits->max_members && members > limits->max_members) return 0;
    }
    return 1;
}

void json_scan_open(const char *text, size_t end, size_t *bracket, json_key *last) {
    size_t open[JSON_MAX_DEPTH + 1], depth = 0;
    *last = (json_key){0, 0};
    *bracket = 0;
    for (size_t i = 0; i < end; i++) {
        if (text[i] == '"') {
            last->at = i;
            last->n = past_string(text, end, i) - i;
            i += last->n - 1;
        } else if (is_open(text[i]) && depth < JSON_MAX_DEPTH) {
            open[++depth] = i;
        } else if (is_close(text[i]) && depth > 0) {
            depth--;
        }
    }
    if (depth > 0) *bracket = open[depth];
}

int json_scan_key(const char *text, size_t end, size_t *at, json_key *key) {
    size_t depth = 0;
    int is_key = text[*at - 1] == '{' || text[*at - 1] == ',';
    for (size_t i = *at; i < end; i++) {
        const char c = text[i];
        if (c == '"') {
            const size_t past = past_string(text, end, i);
            if (depth == 0 && is_key) {
                *key = (json_key){i, past - i};
                *at = past;
                return 1;
            }
            i = past - 1;
        } else if (is_open(c)) {
            depth++;
        } else if (is_close(c)) {
            depth--;
        } else if (c == ',' && depth == 0) {
            is_key = 1;
        }
    }
    return 0;
}

void json_locate(const char *text, size_t byte, uint64_t *line, uint64_t *column) {
    *line = *column = 1;
    for (size_t i = 0; i < byte; i++) {
        if (text[i] == '\n') {
            ++*line;
            *column = 1;
        } else if (((unsigned char)text[i + 1] & 0xc0) != 0x80) {
            ++*column;
        }
    }
}
