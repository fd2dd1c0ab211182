/* json.h -- strict JSON over jansson: duplicates refused, limits checked before the parser runs.
 *
 * A pre-scan of the raw bytes counts depth, members and values, so hostile input is refused before
 * jansson spends memory on it. Errors name file, line, column and byte.
 */
#ifndef FILES_JSON_H
#define FILES_JSON_H

#include "qfw/doc.h"

typedef struct json_limits {
    uint32_t max_depth;
    uint64_t max_values; /* scalars, members and containers together */
} json_limits;

/* Parse `n` bytes whose root is an object or array. `file` names it in messages; `line` > 0 says
 * that it is one line of a JSONL file. `name` is the error's name ("E_JSON", "E_DATA_JSON"). limits
 * NULL: depth 64, 20e6. */
qfw_status json_parse(const char *text, size_t n, const char *file, uint64_t line, const char *name,
    const json_limits *limits, qfw_doc **out);
/* Read and parse a whole file of at most `max_bytes` (regular files only). A UTF-8 BOM is an
 * error. */
qfw_status json_read(
    const char *path, uint64_t max_bytes, const json_limits *limits, qfw_doc **out);
void json_destroy(qfw_doc *d);         /* NULL is ignored */
extern const qfw_doc_api json_doc_api; /* how everybody reads it: qfw/doc.h */
const char *json_file(const qfw_doc *d);

/* Writing: a growing text; every function is valid after a failed one and json_out_finish reports
 * it. Objects and arrays nest; keys are written in the order given; indent 0 writes one line. */
typedef struct json_out json_out;
json_out *json_out_create(int indent); /* NULL without memory: the others then do nothing */
void json_open(json_out *o, const char *key, char bracket); /* '{' or '['; key NULL inside arrays */
void json_close(json_out *o);
void json_str(json_out *o, const char *key, const char *value); /* value NULL writes null */
void json_int(json_out *o, const char *key, int64_t value);
/* shortest text that reads back; python's form */
void json_real(json_out *o, const char *key, double value);
void json_bool(json_out *o, const char *key, int value);
/* The text (owned by `o`) and its length; NULL after err_fail if anything failed. */
const char *json_out_text(json_out *o, size_t *n);
void json_out_destroy(json_out *o);

#endif
