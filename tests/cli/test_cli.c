/* test_cli.c -- the command as a person meets it: exit codes, and the lines that matter. */
#define _XOPEN_SOURCE 700
#include <regex.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/error.h"
#include "files/file.h"

#include "../support/command.h"
#include "../support/temp.h"
#include "../support/test.h"

static command c;
static char qfw[600];
/* The sanitizers' handlers would hide the signal that ends a child. */
static const char options[] = "handle_segv=0:handle_sigill=0:handle_abort=0";

/* Run qfw with these words, split at single blanks. */
static int run(const char *words) {
    static char text[2048];
    const char *argv[32] = {qfw};
    snprintf(text, sizeof text, "%s", words);
    int n = 1;
    for (char *at = text; *at && n < 31;) {
        argv[n++] = at;
        at += strcspn(at, " ");
        if (*at) *at++ = 0;
    }
    argv[n] = NULL;
    assert_int_equal(command_run(argv, &c), 0);
    return c.exit_code;
}

static int is_like(const char *text, const char *regex) {
    regex_t compiled;
    assert_int_equal(regcomp(&compiled, regex, REG_EXTENDED | REG_NOSUB | REG_NEWLINE), 0);
    const int unlike = regexec(&compiled, text, 0, NULL, 0);
    regfree(&compiled);
    return !unlike;
}

/* Exit code 0, nothing on stderr, and a line of stdout that matches. */
static void prints(const char *words, const char *regex) {
    if (run(words) || *c.err) fail_msg("qfw %s: exit %d, %s", words, c.exit_code, c.err);
    if (!is_like(c.out, regex)) fail_msg("qfw %s printed\n%s\nno line is %s", words, c.out, regex);
}

/* This exit code, nothing on stdout, and one line on stderr that matches. */
static void fails(const char *words, int exit_code, const char *regex) {
    if (run(words) != exit_code || *c.out)
        fail_msg("qfw %s: exit %d, wanted %d; %s%s", words, c.exit_code, exit_code, c.err, c.out);
    if (!is_like(c.err, regex)) fail_msg("qfw %s said\n%s\nnot %s", words, c.err, regex);
    const char *end = strchr(c.err, '\n');
    if (!end || end[1]) fail_msg("qfw %s said\n%s\nwanted one line", words, c.err);
}

static int setup(void **state) {
    snprintf(qfw, sizeof qfw, "%s", build_path("qfw"));
    setenv("ASAN_OPTIONS", options, 1);
    return temp_make(state);
}

static const char *bad_file(const char *name) {
    char file[128];
    snprintf(file, sizeof file, "tests/badplugins/libqfw_backend_%s.so", name);
    return build_path(file);
}

/* <temp>/<folder> with copies of these bad plugins, as `--plugin-dir FOLDER`. */
static const char *plugin_dir(const char *folder, const char *const names[]) {
    static char option[600];
    char file[128];
    assert_int_equal(dir_make(temp_path(folder)), QFW_OK);
    for (; *names; names++) {
        snprintf(file, sizeof file, "%s/libqfw_backend_%s.so", folder, *names);
        assert_int_equal(file_copy(bad_file(*names), temp_path(file)), QFW_OK);
    }
    snprintf(option, sizeof option, "--plugin-dir %s", temp_path(folder));
    return option;
}

/* --- what it says of itself --- */

static void version(void **state) {
    (void)state;
    prints("--version", "^qfw " QFW_VERSION ", plugin ABI 0\\.4$");
    assert_string_equal(c.out, "qfw " QFW_VERSION ", plugin ABI 0.4\n");
}

static void help(void **state) {
    (void)state;
    static const char *const words[] = {"help", "--help", "-h"};
    for (int i = 0; i < 3; i++) {
        prints(words[i],
            "^  qfw --ini FILE \\[options\\]     run what the file.s \\[run\\] task asks for$");
        assert_true(is_like(c.out, "^\\[run\\]$") && is_like(c.out, "^\\[plugins\\]$"));
        assert_true(is_like(c.out, "^  learning_rate = 2e-5$"));
        assert_true(is_like(c.out, "^  output_dir  \\(required\\)$"));
        assert_true(is_like(c.out, "`qfw plugin show NAME`"));
    }
    prints("help trainer", "^  lr_scheduler_type = linear$");
    assert_true(is_like(c.out, "linear \\| cosine \\| cosine_with_restarts"));
    assert_false(is_like(c.out, "^\\[run\\]$"));
    prints("help optimizer.adamw", "^  adam_beta1 = 0\\.9$");
    prints("help trainer.sft", "^  completion_only_loss = auto$");
    fails("help trainor", EXIT_USAGE, "error\\[E_USAGE\\] no section is called 'trainor'; hint: ");
    fails("help trainer.nope", EXIT_PLUGIN, "E_PLUG_NOTFOUND.*libqfw_trainer_nope\\.so");
    fails("help nokind.sft", EXIT_USAGE, "no section is called 'nokind\\.sft'");
}

