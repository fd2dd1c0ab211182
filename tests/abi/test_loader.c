/* test_loader.c -- finding and opening plugins: the ones that qfw comes with, the order of the
 * search, and what is never loaded.
 */
#define _GNU_SOURCE
#include <fenv.h>
#include <float.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/error.h"
#include "files/file.h"
#include "plugin/host.h"
#include "plugin/loader.h"
#include "plugin/search.h"
#include "qfw/backend.h"
#include "qfw/trainer.h"

#include "../support/command.h"
#include "../support/temp.h"
#include "../support/test.h"

static char prober[600];

static const plugin *opened(const char *kind, const char *use, const qfw_component **c) {
    const plugin *p;
    if (plugin_open(kind, use, &p, c) != QFW_OK) fail_msg("%s %s: %s", kind, use, err_text(0));
    return p;
}

static void not_found(const char *kind, const char *use, const char *regex) {
    const plugin *p;
    const qfw_component *c;
    assert_error(plugin_open(kind, use, &p, &c), "E_PLUG_NOTFOUND", EXIT_PLUGIN, regex);
    assert_null(p);
    assert_null(c);
}

/* The good file as <temp>/<folder>/libqfw_backend_<name>.so, in which the component is 'fine'. */
static void place(const char *folder, const char *name) {
    char file[128];
    assert_int_equal(dir_make(temp_path(folder)), QFW_OK);
    snprintf(file, sizeof file, "%s/libqfw_backend_%s.so", folder, name);
    assert_int_equal(
        file_copy(build_path("tests/badplugins/libqfw_backend_fine.so"), temp_path(file)), QFW_OK);
}

/* The search list is made once, at the first search: all that it is made of is set up here. The
 * environment names a folder that is there, a relative one, one that is not, and the build. */
static int setup(void **state) {
    static char path[2048];
    if (temp_make(state)) return -1;
    place("first", "fine");
    place("second", "fine");
    place("env", "fine");
    place("env", "only_env");
    place("relative", "decoy");
    place(".", "decoy");
    if (chdir(temp_folder())) return -1;
    snprintf(path, sizeof path, "%s:relative:.::/nonexistent:%s", temp_path("env"), build_path(""));
    setenv("QFW_PLUGIN_PATH", path, 1);
    snprintf(prober, sizeof prober, "%s", build_path("qfw"));
    plugin_set_prober(prober);
    plugin_set_host(host_table());
    return 0;
}

static int begin(void **state) {
    (void)state;
    plugin_close_all();
    err_clear();
    return 0;
}

/* --- what qfw comes with --- */

static int flushes_denormals(void) {
    volatile double least = DBL_MIN, denormal = DBL_TRUE_MIN;
    volatile double half = least / 2, product = denormal * 0x1p100;
    return half == 0 || product == 0;
}

/* Each opens by name, leaves the process as it was, and opens once. */
static void ours(void **state) {
    (void)state;
    static const struct {
        const char *kind, *name;
        uint32_t number;
    } rows[] = {
        {"backend", "cpu", QFW_KIND_BACKEND},
        {"model", "phi3", QFW_KIND_MODEL},
        {"trainer", "sft", QFW_KIND_TRAINER},
    };
    const qfw_component *c, *again;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        plugin_facts facts;
        char wanted[600];
        const plugin *p = opened(rows[i].kind, rows[i].name, &c);
        assert_int_equal(c->kind, rows[i].number);
        assert_string_equal(c->name, rows[i].name);
        snprintf(wanted, sizeof wanted, "libqfw_%s_%s.so", rows[i].kind, rows[i].name);
        assert_non_null(strstr(p->path, wanted));
        assert_string_equal(p->desc->version, QFW_VERSION);
        assert_int_equal(fegetround(), FE_TONEAREST);
        assert_false(flushes_denormals());
        assert_int_equal(plugin_probe(p->path, &facts), QFW_OK);
        assert_string_equal(facts.changed, "");
        assert_ptr_equal(opened(rows[i].kind, rows[i].name, &again), p);
        assert_ptr_equal(again, c);
        assert_ptr_equal(opened(rows[i].kind, p->path, &again), p);
        assert_ptr_equal(again, c);
    }
}

