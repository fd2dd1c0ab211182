/* check.h -- what shape rules are made of: every refusal reads "rmsnorm: w is [64], wanted [3072]".
 */
#ifndef OPS_CHECK_H
#define OPS_CHECK_H

#include "ops/op.h"

/* Sets of dtypes, as bits. */
#define DTYPE_BIT(dtype) (1u << (dtype))
#define DTYPES_FLOAT                                                                               \
    (DTYPE_BIT(QFW_F32) | DTYPE_BIT(QFW_BF16) | DTYPE_BIT(QFW_F16) | DTYPE_BIT(QFW_F64))
#define DTYPES_PLAIN  (DTYPES_FLOAT | DTYPE_BIT(QFW_I32) | DTYPE_BIT(QFW_U8))
#define DTYPES_PACKED (DTYPE_BIT(QFW_NF4) | DTYPE_BIT(QFW_FP4))

#define ANY_DIM (-1) /* in a wanted shape: whatever it is */

/* Operand `name` of `op` has this dtype, rank and these dimensions; an absent operand (s NULL)
 * passes. QFW_E_DTYPE or QFW_E_SHAPE. */
qfw_status check_operand(const char *op, const char *name, const op_shape *s, uint32_t dtypes,
    uint32_t rank, int64_t dim0, int64_t dim1);
/* The same with the rank and the dimensions of `like`. */
qfw_status check_like(
    const char *op, const char *name, const op_shape *s, uint32_t dtypes, const op_shape *like);
/* x is [N] or [N, C]. */
qfw_status check_rows(const char *op, const char *name, const op_shape *s, uint32_t dtypes);
/* The same where only the dtype matters. */
qfw_status check_dtype(const char *op, const char *name, const op_shape *s, uint32_t dtypes);
/* A param is right; else QFW_E_INVALID "op: name is value, wanted ...". */
qfw_status check_param(
    int right, const char *op, const char *name, double value, const char *wanted);

/* A shape that params ask for: its rank and dimensions are a tensor's. *out has no dtype yet. */
qfw_status check_dims(const char *op, uint32_t rank, const int64_t *dim, op_shape *out);

/* The text of a shape: "[128, 64]". `out` has room for SHAPE_TEXT bytes. Returns out. */
#define SHAPE_TEXT 96
const char *shape_text(uint32_t rank, const int64_t *dim, char *out);

op_shape shape_1d(uint32_t dtype, int64_t dim0);
op_shape shape_2d(uint32_t dtype, int64_t dim0, int64_t dim1);
/* The dtype of statistics and weight gradients of something of this dtype: F32, or F64 for F64. */
uint32_t shape_stat_dtype(uint32_t dtype);
/* The float dtype that holds the values of both; F32 for BF16 with F16. */
uint32_t shape_wider_dtype(uint32_t a, uint32_t b);

#endif
