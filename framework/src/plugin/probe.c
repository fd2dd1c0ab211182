/* probe.c -- loading a plugin in a child first: constructors may crash, exit, hang, print, or
 * change the process.
 *
 * The child gets a pipe as descriptor 3 and writes one verdict line to it; without that line the
 * load did not end well, whatever the exit code says. Its stdout is another pipe: a plugin that
 * prints would spoil ours.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <fcntl.h>
#include <fenv.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/error.h"
#include "base/log.h"
#include "base/mem.h"
#include "plugin/descriptor.h"
#include "plugin/search.h"

enum { VERDICT_FD = 3, TIMEOUT_MS = 5000, VERDICT_MAX = 1200 };
extern char **environ;

/* --- the child --- */

typedef struct surroundings { /* what a load must leave as it was */
    fenv_t env;
    char folder[512];
    struct sigaction actions[3];
} surroundings;
static const int watched_signals[3] = {SIGINT, SIGTERM, SIGSEGV};

static void look_around(surroundings *s) {
    memset(s, 0, sizeof *s);
    fegetenv(&s->env);
    if (!getcwd(s->folder, sizeof s->folder)) s->folder[0] = 0;
    for (int i = 0; i < 3; i++) sigaction(watched_signals[i], NULL, &s->actions[i]);
}

/* What the load changed; NULL: nothing. */
static const char *what_changed(const surroundings *a, const surroundings *b) {
#if defined(__x86_64__)
    if (a->env.__mxcsr != b->env.__mxcsr)
        return "it changes the floating-point state (linked with -ffast-math?); qfw puts it back";
#endif
    if (strcmp(a->folder, b->folder)) return "it changes the working folder";
    for (int i = 0; i < 3; i++)
        if (a->actions[i].sa_handler != b->actions[i].sa_handler)
            return "it installs signal handlers";
    return NULL;
}

int plugin_probe_child(const char *path) {
    surroundings before, after;
    const qfw_plugin_desc *desc = NULL;
    char line[VERDICT_MAX];
    look_around(&before);
    const qfw_status status = loader_load(path, &desc);
    look_around(&after);
    if (status != QFW_OK) {
        snprintf(line, sizeof line, "bad\t%s\n", err_text(0));
    } else {
        const char *changed = what_changed(&before, &after);
        const qfw_component *c = desc->components[0];
        snprintf(line, sizeof line, "ok\t%s\t%.60s\t%.200s\t%s\n", c->name, desc->version,
            c->summary ? c->summary : "", changed ? changed : "");
    }
    if (write(VERDICT_FD, line, strlen(line)) < 0) return EXIT_INTERNAL;
    return EXIT_OK;
}

/* --- the parent --- */

typedef struct child {
    pid_t pid;
    int verdict, out; /* our ends of the pipes */
    char text[VERDICT_MAX];
    size_t n;
    int printed;
} child;

static int make_pipe(int fds[2]) { return pipe2(fds, O_CLOEXEC); }

static qfw_status start(const char *path, child *c) {
    int verdict[2], out[2];
    char *argv[] = {(char *)plugin_prober(), "--probe-plugin", (char *)path, NULL};
    posix_spawn_file_actions_t actions;
    if (make_pipe(verdict)) return err_fail("E_LIMIT_FD", QFW_E_NOMEM, "no more descriptors");
    if (make_pipe(out)) {
        close(verdict[0]);
        close(verdict[1]);
        return err_fail("E_LIMIT_FD", QFW_E_NOMEM, "no more descriptors");
    }
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, out[1], STDOUT_FILENO);
    posix_spawn_file_actions_adddup2(&actions, verdict[1], VERDICT_FD);
    posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, "/dev/null", O_WRONLY, 0);
    const int failed = posix_spawn(&c->pid, plugin_prober(), &actions, NULL, argv, environ);
    posix_spawn_file_actions_destroy(&actions);
    close(verdict[1]);
    close(out[1]);
    c->verdict = verdict[0];
    c->out = out[0];
    if (!failed) return QFW_OK;
    close(c->verdict);
    close(c->out);
    return err_fail(
        "E_LIMIT_PROCESS", QFW_E_NOMEM, "%s: cannot be started to probe %s", plugin_prober(), path);
}

