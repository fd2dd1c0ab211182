/* search.h -- the search list of plugins, for the files of this folder. */
#ifndef PLUGIN_SEARCH_H
#define PLUGIN_SEARCH_H

#include "plugin/loader.h"

const char *search_folder(uint32_t i); /* in order; NULL past the last */
/* The path of the first libqfw_<kind>_<name>.so on the list into path[cap]; 0: there is none. */
int search_file(const char *kind, const char *name, char *path, size_t cap);
/* The open file `fd` and all folders above `path` (absolute, no links) can be written by root and
 * us (and a group) alone. */
qfw_status search_check_owner(int fd, const char *path);

#endif
