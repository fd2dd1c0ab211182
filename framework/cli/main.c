/* main.c -- the `qfw` command: words to calls, errors to exit codes. The only place that exits. */
#define _POSIX_C_SOURCE 200809L
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/error.h"
#include "base/log.h"
#include "base/mem.h"
#include "plugin/host.h"
#include "plugin/loader.h"
#include "train/run.h"

static const char usage[] =
    "qfw fine-tunes a language model with 4-bit QLoRA, as an INI says.\n"
    "\n"
    "  qfw --ini FILE [options]     run what the file asks for\n"
    "      --plan                   print the memory plan and stop before any weight is read\n"
    "      --dry-run                check settings, data and plan; write nothing\n"
    "      --resume                 go on from the newest checkpoint in output_dir\n"
    "      --profile                time every op; writes profile.json (Chrome trace)\n"
    "      --set SECTION.KEY=VALUE  override the INI; may be repeated\n"
    "      --plugin-dir DIR         look for plugins there first\n"
    "      --allow-insecure-plugins load plugins that others could have written\n"
    "  qfw plugin list              all plugins, and why one cannot be used\n"
    "  qfw plugin show [KIND] NAME  a plugin and its keys\n"
    "  qfw help [SECTION]           the keys of an INI section, or all sections\n"
    "  qfw --version\n";

/* Print the thread's error and return its exit code. */
static int report(void) {
    for (uint32_t i = 0; err_text(i); i++) log_line(QFW_LOG_ERROR, "%s", err_text(i));
    return err_exit_code();
}

static int bad_usage(const char *what, const char *word) {
    (void)err_fail(
        "E_USAGE", QFW_E_CONFIG, "%s '%s'; hint: `qfw help` lists what there is", what, word);
    return report();
}

/* --- plugin list, plugin show, help --- */

static int list_plugins(void) {
    plugin_facts facts;
    uint32_t n = 0;
    for (uint32_t i = 0; plugin_list(i, &facts) == QFW_OK; i++, n++) {
        printf("%-10s %-12s %-8s abi %u.%u  %s\n", facts.kind, facts.name, facts.version,
            facts.abi_major, facts.abi_minor, facts.problem[0] ? "cannot be used" : facts.summary);
        printf("           %s\n", facts.path);
        if (facts.problem[0]) printf("           %s\n", facts.problem);
    }
    printf("%-10s %-12s %-8s %s  %s\n", "optimizer", adamw_component.name, "", "built in",
        adamw_component.summary);
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
    printf("%s %s: %s\n", plugin_kind_name(c->kind), c->name, c->summary);
    printf("  %s %s, by %s, licence %s\n  %s\n\n", p->desc->name, p->desc->version, p->desc->author,
        p->desc->license, p->path);
    print_options(section, c);
    return EXIT_OK;
}

static int show_plugin(int argc, char **argv) {
    static const char *const kinds[] = {"backend", "model", "trainer", "optimizer", NULL};
    const plugin *p;
    const qfw_component *c;
    if (argc < 1) return bad_usage("plugin show wants a name, found", "");
    if (argc > 1) {
        if (!plugin_kind(argv[0])) return bad_usage("no kind of plugin is called", argv[0]);
        return plugin_open(argv[0], argv[1], &p, &c) == QFW_OK ? show_component(p, c) : report();
    }
    for (const char *const *k = kinds; *k; k++)
        if (plugin_open(*k, argv[0], &p, &c) == QFW_OK) return show_component(p, c);
    return report();
}

static int plugin_command(int argc, char **argv) {
    if (argc > 0 && !strcmp(argv[0], "list")) return list_plugins();
    if (argc > 0 && !strcmp(argv[0], "show")) return show_plugin(argc - 1, argv + 1);
    return bad_usage("plugin wants list or show, found", argc > 0 ? argv[0] : "");
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
    printf("[%s] %s\n", name, c->summary);
    print_options(name, c);
    return EXIT_OK;
}

static int help(int argc, char **argv) {
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

static void catch_signals(void) {
    struct sigaction action = {.sa_handler = on_signal};
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    action.sa_handler = SIG_IGN;
    sigaction(SIGPIPE, &action, NULL); /* a reader that went away must not end a run */
    sigaction(SIGXFSZ, &action, NULL); /* EFBIG is reported like a full disk */
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
    else if (!strcmp(word, "--allow-insecure-plugins"))
        plugin_allow_insecure(1);
    else
        return 0;
    return 1;
}

static int run_command(int argc, char **argv) {
    const char **set = mem_alloc((size_t)argc, sizeof *set);
    run_flags flags = {.set = set};
    words w = {argc, 0, argv};
    int missing = 0, code = EXIT_OK;
    for (; set && code == EXIT_OK && w.at < argc; w.at++) {
        const char *word = argv[w.at], *value;
        if (is_flag(word, &flags)) continue;
        if ((value = option_value(&w, "--ini", &missing)) != NULL) {
            if (flags.ini_path) code = bad_usage("--ini is given twice, again with", value);
            flags.ini_path = value;
        } else if ((value = option_value(&w, "--set", &missing)) != NULL) {
            set[flags.n_set++] = value;
        } else if ((value = option_value(&w, "--plugin-dir", &missing)) != NULL) {
            if (plugin_search_add(value) != QFW_OK) code = report();
        } else {
            code = bad_usage(missing ? "a value is missing after" : "unknown option", word);
        }
    }
    if (code == EXIT_OK && !flags.ini_path) code = bad_usage("--ini FILE is missing in", "qfw");
    if (code == EXIT_OK) {
        catch_signals();
        if (run_main(&flags, stdout) != QFW_OK) code = report();
    }
    mem_free(set);
    return code;
}

int main(int argc, char **argv) {
    plugin_set_host(host_table());
    plugin_set_prober("/proc/self/exe");
    if (argc < 2) {
        fputs(usage, stderr);
        return EXIT_USAGE;
    }
    const char *word = argv[1];
    int code;
    if (!strcmp(word, "--probe-plugin") && argc == 3) return plugin_probe_child(argv[2]);
    if (!strcmp(word, "plugin"))
        code = plugin_command(argc - 2, argv + 2);
    else if (!strcmp(word, "help") || !strcmp(word, "--help") || !strcmp(word, "-h"))
        code = help(argc - 2, argv + 2);
    else if (!strcmp(word, "--version"))
        code = printf("%s %s, plugin ABI %d.%d\n", host_table()->name, host_table()->version,
                   QFW_ABI_MAJOR, QFW_ABI_MINOR) < 0;
    else
        code = run_command(argc - 1, argv + 1);
    if (fflush(stdout) && code == EXIT_OK) code = EXIT_IOERR; /* the lines were lost: say so */
    return code;
}
