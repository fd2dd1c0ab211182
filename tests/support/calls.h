/* calls.h -- one good call of every op that has a VJP or a decomposition, so that what must hold
 * for all of them can be tested without knowing any.
 */
#ifndef SUPPORT_CALLS_H
#define SUPPORT_CALLS_H

#include "gradcheck.h"

enum { CALLS_MAX_ROWS = 5 };

typedef struct call_case {
    uint32_t code;
    const char *name;
    uint32_t out;             /* the output whose gradient arrives */
    uint8_t need[QFW_MAX_IN]; /* inputs that have a gradient */
    /* The call with N rows (0 to CALLS_MAX_ROWS) and floats of this dtype. */
    op_call (*make)(eager *e, uint32_t dtype, int64_t N);
} call_case;

extern const call_case all_calls[];
extern const uint32_t n_calls;

#endif