static void without_a_prober(void **state) {
    (void)state;
    const qfw_component *c;
    plugin_set_prober(NULL);
    opened("trainer", "sft", &c);
    plugin_set_prober(prober);
}

/* --- where names are looked for --- */

static void order_of_the_search(void **state) {
    (void)state;
    const qfw_component *c;
    const char *folders[4];
    assert_string_equal(
        opened("backend", "fine", &c)->path, temp_path("env/libqfw_backend_fine.so"));
    plugin_close_all();
    assert_int_equal(plugin_search_add(temp_path("first")), QFW_OK);
    assert_int_equal(plugin_search_add(temp_path("second")), QFW_OK);
    assert_int_equal(plugin_search_add(temp_path("first")), QFW_OK); /* stays where it is */
    assert_string_equal(
        opened("backend", "fine", &c)->path, temp_path("first/libqfw_backend_fine.so"));
    for (uint32_t i = 0; i < 4; i++) folders[i] = search_folder(i);
    assert_string_equal(folders[0], temp_path("first"));
    assert_string_equal(folders[1], temp_path("second"));
    assert_string_equal(folders[2], temp_path("env"));
    char *build = realpath(build_path(""), NULL);
    assert_string_equal(folders[3], build);
    free(build);
    /* One of the environment's, asked for by hand, comes before the rest of it. */
    assert_int_equal(plugin_search_add(temp_path("env")), QFW_OK);
    assert_string_equal(search_folder(2), temp_path("env"));
    assert_string_equal(search_folder(3), folders[3]);
}

static void what_is_not_there(void **state) {
    (void)state;
    not_found("backend", "nosuch",
        "backend 'nosuch': no libqfw_backend_nosuch\\.so in .*/env, .*; hint: `qfw plugin list`");
    not_found("trainer", "cpu", "no libqfw_trainer_cpu\\.so");
    not_found("backend", "", "no libqfw_backend_\\.so");
    assert_error(plugin_search_add(temp_path("none")), "E_PLUG_FOLDER", EXIT_PLUGIN,
        "plugin folder .*/none: no such folder; hint: ");
    temp_text("file", "x");
    assert_error(plugin_search_add(temp_path("file")), "E_PLUG_FOLDER", EXIT_PLUGIN,
        "plugin folder .*/file: no such folder");
}

/* A stranger's file beside somebody's data: this folder, and a relative one of the environment. */
static void decoys(void **state) {
    (void)state;
    const char *folder;
    assert_int_equal(access("libqfw_backend_decoy.so", F_OK), 0);
    assert_int_equal(access("relative/libqfw_backend_decoy.so", F_OK), 0);
    setenv("LD_LIBRARY_PATH", ":", 1);
    not_found("backend", "decoy", "no libqfw_backend_decoy\\.so in ");
    unsetenv("LD_LIBRARY_PATH");
    for (uint32_t i = 0; (folder = search_folder(i)) != NULL; i++) {
        assert_int_equal(folder[0], '/');
        assert_string_not_equal(folder, temp_folder());
        assert_string_not_equal(folder, temp_path("relative"));
    }
}

/* A folder that anyone can write is searched, but nothing of it is loaded. */
static void world_writable_folder(void **state) {
    (void)state;
    const plugin *p;
    const qfw_component *c;
    place("open", "only_open");
    assert_int_equal(chmod(temp_path("open"), 0777), 0);
    assert_int_equal(plugin_search_add(temp_path("open")), QFW_OK);
    assert_error(plugin_open("backend", "only_open", &p, &c), "E_PLUG_PERM", EXIT_PLUGIN,
        "/open/libqfw_backend_only_open\\.so: its folder .*/open can be written by everybody");
}

