/* graphlab.c -- one device, one store, one graph. */
#include "graphlab.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "base/error.h"
#include "base/mem.h"
#include "base/rng.h"
#include "ops/quant4.h"

void graphlab_ok(qfw_status s) {
    if (s != QFW_OK) fail_msg("status %d: %s", s, err_count() ? err_text(0) : "no message");
}

double graphlab_number(uint64_t stream, uint64_t i) {
    return 2 * (double)rng_uniform(stream, "graphlab", i) - 1;
}

static store_entry *find(const void *arg, const char *name) { return store_find(arg, name); }

void graphlab_open(graphlab *l, void (*make)(test_device *d)) {
    memset(l, 0, sizeof *l);
    err_clear();
    make(&l->device);
    graphlab_ok(store_create(&l->device.dev, &l->s));
    l->env = (graph_env){
        .host = l->device.dev.host, .store = l->s, .param = find, .arg = l->s, .training = 1};
    graphlab_ok(graph_create(&l->env, &l->g));
}

static void drop(graphlab *l) {
    exec_destroy(l->e);
    exec_arena_destroy(l->arena);
    plan_destroy(l->p);
    graph_destroy(l->g);
    l->e = NULL;
    l->arena = NULL;
    l->p = NULL;
    l->g = NULL;
}

void graphlab_close(graphlab *l) {
    drop(l);
    store_destroy(l->s);
    assert_int_equal(l->device.n_mems, 0);
}

void graphlab_renew(graphlab *l) {
    drop(l);
    graphlab_ok(graph_create(&l->env, &l->g));
}

store_entry *graphlab_entry(
    graphlab *l, const char *name, uint32_t dtype, int64_t dim0, int64_t dim1) {
    const int64_t dim[2] = {dim0, dim1};
    store_entry *e = NULL;
    graphlab_ok(store_add(l->s, name, QFW_MEM_RUN, dtype, dim1 ? 2 : 1, dim, 0, 0, &e));
    return e;
}

store_entry *graphlab_frozen(graphlab *l, const char *name, int64_t dim0) {
    store_entry *e = NULL;
    graphlab_ok(store_add(l->s, name, QFW_MEM_FROZEN, QFW_F32, 1, &dim0, 0, 0, &e));
    return e;
}

store_entry *graphlab_packed(graphlab *l, const char *name, int64_t M, int64_t K) {
    const int64_t dim[2] = {M, K};
    store_entry *e = NULL;
    graphlab_ok(store_add(l->s, name, QFW_MEM_FROZEN, QFW_NF4, 2, dim, 64, 256, &e));
    return e;
}

static void *room(int64_t n, size_t size) {
    void *p = mem_alloc((size_t)n, size);
    assert_non_null(p);
    return p;
}

static void fill_packed(graphlab *l, store_entry *e, const float *w, int64_t n) {
    const int64_t blocks = quant4_blocks(n, 64);
    float offset, *absmax = room(blocks, sizeof *absmax), *nested = room(blocks, sizeof *nested);
    uint8_t *codes = room((int64_t)quant4_code_bytes(n), 1), *scales = room(blocks, 1);
    graphlab_ok(quant4_encode(QFW_NF4, w, n, 64, codes, absmax));
    graphlab_ok(quant8_nest(absmax, blocks, QUANT8_NEAREST, scales, nested, &offset));
    graphlab_ok(store_write_packed(l->s, e, codes, scales, nested, offset));
    mem_free(absmax);
    mem_free(nested);
    mem_free(codes);
    mem_free(scales);
}

static void fill_entry(graphlab *l, store_entry *e, uint64_t stream) {
    const int64_t n = qfw_tensor_count(&e->t);
    float *narrow = room(n, sizeof *narrow);
    double *wide = room(n, sizeof *wide);
    for (int64_t i = 0; i < n; i++) {
        wide[i] = graphlab_number(stream, (uint64_t)i);
        narrow[i] = (float)wide[i];
    }
    if (e->t.quant)
        fill_packed(l, e, narrow, n);
    else
        graphlab_ok(store_write(l->s, e, e->t.dtype == QFW_F64 ? (void *)wide : (void *)narrow));
    mem_free(narrow);
    mem_free(wide);
}

void graphlab_fill(graphlab *l) {
    store_entry *e;
    graphlab_ok(store_alloc(l->s));
    for (uint32_t i = 0; (e = store_at(l->s, i)) != NULL; i++) fill_entry(l, e, i);
}

qfw_val graphlab_val(graphlab *l, const char *name) {
    qfw_val v = 0;
    graphlab_ok(l->g->pub.api->param(&l->g->pub, name, &v));
    return v;
}

void graphlab_build(graphlab *l, const qfw_val *keep, uint32_t n_keep) {
    const device *dev = &l->device.dev;
    graphlab_ok(plan_create(l->g, dev, FALLBACK_ALLOW, keep, n_keep, &l->p));
    graphlab_ok(
        exec_arena_create(dev, l->p->step_bytes, l->p->host_bytes, l->p->input_bytes, &l->arena));
    graphlab_ok(exec_create(l->p, dev, l->arena, &l->e));
}

void graphlab_read(graphlab *l, qfw_val v, double *out, int64_t n) {
    const uint32_t dtype = graph_get(l->g, v)->shape.dtype;
    char *data = room(n, 8);
    graphlab_ok(exec_read(l->e, v, data, (uint64_t)n * qfw_dtype_bytes(dtype)));
    for (int64_t i = 0; i < n; i++) {
        if (dtype == QFW_F64)
            memcpy(&out[i], data + 8 * i, 8);
        else {
            float f = 0;
            memcpy(&f, data + 4 * i, 4);
            out[i] = (double)f;
        }
    }
    mem_free(data);
}
