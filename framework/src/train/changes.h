/* changes.h -- a resume under other settings: which keys may differ from the checkpoint's, and what
 * that means. docs/files.md has the list for users. */
#ifndef TRAIN_CHANGES_H
#define TRAIN_CHANGES_H

#include "train/run.h"

typedef enum change_class {
    CHANGE_OF_CALL,    /* says how this process is called, not what the run is */
    CHANGE_EXACT,      /* the run ends in the same bits */
    CHANGE_COMPATIBLE, /* it goes on, and something but its data and schedule is another */
    CHANGE_FORBIDDEN   /* it would be another run */
} change_class;

/* *meaning: a few words, of a compatible key only. */
change_class change_class_of(const char *section, const char *key, const char **meaning);

/* Log every key that differs from `folder`'s resolved.ini, but those of the call; where one is
 * forbidden, all of these are the error: E_CONFIG_RESUME. */
qfw_status changes_check(const run *r, const char *folder);

#endif
