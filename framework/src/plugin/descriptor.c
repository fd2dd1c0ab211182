/* descriptor.c -- what a plugin says of itself, believed field by field.
 *
 * Sizes are compared with the frozen first sizes, never with what this build's structs happen to
 * be.
 */
#include "plugin/descriptor.h"

#include <string.h>

#include "base/error.h"
#include "qfw/backend.h"
#include "qfw/optimizer.h"
#include "qfw/trainer.h"

/* The sizes at ABI 0.1: they never change, whatever is appended later. */
enum {
    COMPONENT_V0_SIZE = QFW_FIELD_END(qfw_component, iface),
    OPTION_V0_SIZE = QFW_FIELD_END(qfw_option, hi),
    MODEL_V0_SIZE = QFW_FIELD_END(qfw_model, fill),
    TRAINER_V0_SIZE = QFW_FIELD_END(qfw_trainer, fill),
    OPTIMIZER_V0_SIZE = QFW_FIELD_END(qfw_optimizer, emit_step),
};

QFW_PRINTF(2, 3) static qfw_status refuse(const char *path, const char *fmt, ...) {
    char text[400];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    return err_fail("E_PLUG_DESC", QFW_E_ABI, "%s: %s", path, text);
}

typedef struct slot { /* a mandatory function of a kind's table */
    const char *name;
    int is_there;
} slot;

static qfw_status check_slots(
    const char *path, const qfw_component *c, uint32_t size, uint32_t least, const slot *slots) {
    if (size < least)
        return refuse(path, "%s '%s': its table has %u bytes, wanted at least %u",
            plugin_kind_name(c->kind), c->name, size, least);
    for (; slots->name; slots++)
        if (!slots->is_there)
            return refuse(path, "%s '%s': %s is NULL, every %s has it", plugin_kind_name(c->kind),
                c->name, slots->name, plugin_kind_name(c->kind));
    return QFW_OK;
}

