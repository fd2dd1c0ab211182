/* breach: no note, so it can only be known by loading it. */
__attribute__((visibility("default"))) const int qfw_plugin_abi0 = 1;
