/* entry.c -- see entry.h. */
#include "export/entry.h"

#include "base/error.h"
#include "base/finite.h"
#include "base/mem.h"

enum { PIECE_BYTES = 1 << 22 };

typedef struct pieces {
    char *data;
    int64_t step; /* rows of one */
    uint64_t row_bytes;
} pieces;

static qfw_status pieces_make(const store_entry *e, int64_t rows, pieces *p) {
    const int64_t width = e->t.dim[0] ? qfw_tensor_count(&e->t) / e->t.dim[0] : 1;
    p->row_bytes = (uint64_t)width * qfw_dtype_bytes(e->t.dtype);
    p->step = p->row_bytes < PIECE_BYTES ? (int64_t)(PIECE_BYTES / (p->row_bytes + 1)) : 1;
    if (p->step > rows) p->step = rows;
    p->data = mem_alloc((size_t)p->step, (size_t)p->row_bytes);
    return p->data ? QFW_OK : QFW_E_NOMEM;
}

/* Rows row..row+n, which are to be written, or were read from `file`. */
static qfw_status check_finite(
    const store_entry *e, const pieces *p, int64_t row, int64_t n, const char *file) {
    const uint64_t width = p->row_bytes / qfw_dtype_bytes(e->t.dtype);
    const uint64_t count = (uint64_t)n * width, at = finite_all(p->data, e->t.dtype, count);
    const unsigned long long index = (unsigned long long)((uint64_t)row * width + at);
    if (at == count) return QFW_OK;
    if (file)
        return err_fail("E_ST_NONFINITE", QFW_E_DATA,
            "%s: tensor \"%.100s\": value %llu is not finite; hint: an earlier checkpoint", file,
            e->name, index);
    return err_fail("E_NUM_STATE", QFW_E_NUMERIC,
        "tensor \"%.100s\": value %llu is not finite: it is not written; hint: a lower "
        "learning_rate, from the last checkpoint on",
        e->name, index);
}

qfw_status entry_write_rows(
    st_writer *w, const store *s, const store_entry *e, int64_t row0, int64_t rows) {
    pieces p;
    QFW_TRY(pieces_make(e, rows, &p));
    qfw_status status = QFW_OK;
    for (int64_t row = row0, n; status == QFW_OK && row < row0 + rows; row += n) {
        n = row0 + rows - row < p.step ? row0 + rows - row : p.step;
        status = store_read_rows(s, e, row, n, p.data);
        if (status == QFW_OK) status = check_finite(e, &p, row, n, NULL);
        if (status == QFW_OK) status = st_writer_data(w, p.data, (uint64_t)n * p.row_bytes);
    }
    mem_free(p.data);
    return status;
}

int entry_fits(const store_entry *e, const st_tensor *t) {
    int same = !e->t.quant && t->dtype == e->t.dtype && t->rank == e->t.rank;
    for (uint32_t i = 0; same && i < t->rank; i++) same = t->dim[i] == e->t.dim[i];
    return same;
}

qfw_status entry_read(st_file *f, const st_tensor *t, store *s, store_entry *e) {
    pieces p;
    const int64_t rows = e->t.dim[0];
    QFW_TRY(pieces_make(e, rows, &p));
    qfw_status status = QFW_OK;
    for (int64_t row = 0, n; status == QFW_OK && row < rows; row += n) {
        n = rows - row < p.step ? rows - row : p.step;
        status = st_read(f, t, row, n, p.data);
        if (status == QFW_OK) status = check_finite(e, &p, row, n, t->file);
        if (status == QFW_OK) status = store_write_rows(s, e, row, n, p.data);
    }
    mem_free(p.data);
    return status;
}