/* Whether a slot is filled, looked at only where the table reaches that far. */
#define SLOT(p, T, f)                                                                              \
    { #f, (p)->size < QFW_FIELD_END(T, f) || (p)->f }

static qfw_status check_backend(const char *path, const qfw_component *c) {
    const qfw_backend *b = c->iface;
    const slot slots[] = {SLOT(b, qfw_backend, create), SLOT(b, qfw_backend, destroy),
        SLOT(b, qfw_backend, device_info), SLOT(b, qfw_backend, mem_alloc),
        SLOT(b, qfw_backend, mem_free), SLOT(b, qfw_backend, mem_write),
        SLOT(b, qfw_backend, mem_read), {NULL, 0}};
    QFW_TRY(check_slots(path, c, b->size, QFW_BACKEND_V0_SIZE, slots));
    if (QFW_HAS(b, qfw_backend, supports) && !QFW_HAS(b, qfw_backend, run))
        return refuse(path, "backend '%s': it has supports but no run", c->name);
    return QFW_OK;
}

static qfw_status check_model(const char *path, const qfw_component *c) {
    const qfw_model *m = c->iface;
    const slot slots[] = {SLOT(m, qfw_model, create), SLOT(m, qfw_model, destroy),
        SLOT(m, qfw_model, facts), SLOT(m, qfw_model, describe), SLOT(m, qfw_model, forward),
        SLOT(m, qfw_model, fill), {NULL, 0}};
    return check_slots(path, c, m->size, MODEL_V0_SIZE, slots);
}

static qfw_status check_trainer(const char *path, const qfw_component *c) {
    const qfw_trainer *t = c->iface;
    const slot slots[] = {SLOT(t, qfw_trainer, create), SLOT(t, qfw_trainer, destroy),
        SLOT(t, qfw_trainer, encode), SLOT(t, qfw_trainer, collate), SLOT(t, qfw_trainer, loss),
        {NULL, 0}};
    return check_slots(path, c, t->size, TRAINER_V0_SIZE, slots);
}

static qfw_status check_optimizer(const char *path, const qfw_component *c) {
    const qfw_optimizer *o = c->iface;
    const slot slots[] = {SLOT(o, qfw_optimizer, create), SLOT(o, qfw_optimizer, destroy),
        SLOT(o, qfw_optimizer, state_spec), SLOT(o, qfw_optimizer, scalars),
        SLOT(o, qfw_optimizer, emit_step), {NULL, 0}};
    return check_slots(path, c, o->size, OPTIMIZER_V0_SIZE, slots);
}

static int is_name(const char *name) {
    if (!name || !*name || strlen(name) > 32) return 0;
    return strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789_") == strlen(name);
}

static qfw_status check_options(const char *path, const qfw_component *c) {
    if (c->n_options && !c->options) return refuse(path, "'%s': its options are NULL", c->name);
    for (uint64_t i = 0; i < c->n_options; i++) {
        const qfw_option *o = &c->options[i];
        if (o->size < OPTION_V0_SIZE || !o->key || !o->help)
            return refuse(path, "'%s': option %llu has no key, no help, or a wrong size", c->name,
                (unsigned long long)i);
        if (o->type < QFW_OPT_BOOL || o->type > QFW_OPT_LIST)
            return refuse(path, "'%s': option %s has type %u, which this qfw does not know",
                c->name, o->key, o->type);
        if (!o->dflt && !(o->flags & QFW_OPT_REQUIRED))
            return refuse(
                path, "'%s': option %s has no default and is not required", c->name, o->key);
        if (o->type == QFW_OPT_ENUM && !o->choices)
            return refuse(path, "'%s': option %s has no choices", c->name, o->key);
    }
    return QFW_OK;
}

static qfw_status check_component(const char *path, const qfw_component *c, uint32_t i) {
    if (!c) return refuse(path, "component %u is NULL", i);
    if (c->size < COMPONENT_V0_SIZE)
        return refuse(path, "component %u has %u bytes, wanted at least %d", i, c->size,
            (int)COMPONENT_V0_SIZE);
    if (c->kind < QFW_KIND_BACKEND || c->kind > QFW_KIND_OPTIMIZER) return QFW_OK; /* skipped */
    if (!is_name(c->name))
        return refuse(path, "component %u: its name is not 1 to 32 of [a-z0-9_]", i);
    if (!c->summary) return refuse(path, "'%s': its summary is NULL", c->name);
    if (!c->iface) return refuse(path, "'%s': its table is NULL", c->name);
    QFW_TRY(check_options(path, c));
    switch (c->kind) {
    case QFW_KIND_BACKEND: return check_backend(path, c);
    case QFW_KIND_MODEL: return check_model(path, c);
    case QFW_KIND_TRAINER: return check_trainer(path, c);
    default: return check_optimizer(path, c);
    }
}

qfw_status descriptor_check(const qfw_plugin_desc *d, const char *path) {
    if (d->magic != QFW_MAGIC)
        return refuse(path, "its magic is %llx, wanted %llx", (unsigned long long)d->magic,
            (unsigned long long)QFW_MAGIC);
    if (d->size < QFW_PLUGIN_DESC_V0_SIZE)
        return refuse(path, "its descriptor has %u bytes, wanted at least %zu", d->size,
            (size_t)QFW_PLUGIN_DESC_V0_SIZE);
    if (d->abi_minor != QFW_ABI_MINOR)
        return err_fail("E_PLUG_ABI", QFW_E_ABI,
            "%s: built for plugin ABI %d.%u, this qfw speaks %d.%d (exactly, until the ABI is "
            "frozen); "
            "hint: rebuild it against this qfw's headers",
            path, QFW_ABI_MAJOR, d->abi_minor, QFW_ABI_MAJOR, QFW_ABI_MINOR);
    if (d->layout != QFW_LAYOUT)
        return refuse(path,
            "its layout word is %x, wanted %x: pointer size, tensor size or dimensions differ",
            d->layout, (unsigned)QFW_LAYOUT);
    if (!d->name || !d->version || !d->author || !d->license)
        return refuse(path, "its name, version, author or license is NULL");
    if (!d->components || !d->n_components) return refuse(path, "it has no components");
    for (uint32_t i = 0; i < d->n_components; i++)
        QFW_TRY(check_component(path, d->components[i], i));
    return QFW_OK;
}

const qfw_component *descriptor_find(const qfw_plugin_desc *d, uint32_t kind, const char *name) {
    for (uint32_t i = 0; i < d->n_components; i++) {
        const qfw_component *c = d->components[i];
        if (c->kind == kind && (!name || !strcmp(c->name, name))) return c;
    }
    return NULL;
}
