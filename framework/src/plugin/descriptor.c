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

/* The first sizes: they never change, whatever is appended later. */
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
    return err_fail("E_PLUG_DESC", QFW_E_ABI,
        "%s: %s; hint: the plugin is at fault, rebuild it against this qfw's headers", path, text);
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
    if (!name || !*name || strlen(name) > 31) return 0;
    return strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789_") == strlen(name);
}

static qfw_status check_options(const char *path, const qfw_component *c) {
    if (c->n_options && !c->options) return refuse(path, "'%s': its options are NULL", c->name);
    for (uint64_t i = 0; i < c->n_options; i++) {
        const qfw_option *o = &c->options[i];
        if (o->size != OPTION_V0_SIZE) /* tables are walked by it, and the minors are the same */
            return refuse(path, "'%s': option %llu has %u bytes, wanted %d", c->name,
                (unsigned long long)i, o->size, (int)OPTION_V0_SIZE);
        if (!o->key || !o->help)
            return refuse(path, "'%s': option %llu has no %s", c->name, (unsigned long long)i,
                o->key ? "help" : "key");
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

int descriptor_is_known(const qfw_component *c) {
    return c->kind >= QFW_KIND_BACKEND && c->kind <= QFW_KIND_OPTIMIZER;
}

static qfw_status check_component(const char *path, const qfw_component *c, uint32_t i) {
    if (!c) return refuse(path, "component %u is NULL", i);
    if (c->size < COMPONENT_V0_SIZE)
        return refuse(path, "component %u has %u bytes, wanted at least %d", i, c->size,
            (int)COMPONENT_V0_SIZE);
    if (!descriptor_is_known(c)) return QFW_OK;
    if (!is_name(c->name))
        return refuse(path, "component %u: its name is not 1 to 31 of [a-z0-9_]", i);
    if (!c->summary) return refuse(path, "'%s': its summary is NULL", c->name);
    if (!c->iface) return refuse(path, "'%s': its table (iface) is NULL", c->name);
    QFW_TRY(check_options(path, c));
    switch (c->kind) {
    case QFW_KIND_BACKEND: return check_backend(path, c);
    case QFW_KIND_MODEL: return check_model(path, c);
    case QFW_KIND_TRAINER: return check_trainer(path, c);
    default: return check_optimizer(path, c);
    }
}

static qfw_status check_components(const qfw_plugin_desc *d, const char *path) {
    if (!d->components) return refuse(path, "its components are NULL");
    if (!d->n_components) return refuse(path, "it has no components");
    for (uint32_t i = 0; i < d->n_components; i++) {
        const qfw_component *c = d->components[i];
        QFW_TRY(check_component(path, c, i));
        if (descriptor_is_known(c) && descriptor_find(d, c->kind, c->name) != c)
            return refuse(path, "it has %s '%s' twice", plugin_kind_name(c->kind), c->name);
    }
    return QFW_OK;
}

/* What both sides must see in the same way, item by item. */
static qfw_status check_layout(uint32_t theirs, const char *path) {
    const uint32_t ours = QFW_LAYOUT, differ = ours ^ theirs;
    const uint32_t shift = differ >> 24 ? 24 : differ >> 8 ? 8 : 0;
    const uint32_t bits = shift == 8 ? 0xffff : 0xff;
    if (!differ) return QFW_OK;
    return refuse(path, "its layout word says %s %u, this qfw has %u",
        shift == 24  ? "bytes of a pointer"
        : shift == 8 ? "bytes of a tensor"
                     : "dimensions of a tensor",
        theirs >> shift & bits, ours >> shift & bits);
}

static qfw_status check_texts(const qfw_plugin_desc *d, const char *path) {
    const struct {
        const char *field, *text;
    } texts[] = {
        {"name", d->name}, {"version", d->version}, {"author", d->author}, {"license", d->license}};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        if (!texts[i].text) return refuse(path, "its %s is NULL", texts[i].field);
    return QFW_OK;
}

qfw_status descriptor_check(const qfw_plugin_desc *d, const char *path) {
    if (d->magic != QFW_MAGIC)
        return refuse(path, "its magic is %llx, wanted %llx", (unsigned long long)d->magic,
            (unsigned long long)QFW_MAGIC);
    if (d->size < QFW_PLUGIN_DESC_V0_SIZE)
        return refuse(path, "its descriptor has %u bytes, wanted at least %zu", d->size,
            (size_t)QFW_PLUGIN_DESC_V0_SIZE);
    if (d->abi_minor != QFW_ABI_MINOR || d->abi_minor_min > QFW_ABI_MINOR)
        return err_fail("E_PLUG_ABI", QFW_E_ABI,
            "%s: built for plugin ABI %d.%u (at least %d.%u), this qfw speaks %d.%d, exactly until "
            "the ABI is frozen; hint: rebuild it against this qfw's headers",
            path, QFW_ABI_MAJOR, d->abi_minor, QFW_ABI_MAJOR, d->abi_minor_min, QFW_ABI_MAJOR,
            QFW_ABI_MINOR);
    QFW_TRY(check_layout(d->layout, path));
    QFW_TRY(check_texts(d, path));
    return check_components(d, path);
}

const qfw_component *descriptor_find(const qfw_plugin_desc *d, uint32_t kind, const char *name) {
    for (uint32_t i = 0; i < d->n_components; i++) {
        const qfw_component *c = d->components[i];
        if (c->kind == kind && descriptor_is_known(c) && (!name || !strcmp(c->name, name)))
            return c;
    }
    return NULL;
}

void descriptor_names(const qfw_plugin_desc *d, char *text, size_t cap) {
    *text = 0;
    for (uint32_t i = 0; i < d->n_components; i++) {
        const qfw_component *c = d->components[i];
        const size_t at = strlen(text);
        if (descriptor_is_known(c))
            snprintf(text + at, cap - at, "%s%s '%s'", at ? ", " : "", plugin_kind_name(c->kind),
                c->name);
    }
}
