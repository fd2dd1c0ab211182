/* probe.c -- loading a plugin in a child first: constructors may crash, exit, hang, print, or
 * change the process.
 *
 * The child gets a pipe as descriptor 3 and writes one verdict line to it; without that line the
 * load did not end well, whatever the exit code says. Its stdout is another pipe: a plugin that
 * prints would spoil ours.
 */
#define _GNU_SOURCE
#include "plugin/probe.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/error.h"
#include "base/log.h"
#include "plugin/descriptor.h"
#include "plugin/state.h"

enum { VERDICT_FD = 3, FREE_FD = 10, TIMEOUT_MS = 5000, VERDICT_MAX = 2048 };
extern char **environ;

/* --- the child --- */

/* One more field of the verdict: escaped, so that it holds neither tab nor newline. */
static void add_field(char *line, const char *text) {
    char field[512];
    const size_t at = strlen(line);
    err_escape(field, sizeof field, text);
    snprintf(line + at, VERDICT_MAX - at, "\t%s", field);
}

/* The component that the file's name promises, else the first known one. */
static const char *summary_of(const qfw_plugin_desc *d, const char *path) {
    char kind[16], name[64];
    plugin_file_words(path, kind, name);
    const qfw_component *c = descriptor_find(d, plugin_kind(kind), name);
    for (uint32_t k = QFW_KIND_BACKEND; !c && k <= QFW_KIND_OPTIMIZER; k++)
        c = descriptor_find(d, k, NULL);
    return c ? c->summary : "";
}

int plugin_probe_child(const char *path) {
    const qfw_plugin_desc *desc;
    char line[VERDICT_MAX] = "ok", changed[STATE_TEXT], names[256];
    if (loader_load(path, &desc, changed, sizeof changed) == QFW_OK) {
        descriptor_names(desc, names, sizeof names);
        add_field(line, names);
        add_field(line, desc->version);
        add_field(line, summary_of(desc, path));
        add_field(line, changed);
    } else {
        snprintf(line, sizeof line, "bad\t%s", err_text(0));
    }
    const size_t n = strlen(line);
    line[n] = '\n';
    return write(VERDICT_FD, line, n + 1) == (ssize_t)n + 1 ? EXIT_OK : EXIT_INTERNAL;
}

/* --- the parent --- */

typedef struct child {
    pid_t pid;
    int verdict, out; /* our ends of the pipes */
    char text[VERDICT_MAX];
    size_t n;
    int printed, late;
    int status; /* of waitpid */
} child;

/* A pipe whose ends lie above all descriptors that the child is given. */
static int make_pipe(int ends[2]) {
    int low[2];
    if (pipe2(low, O_CLOEXEC)) return -1;
    for (int i = 0; i < 2; i++) {
        ends[i] = fcntl(low[i], F_DUPFD_CLOEXEC, FREE_FD);
        if (ends[i] < 0) errno = EMFILE; /* EINVAL where the limit is FREE_FD or less */
        close(low[i]);
    }
    if (ends[0] >= 0 && ends[1] >= 0) return 0;
    if (ends[0] >= 0) close(ends[0]);
    if (ends[1] >= 0) close(ends[1]);
    return -1;
}

/* In a process group of its own, so that what it starts can be ended with it. */
static int spawn(const char *path, int verdict, int out, pid_t *pid) {
    char *argv[] = {(char *)plugin_prober(), "--probe-plugin", (char *)path, NULL};
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attributes;
    posix_spawn_file_actions_init(&actions);
    posix_spawnattr_init(&attributes);
    int why = posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
    if (!why) why = posix_spawn_file_actions_adddup2(&actions, out, STDOUT_FILENO);
    if (!why)
        why = posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, "/dev/null", O_WRONLY, 0);
    if (!why) why = posix_spawn_file_actions_adddup2(&actions, verdict, VERDICT_FD);
    if (!why) why = posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETPGROUP);
    if (!why) why = posix_spawn(pid, plugin_prober(), &actions, &attributes, argv, environ);
    posix_spawnattr_destroy(&attributes);
    posix_spawn_file_actions_destroy(&actions);
    return why;
}

static qfw_status start(const char *path, child *c) {
    int verdict[2], out[2];
    if (make_pipe(verdict))
        return err_fail("E_LIMIT_FD", QFW_E_IO, "%s: no pipe to probe it: %s; hint: ulimit -n",
            path, strerror(errno));
    int why = make_pipe(out) ? errno : 0;
    const int has_out = !why;
    if (has_out) {
        why = spawn(path, verdict[1], out[1], &c->pid);
        close(out[1]);
    }
    close(verdict[1]);
    c->verdict = verdict[0];
    c->out = has_out ? out[0] : -1;
    if (!why) return QFW_OK;
    close(c->verdict);
    if (has_out) close(c->out);
    if (why == ENOMEM)
        return err_fail(
            "E_MEM", QFW_E_NOMEM, "%s: no memory to probe it in %s", path, plugin_prober());
    return err_fail("E_LIMIT_PROCESS", QFW_E_IO,
        "%s: %s cannot be started to probe it: %s; hint: ulimit -n, ulimit -u", path,
        plugin_prober(), strerror(why));
}

