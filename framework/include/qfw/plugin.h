/* plugin.h -- the one symbol that a plugin exports, and how it says what it is.
 *
 * A plugin is a shared object libqfw_<kind>_<name>.so with exactly one exported symbol, the
 * constant qfw_plugin_abi0 (abi0: not frozen yet; host and plugin must have the same minor). It is
 * read before any plugin code runs. QFW_PLUGIN defines it and an ELF note that tells the same
 * without loading the file.
 *
 * No plugin function may call abort, exit, signal, setlocale or chdir, or write to stdout; C++ must
 * not let an exception out. Build with -fvisibility=hidden; never link with -ffast-math.
 */
#ifndef QFW_PLUGIN_H
#define QFW_PLUGIN_H

#include "qfw/host.h"

#define QFW_ABI_MAJOR 0
#define QFW_ABI_MINOR 4
#define QFW_MAGIC     0x314e494755574651ull /* "QFWUGIN1", little-endian */

enum {
    QFW_KIND_BACKEND = 1,   /* iface: qfw_backend, backend.h */
    QFW_KIND_MODEL = 2,     /* qfw_model, model.h */
    QFW_KIND_TRAINER = 3,   /* qfw_trainer, trainer.h */
    QFW_KIND_OPTIMIZER = 4, /* qfw_optimizer, optimizer.h */
};

/* What both sides must agree on beyond the version: pointer width, byte order, two struct sizes. */
#define QFW_LAYOUT                                                                                 \
    ((uint32_t)(sizeof(void *) << 24) | (uint32_t)(sizeof(qfw_tensor) << 8) |                      \
        (uint32_t)QFW_MAX_DIMS)

typedef struct qfw_component {
    uint32_t size, kind;
    uint32_t iface_rev, flags; /* 0 */
    const char *name;          /* [a-z0-9_]+: what the INI's `use` says */
    const char *summary;       /* one line */
    const qfw_option *options;
    uint64_t n_options;
    const void *iface; /* the kind's table */
} qfw_component;
QFW_SEALED(qfw_component, iface);

typedef struct qfw_plugin_desc {
    uint64_t magic;
    uint32_t size;
    uint16_t abi_minor, abi_minor_min; /* built with; the oldest host it can live with */
    uint32_t layout, n_components;
    const char *name, *version, *author, *license;
    const qfw_component *const *components;
    /* Both may be NULL: nothing global. A failed open is never closed.   [init] */
    qfw_status (*plugin_open)(const qfw_host *h);
    void (*plugin_close)(const qfw_host *h);
    const void *(*extension)(const char *id); /* may be NULL */
} qfw_plugin_desc;
QFW_SEALED(qfw_plugin_desc, extension);
#define QFW_PLUGIN_DESC_V0_SIZE QFW_FIELD_END(qfw_plugin_desc, extension)

/* ELF note, owner "qfw", type 1: what can be known without loading. */
typedef struct qfw_note {
    uint32_t name_size, desc_size, type;
    char owner[4];
    uint16_t abi_major, abi_minor;
    uint32_t kinds; /* bit k: has a component of kind k */
    uint64_t cpu;   /* QFW_CPU_*: what the file needs of the CPU to be loaded at all */
    char name[32];
} qfw_note;
QFW_SEALED(qfw_note, name);

enum { QFW_CPU_AVX2 = 1u << 0, QFW_CPU_AVX512 = 1u << 1, QFW_CPU_AMX = 1u << 2 };

/* QFW_PLUGIN("cpu", "0.1.0", "qfw", "MIT", kinds, components): `components` is an array of
 * const qfw_component *, `kinds` is like 1u << QFW_KIND_BACKEND. */
#define QFW_PLUGIN(name_, version_, author_, license_, kinds_, components_)                        \
    __attribute__((section(".note.qfw"), used, aligned(4))) static const qfw_note qfw_note_ = {    \
        4, sizeof(qfw_note) - 16, 1, "qfw", QFW_ABI_MAJOR, QFW_ABI_MINOR, kinds_, 0, name_};       \
    QFW_EXTERN_C __attribute__((visibility("default"))) const qfw_plugin_desc qfw_plugin_abi0;     \
    const qfw_plugin_desc qfw_plugin_abi0 = {QFW_MAGIC, sizeof(qfw_plugin_desc), QFW_ABI_MINOR,    \
        QFW_ABI_MINOR, QFW_LAYOUT, sizeof(components_) / sizeof((components_)[0]), name_,          \
        version_, author_, license_, components_, NULL, NULL, NULL}

#endif