static void no_words(void **state) {
    (void)state;
    const char *const argv[] = {qfw, NULL};
    assert_int_equal(command_run(argv, &c), 0);
    assert_int_equal(c.exit_code, EXIT_USAGE);
    assert_string_equal(c.out, "");
    assert_true(is_like(c.err, "^  qfw --ini FILE"));
}

static void wrong_words(void **state) {
    (void)state;
    fails("--frobnicate", EXIT_USAGE, "error\\[E_USAGE\\] unknown option '--frobnicate'");
    fails("sft.ini", EXIT_USAGE, "unknown option 'sft\\.ini'");
    fails("--plan", EXIT_USAGE, "an option is missing: '--ini FILE'");
    fails("--ini", EXIT_USAGE, "a value is missing after '--ini'");
    fails("--ini a.ini --set", EXIT_USAGE, "a value is missing after '--set'");
    fails("--ini a.ini --ini=b.ini", EXIT_USAGE, "--ini is given twice, again with 'b\\.ini'");
    fails("--ini a.ini --rows", EXIT_USAGE, "a value is missing after '--rows'");
    fails("--ini a.ini --rows=0", EXIT_USAGE, "--rows wants a number, found '0'");
    fails("--ini a.ini --rows 3x", EXIT_USAGE, "--rows wants a number, found '3x'");
    fails("--plugin-dir", EXIT_USAGE, "a value is missing after '--plugin-dir'");
    fails("--inifile x", EXIT_USAGE, "unknown option '--inifile'");
    fails("plugin", EXIT_USAGE, "plugin wants list or show, found ''");
    fails("plugin lost", EXIT_USAGE, "plugin wants list or show, found 'lost'");
    fails("plugin show", EXIT_USAGE, "plugin show wants a name");
    fails("plugin show a b c", EXIT_USAGE, "one word too many: 'c'");
    fails("plugin list garbage", EXIT_USAGE, "one word too many: 'garbage'");
    fails("help run garbage", EXIT_USAGE, "one word too many: 'garbage'");
    fails("--version extra", EXIT_USAGE, "one word too many: 'extra'");
    fails("plugin show engine cpu", EXIT_USAGE, "no kind of plugin is called 'engine'");
    fails("--ini /nonexistent/sft.ini", EXIT_NOINPUT, "/nonexistent/sft\\.ini");
}

/* --- plugins --- */

static void plugin_list_ours(void **state) {
    (void)state;
    prints("plugin list", "^backend    cpu          " QFW_VERSION "    abi 0\\.4  .");
    assert_true(is_like(c.out, "^model      phi3         .*abi 0\\.4  Phi-3"));
    assert_true(is_like(c.out, "^trainer    sft          .*abi 0\\.4  supervised"));
    assert_true(is_like(c.out, "^           /.*/libqfw_trainer_sft\\.so$"));
    assert_true(is_like(c.out, "^optimizer  adamw  .*built in"));
    assert_null(strstr(c.out, "cannot be used"));
}

/* A broken one is listed with its reason, and spoils neither the list nor the exit code. */
static void plugin_list_broken(void **state) {
    (void)state;
    static const char *const names[] = {"segv", "exit0", "note_minor", "fine", "twin1", NULL};
    char words[700];
    snprintf(words, sizeof words, "plugin list %s", plugin_dir("broken", names));
    prints(words, "^backend    segv                  abi 0\\.4  cannot be used$");
    assert_true(is_like(c.out,
        "^           error\\[E_PLUG_PROBE\\] /.*_segv\\.so: the plugin died with signal 11 "));
    assert_true(is_like(c.out, "_exit0\\.so: the plugin ended the process \\(exit code 0\\)"));
    assert_true(is_like(c.out, "^backend    note_minor .*abi 0\\.99  cannot be used$"));
    assert_true(
        is_like(c.out, "built for plugin ABI 0\\.99, this qfw speaks 0\\.4; hint: rebuild"));
    assert_true(is_like(c.out, "^backend    fine .*for tests: \\\\x1b\\[31mred"));
    assert_true(is_like(c.out, "_twin1\\.so: has backend 'twin', its file name says"));
    assert_true(is_like(c.out, "^trainer    sft "));
    assert_null(strchr(c.out, '\033'));
    temp_text("broken/libqfw_model_text.so", "no plugin");
    prints(words, "^model      text                  no abi   cannot be used$");
}