/* The file is called otherwise than what is in it. */
static void name_of_the_component(void **state) {
    (void)state;
    const plugin *p;
    const qfw_component *c;
    assert_error(plugin_open("backend", "only_env", &p, &c), "E_PLUG_KIND", EXIT_PLUGIN,
        "libqfw_backend_only_env\\.so: has backend 'fine', wanted backend 'only_env'; hint: ");
    opened("backend", temp_path("env/libqfw_backend_only_env.so"), &c);
    assert_string_equal(c->name, "fine");
}

/* [plugins] load: a file of any name, whose component is then found by its own. */
static void loaded_by_hand(void **state) {
    (void)state;
    const qfw_component *c;
    const char *path = build_path("tests/badplugins/libqfw_backend_other_name.so");
    not_found("backend", "another", "no libqfw_backend_another\\.so");
    assert_int_equal(plugin_load(path), QFW_OK);
    assert_string_equal(opened("backend", "another", &c)->path, path);
    assert_string_equal(c->name, "another");
    not_found("model", "another", "no libqfw_model_another\\.so");
    plugin_close_all();
    not_found("backend", "another", "no libqfw_backend_another\\.so");
}

/* --- the list --- */

static int find_fact(const char *path, plugin_facts *out) {
    for (uint32_t i = 0; plugin_list(i, out) == QFW_OK; i++)
        if (!strcmp(out->path, path)) return 1;
    return 0;
}

static void listed(void **state) {
    (void)state;
    plugin_facts facts, last = {.name = ""};
    assert_int_equal(plugin_search_add(temp_path("first")), QFW_OK);
    temp_text("env/libqfw_trainer_text.so", "no plugin");
    temp_text("env/libqfw_words.so", "no plugin");
    temp_text("env/other.so", "no plugin");
    temp_text("env/libqfw_backend_old.so.1", "no plugin");
    assert_true(find_fact(temp_path("env/libqfw_trainer_text.so"), &facts));
    assert_string_equal(facts.kind, "trainer");
    assert_string_equal(facts.name, "text");
    assert_non_null(strstr(facts.problem, "error[E_PLUG_ELF]"));
    assert_int_equal(facts.abi_minor, 0);
    assert_true(find_fact(temp_path("env/libqfw_words.so"), &facts));
    assert_non_null(strstr(facts.problem, "its name is not libqfw_<kind>_<name>.so"));
    assert_false(find_fact(temp_path("env/other.so"), &facts));
    assert_false(find_fact(temp_path("env/libqfw_backend_old.so.1"), &facts));
    /* A name found before hides the same name after. */
    assert_true(find_fact(temp_path("first/libqfw_backend_fine.so"), &facts));
    assert_string_equal(facts.problem, "");
    assert_string_equal(facts.has, "backend 'fine'");
    assert_int_equal(facts.abi_minor, QFW_ABI_MINOR);
    assert_true(find_fact(temp_path("env/libqfw_backend_fine.so"), &facts));
    assert_non_null(strstr(facts.problem, "hidden by"));
    assert_non_null(strstr(facts.problem, temp_path("first/libqfw_backend_fine.so")));
    assert_true(find_fact(temp_path("env/libqfw_backend_only_env.so"), &facts));
    assert_non_null(strstr(facts.problem, "has backend 'fine', its file name says backend 'only_"));
    for (uint32_t i = 0; plugin_list(i, &facts) == QFW_OK; i++, last = facts)
        assert_true(strcmp(strrchr(facts.path, '/'), i ? strrchr(last.path, '/') : "") >= 0);
    assert_int_equal(err_count(), 0);
}

int main(void) {
#define TEST(f) cmocka_unit_test_setup(f, begin)
    const struct CMUnitTest tests[] = {
        TEST(ours),
        TEST(without_a_prober),
        TEST(order_of_the_search),
        TEST(what_is_not_there),
        TEST(decoys),
        TEST(world_writable_folder),
        TEST(name_of_the_component),
        TEST(loaded_by_hand),
        TEST(listed),
    };
    const int failed = cmocka_run_group_tests(tests, setup, temp_drop);
    plugin_close_all();
    return failed;
}