static int64_t now_ms(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* Take what has arrived on one of the pipes; 0 at its end. */
static int take_bytes(child *c, int fd) {
    char waste[256];
    const int is_verdict = fd == c->verdict;
    const size_t room = sizeof c->text - 1 - c->n;
    if (is_verdict && !room) return 0;
    const ssize_t n = is_verdict ? read(fd, c->text + c->n, room) : read(fd, waste, sizeof waste);
    if (n <= 0) return n < 0 && errno == EINTR;
    if (is_verdict)
        c->n += (size_t)n;
    else
        c->printed = 1;
    return 1;
}

/* Read both pipes until they end or the time is up. */
static void listen_to(child *c) {
    const int64_t deadline = now_ms() + TIMEOUT_MS;
    struct pollfd fds[2] = {{c->verdict, POLLIN, 0}, {c->out, POLLIN, 0}};
    while (fds[0].fd >= 0 || fds[1].fd >= 0) {
        const int64_t left = deadline - now_ms();
        c->late = left <= 0;
        if (c->late) return;
        if (poll(fds, 2, (int)left) <= 0) continue;
        for (int i = 0; i < 2; i++)
            if (fds[i].fd >= 0 && fds[i].revents && !take_bytes(c, fds[i].fd)) fds[i].fd = -1;
    }
}

/* Whatever the child has started ends with it. */
static void finish(child *c) {
    if (c->late) kill(-c->pid, SIGKILL);
    while (waitpid(c->pid, &c->status, 0) < 0 && errno == EINTR) {
    }
    close(c->verdict);
    close(c->out);
    c->text[c->n] = 0;
}

/* QFW_OK: there is a verdict, and nothing else to be said. */
static qfw_status explain(const char *path, const child *c) {
    static const char after[] =
        "it was not loaded here; hint: the plugin is at fault, tell its author";
    const int has_verdict = c->n > 0 && c->text[c->n - 1] == '\n';
    const char *when = has_verdict ? "after it was loaded, at exit" : "while it was loaded";
    if (c->late)
        return err_fail("E_PLUG_PROBE", QFW_E_ABI, "%s: the plugin %s (%d s); %s", path,
            has_verdict ? "leaves a process running" : "hangs while it is loaded",
            TIMEOUT_MS / 1000, after);
    if (WIFSIGNALED(c->status))
        return err_fail("E_PLUG_PROBE", QFW_E_ABI, "%s: the plugin died with signal %d (%s) %s; %s",
            path, WTERMSIG(c->status), strsignal(WTERMSIG(c->status)), when, after);
    if (!has_verdict)
        return err_fail("E_PLUG_PROBE", QFW_E_ABI,
            "%s: the plugin ended the process (exit code %d) %s; %s", path, WEXITSTATUS(c->status),
            when, after);
    if (c->printed)
        return err_fail("E_PLUG_PROBE", QFW_E_ABI,
            "%s: the plugin prints to stdout while it is loaded; %s", path, after);
    return QFW_OK;
}

/* The next tab-separated field of a verdict, copied; returns what follows it. */
static const char *take(const char *at, char *to, size_t cap) {
    const size_t n = strcspn(at, "\t\n");
    snprintf(to, cap, "%.*s", (int)n, at);
    return at + n + (at[n] == '\t');
}

/* "error[E_X] text": the child's error as ours, under the name that it has there. */
static qfw_status pass_on(const char *verdict) {
    static const char *const names[] = {
        "E_PLUG_LOAD", "E_PLUG_ABI", "E_PLUG_SYMBOL", "E_PLUG_DESC", "E_MEM"};
    const char *name = "E_PLUG_PROBE", *text = verdict, *close = strchr(verdict, ']');
    for (size_t i = 0; close && i < sizeof names / sizeof *names; i++) {
        const size_t n = strlen(names[i]);
        if (strncmp(verdict, "error[", 6) || strncmp(verdict + 6, names[i], n)) continue;
        if (close != verdict + 6 + n || close[1] != ' ') continue;
        name = names[i];
        text = close + 2;
    }
    return err_fail(name, QFW_E_ABI, "%.*s", (int)strcspn(text, "\n"), text);
}

qfw_status plugin_probe(const char *path, plugin_facts *out) {
    child c = {.pid = 0};
    char word[16];
    if (!plugin_prober())
        return err_fail("E_PLUG_PROBE", QFW_E_INTERNAL, "%s: nothing to probe it with", path);
    QFW_TRY(start(path, &c));
    listen_to(&c);
    finish(&c);
    QFW_TRY(explain(path, &c));
    const char *at = take(c.text, word, sizeof word);
    if (strcmp(word, "ok")) return pass_on(at);
    at = take(at, out->has, sizeof out->has);
    at = take(at, out->version, sizeof out->version);
    at = take(at, out->summary, sizeof out->summary);
    take(at, out->changed, sizeof out->changed);
    if (*out->changed) log_line(QFW_LOG_WARN, "%s: %s; qfw puts it back", path, out->changed);
    return QFW_OK;
}
