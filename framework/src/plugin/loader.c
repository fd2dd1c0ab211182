/* loader.c -- from a name in the INI to an open plugin, with every refusal in words.
 *
 * What is checked first costs nothing to check: the file is read before it is loaded, loaded in a
 * child before it is loaded here, and its descriptor is read before any of its functions runs.
 * Nothing is unloaded again: a library with threads or exit handlers of its own does not survive
 * that.
 */
#define _GNU_SOURCE
#include "plugin/loader.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/error.h"
#include "base/log.h"
#include "base/mem.h"
#include "plugin/descriptor.h"
#include "plugin/elf.h"
#include "plugin/probe.h"
#include "plugin/search.h"
#include "plugin/state.h"

enum { MAX_PLUGINS = 64 };

typedef struct open_plugin {
    plugin pub;
    dev_t dev;
    ino_t ino;
} open_plugin;

static open_plugin plugins[MAX_PLUGINS];
static uint32_t n_plugins;
static const qfw_host *host;
static const char *prober;

void plugin_set_host(const qfw_host *h) { host = h; }
void plugin_set_prober(const char *exe) { prober = exe; }
const char *plugin_prober(void) { return prober; }

static const char *const kind_names[] = {NULL, "backend", "model", "trainer", "optimizer"};
enum { N_KINDS = sizeof kind_names / sizeof kind_names[0] };

uint32_t plugin_kind(const char *word) {
    for (uint32_t k = 1; k < N_KINDS; k++)
        if (!strcmp(kind_names[k], word)) return k;
    return 0;
}

const char *plugin_kind_name(uint32_t kind) {
    return kind > 0 && kind < N_KINDS ? kind_names[kind] : "unknown kind";
}

/* --- looking at a file --- */

/* What of the CPU the file says it needs and this one (or its system) lacks; NULL: nothing. */
static const char *missing_cpu(uint64_t needs) {
#if defined(__x86_64__)
    if ((needs & QFW_CPU_AVX2) && !__builtin_cpu_supports("avx2"))
        return "AVX2, which this CPU lacks";
    if ((needs & QFW_CPU_AVX512) && !__builtin_cpu_supports("avx512f"))
        return "AVX-512, which this CPU lacks";
    if (needs & ~(uint64_t)(QFW_CPU_AVX2 | QFW_CPU_AVX512))
        return "CPU features that this qfw does not know";
#else
    if (needs) return "features of another kind of CPU";
#endif
    return NULL;
}

static qfw_status check_note(const qfw_note *note, const char *path) {
    if (!note->name_size) {
        log_line(QFW_LOG_WARN, "%s: has no qfw note, so it must be run to be looked at", path);
        return QFW_OK;
    }
    if (note->abi_major != QFW_ABI_MAJOR || note->abi_minor != QFW_ABI_MINOR)
        return err_fail("E_PLUG_ABI", QFW_E_ABI,
            "%s: built for plugin ABI %u.%u, this qfw speaks %d.%d; hint: rebuild it against this "
            "qfw's headers",
            path, note->abi_major, note->abi_minor, QFW_ABI_MAJOR, QFW_ABI_MINOR);
    const char *lacking = missing_cpu(note->cpu);
    if (lacking)
        return err_fail(
            "E_PLUG_CPU", QFW_E_ABI, "%s: needs %s; hint: build it for this CPU", path, lacking);
    return QFW_OK;
}

/* What the system says of a file, under the name that its reason asks for. */
static qfw_status fail_file(const char *path, const char *what, int why, const char *hint) {
    if (why == ENOMEM) return err_fail("E_MEM", QFW_E_NOMEM, "%s: %s%s", path, what, strerror(why));
    return err_fail("E_PLUG_NOTFOUND", QFW_E_IO, "%s: %s%s%s", path, what, strerror(why), hint);
}

static qfw_status open_file(const char *path, int *fd, struct stat *s) {
    *fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (*fd < 0 || fstat(*fd, s)) {
        const int why = errno;
        if (*fd >= 0) close(*fd);
        return fail_file(path, "cannot be read: ", why, "; hint: see its mode");
    }
    if (S_ISREG(s->st_mode)) return QFW_OK;
    close(*fd);
    return err_fail("E_PLUG_ELF", QFW_E_ABI,
        "%s: %s, wanted a shared object; hint: name the .so file itself", path,
        S_ISDIR(s->st_mode) ? "a folder" : "not a regular file");
}

/* All checks that need no loading, on the file that `s` describes from then on. */
static qfw_status precheck(const char *path, qfw_note *note, struct stat *s) {
    int fd;
    memset(note, 0, sizeof *note);
    QFW_TRY(open_file(path, &fd, s));
    void *map = s->st_size ? mmap(NULL, (size_t)s->st_size, PROT_READ, MAP_PRIVATE, fd, 0) : NULL;
    qfw_status status = map == MAP_FAILED ? fail_file(path, "cannot be mapped: ", errno, "")
                                          : elf_check(map, (uint64_t)s->st_size, path, note);
    if (map && map != MAP_FAILED) munmap(map, (size_t)s->st_size);
    if (status == QFW_OK) status = check_note(note, path);
    if (status == QFW_OK) status = search_check_owner(fd, path);
    close(fd);
    return status;
}

