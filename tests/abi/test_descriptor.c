/* test_descriptor.c -- a descriptor is believed field by field: each one spoilt alone is refused by
 * name, and what is larger than ours, or unknown, is let be.
 */
#include "base/error.h"
#include "plugin/descriptor.h"
#include "qfw/backend.h"
#include "qfw/optimizer.h"
#include "qfw/trainer.h"

#include "../support/temp.h"
#include "../support/test.h"

static void nothing(void) {}
#define FN(T, slot) ((__typeof__(((T *)0)->slot))nothing)

/* A plugin with one component of each kind, all of it writable. */
static struct {
    qfw_backend backend;
    qfw_model model;
    qfw_trainer trainer;
    qfw_optimizer optimizer;
    qfw_option options[2];
    qfw_component component[4];
    const qfw_component *list[4];
    qfw_plugin_desc desc;
} my;

static int make(void **state) {
    (void)state;
    const void *const tables[] = {&my.backend, &my.model, &my.trainer, &my.optimizer};
    my.backend = (qfw_backend){.size = QFW_BACKEND_V0_SIZE,
        .create = FN(qfw_backend, create),
        .destroy = FN(qfw_backend, destroy),
        .device_info = FN(qfw_backend, device_info),
        .mem_alloc = FN(qfw_backend, mem_alloc),
        .mem_free = FN(qfw_backend, mem_free),
        .mem_write = FN(qfw_backend, mem_write),
        .mem_read = FN(qfw_backend, mem_read)};
    my.model = (qfw_model){.size = sizeof my.model,
        .create = FN(qfw_model, create),
        .destroy = FN(qfw_model, destroy),
        .facts = FN(qfw_model, facts),
        .describe = FN(qfw_model, describe),
        .forward = FN(qfw_model, forward),
        .fill = FN(qfw_model, fill)};
    my.trainer = (qfw_trainer){.size = sizeof my.trainer,
        .create = FN(qfw_trainer, create),
        .destroy = FN(qfw_trainer, destroy),
        .encode = FN(qfw_trainer, encode),
        .collate = FN(qfw_trainer, collate),
        .loss = FN(qfw_trainer, loss)};
    my.optimizer = (qfw_optimizer){.size = sizeof my.optimizer,
        .create = FN(qfw_optimizer, create),
        .destroy = FN(qfw_optimizer, destroy),
        .state_spec = FN(qfw_optimizer, state_spec),
        .scalars = FN(qfw_optimizer, scalars),
        .emit_step = FN(qfw_optimizer, emit_step)};
    my.options[0] = (qfw_option)QFW_OPTION(QFW_OPT_INT, "depth", "3", 0, 9, NULL, "how deep");
    my.options[1] =
        (qfw_option)QFW_OPTION(QFW_OPT_ENUM, "colour", "red", 0, 0, "red|blue", "which one");
    for (uint32_t i = 0; i < 4; i++) {
        my.component[i] = (qfw_component){.size = sizeof(qfw_component),
            .kind = QFW_KIND_BACKEND + i,
            .name = "acme",
            .summary = "for tests",
            .iface = tables[i]};
        my.list[i] = &my.component[i];
    }
    my.component[0].options = my.options;
    my.component[0].n_options = 2;
    my.desc = (qfw_plugin_desc){QFW_MAGIC, sizeof my.desc, QFW_ABI_MINOR, QFW_ABI_MINOR, QFW_LAYOUT,
        4, "acme", "1.0", "nobody", "MIT", my.list, NULL, NULL, NULL};
    err_clear();
    return 0;
}

static void good(void) {
    if (descriptor_check(&my.desc, "p.so") != QFW_OK) fail_msg("%s", err_text(0));
}

static void bad(const char *regex) {
    char whole[256];
    snprintf(whole, sizeof whole, "p\\.so: .*%s.*; hint: ", regex);
    assert_error(descriptor_check(&my.desc, "p.so"), "E_PLUG_DESC", EXIT_PLUGIN, whole);
    make(NULL);
}

static void bad_abi(const char *regex) {
    assert_error(descriptor_check(&my.desc, "p.so"), "E_PLUG_ABI", EXIT_PLUGIN, regex);
    make(NULL);
}

static void as_it_should_be(void **state) {
    (void)state;
    good();
}

static void head(void **state) {
    (void)state;
    my.desc.magic++, bad("its magic is 314e494755574652, wanted 314e494755574651");
    my.desc.size = QFW_PLUGIN_DESC_V0_SIZE - 1, bad("its descriptor has 87 bytes, .*least 88");
    my.desc.abi_minor++, bad_abi("built for plugin ABI 0\\.5 .*speaks 0\\.4, exactly");
    my.desc.abi_minor--, bad_abi("built for plugin ABI 0\\.3 .*speaks 0\\.4, exactly");
    my.desc.abi_minor_min++, bad_abi("\\(at least 0\\.5\\), this qfw speaks 0\\.4");
    my.desc.layout ^= 12u << 24, bad("its layout word says bytes of a pointer 4, this qfw has 8");
    my.desc.layout += 8u << 8, bad("bytes of a tensor 120, this qfw has 112");
    my.desc.layout++, bad("dimensions of a tensor 5, this qfw has 4");
    my.desc.name = NULL, bad("its name is NULL");
    my.desc.version = NULL, bad("its version is NULL");
    my.desc.author = NULL, bad("its author is NULL");
    my.desc.license = NULL, bad("its license is NULL");
    my.desc.components = NULL, bad("its components are NULL");
    my.desc.n_components = 0, bad("it has no components");
    good();
}

