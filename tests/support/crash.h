/* crash.h -- a training run with tests/faults/shim.c before it: killed, refused its writes, or
 * written down; taken up again, it must end as one that nobody disturbed. */
#ifndef SUPPORT_CRASH_H
#define SUPPORT_CRASH_H

#include <stddef.h>
#include <stdint.h>

#include "running.h"

typedef struct fault {
    long kill, fail; /* the call before which it dies, or which fails; 0: none */
    int error;       /* errno of the failing call */
    int is_short;    /* instead, it writes half */
    int is_sticky;   /* and so all calls from there on */
} fault;

/* A fresh case of so many steps with all that a resume must find again, and with more keys of
 * [trainer] and rows to evaluate where `keys` is not NULL; it is run once, undisturbed
 * and written down, and its end kept. */
void crash_make(int steps, int save_steps, const char *keys);
void crash_drop(void);
long crash_calls(void); /* of the undisturbed run */
/* Whether the run may go on where its call n fails: one of the lock, of a folder's descriptor, or
 * of a file that is left over or has been synced. */
int crash_may_fail(long n);
double crash_seconds(void); /* that it took */
/* What it did, as the shim's log says, and what it said. */
const char *crash_log(size_t *n);
const char *crash_said(void);

void crash_clear(void); /* the output folder goes */
void crash_start(running *p, const char *word, const fault *f);
/* Its exit code; a sanitizer's report fails the test. */
int crash_end(running *p);
int crash_run(const char *word, const fault *f);
/* What the last one said on stderr, up to the next. */
const char *crash_text(void);
/* The last step that these words call published; 0: none. */
int64_t crash_published(const char *text, size_t n);
/* Resume to the end, from no step before `published`: weights, optimizer, place, log and names of
 * files are those of the undisturbed run. */
void crash_ends_the_same(const char *what, int64_t published);

/* With QFW_TEST_LONG set `all`, else about `some`; every one, else about every n-th. */
int crash_count(int all, int some);
int crash_every(int n);
/* The next number below n of a fixed sequence. */
uint64_t crash_random(uint64_t n);

#endif