static void plugin_show(void **state) {
    (void)state;
    char words[700], regex[700];
    prints("plugin show cpu", "^backend cpu: ");
    assert_true(is_like(c.out, "^  cpu " QFW_VERSION ", by qfw authors, licence MIT$"));
    assert_true(is_like(c.out, "^  /.*/libqfw_backend_cpu\\.so$"));
    prints("plugin show phi3", "^model phi3: ");
    prints("plugin show sft", "^trainer sft: ");
    assert_true(is_like(c.out, "^\\[trainer\\.sft\\]$"));
    assert_true(is_like(c.out, "^  completion_only_loss = auto$"));
    prints("plugin show trainer sft", "^trainer sft: ");
    prints("plugin show adamw", "^optimizer adamw: ");
    assert_true(is_like(c.out, "^  adam_beta1 = 0\\.9$"));
    snprintf(words, sizeof words, "plugin show %s", build_path("libqfw_model_phi3.so"));
    prints(words, "^model phi3: ");
    fails("plugin show nope", EXIT_PLUGIN,
        "E_PLUG_NOTFOUND\\] no backend, model, trainer or optimizer is called 'nope'; hint: ");
    fails("plugin show model cpu", EXIT_PLUGIN, "model 'cpu': no libqfw_model_cpu\\.so in /");
    snprintf(words, sizeof words, "plugin show %s", bad_file("abort"));
    fails(words, EXIT_PLUGIN, "_abort\\.so: the plugin died with signal 6");
    snprintf(words, sizeof words, "plugin show %s", bad_file("unknown_kind"));
    fails(words, EXIT_PLUGIN, "E_PLUG_KIND\\].*has nothing that this qfw knows");
    snprintf(words, sizeof words, "plugin show backend %s", bad_file("open_mute"));
    fails(words, EXIT_INTERNAL, "E_PLUGIN\\].*failed with code -6 and no reason");
    snprintf(words, sizeof words, "plugin show %s", temp_path("none.so"));
    snprintf(regex, sizeof regex, "%s: No such file", temp_path("none.so"));
    fails(words, EXIT_PLUGIN, regex);
}

/* A broken file that a name means is the answer, not "there is none". */
static void a_broken_one_is_not_a_missing_one(void **state) {
    (void)state;
    static const char *const names[] = {"dependency", NULL};
    char words[700];
    snprintf(words, sizeof words, "%s plugin show dependency", plugin_dir("lacking", names));
    fails(words, EXIT_PLUGIN, "E_PLUG_LOAD\\].*_dependency\\.so: cannot be loaded: libabsent\\.so");
}

/* But it does not stand in the way of another kind's plugin of that name. */
static void a_broken_one_hides_no_other(void **state) {
    (void)state;
    static const char *const names[] = {"fine", NULL};
    char words[700];
    snprintf(words, sizeof words, "%s plugin show adamw", plugin_dir("misnamed", names));
    assert_int_equal(file_copy(bad_file("fine"), temp_path("misnamed/libqfw_model_adamw.so")), 0);
    prints(words, "^optimizer adamw: ");
    snprintf(words, sizeof words, "%s plugin show sft", plugin_dir("misnamed", names));
    assert_int_equal(file_copy(bad_file("fine"), temp_path("misnamed/libqfw_model_sft.so")), 0);
    prints(words, "^trainer sft: ");
    snprintf(words, sizeof words, "%s plugin show other", plugin_dir("misnamed", names));
    assert_int_equal(file_copy(bad_file("fine"), temp_path("misnamed/libqfw_model_other.so")), 0);
    fails(words, EXIT_PLUGIN, "E_PLUG_KIND\\].*_model_other\\.so: has backend 'fine', wanted");
}

/* The limit of descriptors is the reason, not an argument that nobody gave. */
static void too_few_descriptors(void **state) {
    (void)state;
    const char *const argv[] = {"sh", "-c", "ulimit -n 8; \"$0\" plugin show sft", qfw, NULL};
    assert_int_equal(command_run(argv, &c), 0);
    if (!is_like(c.err, "E_LIMIT_FD\\].*: Too many open files; hint: ulimit -n$"))
        fail_msg("%s", c.err);
}

static void insecure_plugins(void **state) {
    (void)state;
    static const char *const names[] = {"fine", NULL};
    char words[700];
    const char *option = plugin_dir("insecure", names);
    assert_int_equal(chmod(temp_path("insecure"), 0777), 0);
    snprintf(words, sizeof words, "plugin show fine %s", option);
    fails(words, EXIT_PLUGIN, "E_PLUG_PERM\\].*can be written by everybody; hint: ");
    snprintf(words, sizeof words, "plugin show fine --allow-insecure-plugins %s", option);
    prints(words, "^backend fine: ");
}

