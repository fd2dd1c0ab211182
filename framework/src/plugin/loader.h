/* loader.h -- finding plugins, looking at them without running them, and opening them.
 *
 * Order for one file: ELF extents and architecture, the ELF note, owner and mode, a child probe
 * before a first load, dlopen(RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE) with the process's state
 * (state.h) kept, the descriptor. Nothing is ever unloaded.
 */
#ifndef PLUGIN_LOADER_H
#define PLUGIN_LOADER_H

#include "qfw/plugin.h"

/* Where bare names are looked for, in order: --plugin-dir, [plugins] path, QFW_PLUGIN_PATH
 * (secure_getenv, ':' between), the folder of the executable's plugins, the compiled-in library
 * folder. Absolute paths only. */
/* in front of the environment's; a copy is kept */
qfw_status plugin_search_add(const char *folder);
void plugin_allow_insecure(int on);      /* --allow-insecure-plugins */
void plugin_set_host(const qfw_host *h); /* what plugins are opened with */

typedef struct plugin { /* one open file */
    const char *path;
    const qfw_plugin_desc *desc;
} plugin;

/* Open what the INI's `use` names: a value with '/' is that file; a bare name is
 * libqfw_<kind>_<name>.so on the search list. Opening the same file twice gives the same plugin.
 * E_PLUG_*: names plugin, cause and remedy. */
qfw_status plugin_open(
    const char *kind, const char *use, const plugin **out, const qfw_component **component);
/* Open a file whatever it is called; its components are then found by name, too. */
qfw_status plugin_load(const char *path);
/* Tell every plugin, last opened first, that it will not be called again. Nothing is unloaded. */
void plugin_close_all(void);
uint32_t plugin_kind(const char *word); /* "backend" -> QFW_KIND_BACKEND; 0: no such kind */
const char *plugin_kind_name(uint32_t kind);

/* What can be told about a file without loading it into this process. */
typedef struct plugin_facts {
    char path[1024], name[64], kind[16]; /* the words of the file's name */
    /* By the child probe, "" when it did not get that far: "model 'phi3'", ..., and what of the
     * process it changes when it is loaded. */
    char has[256], version[64], summary[256], changed[256];
    char problem[512];             /* "" when it can be used */
    uint16_t abi_major, abi_minor; /* by its note; 0.0 when it has none */
} plugin_facts;
/* The i-th file on the search list, sorted by kind and name; QFW_E_END past the last. Asking for
 * the first looks anew. */
qfw_status plugin_list(uint32_t i, plugin_facts *out);
/* ELF, note and mode checks alone (the first steps of opening); for `plugin list`, tests and
 * fuzzing. */
qfw_status plugin_precheck(const char *path, qfw_note *note);
/* The executable that probes: it is run as EXE --probe-plugin PATH and calls plugin_probe_child.
 * NULL, as at first: nothing is probed before it is loaded. */
void plugin_set_prober(const char *exe);
/* Load `path` in a child, within 5 s, and say how it went; a crash, an exit, a hang or a print is
 * an E_PLUG_PROBE that says which. */
qfw_status plugin_probe(const char *path, plugin_facts *out);
/* The child's side: load, print the verdict line, and return the process's exit code. */
int plugin_probe_child(const char *path);

#endif
