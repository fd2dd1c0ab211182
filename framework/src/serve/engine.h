/* engine.h -- a model that answers: tokens in, logits out, keys and values kept between calls.
 *
 * A slot holds one growing sequence. What a slot has read is never read again: its keys and values
 * stay on the device (but past the length at which the model's rotary embedding changes the whole
 * slot is read anew, as transformers does). The logits after a token depend on its slot's tokens
 * alone: not on the other slots, nor on how the tokens were cut into calls, bit for bit on the cpu
 * backend.
 */
#ifndef SERVE_ENGINE_H
#define SERVE_ENGINE_H

#include "train/plan_report.h"

typedef struct engine_opts {
    uint32_t n_slots;
    int64_t slot_tokens; /* a slot's longest sequence */
    int64_t pass_rows;   /* tokens that one pass reads at most; longer calls take several passes */
} engine_opts;

typedef struct engine engine;

/* Declare the caches and plan the graphs: after the weights and adapters are declared, before
 * store_alloc. */
qfw_status engine_plan(run *r, const engine_opts *o, engine **out);
/* Take the memory. After store_alloc. */
qfw_status engine_alloc(engine *e);
/* Its plans, for what of the weights may be sealed; returns how many. */
uint32_t engine_plans(const engine *e, const plan **out, uint32_t cap);
void engine_destroy(engine *e); /* NULL is ignored */
plan_need engine_need(const engine *e);
int64_t engine_vocab(const engine *e);
uint32_t engine_slots(const engine *e);
int64_t engine_room(const engine *e); /* tokens that a slot can hold, as the model allows, too */

/* The sequence of a slot, and how long it is. */
const int32_t *engine_tokens(const engine *e, uint32_t slot, int64_t *n);
/* Forget all but the first n tokens of a slot. */
void engine_cut(engine *e, uint32_t slot, int64_t n);
/* Forget all of every slot: the weights have changed. */
void engine_forget(engine *e);
/* Slot `to` becomes the first n tokens of slot `from`. */
qfw_status engine_fork(engine *e, uint32_t from, uint32_t to, int64_t n);

/* Tokens that are appended to a slot. */
typedef struct engine_append {
    uint32_t slot;
    const int32_t *tokens;
    int64_t n; /* at least 1 */
} engine_append;
/* Append to up to n_slots different slots. logits[i * vocab ..]: of the token after the last one of
 * appends[i]; NULL: not wanted. QFW_E_DATA when a slot would grow past slot_tokens or the model's
 * positions; nothing is appended then. */
qfw_status engine_read(engine *e, const engine_append *appends, uint32_t n, float *logits);

#endif
