/* curve.c -- see curve.h. */
#include "curve.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include "base/mem.h"
#include "files/file.h"
#include "train/progress.h"

#include <cmocka.h>

void curve_read(const lab *l, curve *c) {
    char path[512], *text, *at;
    size_t n;
    snprintf(path, sizeof path, "%s/out/trainer_log.jsonl", l->folder);
    lab_ok(file_read(path, 1 << 20, &text, &n));
    c->n = 0;
    for (at = text; *at; at = strchr(at, '\n') + 1) {
        qfw_doc *d = NULL;
        lab_ok(json_parse(at, strcspn(at, "\n"), path, 1, "E_JSON", NULL, &d));
        if (json_doc_api.kind(d, "/loss") != QFW_DOC_ABSENT) {
            assert_true(c->n < MAX_STEPS);
            lab_ok(json_doc_api.f64(d, "/loss", &c->loss[c->n]));
            c->grad_norm[c->n] = (double)NAN; /* null: it was not finite */
            if (json_doc_api.kind(d, "/grad_norm") != QFW_DOC_NULL)
                lab_ok(json_doc_api.f64(d, "/grad_norm", &c->grad_norm[c->n]));
            lab_ok(json_doc_api.f64(d, "/learning_rate", &c->learning_rate[c->n]));
            lab_ok(json_doc_api.f64(d, "/epoch", &c->epoch[c->n]));
            lab_ok(json_doc_api.f64(d, "/num_tokens", &c->num_tokens[c->n]));
            c->n++;
        }
        json_destroy(d);
    }
    mem_free(text);
}

void curve_train(lab *l, curve *c) {
    char out[512];
    progress p = {0};
    snprintf(out, sizeof out, "%s/out", l->folder);
    lab_ok(dir_make(out));
    lab_ok(train_loop(l->r, NULL, &p));
    curve_read(l, c);
}
