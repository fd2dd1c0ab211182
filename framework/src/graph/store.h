/* store.h -- what outlives a step: weights, adapters, gradients, optimizer states, by name, on one
 * device.
 *
 * Entries are declared first (store_add), so that a plan can be made and printed before a byte is
 * read; then store_alloc takes the device memory, in blocks no larger than the device allows,
 * FROZEN apart from RUN.
 */
#ifndef GRAPH_STORE_H
#define GRAPH_STORE_H

#include "qfw/backend.h"

/* One opened device: borrowed by the store, the plans and the executors. */
typedef struct device {
    const qfw_backend *be;
    qfw_inst *inst;
    const qfw_host *host;
    const char *name; /* the backend's name: "cpu" */
    qfw_device_info info;
} device;

typedef struct store_entry {
    const char *name;
    qfw_tensor t;    /* mem is NULL until store_alloc */
    qfw_quant quant; /* of a packed entry; t.quant points here */
    uint32_t usage;  /* QFW_MEM_FROZEN or QFW_MEM_RUN */
    uint32_t sealed; /* 1 after store_seal: store_read fails from then on */
    uint64_t bytes;  /* of the entry with its scales, as the plan counts it */
    void *host_copy; /* kept for reference kernels where the device has no host_ptr, else NULL */
    uint32_t host_fresh; /* 1: host_copy holds what the device holds */
} store_entry;

typedef struct store store;

qfw_status store_create(const device *dev, store **out);
void store_destroy(store *s); /* frees the device memory too; NULL is ignored */
/* Declare an entry. For QFW_NF4 and QFW_FP4: rank 2, `block` and `nested` (0 or 256); else both 0.
 * QFW_E_INVALID for a name that exists or after store_alloc. The entry lives as long as the
 * store. */
qfw_status store_add(store *s, const char *name, uint32_t usage, uint32_t dtype, uint32_t rank,
    const int64_t *dim, uint32_t block, uint32_t nested, store_entry **out);
store_entry *store_find(const store *s, const char *name); /* NULL: none */
/* in order of declaration; NULL past the last */
store_entry *store_at(const store *s, uint32_t i);
/* with private copies of sealed weights */
uint64_t store_bytes(const store *s, uint32_t usage);
qfw_status store_alloc(store *s);
/* Whole contents, dense, host layout. Packed entries: codes, then absmax, nested (NULL without). */
qfw_status store_write(store *s, store_entry *e, const void *data);
qfw_status store_write_packed(store *s, store_entry *e, const uint8_t *codes, const void *absmax,
    const float *nested, float offset);
/* Rows row0 .. row0+rows-1 of a plain entry; or of a packed one where that is whole bytes and
 * blocks: their codes, then their absmax (nested scales stay as they are). */
qfw_status store_write_rows(store *s, store_entry *e, int64_t row0, int64_t rows, const void *data);
qfw_status store_read(const store *s, const store_entry *e, void *data);
/* Rows row0 .. row0+rows-1 of a plain entry. */
qfw_status store_read_rows(
    const store *s, const store_entry *e, int64_t row0, int64_t rows, void *data);
qfw_status store_zero(store *s, store_entry *e);

/* A packed FROZEN entry that is complete and that only the backend's own ops read is the backend's
 * from now on (mem_seal); nothing happens where the backend has no mem_seal or it is sealed. */
qfw_status store_seal(store *s, store_entry *e);

/* --- for executors on devices without host_ptr --- */

qfw_status store_host_alloc(const device *dev, store_entry *e); /* host_copy, once */
/* Bring host_copy up to date. *moved grows by the bytes read. */
qfw_status store_host_refresh(const device *dev, store_entry *e, uint64_t *moved);
/* The entry as a tensor over host_copy; `quant` is filled for a packed one and pointed to. */
qfw_tensor store_host_tensor(const store_entry *e, qfw_quant *quant);

#endif
