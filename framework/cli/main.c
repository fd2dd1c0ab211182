/* main.c -- the `qfw` command: words to calls, errors to exit codes. The only place that exits. */
#define _POSIX_C_SOURCE 200809L
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/error.h"
#include "base/log.h"
#include "base/mem.h"
#include "plugin/host.h"
#include "plugin/loader.h"
#include "serve/tasks.h"

static const char usage[] =
    "qfw fine-tunes a language model with 4-bit QLoRA, and generates, scores and evaluates with\n"
    "it, as an INI says.\n"
    "\n"
    "  qfw --ini FILE [options]     run what the file's [run] task asks for\n"
    "      --plan                   print the memory plan and stop before any weight is read\n"
    "      --dry-run                check all but the weights' values; write nothing\n"
    "      --rows N                 show N training rows token by token, not one\n"
    "      --resume                 go on from the newest checkpoint in output_dir\n"
    "      --profile                time every op; writes profile.json (Chrome trace)\n"
    "      --set SECTION.KEY=VALUE  override the INI; may be repeated\n"
    "  qfw plugin list              all plugins, and why one cannot be used\n"
    "  qfw plugin show [KIND] NAME  a plugin and its keys\n"
    "  qfw help [SECTION]           the keys of an INI section, or all sections\n"
    "  qfw --version\n"
    "\n"
    "  --plugin-dir DIR             with any of them: look for plugins there first\n"
    "  --allow-insecure-plugins     and load plugins that others could have written\n";

/* Print the thread's error and return its exit code. */
static int report(void) {
    if (!err_count()) /* never a success: whatever failed owes us a sentence */
        (void)err_fail("E_INTERNAL", QFW_E_INTERNAL, "a call failed and did not say why");
    for (uint32_t i = 0; err_text(i); i++) log_line(QFW_LOG_ERROR, "%s", err_text(i));
    if (err_unsaid()) log_line(QFW_LOG_ERROR, "and %u more like them", err_unsaid());
    return err_exit_code();
}

/* One line of what plugins and folders say, with nothing in it that a terminal would act on. */
QFW_PRINTF(1, 2) static void print_line(const char *fmt, ...) {
    char text[2048], shown[2048];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    err_escape(shown, sizeof shown, text);
    printf("%s\n", shown);
}

static int bad_usage(const char *what, const char *word) {
    (void)err_fail(
        "E_USAGE", QFW_E_CONFIG, "%s '%s'; hint: `qfw help` lists what there is", what, word);
    return report();
}

/* A command's last word is behind it. */
static int too_many(const char *word) { return bad_usage("one word too many:", word); }

/* --- plugin list, plugin show, help --- */

static int list_plugins(void) {
    plugin_facts facts;
    uint32_t n = 0;
    for (uint32_t i = 0; plugin_list(i, &facts) == QFW_OK; i++, n++) {
        char abi[16] = "no abi ";
        if (facts.abi_major || facts.abi_minor)
            snprintf(abi, sizeof abi, "abi %u.%u", facts.abi_major, facts.abi_minor);
        print_line("%-10s %-12s %-8s %s  %s", facts.kind, facts.name, facts.version, abi,
            facts.problem[0] ? "cannot be used" : facts.summary);
        print_line("           %s", facts.path);
        if (facts.problem[0]) print_line("           %s", facts.problem);
    }
    const qfw_component *c;
    for (uint32_t i = 0; (c = optimizer_built_in(i)) != NULL; i++)
        print_line("%-10s %-12s %-8s built in  %s", "optimizer", c->name, "", c->summary);
    if (!n)
        printf("no plugin files were found; --plugin-dir or QFW_PLUGIN_PATH say where to look\n");
    return EXIT_OK;
}

static void print_options(const char *section, const qfw_component *c) {
    if (!c->n_options) {
        printf("  no keys of its own\n");
        return;
    }
    option_help(stdout, section, c->options, c->n_options);
}

static int show_component(const plugin *p, const qfw_component *c) {
    char section[96];
    snprintf(section, sizeof section, "%s.%s", plugin_kind_name(c->kind), c->name);
    print_line("%s %s: %s", plugin_kind_name(c->kind), c->name, c->summary);
    print_line("  %s %s, by %s, licence %s", p->desc->name, p->desc->version, p->desc->author,
        p->desc->license);
    print_line("  %s", p->path);
    printf("\n");
    print_options(section, c);
    return EXIT_OK;
}

/* Keys of one section, core or "<kind>.<name>" of a plugin. */
static int help_section(const char *name) {
    for (uint32_t i = 0; i < CORE_SECTIONS; i++) {
        if (strcmp(core_schema[i].section, name)) continue;
        option_help(stdout, name, core_schema[i].options, core_schema[i].n_options);
        return EXIT_OK;
    }
    const char *dot = strchr(name, '.');
    char kind[32];
    const plugin *p;
    const qfw_component *c;
    if (!dot || (size_t)(dot - name) >= sizeof kind) return bad_usage("no section is called", name);
    snprintf(kind, sizeof kind, "%.*s", (int)(dot - name), name);
    if (!plugin_kind(kind)) return bad_usage("no section is called", name);
    if (plugin_open(kind, dot + 1, &p, &c) != QFW_OK) return report();
    print_line("%s", c->summary);
    print_options(name, c);
    return EXIT_OK;
}