qfw_status plugin_precheck(const char *path, qfw_note *note) {
    struct stat s;
    return precheck(path, note, &s);
}

/* --- loading --- */

/* dlerror in our words: which plugin, what it misses, what to do. */
static qfw_status explain_dlerror(const char *path) {
    const char *why = dlerror();
    const size_t n = strlen(path);
    if (!why) why = "no reason given";
    if (strstr(why, "allocate") || strstr(why, "out of memory"))
        return err_fail("E_MEM", QFW_E_NOMEM, "%s: cannot be loaded: %s", path, why);
    if (!strncmp(why, path, n) && !strncmp(why + n, ": ", 2)) why += n + 2;
    return err_fail("E_PLUG_LOAD", QFW_E_ABI,
        "%s: cannot be loaded: %s; hint: `ldd -r` on it shows what it needs", path, why);
}

/* A plugin of another major has another symbol: say so rather than "no symbol". */
static qfw_status explain_symbol(void *handle, const char *path) {
    char symbol[32];
    for (int major = 0; major < 10; major++) {
        snprintf(symbol, sizeof symbol, "qfw_plugin_abi%d", major);
        if (major != QFW_ABI_MAJOR && dlsym(handle, symbol))
            return err_fail("E_PLUG_ABI", QFW_E_ABI,
                "%s: built for plugin ABI %d, this qfw speaks %d; hint: rebuild it against this "
                "qfw's headers",
                path, major, QFW_ABI_MAJOR);
    }
    return err_fail("E_PLUG_SYMBOL", QFW_E_ABI,
        "%s: a shared object, but no qfw plugin: it exports no qfw_plugin_abi%d; hint: plugins "
        "are made with QFW_PLUGIN of qfw/plugin.h",
        path, QFW_ABI_MAJOR);
}

qfw_status loader_load(const char *path, const qfw_plugin_desc **desc, char *changed, size_t cap) {
    process_state before;
    state_take(&before);
    const int how = RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE;
    void *handle = dlopen(path, how);
    if (!handle) handle = dlopen(path, how); /* short of memory, it calls files missing */
    state_restore(&before, changed, cap);
    *desc = NULL;
    if (!handle) return explain_dlerror(path);
    char symbol[32];
    snprintf(symbol, sizeof symbol, "qfw_plugin_abi%d", QFW_ABI_MAJOR);
    const qfw_plugin_desc *found = dlsym(handle, symbol);
    if (!found) return explain_symbol(handle, path);
    QFW_TRY(descriptor_check(found, path));
    *desc = found;
    return QFW_OK;
}

/* A component of the same kind and name in another file would make the INI ambiguous. */
static qfw_status check_duplicates(const qfw_plugin_desc *desc, const char *path) {
    for (uint32_t i = 0; i < desc->n_components; i++) {
        const qfw_component *c = desc->components[i];
        for (uint32_t p = 0; p < n_plugins && descriptor_is_known(c); p++)
            if (descriptor_find(plugins[p].pub.desc, c->kind, c->name))
                return err_fail("E_PLUG_DUP", QFW_E_ABI,
                    "%s '%s' is in two files: %s and %s; hint: remove one of them",
                    plugin_kind_name(c->kind), c->name, plugins[p].pub.path, path);
    }
    return QFW_OK;
}

static const plugin *find_open(const struct stat *s) {
    for (uint32_t i = 0; i < n_plugins; i++)
        if (plugins[i].dev == s->st_dev && plugins[i].ino == s->st_ino) return &plugins[i].pub;
    return NULL;
}

/* The plugin's own start; what it fails with is passed on under its name. */
static qfw_status start(const qfw_plugin_desc *desc, const char *path) {
    process_state before;
    char changed[STATE_TEXT];
    if (!desc->plugin_open) return QFW_OK;
    err_clear();
    state_take(&before);
    const qfw_status status = desc->plugin_open(host);
    state_restore(&before, changed, sizeof changed);
    if (*changed) log_line(QFW_LOG_WARN, "%s: %s; qfw has put it back", path, changed);
    if (status == QFW_OK) return QFW_OK;
    if (err_count() && err_status() == status)
        err_prefix("%s: plugin_open", path);
    else
        (void)err_fail("E_PLUGIN", QFW_E_INTERNAL,
            "%s: plugin_open failed with code %d and no reason; hint: this is the plugin's fault",
            path, status);
    return err_status();
}

