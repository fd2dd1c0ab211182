/* descriptor.h -- reading a plugin's descriptor, for the files of this folder. */
#ifndef PLUGIN_DESCRIPTOR_H
#define PLUGIN_DESCRIPTOR_H

#include "plugin/loader.h"

/* Every field that the host relies on, each with its own refusal. `path` is for messages. */
qfw_status descriptor_check(const qfw_plugin_desc *d, const char *path);
/* Whether the component's kind is one of ours. Others are skipped: nothing but their kind is
 * looked at. */
int descriptor_is_known(const qfw_component *c);
/* The component of this kind (and name, unless NULL); NULL: there is none. */
const qfw_component *descriptor_find(const qfw_plugin_desc *d, uint32_t kind, const char *name);
/* "model 'phi3', trainer 'sft'": what it has that is known; "" for nothing. */
void descriptor_names(const qfw_plugin_desc *d, char *text, size_t cap);
/* dlopen, then the descriptor, checked. The state of the process is put back; `changed` says what
 * of it the file had changed, as in state.h. *desc is NULL on failure. */
qfw_status loader_load(const char *path, const qfw_plugin_desc **desc, char *changed, size_t cap);

#endif