static int show_optimizer(const qfw_component *c) {
    printf("optimizer %s: %s\n  built in\n\n", c->name, c->summary);
    return help_section("optimizer");
}

/* Whatever is called so, or is in that file. A broken file that has the name is the answer only
 * where no other has it. */
static int show_any(const char *use) {
    static const char *const kinds[] = {"backend", "model", "trainer", "optimizer", NULL};
    const int is_file = strchr(use, '/') != NULL;
    const char *broken = NULL;
    const plugin *p;
    const qfw_component *c;
    for (const char *const *kind = kinds; *kind; kind++) {
        if (plugin_open(*kind, use, &p, &c) == QFW_OK) return show_component(p, c);
        if (is_file && strcmp(err_name(), "E_PLUG_KIND")) return report();
        if (!broken && strcmp(err_name(), "E_PLUG_NOTFOUND")) broken = *kind;
    }
    if ((c = optimizer_by_name(use)) != NULL) return show_optimizer(c);
    if (broken)
        (void)plugin_open(broken, use, &p, &c); /* its reason again */
    else
        (void)err_fail("E_PLUG_NOTFOUND", QFW_E_UNSUPPORTED,
            "no backend, model, trainer or optimizer is called '%s'; hint: `qfw plugin list` shows "
            "what there is, --plugin-dir adds a folder",
            use);
    return report();
}

static int show_plugin(int argc, char **argv) {
    const plugin *p;
    const qfw_component *c;
    if (argc < 1) return bad_usage("plugin show wants a name, found", "");
    if (argc > 2) return too_many(argv[2]);
    if (argc == 1) return show_any(argv[0]);
    if (!plugin_kind(argv[0])) return bad_usage("no kind of plugin is called", argv[0]);
    if (plugin_kind(argv[0]) == QFW_KIND_OPTIMIZER && (c = optimizer_by_name(argv[1])) != NULL)
        return show_optimizer(c);
    return plugin_open(argv[0], argv[1], &p, &c) == QFW_OK ? show_component(p, c) : report();
}

static int plugin_command(int argc, char **argv) {
    if (argc > 0 && !strcmp(argv[0], "list")) return argc > 1 ? too_many(argv[1]) : list_plugins();
    if (argc > 0 && !strcmp(argv[0], "show")) return show_plugin(argc - 1, argv + 1);
    return bad_usage("plugin wants list or show, found", argc > 0 ? argv[0] : "");
}

static int help(int argc, char **argv) {
    if (argc > 1) return too_many(argv[1]);
    if (argc > 0 && !strncmp(argv[0], "optimizer.", 10)) {
        const qfw_component *c = optimizer_by_name(argv[0] + 10);
        if (c) return show_optimizer(c);
    }
    if (argc > 0) return help_section(argv[0]);
    printf("%s\nSections of the INI:\n\n", usage);
    for (uint32_t i = 0; i < CORE_SECTIONS; i++)
        option_help(
            stdout, core_schema[i].section, core_schema[i].options, core_schema[i].n_options);
    printf("A plugin's own keys stand in [KIND.NAME]: `qfw plugin show NAME`.\n");
    return EXIT_OK;
}

/* --- a run --- */

/* The first signal asks the run to stop after its step, with a checkpoint; a second one ends it at
 * once. */
static void on_signal(int number) {
    static volatile sig_atomic_t seen;
    if (seen++) {
        signal(number, SIG_DFL);
        raise(number);
    }
    host_cancel(1);
}

static void on_wish(int number) { host_ask(number == SIGUSR1 ? HOST_SAVE : HOST_STATUS); }

static void catch_signals(void) {
    struct sigaction action = {.sa_handler = on_signal}, before;
    sigfillset(&action.sa_mask); /* the first and the second do not meet in the handler */
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    if (!sigaction(SIGHUP, NULL, &before) && before.sa_handler != SIG_IGN) /* nohup */
        sigaction(SIGHUP, &action, NULL);
    action.sa_handler = on_wish;
    action.sa_flags = SA_RESTART; /* a run that goes on is not to be interrupted */
    sigaction(SIGUSR1, &action, NULL);
    sigaction(SIGUSR2, &action, NULL);
    action.sa_handler = SIG_IGN;
    sigaction(SIGPIPE, &action, NULL); /* a reader that went away must not end a run */
    sigaction(SIGXFSZ, &action, NULL); /* EFBIG is reported like a full disk */
}

/* What the caller closed is not given to a file of ours, which lines for a person would go into.
 * The wrong way round, so that a write to it still fails. */
