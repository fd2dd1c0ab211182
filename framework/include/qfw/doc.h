/* doc.h -- reading a parsed JSON document: a model's config.json, or one row of a data set.
 *
 * The core parses (strict JSON, duplicates refused) and hands over a qfw_doc; plugins never see
 * text. Places are JSON pointers: "" is the root, "/messages/3/role", "/rope_scaling/type".
 * The table is host extension "qfw.doc/1". All functions are [any]; strings live as long as the
 * doc.
 */
#ifndef QFW_DOC_H
#define QFW_DOC_H

#include "qfw/host.h"

typedef struct qfw_doc qfw_doc;

enum {
    QFW_DOC_ABSENT = 0,
    QFW_DOC_NULL = 1,
    QFW_DOC_BOOL = 2,
    QFW_DOC_INT = 3,
    QFW_DOC_REAL = 4,
    QFW_DOC_STRING = 5,
    QFW_DOC_ARRAY = 6,
    QFW_DOC_OBJECT = 7,
};

typedef struct qfw_doc_api {
    uint32_t size, rsv;
    uint32_t (*kind)(const qfw_doc *d, const char *ptr);  /* QFW_DOC_* */
    uint64_t (*count)(const qfw_doc *d, const char *ptr); /* members or items; 0 if it has none */
    /* The i-th member's name in file order; NULL past the last. */
    const char *(*key)(const qfw_doc *d, const char *ptr, uint64_t i);
    /* Each fails with QFW_E_DATA, naming file, place, what was found and what is wanted. i64 takes
     * BOOL as 0 or 1; f64 takes INT and REAL. */
    qfw_status (*i64)(const qfw_doc *d, const char *ptr, int64_t *out);
    qfw_status (*f64)(const qfw_doc *d, const char *ptr, double *out);
    qfw_status (*str)(const qfw_doc *d, const char *ptr, const char **out);
    /* Leave a message "<file>: <ptr>: text" (a row: "<file>:<line>: <ptr>: text"); return
     * `code`. */
    qfw_status (*fail)(const qfw_doc *d, const char *ptr, qfw_status code, const char *text);
} qfw_doc_api;
QFW_SEALED(qfw_doc_api, fail);

#endif
