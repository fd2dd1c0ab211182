/* json_scan.h -- a JSON text's skeleton, read in one pass without memory: nesting, sizes, keys. */
#ifndef FILES_JSON_SCAN_H
#define FILES_JSON_SCAN_H

#include "files/json.h"

enum { JSON_MAX_DEPTH = 2048 }; /* jansson's own */

/* Whether the text keeps the limits (max_depth at most JSON_MAX_DEPTH). If not, *at is the byte
 * that breaks one, *what and *limit say which. What is no JSON may pass: the parser refuses it. */
int json_scan(const char *text, size_t n, const json_limits *limits, size_t *at, const char **what,
    uint64_t *limit);

typedef struct json_key { /* a string of the text, quotes included */
    size_t at, n;
} json_key;
/* In well-formed text[0..end): the innermost container that is open at `end`, as the place of its
 * bracket, and the last string before `end`. */
void json_scan_open(const char *text, size_t end, size_t *bracket, json_key *last);
/* The next key, before `end`, of an object that is still open there; 0: none. Start *at just past
 * its bracket. */
int json_scan_key(const char *text, size_t end, size_t *at, json_key *key);

/* Line and column, from 1, of a byte. Columns count characters. */
void json_locate(const char *text, size_t byte, uint64_t *line, uint64_t *column);

#endif
