/* documents.h -- texts to be scored, one after another: the rows of a JSONL file, or the files of a
 * folder. */
#ifndef SERVE_DOCUMENTS_H
#define SERVE_DOCUMENTS_H

#include "qfw/status.h"

typedef struct documents documents;

typedef struct documents_opts {
    const char *path;                  /* a JSONL file, or a folder */
    const char *id_field, *text_field; /* a row's keys */
    uint64_t max_bytes;                /* of a line, or of a file of the folder; 0: 16 MiB */
} documents_opts;

/* Valid until the next call. */
typedef struct document_in {
    const char *id; /* a row's key, else its line; the name of a folder's file */
    const char *text;
    size_t n;
    uint64_t line; /* of the JSONL file; 0: a folder's */
} document_in;

/* A folder gives its regular files whose name does not begin with '.', by name, in byte order.
 * E_NOINPUT, E_DATA_EMPTY. */
qfw_status documents_open(const documents_opts *o, documents **out);
/* QFW_E_END, without a message, past the last. A row or file that is wrong is E_DATA_*, with its
 * place. */
qfw_status documents_next(documents *d, document_in *out);
void documents_close(documents *d); /* NULL is ignored */

#endif
