/* descriptor.h -- reading a plugin's descriptor, for the files of this folder. */
#ifndef PLUGIN_DESCRIPTOR_H
#define PLUGIN_DESCRIPTOR_H

#include "plugin/loader.h"

/* Every field that the host relies on, each with its own refusal. `path` is for messages. */
qfw_status descriptor_check(const qfw_plugin_desc *d, const char *path);
/* The component of this kind (and name, unless NULL); NULL: there is none. */
const qfw_component *descriptor_find(const qfw_plugin_desc *d, uint32_t kind, const char *name);
/* dlopen with the floating-point environment kept, then the descriptor, checked. */
qfw_status loader_load(const char *path, const qfw_plugin_desc **desc);
const char *plugin_prober(void);

#endif