static void hold_standard_files(void) {
    for (int fd = 0; fd <= STDERR_FILENO; fd++)
        if (fcntl(fd, F_GETFD) < 0) (void)open("/dev/null", fd ? O_RDONLY : O_WRONLY);
}

typedef struct words { /* the command line as far as it is read */
    int argc, at;
    char **argv;
} words;

/* The value of option `name`, from "--name value" or "--name=value"; NULL: argv[at] is another
 * option. */
static const char *option_value(words *w, const char *name, int *missing) {
    const char *word = w->argv[w->at];
    const size_t n = strlen(name);
    if (strncmp(word, name, n)) return NULL;
    if (word[n] == '=') return word + n + 1;
    if (word[n]) return NULL;
    if (w->at + 1 < w->argc) return w->argv[++w->at];
    *missing = 1;
    return NULL;
}

static int is_flag(const char *word, run_flags *f) {
    if (!strcmp(word, "--plan"))
        f->plan_only = 1;
    else if (!strcmp(word, "--dry-run"))
        f->dry_run = 1;
    else if (!strcmp(word, "--resume"))
        f->resume = 1;
    else if (!strcmp(word, "--profile"))
        f->profile = 1;
    else
        return 0;
    return 1;
}

/* 0, or -1 where the value is no number of rows. */
static int read_rows(const char *value, run_flags *f) {
    const size_t n = strlen(value);
    if (n == 0 || n > 9 || strspn(value, "0123456789") != n) return -1;
    f->n_rows = (uint32_t)strtoul(value, NULL, 10);
    return f->n_rows ? 0 : -1;
}

static int run_command(int argc, char **argv) {
    const char **set = mem_alloc((size_t)argc, sizeof *set);
    run_flags flags = {.set = set};
    words w = {argc, 0, argv};
    int missing = 0, code = set ? EXIT_OK : report();
    for (; code == EXIT_OK && w.at < argc; w.at++) {
        const char *word = argv[w.at], *value;
        if (is_flag(word, &flags)) continue;
        if ((value = option_value(&w, "--ini", &missing)) != NULL) {
            if (flags.ini_path) code = bad_usage("--ini is given twice, again with", value);
            flags.ini_path = value;
        } else if ((value = option_value(&w, "--set", &missing)) != NULL) {
            set[flags.n_set++] = value;
        } else if ((value = option_value(&w, "--rows", &missing)) != NULL) {
            if (read_rows(value, &flags)) code = bad_usage("--rows wants a number, found", value);
        } else {
            code = bad_usage(missing ? "a value is missing after" : "unknown option", word);
        }
    }
    if (code == EXIT_OK && !flags.ini_path) code = bad_usage("an option is missing:", "--ini FILE");
    if (code == EXIT_OK) {
        catch_signals();
        if (task_main(&flags, stdout) != QFW_OK) code = report();
    }
    mem_free(set);
    return code;
}

/* The options that every command takes; what is left of argv are the command's own words. */
static int take_plugin_options(int *argc, char **argv) {
    words w = {*argc, 1, argv};
    int kept = 1, missing = 0;
    for (; w.at < w.argc; w.at++) {
        char *word = argv[w.at];
        const char *folder = option_value(&w, "--plugin-dir", &missing);
        if (missing) return bad_usage("a value is missing after", word);
        if (folder && plugin_search_add(folder) != QFW_OK) return report();
        if (!strcmp(word, "--allow-insecure-plugins"))
            plugin_allow_insecure(1);
        else if (!folder)
            argv[kept++] = word;
    }
    *argc = kept;
    return EXIT_OK;
}

static int command(int argc, char **argv) {
    int code = take_plugin_options(&argc, argv);
    if (code != EXIT_OK) return code;
    if (argc < 2) {
        fputs(usage, stderr);
        return EXIT_USAGE;
    }
    const char *word = argv[1];
    if (!strcmp(word, "plugin")) return plugin_command(argc - 2, argv + 2);
    if (!strcmp(word, "help") || !strcmp(word, "--help") || !strcmp(word, "-h"))
        return help(argc - 2, argv + 2);
    if (strcmp(word, "--version")) return run_command(argc - 1, argv + 1);
    if (argc > 2) return too_many(argv[2]);
    printf("%s %s, plugin ABI %d.%d\n", host_table()->name, host_table()->version, QFW_ABI_MAJOR,
        QFW_ABI_MINOR);
    return EXIT_OK;
}

int main(int argc, char **argv) {
    hold_standard_files();
    plugin_set_host(host_table());
    if (argc == 3 && !strcmp(argv[1], "--probe-plugin")) return plugin_probe_child(argv[2]);
    plugin_set_prober("/proc/self/exe");
    int code = command(argc, argv);
    plugin_close_all();
    if (fflush(stdout) || ferror(stdout)) {
        (void)err_fail(
            "E_IO_STDOUT", QFW_E_IO, "stdout cannot be written: what was to be printed is lost");
        const int lost = report();
        if (code == EXIT_OK) code = lost;
    }
    return code;
}
