/* state.h -- what a plugin's code must leave as it found it: looked at before, put back after. */
#ifndef PLUGIN_STATE_H
#define PLUGIN_STATE_H

#include <fenv.h>
#include <signal.h>
#include <stddef.h>
#include <sys/types.h>

enum { STATE_SIGNALS = 32, STATE_TEXT = 256 }; /* the standard ones; longest answer */

typedef struct process_state {
    fenv_t env;
    int rounding, flushes; /* of denormals */
    struct sigaction actions[STATE_SIGNALS];
    sigset_t blocked;
    mode_t mask;
    char folder[1024], locale[256];
} process_state;

void state_take(process_state *s);
/* Puts back what is not as `s` says, and says what that was: "it changes the rounding of floats,
 * the working folder"; "" for nothing. */
void state_restore(const process_state *s, char *changed, size_t cap);

#endif
