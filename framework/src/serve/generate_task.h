/* generate_task.h -- the task `generate`: a JSONL of prompts in, their continuations out. */
#ifndef SERVE_GENERATE_TASK_H
#define SERVE_GENERATE_TASK_H

#include "serve/generate.h"

/* Read [generate] input, plan, and write output_dir/generations.jsonl: one line a row with `line`,
 * `prompt` and `completion` as text, `n_tokens`, `finish` ("stop" or "length") and
 * `mean_logprob`. */
qfw_status generate_task(run *r, FILE *out);

/* Shared with the other tasks that generate. */

/* What [generate] says of sampling, with the run's seed. */
sampling sampling_read(const run *r);
/* The tokens that end a text: eos_token_id of the model's generation_config.json and of its
 * config.json, the tokenizer's EOS, and [generate] stop_tokens. */
enum { MAX_STOPS = 32 };
qfw_status stops_read(const run *r, int32_t stops[MAX_STOPS], uint32_t *n);
/* Print the plan; QFW_OK if it fits. */
qfw_status serve_plan(run *r, const engine *e, FILE *out);
/* Memory, weights, the engine's part. */
qfw_status serve_load(run *r, engine *e);

#endif
