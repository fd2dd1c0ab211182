/* temp.h -- a folder of one test program, and the shapes in which a failure is checked. */
#ifndef SUPPORT_TEMP_H
#define SUPPORT_TEMP_H

#include <stddef.h>

#include "qfw/status.h"

int temp_make(void **state); /* cmocka group setup */
int temp_drop(void **state); /* and teardown */
const char *temp_folder(void);
/* A path in the folder; one of the last eight stays valid. */
const char *temp_path(const char *name);
void temp_write(const char *name, const void *data, size_t n);
void temp_text(const char *name, const char *text);

/* The call failed with `name`, exit code and a first sentence that matches the POSIX extended
 * regex; clears the error. */
void assert_error(qfw_status status, const char *name, int exit_code, const char *regex);
double clock_seconds(void);
/* Of this process's own work: a bound on it holds on a busy machine, too. */
double work_seconds(void);

#endif