/* Where a program has another's rights, the caller's environment does not say what is loaded. */
static void setuid_ignores_the_environment(void **state) {
    (void)state;
    static const char *const names[] = {"fine", NULL};
    char copy[600];
    plugin_dir("caller", names);
    snprintf(copy, sizeof copy, "%s", temp_path("qfw-setuid"));
    assert_int_equal(file_copy(qfw, copy), QFW_OK);
    assert_int_equal(chmod(temp_folder(), 0755), 0);
    setenv("QFW_PLUGIN_PATH", temp_path("caller"), 1);
    const char *const argv[] = {copy, "plugin", "list", NULL};
    if (chmod(copy, 0755) || command_run(argv, &c) || c.exit_code || *c.err) fail_msg("%s", c.err);
    assert_non_null(strstr(c.out, "libqfw_backend_fine.so"));
    const int can = !geteuid() && !chown(copy, 65534, (gid_t)-1) && !chmod(copy, 04755);
    if (can) assert_int_equal(command_run(argv, &c), 0);
    setenv("QFW_PLUGIN_PATH", build_path(""), 1);
    if (!can) skip(); /* only root can give a file away */
    /* The exit code is not looked at: LeakSanitizer cannot look into such a process and fails. */
    assert_null(strstr(c.out, "libqfw_backend_fine.so"));
    assert_non_null(strstr(c.out, "no plugin files were found"));
}

static void lost_output(void **state) {
    (void)state;
    const char *const argv[] = {"sh", "-c", "\"$0\" help >/dev/full", qfw, NULL};
    if (access("/dev/full", W_OK)) skip();
    assert_int_equal(command_run(argv, &c), 0);
    assert_int_equal(c.exit_code, EXIT_IOERR);
    assert_true(is_like(c.err, "error\\[E_IO_STDOUT\\] stdout cannot be written"));
}

/* --- paths in the INI --- */

/* The plugin files that an INI names are relative to it, wherever the command is run. */
#define REST  "[backend]\nuse = cpu\n[run]\noutput_dir = out\n[data]\ntrain = run.ini\n"
#define MODEL "[model]\npath = .\n"

static void plugin_paths_of_the_ini(void **state) {
    (void)state;
    static const char *const names[] = {"open_fails", "fine", NULL};
    char words[1400], ini[600];
    plugin_dir("beside/plugins", names);
    snprintf(ini, sizeof ini, "%s", temp_path("beside/run.ini"));
    snprintf(words, sizeof words, "--dry-run --ini %s", ini);
    temp_text(
        "beside/run.ini", "[model]\nuse = plugins/libqfw_backend_open_fails.so\npath = .\n" REST);
    fails(words, EXIT_PLUGIN,
        "E_DEV_FAULT\\].*/beside/run\\.ini:2:7: /.*/beside/plugins/libqfw_backend_open_fails\\.so: "
        "plugin_open: no such card");
    temp_text("beside/run.ini", "[model]\nuse = ./plugins/libqfw_backend_fine.so\npath = .\n" REST);
    fails(words, EXIT_PLUGIN, "/run\\.ini:2:7: /.*_fine\\.so: has backend 'fine', wanted model");
    temp_text("beside/run.ini", "[plugins]\npath = plugins\n[model]\nuse = fine\npath = .\n" REST);
    fails(words, EXIT_PLUGIN, "no libqfw_model_fine\\.so in /[^ ]*/beside/plugins, ");
    temp_text("beside/run.ini", "[plugins]\npath = nofolder\n" MODEL REST);
    fails(words, EXIT_PLUGIN, "/run\\.ini:2:8: plugin folder /.*/beside/nofolder: no such folder");
    temp_text("beside/run.ini", "[plugins]\nload = plugins/libqfw_backend_fine.so, "
                                "plugins/libqfw_backend_open_fails.so\n" MODEL REST);
    fails(words, EXIT_PLUGIN, "/run\\.ini:2:8: /.*_open_fails\\.so: plugin_open: no such card");
    snprintf(words, sizeof words, "--dry-run --ini %s --set model.use=plugins/x.so", ini);
    temp_text("beside/run.ini", MODEL REST);
    fails(words, EXIT_PLUGIN, "--set model\\.use: /.*/beside/plugins/x\\.so: No such file");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(version),
        cmocka_unit_test(help),
        cmocka_unit_test(no_words),
        cmocka_unit_test(wrong_words),
        cmocka_unit_test(plugin_list_ours),
        cmocka_unit_test(plugin_list_broken),
        cmocka_unit_test(plugin_show),
        cmocka_unit_test(a_broken_one_is_not_a_missing_one),
        cmocka_unit_test(a_broken_one_hides_no_other),
        cmocka_unit_test(too_few_descriptors),
        cmocka_unit_test(insecure_plugins),
        cmocka_unit_test(setuid_ignores_the_environment),
        cmocka_unit_test(lost_output),
        cmocka_unit_test(plugin_paths_of_the_ini),
    };
    return cmocka_run_group_tests(tests, setup, temp_drop);
}
