/* running.h -- a program that is still running: wait until it has come somewhere, signal it, see
 * how it ends. */
#ifndef SUPPORT_RUNNING_H
#define SUPPORT_RUNNING_H

#include <stdint.h>

enum { RUNNING_SECONDS = 60 }; /* that anything is waited for; then the test fails */

typedef struct running {
    int32_t pid;
    char err[600]; /* the file that its stderr goes to, in the test's folder */
} running;

/* argv[0] is a path, argv ends in NULL; stdout goes nowhere. Signals are as a shell leaves them for
 * a program in the foreground, but `ignored` (0: none) is ignored. */
void running_start(running *p, const char *const argv[], int ignored);
void running_wait_for(const running *p, const char *text); /* on its stderr */
void running_wait_file(const running *p, const char *path);
/* Until it has a handler for the signal, as Linux tells. */
void running_wait_caught(const running *p, int signal);
void running_signal(const running *p, int signal);
/* Its exit code, or 128 + the number of the signal that ended it. */
int running_end(running *p);

#endif
