/* breach: it needs a function of the host. */
int qfw_secret(void);
__attribute__((section(".note.qfw"), used)) static const int note = 1;
__attribute__((visibility("default"))) int (*const qfw_plugin_abi0)(void) = qfw_secret;
