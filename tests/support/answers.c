/* answers.c -- see answers.h. */
#include "answers.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include "base/mem.h"

#include <cmocka.h>

void answers_open(const lab *l, const engine_opts *o, answers *a) {
    char *path = mem_printf("%s/run.ini", l->folder);
    const run_flags flags = {.ini_path = path};
    lab_ok(run_start(&flags, &a->r));
    lab_ok(run_open_model(a->r));
    lab_ok(run_open_device(a->r));
    lab_ok(engine_plan(a->r, o, &a->e));
    lab_ok(run_load_weights(a->r));
    lab_ok(engine_alloc(a->e));
    mem_free(path);
}

void answers_close(answers *a) {
    engine_destroy(a->e);
    run_close(a->r);
}

float *answers_read(answers *a, uint32_t slot, const int32_t *tokens, int64_t n, int64_t step) {
    float *logits = calloc((size_t)engine_vocab(a->e), sizeof *logits);
    assert_non_null(logits);
    for (int64_t at = 0; at < n; at += step) {
        const engine_append append = {slot, tokens + at, n - at < step ? n - at : step};
        lab_ok(engine_read(a->e, &append, 1, logits));
    }
    return logits;
}
