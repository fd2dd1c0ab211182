/* refusal.h -- the command on a folder that tiny.h made and a test altered: what is checked of
 * every refusal. The folder is "case" in the test's own. */
#ifndef SUPPORT_REFUSAL_H
#define SUPPORT_REFUSAL_H

#include <stddef.h>

#include "command.h"

/* qfw --ini case/run.ini, with one word more unless it is NULL ("--plan"). The exit code; the rest
 * is in the command that follows. A sanitizer's report fails the test. */
int case_run(const char *word);
extern command case_command;
/* One line of `text` is like the POSIX extended regex. */
int has_line(const char *text, const char *regex);

/* The command is refused with this exit code and a line that matches, soon, in little memory, and
 * leaves nothing new in the folder. `what` names the case where it is not. */
void refused(const char *what, const char *word, int exit_code, const char *regex);
/* The same of bad data in a text of so many bytes: memory may hold it twice, and no tree of it. */
void refused_text(const char *what, const char *word, int64_t bytes, const char *regex);
/* It trains to the end. */
void trains(const char *what);

const char *in_case(const char *file); /* "case/<file>"; one of the last four stays valid */
/* The file's first `from`, which must stand there, becomes `to`; "": in front of everything. */
void alter(const char *file, const char *from, const char *to);
/* These bytes at `at`, counted from the file's end when negative. */
void patch(const char *file, long at, const void *bytes, size_t n);

typedef struct alteration {
    const char *from, *to, *regex; /* from NULL: past the last */
} alteration;
/* Each of them alone, made to `file` of a fresh folder, is refused as bad data. */
void each_refused(const char *file, const char *word, const alteration *list);

#endif
