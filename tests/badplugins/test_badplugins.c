/* test_badplugins.c -- files that are no plugins, plugins with a fault in them, and files that
 * others may write: each is refused with its name, the cause and what to do, and this process lives
 * on. The plugins are bad.c's; the prober is the built command.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <elf.h>
#include <fcntl.h>
#include <fenv.h>
#include <float.h>
#include <locale.h>
#include <math.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/error.h"
#include "base/mem.h"
#include "files/file.h"
#include "plugin/host.h"
#include "plugin/loader.h"

#include "../support/command.h"
#include "../support/temp.h"
#include "../support/test.h"

static char prober[600];

/* A case's file; one of the last four stays valid. */
static const char *bad(const char *name) {
    char file[128];
    snprintf(file, sizeof file, "tests/badplugins/libqfw_backend_%s.so", name);
    return build_path(file);
}

static qfw_status open_as(const char *kind, const char *path, const plugin **p) {
    const qfw_component *c;
    const qfw_status status = plugin_open(kind, path, p, &c);
    if (status == QFW_OK) {
        assert_non_null(*p);
        assert_non_null(c);
    } else {
        assert_null(*p);
        assert_null(c);
    }
    return status;
}

/* Refused: the sentence has the path, matches the regex, and ends in a hint. */
static void refused(const char *kind, const char *path, const char *name, const char *regex) {
    const plugin *p;
    const qfw_status status = open_as(kind, path, &p);
    if (status == QFW_OK) fail_msg("%s: accepted", path);
    if (!strstr(err_text(0), path)) fail_msg("%s\ndoes not name %s", err_text(0), path);
    if (!strstr(err_text(0), "; hint: ")) fail_msg("%s\nhas no hint", err_text(0));
    assert_error(status, name, EXIT_PLUGIN, regex);
}

static void accepted(const char *path) {
    const plugin *p;
    if (open_as("backend", path, &p) != QFW_OK) fail_msg("%s: %s", path, err_text(0));
    assert_string_equal(p->path, path);
}

static int setup(void **state) {
    snprintf(prober, sizeof prober, "%s", build_path("qfw"));
    plugin_set_prober(prober);
    plugin_set_host(host_table());
    /* The sanitizers' handlers would hide the signal that ends a child. */
    setenv("ASAN_OPTIONS", "handle_segv=0:handle_sigill=0:handle_abort=0", 1);
    return temp_make(state);
}

/* Every test begins with no plugin open. */
static int begin(void **state) {
    (void)state;
    plugin_close_all();
    err_clear();
    return 0;
}

/* --- what is run --- */