static void components(void **state) {
    (void)state;
    qfw_component *const c = &my.component[1];
    my.list[2] = NULL, bad("component 2 is NULL");
    c->size = sizeof *c - 8, bad("component 1 has 48 bytes, wanted at least 56");
    c->name = NULL, bad("component 1: its name is not 1 to 31 of \\[a-z0-9_\\]");
    c->name = "", bad("component 1: its name");
    c->name = "Acme", bad("component 1: its name");
    c->name = "../acme", bad("component 1: its name");
    c->name = "abcdefghijklmnopqrstuvwxyz012345", bad("component 1: its name");
    c->summary = NULL, bad("'acme': its summary is NULL");
    c->iface = NULL, bad("'acme': its table \\(iface\\) is NULL");
    c->kind = QFW_KIND_BACKEND, c->iface = &my.backend, bad("it has backend 'acme' twice");
    good();
}

/* Nothing but size and kind of it may be looked at. */
static void unknown_kinds(void **state) {
    (void)state;
    char names[64];
    my.component[1] = (qfw_component){.size = sizeof(qfw_component), .kind = 77};
    my.component[3] = (qfw_component){.size = sizeof(qfw_component), .kind = 0};
    good();
    assert_null(descriptor_find(&my.desc, 77, "acme"));
    assert_null(descriptor_find(&my.desc, 0, NULL));
    assert_ptr_equal(descriptor_find(&my.desc, QFW_KIND_TRAINER, "acme"), &my.component[2]);
    assert_null(descriptor_find(&my.desc, QFW_KIND_TRAINER, "acm"));
    descriptor_names(&my.desc, names, sizeof names);
    assert_string_equal(names, "backend 'acme', trainer 'acme'");
    descriptor_names(&my.desc, names, 20); /* cut, not overrun */
    assert_int_equal(strlen(names), 19);
    make(NULL);
}

static void options(void **state) {
    (void)state;
    qfw_option *const o = &my.options[1];
    my.component[0].options = NULL, bad("'acme': its options are NULL");
    o->size -= 8, bad("'acme': option 1 has 56 bytes, wanted 64");
    o->size += 8, bad("'acme': option 1 has 72 bytes, wanted 64");
    o->key = NULL, bad("'acme': option 1 has no key");
    o->help = NULL, bad("'acme': option 1 has no help");
    o->type = 0, bad("'acme': option colour has type 0");
    o->type = QFW_OPT_LIST + 1, bad("'acme': option colour has type 9");
    o->dflt = NULL, bad("'acme': option colour has no default and is not required");
    o->choices = NULL, bad("'acme': option colour has no choices");
    o->dflt = NULL, o->flags = QFW_OPT_REQUIRED;
    good();
    make(NULL);
}

/* Each mandatory slot, and each size, against the first sizes: they never change. */
static void tables(void **state) {
    (void)state;
#define NULLED(table, slot) my.table.slot = NULL, bad(#table " 'acme': " #slot " is NULL")
    NULLED(backend, create);
    NULLED(backend, destroy);
    NULLED(backend, device_info);
    NULLED(backend, mem_alloc);
    NULLED(backend, mem_free);
    NULLED(backend, mem_write);
    NULLED(backend, mem_read);
    NULLED(model, create);
    NULLED(model, destroy);
    NULLED(model, facts);
    NULLED(model, describe);
    NULLED(model, forward);
    NULLED(model, fill);
    NULLED(trainer, create);
    NULLED(trainer, destroy);
    NULLED(trainer, encode);
    NULLED(trainer, collate);
    NULLED(trainer, loss);
    NULLED(optimizer, create);
    NULLED(optimizer, destroy);
    NULLED(optimizer, state_spec);
    NULLED(optimizer, scalars);
    NULLED(optimizer, emit_step);
    my.backend.size = 63, bad("backend 'acme': its table has 63 bytes, wanted at least 64");
    my.model.size = 55, bad("model 'acme': its table has 55 bytes, wanted at least 56");
    my.trainer.size = 55, bad("trainer 'acme': its table has 55 bytes, wanted at least 56");
    my.optimizer.size = 47, bad("optimizer 'acme': its table has 47 bytes, wanted at least 48");
    my.backend.size = sizeof my.backend, my.backend.supports = FN(qfw_backend, supports);
    bad("backend 'acme': it has supports but no run");
    good();
}

/* What was appended after we were built: its size is larger, and that is all that we see of it. */
static void larger_than_ours(void **state) {
    (void)state;
    my.desc.size += 8;
    for (int i = 0; i < 4; i++) my.component[i].size += 16;
    my.backend.size = sizeof my.backend + 64;
    my.model.size += 8;
    my.trainer.size += 8;
    my.optimizer.size += 8;
    good();
    make(NULL);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(as_it_should_be),
        cmocka_unit_test(head),
        cmocka_unit_test(components),
        cmocka_unit_test(unknown_kinds),
        cmocka_unit_test(options),
        cmocka_unit_test(tables),
        cmocka_unit_test(larger_than_ours),
    };
    return cmocka_run_group_tests(tests, make, NULL);
}
