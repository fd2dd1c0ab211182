/* breach: a plugin that can end the process. */
#include <stdlib.h>
__attribute__((section(".note.qfw"), used)) static const int note = 1;
__attribute__((visibility("default"))) void (*const qfw_plugin_abi0)(int) = exit;