static void constructors(void **state) {
    (void)state;
    static const struct {
        const char *name, *regex;
    } rows[] = {
        {"segv", "died with signal 11 \\(Segmentation fault\\) while it was loaded"},
        {"sigill", "died with signal 4 \\(Illegal instruction\\) while it was loaded"},
        {"abort", "died with signal 6 \\(Aborted\\) while it was loaded"},
        {"exit0", "ended the process \\(exit code 0\\) while it was loaded"},
        {"exit3", "ended the process \\(exit code 3\\) while it was loaded"},
        {"prints", "prints to stdout"},
        {"atexit", "died with signal 6 \\(Aborted\\) after it was loaded"},
        {"hang", "hangs while it is loaded \\(5 s\\)"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        refused("backend", bad(rows[i].name), "E_PLUG_PROBE", rows[i].regex);
}

/* It ends with its parent: its lock is released. */
static void child_left_behind(void **state) {
    (void)state;
    const char *mark = temp_path("lock");
    const double start = clock_seconds();
    setenv("QFW_MARK", mark, 1);
    refused("backend", bad("child"), "E_PLUG_PROBE", "leaves a process running \\(5 s\\)");
    unsetenv("QFW_MARK");
    const int fd = open(mark, O_WRONLY);
    assert_true(fd >= 0);
    while (flock(fd, LOCK_EX | LOCK_NB) && clock_seconds() - start < 10) usleep(10000);
    assert_true(clock_seconds() - start < 10);
    close(fd);
}

static int flushes_denormals(void) {
    volatile double least = DBL_MIN, denormal = DBL_TRUE_MIN;
    volatile double half = least / 2, product = denormal * 0x1p100;
    return half == 0 || product == 0;
}

/* What of this process a load may have changed, as one text. */
static void surroundings(char text[1024]) {
    char folder[512];
    struct sigaction interrupt;
    sigset_t blocked;
    const mode_t mask = umask(0);
    umask(mask);
    sigaction(SIGINT, NULL, &interrupt);
    sigprocmask(SIG_SETMASK, NULL, &blocked);
    snprintf(text, 1024, "%d %d %o %s %d %d %s", fegetround(), flushes_denormals(), mask,
        getcwd(folder, sizeof folder), interrupt.sa_handler == SIG_IGN,
        sigismember(&blocked, SIGTERM), setlocale(LC_ALL, NULL));
}

/* The child says what they change; here it is put back. */
static void polluters(void **state) {
    (void)state;
    static const struct {
        const char *name, *changed;
    } rows[] = {
        {"fine", ""},
#if defined(__SSE2__)
        {"ftz", "it changes how denormals are treated (is it linked with -ffast-math?)"},
#endif
        {"rounding", "it changes the rounding of floats"},
        {"signal", "it changes signal handlers"},
        {"blocked", "it changes the signals that are blocked"},
        {"umask", "it changes the umask"},
        {"chdir", "it changes the working folder"},
        {"locale", "it changes the locale"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char before[1024], after[1024];
        plugin_facts facts;
        assert_int_equal(plugin_probe(bad(rows[i].name), &facts), QFW_OK);
        assert_string_equal(facts.changed, rows[i].changed);
        surroundings(before);
        accepted(bad(rows[i].name));
        surroundings(after);
        assert_string_equal(before, after);
    }
}

/* plugin_open is the plugin's code, too. */
static void open_functions(void **state) {
    (void)state;
    const plugin *p;
    assert_error(open_as("backend", bad("open_fails"), &p), "E_DEV_FAULT", EXIT_PLUGIN,
        "libqfw_backend_open_fails.so: plugin_open: no such card");
    assert_error(open_as("backend", bad("open_mute"), &p), "E_PLUGIN", EXIT_INTERNAL,
        "libqfw_backend_open_mute.so: plugin_open failed with code -6 and no reason; hint: ");
    accepted(bad("open_rounds"));
    assert_int_equal(fegetround(), FE_TONEAREST);
}

/* --- what it says --- */

/* Refused by the note: not a line of it is run, not even in a child. */
static void other_abi(void **state) {
    (void)state;
    const char *mark = temp_path("mark");
    setenv("QFW_MARK", mark, 1);
    refused("backend", bad("note_major"), "E_PLUG_ABI", "ABI 2\\.4, this qfw speaks 0\\.4");
    refused("backend", bad("note_minor"), "E_PLUG_ABI", "ABI 0\\.99, this qfw speaks 0\\.4");
    refused("backend", bad("cpu"), "E_PLUG_CPU", "needs CPU features");
    unsetenv("QFW_MARK");
    assert_false(file_exists(mark));
    refused("backend", bad("major2"), "E_PLUG_ABI", "ABI 2, this qfw speaks 0");
    refused("backend", bad("minor"), "E_PLUG_ABI", "ABI 0\\.99 .*this qfw speaks 0\\.4");
}

/* Once with the child's sentence, once with our own: they are the same. */
static void descriptors(void **state) {
    (void)state;
    static const struct {
        const char *name, *error, *regex;
    } rows[] = {
        {"library", "E_PLUG_SYMBOL", "no qfw plugin: it exports no qfw_plugin_abi0"},
        {"magic", "E_PLUG_DESC", "its magic is 314e494755574650, wanted 314e494755574651"},
        {"short", "E_PLUG_DESC", "its descriptor has 16 bytes, wanted at least 88"},
        {"layout", "E_PLUG_DESC", "bytes of a tensor 120, this qfw has 112"},
        {"no_components", "E_PLUG_DESC", "its components are NULL"},
        {"no_license", "E_PLUG_DESC", "its license is NULL"},
        {"no_table", "E_PLUG_DESC", "'no_table': its table \\(iface\\) is NULL"},
        {"slot_backend", "E_PLUG_DESC", "backend 'slot_backend': mem_read is NULL"},
        {"slot_model", "E_PLUG_DESC", "model 'slot_model': fill is NULL"},
        {"slot_trainer", "E_PLUG_DESC", "trainer 'slot_trainer': loss is NULL"},
        {"slot_optimizer", "E_PLUG_DESC", "optimizer 'slot_optimizer': emit_step is NULL"},
        {"dependency", "E_PLUG_LOAD", "libabsent.so: cannot open shared object file"},
        {"undefined", "E_PLUG_LOAD", "undefined symbol: nobody_has_this"},
        {"model", "E_PLUG_KIND", "has model 'model', wanted backend"},
        {"unknown_kind", "E_PLUG_KIND", "has nothing that this qfw knows, wanted backend"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        refused("backend", bad(rows[i].name), rows[i].error, rows[i].regex);
        plugin_set_prober(NULL);
        refused("backend", bad(rows[i].name), rows[i].error, rows[i].regex);
        plugin_set_prober(prober);
    }
    Dl_info libm;
    double (*const function)(double) = cbrt;
    void *address = NULL;
    memcpy(&address, &function, sizeof address);
    assert_true(dladdr(address, &libm));
    char *real = realpath(libm.dli_fname, NULL);
    refused("backend", real, "E_PLUG_SYMBOL", "a shared object, but no qfw plugin");
    free(real);
}

static void without_a_note(void **state) {
    (void)state;
    qfw_note note;
    assert_int_equal(plugin_precheck(bad("no_note"), &note), QFW_OK);
    assert_int_equal(note.name_size, 0);
    accepted(bad("no_note"));
    assert_int_equal(plugin_precheck(bad("fine"), &note), QFW_OK);
    assert_int_equal(note.abi_minor, QFW_ABI_MINOR);
    assert_int_equal(note.kinds, 1u << QFW_KIND_BACKEND);
    assert_string_equal(note.name, "bad");
}

/* What a stranger writes into a descriptor does not reach a terminal as it is. */
static void facts_are_escaped(void **state) {
    (void)state;
    plugin_facts facts;
    assert_int_equal(plugin_probe(bad("fine"), &facts), QFW_OK);
    assert_string_equal(facts.has, "backend 'fine'");
    assert_string_equal(facts.version, "0.\\x091");
    assert_string_equal(facts.summary, "for tests: \\x1b[31mred\\x1b[0m");
}

static void kind_by_kind(void **state) {
    (void)state;
    refused("trainer", bad("fine"), "E_PLUG_KIND", "has backend 'fine', wanted trainer");
    accepted(bad("other_name")); /* a file is taken for what is in it */
    accepted(bad("fine"));
}

/* --- twice --- */

static void same_file_twice(void **state) {
    (void)state;
    const plugin *first, *again;
    const char *link_path = temp_path("link.so"), *hard = temp_path("hard.so");
    assert_int_equal(open_as("backend", bad("fine"), &first), QFW_OK);
    assert_int_equal(open_as("backend", bad("fine"), &again), QFW_OK);
    assert_ptr_equal(first, again);
    assert_int_equal(symlink(bad("fine"), link_path), 0);
    assert_int_equal(open_as("backend", link_path, &again), QFW_OK);
    assert_ptr_equal(first, again);
    if (link(bad("fine"), hard) == 0) { /* not across file systems */
        assert_int_equal(open_as("backend", hard, &again), QFW_OK);
        assert_ptr_equal(first, again);
    }
}

static void two_files_of_one_name(void **state) {
    (void)state;
    const char *copy = temp_path("copy.so");
    accepted(bad("fine"));
    assert_int_equal(file_copy(bad("fine"), copy), QFW_OK);
    refused("backend", copy, "E_PLUG_DUP", "'fine' is in two files: .*_fine\\.so and .*copy\\.so");
    accepted(bad("twin1"));
    refused("backend", bad("twin2"), "E_PLUG_DUP", "_twin1\\.so and .*_twin2\\.so");
}

/* --- files --- */

static char *good_bytes(size_t *n) {
    char *bytes;
    assert_int_equal(file_read(build_path("libqfw_trainer_sft.so"), 1u << 30, &bytes, n), QFW_OK);
    return bytes;
}

static void not_plugins(void **state) {
    (void)state;
    temp_text("text.so", "This is a text of more than sixteen bytes.\n");
    temp_text("empty.so", "");
    temp_text("script.so", "#!");
    assert_int_equal(dir_make(temp_path("folder.so")), QFW_OK);
    assert_int_equal(mkfifo(temp_path("fifo.so"), 0600), 0);
    assert_int_equal(symlink("loop.so", temp_path("loop.so")), 0);
    refused("backend", temp_path("text.so"), "E_PLUG_ELF", "not an ELF file");
    refused("backend", temp_path("empty.so"), "E_PLUG_ELF", "the file is empty");
    refused("backend", temp_path("script.so"), "E_PLUG_ELF", "not an ELF file");
    refused("backend", temp_path("folder.so"), "E_PLUG_ELF", "a folder, wanted a shared object");
    qfw_note note = {.name_size = 4};
    assert_error(plugin_precheck(temp_path("folder.so"), &note), "E_PLUG_ELF", EXIT_PLUGIN, ".");
    assert_int_equal(note.name_size, 0);
    refused("backend", temp_path("fifo.so"), "E_PLUG_ELF", "not a regular file");
    refused("backend", temp_path("none.so"), "E_PLUG_NOTFOUND", "No such file or directory");
    refused("backend", temp_path("loop.so"), "E_PLUG_NOTFOUND", "Too many levels");
}

/* dlopen of most of these ends the process without a word. */
static void cut_off_anywhere(void **state) {
    (void)state;
    size_t n;
    char *bytes = good_bytes(&n);
    temp_write("cut.so", bytes, n);
    mem_free(bytes);
    for (size_t i = 199; i > 0; i--) {
        assert_int_equal(truncate(temp_path("cut.so"), (off_t)(n * i / 200)), 0);
        refused("trainer", temp_path("cut.so"), "E_PLUG_TRUNC", "past the end of the file");
    }
    for (off_t i = 63; i > 3; i--) {
        assert_int_equal(truncate(temp_path("cut.so"), i), 0);
        refused("trainer", temp_path("cut.so"), "E_PLUG_TRUNC", "the ELF header goes past the end");
    }
}

static void forged_headers(void **state) {
    (void)state;
    static const struct {
        size_t at, bytes;
        uint64_t value;
        const char *name, *regex;
    } rows[] = {
        {EI_CLASS, 1, ELFCLASS32, "E_PLUG_ARCH", "is a 32-bit file, this qfw is .*64-bit"},
        {EI_DATA, 1, ELFDATA2MSB, "E_PLUG_ARCH", "is big-endian, this qfw is little-endian"},
#if defined(__x86_64__)
        {offsetof(Elf64_Ehdr, e_machine), 2, EM_AARCH64, "E_PLUG_ARCH",
            "the plugin is aarch64, this qfw is little-endian 64-bit x86_64"},
#else
        {offsetof(Elf64_Ehdr, e_machine), 2, EM_X86_64, "E_PLUG_ARCH", "the plugin is x86_64"},
#endif
        {offsetof(Elf64_Ehdr, e_machine), 2, 0xfff0, "E_PLUG_ARCH", "another architecture"},
        {offsetof(Elf64_Ehdr, e_type), 2, ET_REL, "E_PLUG_ELF", "an object file"},
        {offsetof(Elf64_Ehdr, e_type), 2, ET_EXEC, "E_PLUG_ELF", "ELF, but not a library"},
        {offsetof(Elf64_Ehdr, e_phoff), 8, UINT64_MAX - 16, "E_PLUG_TRUNC", "program headers"},
        {offsetof(Elf64_Ehdr, e_phoff), 8, 1u << 30, "E_PLUG_TRUNC", "program headers"},
        {offsetof(Elf64_Ehdr, e_phnum), 2, 0, "E_PLUG_TRUNC", "program headers"},
        {offsetof(Elf64_Ehdr, e_phnum), 2, 0xffff, "E_PLUG_TRUNC", "past the end"},
        {offsetof(Elf64_Ehdr, e_phentsize), 2, 8, "E_PLUG_TRUNC", "program headers"},
        {offsetof(Elf64_Ehdr, e_shoff), 8, UINT64_MAX - 16, "E_PLUG_TRUNC", "section table"},
        {offsetof(Elf64_Ehdr, e_shentsize), 2, 8, "E_PLUG_TRUNC", "section table"},
        {sizeof(Elf64_Ehdr) + offsetof(Elf64_Phdr, p_filesz), 8, UINT64_MAX, "E_PLUG_TRUNC",
            "a segment goes past the end"},
        {sizeof(Elf64_Ehdr) + offsetof(Elf64_Phdr, p_offset), 8, UINT64_MAX - 15, "E_PLUG_TRUNC",
            "a segment goes past the end"},
    };
    size_t n;
    char *bytes = good_bytes(&n);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char kept[8];
        memcpy(kept, bytes + rows[i].at, rows[i].bytes);
        memcpy(bytes + rows[i].at, &rows[i].value, rows[i].bytes); /* both are little-endian */
        temp_write("forged.so", bytes, n);
        refused("trainer", temp_path("forged.so"), rows[i].name, rows[i].regex);
        memcpy(bytes + rows[i].at, kept, rows[i].bytes);
    }
    mem_free(bytes);
}

/* The look at the file refuses some, the child dies of others, and some flips do no harm. */
static void flipped_bits(void **state) {
    (void)state;
    size_t n, n_refused = 0;
    char *bytes = good_bytes(&n), *flipped = mem_alloc(n, 1);
    uint64_t random = 1;
    assert_non_null(flipped);
    for (int i = 0; i < 150; i++) {
        plugin_facts facts;
        qfw_note note;
        memcpy(flipped, bytes, n);
        for (int k = 0; k < 4; k++) {
            random = random * 6364136223846793005u + 1442695040888963407u;
            /* half of them where the loader looks first */
            char *at = flipped + (size_t)(random >> 33) % (i % 2 ? n : 4096);
            *at = (char)(*at ^ (1 << (random >> 30 & 7)));
        }
        temp_write("flipped.so", flipped, n);
        if (plugin_precheck(temp_path("flipped.so"), &note) != QFW_OK ||
            plugin_probe(temp_path("flipped.so"), &facts) != QFW_OK) {
            n_refused++;
            assert_int_equal(err_exit_code(), EXIT_PLUGIN);
            assert_non_null(strstr(err_text(0), "flipped.so"));
        }
        err_clear();
    }
    mem_free(flipped);
    mem_free(bytes);
    print_message("%zu of 150 flipped files were refused\n", n_refused);
    assert_true(n_refused > 20);
}

/* --- owners and modes --- */

/* A copy of the good plugin as <folder>/p.so, 0644 in a folder of 0755. */
static const char *placed(const char *folder) {
    char name[64];
    snprintf(name, sizeof name, "%s/p.so", folder);
    assert_int_equal(dir_make(temp_path(folder)), QFW_OK);
    assert_int_equal(file_copy(bad("fine"), temp_path(name)), QFW_OK);
    assert_int_equal(chmod(temp_path(folder), 0755), 0);
    assert_int_equal(chmod(temp_path(name), 0644), 0);
    return temp_path(name);
}

static void open_to_everybody(void **state) {
    (void)state;
    const char *path = placed("world");
    assert_int_equal(chmod(path, 0666), 0);
    refused("backend", path, "E_PLUG_PERM", "the file can be written by everybody");
    assert_int_equal(chmod(path, 0664), 0); /* a group is fine */
    assert_int_equal(chmod(temp_path("world"), 0777), 0);
    refused("backend", path, "E_PLUG_PERM", "its folder .*/world can be written by everybody");
    plugin_allow_insecure(1);
    accepted(path);
    plugin_allow_insecure(0);
    plugin_close_all();
    refused("backend", path, "E_PLUG_PERM", "its folder .*/world can be written by everybody");
    assert_int_equal(chmod(temp_path("world"), 01777), 0); /* as /tmp is */
    accepted(path);
}

static void folder_above_is_open(void **state) {
    (void)state;
    assert_int_equal(dir_make(temp_path("above")), QFW_OK);
    const char *path = placed("above/below");
    assert_int_equal(chmod(temp_path("above"), 0777), 0);
    refused("backend", path, "E_PLUG_PERM", "its folder .*/above can be written by everybody");
    assert_int_equal(symlink(path, temp_path("innocent.so")), 0); /* the link's target counts */
    const plugin *p;
    assert_error(open_as("backend", temp_path("innocent.so"), &p), "E_PLUG_PERM", EXIT_PLUGIN,
        "/above/below/p\\.so: its folder .*/above can be written by everybody; hint: ");
}

static void owned_by_another(void **state) {
    (void)state;
    const char *path = placed("foreign");
    if (chown(path, 12345, (gid_t)-1)) {
        skip(); /* only root can give a file away */
    }
    refused("backend", path, "E_PLUG_PERM", "the file belongs to user 12345, wanted root or user");
    assert_int_equal(chown(path, 0, (gid_t)-1), 0);
    assert_int_equal(chown(temp_path("foreign"), 12345, (gid_t)-1), 0);
    refused("backend", path, "E_PLUG_PERM", "its folder .*/foreign belongs to user 12345");
}

/* --- the prober itself --- */

static void prober_is_not_there(void **state) {
    (void)state;
    const plugin *p;
    plugin_set_prober("/nonexistent/qfw");
    assert_error(open_as("backend", bad("fine"), &p), "E_LIMIT_PROCESS", EXIT_MEMORY,
        "_fine\\.so: /nonexistent/qfw cannot be started to probe it: No such file");
    plugin_set_prober("/bin/false");
    refused("backend", bad("fine"), "E_PLUG_PROBE", "ended the process \\(exit code 1\\)");
    plugin_set_prober(prober);
    accepted(bad("fine"));
}

/* With our own stdin, stdout and stderr closed the pipes get their numbers. */
static void descriptors_are_low(void **state) {
    (void)state;
    plugin_facts facts;
    const int out = dup(STDOUT_FILENO), in = dup(STDIN_FILENO);
    fflush(stdout);
    close(STDIN_FILENO);
    close(STDOUT_FILENO);
    const qfw_status good = plugin_probe(bad("fine"), &facts);
    const qfw_status prints = plugin_probe(bad("prints"), &facts);
    dup2(in, STDIN_FILENO);
    dup2(out, STDOUT_FILENO);
    close(in);
    close(out);
    assert_int_equal(good, QFW_OK);
    assert_error(prints, "E_PLUG_PROBE", EXIT_PLUGIN, "prints to stdout");
}

int main(void) {
#define TEST(f) cmocka_unit_test_setup(f, begin)
    const struct CMUnitTest tests[] = {
        TEST(constructors),
        TEST(child_left_behind),
        TEST(polluters),
        TEST(open_functions),
        TEST(other_abi),
        TEST(descriptors),
        TEST(without_a_note),
        TEST(facts_are_escaped),
        TEST(kind_by_kind),
        TEST(same_file_twice),
        TEST(two_files_of_one_name),
        TEST(not_plugins),
        TEST(cut_off_anywhere),
        TEST(forged_headers),
        TEST(flipped_bits),
        TEST(open_to_everybody),
        TEST(folder_above_is_open),
        TEST(owned_by_another),
        TEST(prober_is_not_there),
        TEST(descriptors_are_low),
    };
    const int failed = cmocka_run_group_tests(tests, setup, temp_drop);
    plugin_close_all();
    return failed;
}
