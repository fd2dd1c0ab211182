/* entry.h -- entries of a store from and to safetensors, a few rows at a time: however large a
 * tensor is, a small part of it lies on the host. */
#ifndef EXPORT_ENTRY_H
#define EXPORT_ENTRY_H

#include "files/safetensors.h"
#include "graph/store.h"

/* Rows row0 .. row0+rows-1 of a plain entry, as the next data of w. */
qfw_status entry_write_rows(
    st_writer *w, const store *s, const store_entry *e, int64_t row0, int64_t rows);
/* Whether t has the dtype and shape of a plain entry. */
int entry_fits(const store_entry *e, const st_tensor *t);
/* The whole tensor, which fits, into the entry. */
qfw_status entry_read(st_file *f, const st_tensor *t, store *s, store_entry *e);

#endif
