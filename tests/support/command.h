/* command.h -- running a program, and what came of it. */
#ifndef SUPPORT_COMMAND_H
#define SUPPORT_COMMAND_H

#include <stdint.h>

enum { COMMAND_TEXT = 1 << 16 };

typedef struct command {
    int exit_code;  /* 128 + the number of the signal that ended it */
    double seconds; /* from start to end */
    double busy;    /* of them on a processor */
    int64_t peak; /* bytes resident at most; this program's own when it started, if that was more */
    char out[COMMAND_TEXT], err[COMMAND_TEXT]; /* cut to fit */
} command;

/* argv[0] is a path or a name on PATH; argv ends in NULL. -1 when it cannot be started. */
int command_run(const char *const argv[], command *c);
/* "$QFW_BUILD/name", one of the last four stays valid. */
const char *build_path(const char *name);

#endif
