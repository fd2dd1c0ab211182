/* breach: a trainer with a library beyond libc and libm (linked with jansson). */
void *json_object(void);
__attribute__((section(".note.qfw"), used)) static const int note = 1;
__attribute__((visibility("default"))) void *(*const qfw_plugin_abi0)(void) = json_object;
