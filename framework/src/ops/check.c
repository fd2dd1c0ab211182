/* check.c -- the refusals of shape rules, in one wording. */
#include "ops/check.h"

#include "base/error.h"

#include <inttypes.h>
#include <stdio.h>

const char *shape_text(uint32_t rank, const int64_t *dim, char *out) {
    size_t at = 0;
    out[at++] = '[';
    for (uint32_t i = 0; i < rank && i < QFW_MAX_DIMS; i++) {
        if (i) at += (size_t)snprintf(out + at, SHAPE_TEXT - at, ", ");
        if (dim[i] == ANY_DIM)
            at += (size_t)snprintf(out + at, SHAPE_TEXT - at, "any");
        else
            at += (size_t)snprintf(out + at, SHAPE_TEXT - at, "%" PRId64, dim[i]);
    }
    out[at++] = ']';
    out[at] = '\0';
    return out;
}

static const char *dtypes_text(uint32_t dtypes, char *out, size_t size) {
    size_t at = 0;
    out[0] = '\0';
    for (uint32_t t = 1; t < QFW_DTYPE_COUNT; t++)
        if ((dtypes & DTYPE_BIT(t)) && at < size)
            at += (size_t)snprintf(out + at, size - at, at ? " or %s" : "%s", qfw_dtype_name(t));
    return out;
}

qfw_status check_dtype(const char *op, const char *name, const op_shape *s, uint32_t dtypes) {
    char wanted[96];
    if (!s || (s->dtype < QFW_DTYPE_COUNT && (dtypes & DTYPE_BIT(s->dtype)))) return QFW_OK;
    return err_fail("E_OP_DTYPE", QFW_E_DTYPE, "%s: %s is %s, wanted %s", op, name,
        qfw_dtype_name(s->dtype), dtypes_text(dtypes, wanted, sizeof wanted));
}

qfw_status check_like(
    const char *op, const char *name, const op_shape *s, uint32_t dtypes, const op_shape *like) {
    char found[SHAPE_TEXT], wanted[SHAPE_TEXT];
    QFW_TRY(check_dtype(op, name, s, dtypes));
    if (!s) return QFW_OK;
    int right = s->rank == like->rank;
    for (uint32_t i = 0; right && i < s->rank; i++)
        right = like->dim[i] == ANY_DIM || like->dim[i] == s->dim[i];
    if (right) return QFW_OK;
    return err_fail("E_OP_SHAPE", QFW_E_SHAPE, "%s: %s is %s, wanted %s", op, name,
        shape_text(s->rank, s->dim, found), shape_text(like->rank, like->dim, wanted));
}

qfw_status check_operand(const char *op, const char *name, const op_shape *s, uint32_t dtypes,
    uint32_t rank, int64_t dim0, int64_t dim1) {
    const op_shape like = {0, rank, {dim0, dim1, ANY_DIM, ANY_DIM}};
    return check_like(op, name, s, dtypes, &like);
}

qfw_status check_rows(const char *op, const char *name, const op_shape *s, uint32_t dtypes) {
    char found[SHAPE_TEXT];
    QFW_TRY(check_dtype(op, name, s, dtypes));
    if (s->rank == 1 || s->rank == 2) return QFW_OK;
    return err_fail("E_OP_SHAPE", QFW_E_SHAPE, "%s: %s is %s, wanted [any] or [any, any]", op, name,
        shape_text(s->rank, s->dim, found));
}

qfw_status check_param(
    int right, const char *op, const char *name, double value, const char *wanted) {
    if (right) return QFW_OK;
    return err_fail(
        "E_OP_PARAM", QFW_E_INVALID, "%s: %s is %.9g, wanted %s", op, name, value, wanted);
}

qfw_status check_dims(const char *op, uint32_t rank, const int64_t *dim, op_shape *out) {
    int64_t count = 1;
    QFW_TRY(check_param(rank <= QFW_MAX_DIMS, op, "rank", rank, "at most 4"));
    *out = (op_shape){0, rank, {1, 1, 1, 1}};
    for (uint32_t d = 0; d < rank; d++) {
        QFW_TRY(check_param(dim[d] >= 0 && (!dim[d] || count <= INT64_MAX / 8 / dim[d]), op, "dim",
            (double)dim[d], "a dimension of a tensor"));
        out->dim[d] = dim[d];
        count *= dim[d];
    }
    return QFW_OK;
}

op_shape shape_1d(uint32_t dtype, int64_t dim0) {
    const op_shape s = {dtype, 1, {dim0, 1, 1, 1}};
    return s;
}

op_shape shape_2d(uint32_t dtype, int64_t dim0, int64_t dim1) {
    const op_shape s = {dtype, 2, {dim0, dim1, 1, 1}};
    return s;
}

uint32_t shape_stat_dtype(uint32_t dtype) { return dtype == QFW_F64 ? QFW_F64 : QFW_F32; }

uint32_t shape_wider_dtype(uint32_t a, uint32_t b) {
    if (a == QFW_F64 || b == QFW_F64) return QFW_F64;
    return a == b ? a : QFW_F32;
}
