/* forward.c -- the model's forward alone, through a graph of its own. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "lab.h"

#include <cmocka.h>

static uint64_t bytes_of(const graph *g, qfw_val v) {
    const op_shape *s = &graph_get(g, v)->shape;
    uint64_t bytes = 4;
    for (uint32_t d = 0; d < s->rank; d++) bytes *= (uint64_t)s->dim[d];
    return bytes;
}

static void write_inputs(lab *l, const batch *b, const graph *g, exec *e, uint64_t most) {
    const run *r = l->r;
    const char *name;
    qfw_val v;
    void *scratch = calloc(1, (size_t)most + 64);
    assert_non_null(scratch);
    for (uint32_t i = 0; (name = exec_input(e, i, &v)) != NULL; i++) {
        const void *data = !strcmp(name, "tokens")     ? (const void *)b->tokens
                           : !strcmp(name, "labels")   ? (const void *)b->labels
                           : !strcmp(name, "segments") ? (const void *)b->segments
                                                       : scratch;
        if (data == scratch)
            lab_ok(r->model->fill(r->model_inst, &b->pub, name, scratch, bytes_of(g, v)));
        lab_ok(exec_write(e, name, data, bytes_of(g, v)));
    }
    free(scratch);
}

static float *forward(lab *l, batch *b, int wants_logits) {
    run *r = l->r;
    graph_env env = graphs_env(r, 0);
    graph *g = NULL;
    plan *p = NULL;
    exec *e = NULL;
    exec_arena *arena = NULL;
    qfw_lm_vals lm = {.size = sizeof lm};
    qfw_logprob_vals lp;
    qfw_val out, labels;
    const int64_t rows[1] = {b->pub.shape.n_rows};
    lab_ok(graph_create(&env, &g));
    lab_ok(r->model->forward(r->model_inst, &g->pub, &b->pub.shape, &lm));
    if (wants_logits) {
        lab_ok(qfw_gemm(&g->pub, lm.hidden, 0, lm.lm_head, 1, 1, &out));
    } else {
        lab_ok(g->pub.api->input(&g->pub, "labels", QFW_I32, 1, rows, &labels));
        lab_ok(qfw_token_logprob(&g->pub, lm.hidden, lm.lm_head, labels, 0, &lp));
        out = lp.logp;
    }
    lab_ok(plan_create(g, &r->dev, FALLBACK_WARN, &out, 1, &p));
    lab_ok(exec_arena_create(&r->dev, p->step_bytes, p->host_bytes, p->input_bytes, &arena));
    lab_ok(exec_create(p, &r->dev, arena, &e));
    write_inputs(l, b, g, e, p->input_bytes);
    lab_ok(exec_run(e));
    float *values = malloc(bytes_of(g, out));
    assert_non_null(values);
    lab_ok(exec_read(e, out, values, bytes_of(g, out)));
    exec_destroy(e);
    exec_arena_destroy(arena);
    plan_destroy(p);
    graph_destroy(g);
    return values;
}

float *lab_logits(lab *l, batch *b) { return forward(l, b, 1); }
float *lab_logprobs(lab *l, batch *b) { return forward(l, b, 0); }