static int64_t now_ms(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* Read both pipes until they end or the time is up; 1 when it was up. */
static int listen_to(child *c) {
    const int64_t deadline = now_ms() + TIMEOUT_MS;
    struct pollfd fds[2] = {{c->verdict, POLLIN, 0}, {c->out, POLLIN, 0}};
    while (fds[0].fd >= 0 || fds[1].fd >= 0) {
        const int64_t left = deadline - now_ms();
        if (left <= 0) return 1;
        if (poll(fds, 2, (int)left) <= 0) continue;
        for (int i = 0; i < 2; i++) {
            char waste[256];
            char *to = i ? waste : c->text + c->n;
            const size_t room = i ? sizeof waste : sizeof c->text - 1 - c->n;
            if (fds[i].fd < 0 || !fds[i].revents) continue;
            const ssize_t n = room ? read(fds[i].fd, to, room) : 0;
            if (n <= 0)
                fds[i].fd = -1;
            else if (i)
                c->printed = 1;
            else
                c->n += (size_t)n;
        }
    }
    return 0;
}

static qfw_status explain(const char *path, const child *c, int status, int late) {
    if (late)
        return err_fail("E_PLUG_PROBE", QFW_E_ABI,
            "%s: the plugin hangs while it is loaded (%d s); it was not loaded here", path,
            TIMEOUT_MS / 1000);
    if (WIFSIGNALED(status))
        return err_fail("E_PLUG_PROBE", QFW_E_ABI,
            "%s: the plugin died with signal %d (%s) while it was loaded; it was not loaded here",
            path, WTERMSIG(status), strsignal(WTERMSIG(status)));
    if (!c->n)
        return err_fail("E_PLUG_PROBE", QFW_E_ABI,
            "%s: the plugin ended the process (exit code %d) while it was loaded; it was not "
            "loaded "
            "here",
            path, WEXITSTATUS(status));
    if (c->printed)
        return err_fail("E_PLUG_PROBE", QFW_E_ABI,
            "%s: the plugin prints to stdout while it is loaded; it was not loaded here", path);
    return QFW_OK;
}

/* The next tab-separated field of a verdict, copied; returns what follows it. */
static const char *take(const char *at, char *to, size_t cap) {
    const size_t n = strcspn(at, "\t\n");
    snprintf(to, cap, "%.*s", (int)n, at);
    return at + n + (at[n] == '\t');
}

/* "bad\terror[E_X] text": the child's error as ours, under its own name. */
static qfw_status pass_on(const char *verdict) {
    char name[32] = "E_PLUG_PROBE";
    const char *open = strchr(verdict, '['), *close = open ? strchr(open, ']') : NULL;
    const char *text = verdict;
    if (close && (size_t)(close - open) <= sizeof name) {
        snprintf(name, sizeof name, "%.*s", (int)(close - open - 1), open + 1);
        text = close + 2;
    }
    char *kept =
        mem_strdup(name); /* names are literals elsewhere; this one lives as long as the process */
    return err_fail(
        kept ? kept : "E_PLUG_PROBE", QFW_E_ABI, "%.*s", (int)strcspn(text, "\n"), text);
}

qfw_status plugin_probe(const char *path, plugin_facts *out) {
    child c = {.pid = 0};
    int status = 0;
    char word[16], changed[256];
    if (!plugin_prober())
        return err_fail("E_PLUG_PROBE", QFW_E_INTERNAL, "%s: nothing to probe it with", path);
    QFW_TRY(start(path, &c));
    const int late = listen_to(&c);
    if (late) kill(c.pid, SIGKILL);
    while (waitpid(c.pid, &status, 0) < 0) {
    }
    close(c.verdict);
    close(c.out);
    c.text[c.n] = 0;
    QFW_TRY(explain(path, &c, status, late));
    const char *at = take(c.text, word, sizeof word);
    if (strcmp(word, "ok")) return pass_on(at);
    at = take(at, out->name, sizeof out->name);
    at = take(at, out->version, sizeof out->version);
    at = take(at, out->summary, sizeof out->summary);
    take(at, changed, sizeof changed);
    if (*changed) log_line(QFW_LOG_WARN, "%s: %s", path, changed);
    return QFW_OK;
}

/* --- the list --- */

static char **files;
static size_t n_files;

static int by_name(const void *a, const void *b) {
    const char *x = *(char *const *)a, *y = *(char *const *)b;
    return strcmp(strrchr(x, '/'), strrchr(y, '/'));
}

/* All libqfw_<kind>_<name>.so of the search list, once. */
static void collect(void) {
    static int done;
    size_t cap = 0;
    const char *folder;
    if (done) return;
    done = 1;
    for (uint32_t i = 0; (folder = search_folder(i)) != NULL; i++) {
        DIR *dir = opendir(folder);
        for (struct dirent *d; dir && (d = readdir(dir)) != NULL;) {
            const char *name = d->d_name, *end = strrchr(name, '.');
            if (strncmp(name, "libqfw_", 7) || !end || strcmp(end, ".so")) continue;
            if (mem_grow(&files, &cap, n_files + 1, sizeof *files)) break;
            files[n_files] = mem_printf("%s/%s", folder, name);
            if (files[n_files]) n_files++;
        }
        if (dir) closedir(dir);
    }
    if (n_files) qsort(files, n_files, sizeof *files, by_name);
}

qfw_status plugin_list(uint32_t i, plugin_facts *out) {
    qfw_note note;
    collect();
    if (i >= n_files) return QFW_E_END;
    memset(out, 0, sizeof *out);
    snprintf(out->path, sizeof out->path, "%s", files[i]);
    const char *name = strrchr(files[i], '/') + 8; /* past "/libqfw_" */
    const size_t kind = strcspn(name, "_");
    snprintf(out->kind, sizeof out->kind, "%.*s", (int)kind, name);
    if (name[kind]) /* up to ".so" */
        snprintf(
            out->name, sizeof out->name, "%.*s", (int)strlen(name + kind + 1) - 3, name + kind + 1);
    qfw_status status = plugin_precheck(files[i], &note);
    out->abi_major = note.abi_major;
    out->abi_minor = note.abi_minor;
    if (status == QFW_OK && plugin_prober()) status = plugin_probe(files[i], out);
    if (status != QFW_OK) snprintf(out->problem, sizeof out->problem, "%s", err_text(0));
    err_clear();
    return QFW_OK;
}
