/* evalset.h -- documents with the scores that they should get: rows of JSONL,
 *   {"id": "...", "text": "...", "expected": {"Java": [2, 3], "Python": 4}}
 * A number is a range of one; a skill that a row does not name is not judged there. Optional:
 *   "evidence": {"Java": "built Spring services"}
 * the words of the text that speak for a skill, for the sensitivity to evidence.
 */
#ifndef SERVE_EVALSET_H
#define SERVE_EVALSET_H

#include "serve/evaluation.h"

typedef struct evalset_row {
    const char *id, *text; /* an id that is missing is the row's line */
    uint64_t line;
    struct {
        int32_t low, high;
        uint32_t given;
    } expected[MAX_SKILLS];
    const char *evidence[MAX_SKILLS]; /* NULL: none is named */
} evalset_row;

typedef struct evalset {
    const char *path;
    evalset_row *rows;
    size_t n_rows, cap_rows;
    char sha256[65];
} evalset;

/* Everything of the file; a row that is wrong is E_DATA_*, with file, line and place. */
qfw_status evalset_read(const char *path, uint64_t max_line, const char *const *skills,
    uint32_t n_skills, scale s, evalset **out);
void evalset_close(evalset *e); /* NULL is ignored */

#endif
