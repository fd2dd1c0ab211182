/* lab.h -- a folder of its own for one test: a model made by formula, an INI, and a run opened on
 * them. */
#ifndef SUPPORT_LAB_H
#define SUPPORT_LAB_H

#include "files/json.h"
#include "files/safetensors.h"
#include "synth.h"
#include "train/graphs.h"

enum { LAB_RULES = 16 };

typedef struct lab {
    char folder[256];  /* removed by lab_close */
    qfw_doc *fixture;  /* the topic's JSON; NULL without one */
    const char *model; /* what [model] use says: phi3, unless the test says otherwise */
    synth_rule rules[LAB_RULES];
    run *r;
} lab;

/* A fresh folder. `fixture` is a path below tests/golden ("logits/logits.json"), or NULL. */
lab *lab_open(const char *fixture);
void lab_close(lab *l);
const char *lab_golden(const char *path, char buf[512]); /* "<source>/tests/golden/<path>" */
void lab_write(const lab *l, const char *name, const char *text);
void lab_copy(const lab *l, const char *from, const char *name);
/* model/ with this config.json and a tokenizer of two tokens. */
void lab_model(const lab *l, const char *config);
/* Write run.ini: the lines given, after [run] output_dir and [model] path; open the run (its prints
 * go nowhere), write the model's weights by formula, and load it. Fails the test on any error. */
void lab_run(lab *l, const char *settings);
/* A training run up to its plan; a failed one leaves NULL. */
qfw_status lab_start(const run_flags *flags, FILE *out, run **r);
/* The whole of a run of run.ini, as the command line asks for it: what `with` says besides
 * ini_path; what it prints goes to `out` (NULL: nowhere). Weights must be there (lab_run). */
qfw_status lab_main(const lab *l, const run_flags *with, FILE *out);
/* The bytes of a file of the folder, ended by a 0 that n does not count; mem_free. */
char *lab_contents(const lab *l, const char *name, size_t *n);
/* Set the adapters of the open run by formula under PEFT's names: A, and B or zeros. */
void lab_adapters(lab *l, int zero_b);
/* Logits [N,V], or log-probabilities [N] of the labels, of a batch; free(). */
float *lab_logits(lab *l, batch *b);
float *lab_logprobs(lab *l, batch *b);
double lab_number(const lab *l, const char *ptr);
/* Fails with the thread's error text unless status is QFW_OK. */
void lab_ok(qfw_status status);
/* max |a - b| / max |b| */
double lab_relative(const float *a, const float *b, int64_t n);

#endif
