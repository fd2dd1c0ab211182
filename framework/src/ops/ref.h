/* ref.h -- how reference kernels read and write tensors.
 *
 * A reference kernel computes in double, whatever the dtype and the strides of its operands: it is
 * the oracle that every backend is held to, and with F64 operands the subject of the gradient
 * checks. It is plain before it is quick; loops over rows go through parallel_for, each output
 * summed by one thread in one order.
 */
#ifndef OPS_REF_H
#define OPS_REF_H

#include "qfw/ops_prim.h"

/* Address of the tensor's first value: here mem is a host address. */
static inline void *ref_data(const qfw_tensor *t) { return (char *)t->mem + t->offset; }

/* Rounded to nearest, ties to even, in one step. */
uint16_t ref_bf16(double v);
uint16_t ref_f16(double v);
double ref_of_f16(uint16_t h);
double ref_round(double v, uint32_t dtype); /* to BF16 or F16 and back; else v */

/* `at`: in values from the first, by strides */
double ref_load(const qfw_tensor *t, int64_t at);
void ref_store(const qfw_tensor *t, int64_t at, double v); /* rounds to nearest even */
int32_t ref_i32(const qfw_tensor *t, int64_t at);
/* Row r of a [N,C] (or rank-1 [C], r 0) float tensor to and from doubles. */
void ref_row(const qfw_tensor *t, int64_t r, double *out);
void ref_set_row(const qfw_tensor *t, int64_t r, const double *v);
/* Row r of a packed weight [M,K] decoded: bitsandbytes' value in its compute dtype. And n values
 * of it from the flat place `first` on. */
void ref_packed_row(const qfw_tensor *w, int64_t r, double *out);
void ref_packed(const qfw_tensor *w, int64_t first, int64_t n, double *out);
/* Place, in values from the first, of the flat row-major index i of any tensor. */
int64_t ref_at(const qfw_tensor *t, int64_t i);

/* All values of a tensor of rank <= 2, floats or packed, row-major: mem_free it. NULL after
 * err_fail. */
double *ref_matrix(const qfw_tensor *t);
/* [N] as [N,1]; a matrix as it is. */
qfw_tensor ref_as_matrix(const qfw_tensor *t);
/* Every value of index I32[N] is -1 or below `count`; else QFW_E_DATA. */
qfw_status ref_check_index(const char *op, const qfw_tensor *index, int64_t count);
/* Columns first .. first+count-1 of a [N,C] tensor of floats, as a window onto the same memory. */
qfw_tensor ref_columns(const qfw_tensor *t, int64_t first, int64_t count);

/* The sum of a[i] * b[i], in one fixed order. */
double ref_dot(const double *a, const double *b, int64_t n);

/* Call fn(arg, row, scratch) for every row < n, rows in parallel. `scratch` holds n_scratch doubles
 * of what an earlier row left there; no other thread has it. */
typedef void (*ref_row_fn)(void *arg, int64_t row, double *scratch);
qfw_status ref_each_row(int64_t n, int64_t n_scratch, ref_row_fn fn, void *arg);

/* Row r of a DROPOUT in place: x[0..n-1] are its features. Nothing happens where p is 0. */
void ref_dropout(
    const qfw_dropout_params *p, const qfw_tensor *row_key, int64_t r, double *x, int64_t n);

#endif
