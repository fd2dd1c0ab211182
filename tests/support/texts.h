/* texts.h -- the lines and tokenizers that the tokenizer's tests read. */
#ifndef SUPPORT_TEXTS_H
#define SUPPORT_TEXTS_H

#include "files/json.h"
#include "text/tokenizer.h"

typedef struct test_lines {
    char **line;
    size_t *bytes; /* a line may hold NUL */
    size_t n;
} test_lines;

const char *golden_path(const char *name); /* <source>/tests/golden/tokenizer/<name> */
/* A folder of the published tokenizers; NULL where this machine has none. QFW_SHARED_DATA, or
 * shared/data beside the source. */
const char *shared_tokenizer(const char *name);
test_lines *lines_read(void); /* lines.jsonl */
void lines_free(test_lines *l);
/* The test fails unless ids and decoded texts of all lines, `group` at a time, have the record's
 * digests: ids_sha256, decoded_sha256, and the ids of some lines, written out. */
void lines_match(const test_lines *l, const tokenizer *t, const json_node *record, size_t group);
/* A JSON file, or the test fails; json_destroy. */
qfw_doc *golden_json(const char *name);
/* Fails the test unless status is QFW_OK. */
void must(qfw_status status);
/* "263 2 289": the first 8 KiB of ids as text; the last four of these stay valid. */
const char *ids_text(const ids *v);
const char *node_ids_text(const json_node *list);
/* The test fails unless the text, in which special tokens count, becomes these ids. */
void encodes(const tokenizer *t, const char *text, const char *wanted);

#endif
