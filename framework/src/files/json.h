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
    uint64_t max_values;  /* scalars, members and containers together */
    uint64_t max_members; /* of the root object; 0: no limit of its own */
} json_limits;

/* Where a text comes from, and what its errors are called. */
typedef struct json_source {
    const char *file;
    uint64_t line;              /* > 0: the text is this line of a JSONL file */
    uint64_t byte;              /* the text's place in the file */
    const char *name;           /* of a syntax error */
    const char *duplicate_name; /* of a key that stands there twice; NULL: `name` */
    const char *limit_name;     /* of too much nesting, too many values; NULL: `name` */
} json_source;

/* Parse `n` bytes whose root is an object or array. `file` names it in messages; `line` > 0 says
 * that it is one line of a JSONL file. `name` is the error's name ("E_JSON", "E_DATA_JSON"). limits
 * NULL: depth 64, 20e6. */
qfw_status json_parse(const char *text, size_t n, const char *file, uint64_t line, const char *name,
    const json_limits *limits, qfw_doc **out);
qfw_status json_parse_from(
    const char *text, size_t n, const json_source *from, const json_limits *limits, qfw_doc **out);
/* Read and parse a whole file of at most `max_bytes` (regular files only). A UTF-8 BOM is an
 * error. */
qfw_status json_read(
    const char *path, uint64_t max_bytes, const json_limits *limits, qfw_doc **out);
void json_destroy(qfw_doc *d);         /* NULL is ignored */
extern const qfw_doc_api json_doc_api; /* how everybody reads it: qfw/doc.h */
const char *json_file(const qfw_doc *d);
/* The document as text, indented, with this value for one member of its root, which is taken out
 * where the value is NULL; mem_free. NULL: no memory. */
char *json_replaced(const qfw_doc *d, const char *key, const char *value, size_t *n);

/* The core's own way through a document, for names that strangers chose and for many of them. Nodes
 * and strings live as long as the document; every function takes NULL. */
typedef struct json_node json_node;
const json_node *json_root(const qfw_doc *d);
uint32_t json_node_kind(const json_node *v); /* QFW_DOC_*; NULL: QFW_DOC_ABSENT */
uint64_t json_node_count(const json_node *v);
const json_node *json_node_item(const json_node *array, uint64_t i);         /* NULL past the end */
const json_node *json_node_member(const json_node *object, const char *key); /* NULL: none */
const char *json_node_str(const json_node *v); /* NULL: not a string */
int64_t json_node_i64(const json_node *v);     /* 0: not an integer */
int json_node_true(const json_node *v);        /* 0: anything but true */
double json_node_f64(const json_node *v);      /* 0: not a number */
/* Members in file order: for (json_member m = json_first(v); m.key; m = json_next(v, m)) ... */
typedef struct json_member {
    const char *key; /* NULL past the last */
    const json_node *value;
    void *at;
} json_member;
json_member json_first(const json_node *object);
json_member json_next(const json_node *object, json_member m);

/* Writing: a growing text; every function is valid after a failed one and json_out_text reports it.
 * Objects and arrays nest; keys are written in the order given; indent 0 writes one line. Text that
 * is no UTF-8 is written with U+FFFD in place of the bad bytes. */
typedef struct json_out json_out;
json_out *json_out_create(int indent); /* NULL without memory: the others then do nothing */
void json_open(json_out *o, const char *key, char bracket); /* '{' or '['; key NULL inside arrays */
void json_close(json_out *o);
void json_str(json_out *o, const char *key, const char *value); /* value NULL writes null */
void json_int(json_out *o, const char *key, int64_t value);
/* The shortest text that reads back, in python's form: 0.0001, 1e-05, 2.0; null if not finite. (Its
 * plainer name is jansson's.) */
void json_float(json_out *o, const char *key, double value);
void json_bool(json_out *o, const char *key, int value);
void json_end_line(json_out *o); /* after the last bracket, as text files end */
/* The text (owned by `o`) and its length; NULL after err_fail if anything failed. */
const char *json_out_text(json_out *o, size_t *n);
void json_out_destroy(json_out *o);

#endif
