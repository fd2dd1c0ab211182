/* breach: a second exported symbol. */
__attribute__((section(".note.qfw"), used)) static const int note = 1;
__attribute__((visibility("default"))) const int qfw_plugin_abi0 = 1;
__attribute__((visibility("default"))) int helper(void) { return qfw_plugin_abi0; }
