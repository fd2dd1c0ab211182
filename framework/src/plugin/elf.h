/* elf.h -- looking at a plugin file without running anything of it. */
#ifndef PLUGIN_ELF_H
#define PLUGIN_ELF_H

#include "qfw/plugin.h"

/* Checks that `file` (n bytes, read whole or mapped) is a shared object of this machine whose
 * segments and section table lie inside it: a truncated one would kill the process inside the
 * loader. *note is zero (name_size 0) when there is none. E_PLUG_*. */
qfw_status elf_check(const unsigned char *file, uint64_t n, const char *path, qfw_note *note);

#endif
