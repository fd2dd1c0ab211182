/* probe.h -- what the probe and the list need of each other. */
#ifndef PLUGIN_PROBE_H
#define PLUGIN_PROBE_H

#include "plugin/loader.h"

/* "libqfw_model_phi3.so": the two words of a file's name, each "" when it is not there. */
void plugin_file_words(const char *path, char kind[16], char name[64]);
const char *plugin_prober(void);

#endif
