/* eager.h -- a graph that computes while it is built: every op runs its reference kernel at once.
 *
 * So a VJP or a decomposition can be tested as arithmetic, without planner, executor or backend.
 * Values are host tensors; anything that should not fail fails the running test.
 */
#ifndef SUPPORT_EAGER_H
#define SUPPORT_EAGER_H

#include "graph/graph.h"

typedef struct eager eager;

eager *eager_create(void);
void eager_destroy(eager *e);
qfw_graph *eager_graph(eager *e);

/* A new dense tensor with these values (NULL: zeros). */
qfw_val eager_values(
    eager *e, uint32_t dtype, uint32_t rank, const int64_t *dim, const double *values);
/* The same with values of a fixed stream: uniform in (-1, 1), and centre + radius times that. */
qfw_val eager_random(eager *e, uint32_t dtype, int64_t dim0, int64_t dim1);
qfw_val eager_random_1d(eager *e, uint32_t dtype, int64_t dim0, double centre, double radius);
qfw_val eager_ints(eager *e, int64_t n, const int32_t *values);
qfw_val eager_ints_2d(eager *e, int64_t rows, int64_t columns, const int32_t *values);
/* Random weights [M,K] packed as `type` in blocks of `block`, with nested scales if `nested`. */
qfw_val eager_packed(eager *e, uint32_t type, int64_t M, int64_t K, uint32_t block, int nested);

const qfw_tensor *eager_tensor(const eager *e, qfw_val v);
op_shape eager_shape(const eager *e, qfw_val v);
/* All values of v, dense, as doubles; valid until the eager graph is destroyed. */
const double *eager_read(eager *e, qfw_val v);
/* max |a-b| / max |b|, over two values of one shape; absolute where b is all 0. NaN gives
 * infinity. */
double eager_distance(eager *e, qfw_val a, qfw_val b);

/* How many nodes of each kind have been emitted so far. */
uint32_t eager_count(const eager *e, uint32_t code);

#endif