static qfw_status load_new(const char *path, const struct stat *s, const qfw_plugin_desc **desc) {
    plugin_facts facts;
    struct stat now;
    char changed[STATE_TEXT];
    if (prober) QFW_TRY(plugin_probe(path, &facts));
    QFW_TRY(loader_load(path, desc, changed, sizeof changed));
    if (*changed && !prober) log_line(QFW_LOG_WARN, "%s: %s; qfw has put it back", path, changed);
    if (stat(path, &now) || now.st_dev != s->st_dev || now.st_ino != s->st_ino)
        return err_fail("E_PLUG_PERM", QFW_E_ABI,
            "%s: the file was replaced between its check and its loading; hint: start again", path);
    return check_duplicates(*desc, path);
}

static qfw_status open_new(const char *path, const struct stat *s, const plugin **out) {
    const qfw_plugin_desc *desc;
    if (n_plugins == MAX_PLUGINS)
        return err_fail("E_PLUG_LIMIT", QFW_E_UNSUPPORTED, "%s: %d plugins are open already", path,
            MAX_PLUGINS);
    QFW_TRY(load_new(path, s, &desc));
    char *kept = mem_strdup(path);
    if (!kept) return QFW_E_NOMEM;
    const qfw_status status = start(desc, path);
    if (status != QFW_OK) {
        mem_free(kept);
        return status;
    }
    plugins[n_plugins] = (open_plugin){{kept, desc}, s->st_dev, s->st_ino};
    *out = &plugins[n_plugins++].pub;
    return QFW_OK;
}

static qfw_status open_path(const char *path, const plugin **out) {
    qfw_note note;
    struct stat s;
    char *real = realpath(path, NULL);
    if (!real) return fail_file(path, "", errno, "; hint: `qfw plugin list` shows what there is");
    qfw_status status = precheck(real, &note, &s);
    if (status == QFW_OK) {
        *out = find_open(&s);
        if (!*out) status = open_new(real, &s, out);
    }
    free(real);
    return status;
}

qfw_status plugin_load(const char *path) {
    const plugin *p;
    return open_path(path, &p);
}

void plugin_close_all(void) {
    while (n_plugins > 0) {
        const plugin *p = &plugins[--n_plugins].pub;
        if (p->desc->plugin_close) p->desc->plugin_close(host);
        mem_free((void *)p->path);
    }
}

/* --- from the INI's words to a component --- */

/* Everything a search went through, for the message that it was in vain. */
static qfw_status not_found(const char *kind, const char *use) {
    char list[300] = "";
    const char *folder;
    const size_t n = strlen(use);
    if (n > 3 && !strcmp(use + n - 3, ".so"))
        return err_fail("E_PLUG_NOTFOUND", QFW_E_UNSUPPORTED,
            "%s '%s': a name, wanted without .so; hint: ./%s is that file", kind, use, use);
    for (uint32_t i = 0; (folder = search_folder(i)) != NULL; i++) {
        const size_t at = strlen(list);
        snprintf(list + at, sizeof list - at, "%s%s", i ? ", " : "", folder);
    }
    return err_fail("E_PLUG_NOTFOUND", QFW_E_UNSUPPORTED,
        "%s '%s': no libqfw_%s_%s.so in %s; hint: `qfw plugin list` shows what there is, "
        "--plugin-dir adds a folder",
        kind, use, kind, use, *list ? list : "any folder");
}

/* What a file does contain, when it is not what was asked for. */
static qfw_status wrong_kind(const plugin *p, const char *kind, const char *name) {
    char has[200];
    descriptor_names(p->desc, has, sizeof has);
    return err_fail("E_PLUG_KIND", QFW_E_ABI,
        "%s: has %s, wanted %s%s%s%s; hint: `qfw plugin list` shows what each file has", p->path,
        *has ? has : "nothing that this qfw knows", kind, *name ? " '" : "", name,
        *name ? "'" : "");
}

/* One that [plugins] load has opened from a file of any name. */
static const plugin *find_loaded(uint32_t kind, const char *name) {
    for (uint32_t i = 0; i < n_plugins; i++)
        if (descriptor_find(plugins[i].pub.desc, kind, name)) return &plugins[i].pub;
    return NULL;
}

qfw_status plugin_open(
    const char *kind, const char *use, const plugin **out, const qfw_component **component) {
    const char *name = strchr(use, '/') ? NULL : use; /* else a file, whatever it is called */
    char path[PATH_MAX];
    *out = NULL;
    *component = NULL;
    if (!name) {
        QFW_TRY(open_path(use, out));
    } else if (search_file(kind, name, path, sizeof path)) {
        QFW_TRY(open_path(path, out));
    } else {
        *out = find_loaded(plugin_kind(kind), name);
        if (!*out) return not_found(kind, name);
    }
    *component = descriptor_find((*out)->desc, plugin_kind(kind), name);
    if (*component) return QFW_OK;
    const plugin *wrong = *out;
    *out = NULL;
    return wrong_kind(wrong, kind, name ? name : "");
}
