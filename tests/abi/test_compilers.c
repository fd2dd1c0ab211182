/* test_compilers.c -- one plugin, whoever compiled it: gcc and clang, C and C++, optimised or not,
 * with short enums. Each is loaded as any plugin is and does the same; one that was linked with
 * -ffast-math changes nothing here.
 */
#define _DEFAULT_SOURCE
#include <float.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/error.h"
#include "files/file.h"
#include "plugin/host.h"
#include "plugin/loader.h"
#include "qfw/backend.h"

#include "../support/command.h"
#include "../support/temp.h"
#include "../support/test.h"

static char prober[600];

static int setup(void **state) {
    snprintf(prober, sizeof prober, "%s", build_path("qfw"));
    plugin_set_prober(prober);
    plugin_set_host(host_table());
    return temp_make(state);
}

static int is_there(const char *compiler) {
    static command c;
    const char *const argv[] = {compiler, "--version", NULL};
    return command_run(argv, &c) == 0 && c.exit_code == 0;
}

/* docs/examples/plugins/storage.c as <temp>/<file>, with the flags of third parties. */
static void compile(const char *const compiler[2], const char *const flags[3], const char *file) {
    static command c;
    char include[600], source[600];
    const char *root = getenv("QFW_SOURCE");
    snprintf(include, sizeof include, "-I%s/framework/include", root ? root : ".");
    snprintf(source, sizeof source, "%s/docs/examples/plugins/storage.c", root ? root : ".");
    const char *const argv[] = {compiler[0], compiler[1], flags[0], flags[1], flags[2], "-shared",
        "-fPIC", "-fvisibility=hidden", "-Wall", "-Werror", include, "-o", temp_path(file), source,
        NULL};
    if (command_run(argv, &c) || c.exit_code) fail_msg("%s: %s", compiler[0], c.err);
}

/* What the seven functions do, as one text; equal texts are equal plugins. */
static void behaviour(const plugin *p, const qfw_component *c, char *text, size_t cap) {
    const qfw_backend *be = (const qfw_backend *)c->iface;
    const qfw_host *h = host_table();
    qfw_device_info info = {.size = sizeof info};
    qfw_inst *inst;
    qfw_mem *mem;
    unsigned char bytes[9] = {0};
    assert_int_equal(be->create(h, NULL, 1, &inst), QFW_E_DEVICE);
    assert_null(inst);
    assert_string_equal(err_text(0), "error[E_DEV_FAULT] storage: there is no device 1");
    assert_int_equal(be->create(h, NULL, 0, &inst), QFW_OK);
    assert_int_equal(be->device_info(h, 1, &info), QFW_E_END);
    assert_int_equal(be->device_info(h, 0, &info), QFW_OK);
    assert_int_equal(be->mem_alloc(inst, 16, QFW_MEM_RUN, &mem), QFW_OK);
    assert_int_equal(be->mem_write(inst, NULL, mem, 9, "abcdefg", 7), QFW_OK);
    const qfw_status past = be->mem_write(inst, NULL, mem, 10, "abcdefg", 7);
    assert_int_equal(be->mem_read(inst, NULL, mem, 8, bytes, 8), QFW_OK);
    snprintf(text, cap, "%x %u %u %u %llx %d %s %llu %s", p->desc->layout, p->desc->size, c->size,
        be->size, (unsigned long long)p->desc->magic, past, info.name,
        (unsigned long long)info.max_alloc_bytes, (char *)bytes + 1);
    be->mem_free(inst, mem);
    be->destroy(inst);
    err_clear();
}

static void every_compiler(void **state) {
    (void)state;
    static const struct {
        const char *compiler[2], *flags[3];
    } rows[] = {
        {{"gcc", "-std=c11"}, {"-O0", "-g", "-fno-short-enums"}},
        {{"gcc", "-std=c11"}, {"-O3", "-flto", "-fno-short-enums"}},
        {{"gcc", "-std=c11"}, {"-O2", "-fno-short-enums", "-fshort-enums"}},
        {{"g++", "-std=c++17"}, {"-O0", "-xc++", "-fno-short-enums"}},
        {{"g++", "-std=c++17"}, {"-O3", "-xc++", "-fshort-enums"}},
        {{"clang", "-std=c11"}, {"-O0", "-g", "-fno-short-enums"}},
        {{"clang", "-std=c11"}, {"-O3", "-g0", "-fno-short-enums"}},
        {{"clang", "-std=c11"}, {"-O2", "-fno-short-enums", "-fshort-enums"}},
        {{"clang++", "-std=c++17"}, {"-O0", "-xc++", "-Wno-c99-designator"}},
        {{"clang++", "-std=c++17"}, {"-O3", "-xc++", "-fshort-enums"}},
    };
    char first[512] = "", text[512], file[64];
    int n = 0;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        const plugin *p;
        const qfw_component *c;
        if (!is_there(rows[i].compiler[0])) continue;
        snprintf(file, sizeof file, "libqfw_backend_storage%zu.so", i);
        compile(rows[i].compiler, rows[i].flags, file);
        if (plugin_open("backend", temp_path(file), &p, &c) != QFW_OK) fail_msg("%s", err_text(0));
        behaviour(p, c, text, sizeof text);
        if (!n++) snprintf(first, sizeof first, "%s", text);
        assert_string_equal(text, first);
        plugin_close_all();
    }
    print_message("%d builds of one plugin: %s\n", n, first);
    assert_true(n > 0);
}

static void linked_with_fast_math(void **state) {
    (void)state;
    static const char *const compilers[] = {"gcc", "clang"};
    for (int i = 0; i < 2; i++) {
        char file[64];
        plugin_facts facts;
        qfw_note note;
        const plugin *p;
        const qfw_component *c;
        volatile double least = DBL_MIN;
        if (!is_there(compilers[i])) continue;
        snprintf(file, sizeof file, "fast_%s.so", compilers[i]);
        compile((const char *const[]){compilers[i], "-std=c11"},
            (const char *const[]){"-O2", "-ffast-math", "-g"}, file);
        assert_int_equal(plugin_precheck(temp_path(file), &note), QFW_OK);
        assert_int_equal(plugin_probe(temp_path(file), &facts), QFW_OK);
        print_message("%s -ffast-math: %s\n", compilers[i],
            facts.changed[0] ? facts.changed : "changes nothing");
        if (plugin_open("backend", temp_path(file), &p, &c) != QFW_OK) fail_msg("%s", err_text(0));
        assert_true(least / 2 > 0);
        plugin_close_all();
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_compiler),
        cmocka_unit_test(linked_with_fast_math),
    };
    if (!is_there("gcc") && !is_there("clang")) return 77;
    return cmocka_run_group_tests(tests, setup, temp_drop);
}
