/* jsonl.h -- a file read line by line in bounded memory, with its digest. */
#ifndef TEXT_JSONL_H
#define TEXT_JSONL_H

#include "qfw/status.h"

typedef struct jsonl jsonl;
/* max_line: bytes that a line may have; 0: 16 MiB. */
qfw_status jsonl_open(const char *path, uint64_t max_line, jsonl **out);
/* The next line without its end (LF or CRLF), and without a byte order mark; it is valid until the
 * next call. QFW_E_END, without a message, past the last. E_DATA_LIMIT, E_DATA_CHANGED. */
qfw_status jsonl_next(jsonl *r, const char **text, size_t *n);
uint64_t jsonl_line(const jsonl *r);       /* of the line that jsonl_next gave, from 1 */
void jsonl_sha256(jsonl *r, char hex[65]); /* after QFW_E_END, once */
void jsonl_close(jsonl *r);

#endif
