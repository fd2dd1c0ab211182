/* graphlab.h -- a store, a graph, its plan and its executor on one test device: what a test builds,
 * runs and reads. Every call fails the test when something goes wrong. */
#ifndef SUPPORT_GRAPHLAB_H
#define SUPPORT_GRAPHLAB_H

#include "graph/exec.h"
#include "qfw/ops_nn.h"
#include "qfw/ops_prim.h"
#include "testbackend.h"

typedef struct graphlab {
    test_device device;
    store *s;
    graph_env env; /* param finds entries of the store by name */
    graph *g;
    plan *p;
    exec_arena *arena;
    exec *e;
} graphlab;

/* `make` is one of test_device_storage, _visible, _native. */
void graphlab_open(graphlab *l, void (*make)(test_device *d));
void graphlab_close(graphlab *l);
/* A RUN entry [dim0, dim1], or [dim0] where dim1 is 0; graphlab_fill gives it fixed values between
 * -1 and 1. */
store_entry *graphlab_entry(
    graphlab *l, const char *name, uint32_t dtype, int64_t dim0, int64_t dim1);
/* A FROZEN F32 entry [dim0]. */
store_entry *graphlab_frozen(graphlab *l, const char *name, int64_t dim0);
/* A packed, nested, frozen NF4 entry [M,K] of fixed values. */
store_entry *graphlab_packed(graphlab *l, const char *name, int64_t M, int64_t K);
/* Allocate the store and give all entries their values. */
void graphlab_fill(graphlab *l);
/* The value of the entry with this name in l->g. */
qfw_val graphlab_val(graphlab *l, const char *name);
/* Plan l->g, allocate and resolve it. The store must be filled. */
void graphlab_build(graphlab *l, const qfw_val *keep, uint32_t n_keep);
/* Forget graph, plan and executor; a new empty graph stands in l->g. The store stays. */
void graphlab_renew(graphlab *l);
/* Values of a kept value or state, as doubles: out has room for n. */
void graphlab_read(graphlab *l, qfw_val v, double *out, int64_t n);

void graphlab_ok(qfw_status s);                      /* fails with the error's text */
double graphlab_number(uint64_t stream, uint64_t i); /* fixed, between -1 and 1 */

#endif
