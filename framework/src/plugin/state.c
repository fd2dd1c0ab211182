/* state.c -- the process around a plugin: constructors and open functions may change it, for all
 * of us.
 *
 * A file that was merely linked with -ffast-math makes the thread that loads it flush denormals;
 * others take over signals or the locale. The raised exception flags do not count: every addition
 * sets one.
 */
#define _GNU_SOURCE
#include "plugin/state.h"

#include <float.h>
#include <locale.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* Whether this thread makes zeros of denormal results, or of denormal operands. */
static int flushes_denormals(void) {
    volatile double least = DBL_MIN, denormal = DBL_TRUE_MIN;
    volatile double result = least / 2, product = denormal * 0x1p100;
    return !(result > 0 && product > 0);
}

static mode_t file_mask(void) {
    const mode_t mask = umask(077);
    umask(mask);
    return mask;
}

void state_take(process_state *s) {
    memset(s, 0, sizeof *s);
    fegetenv(&s->env);
    s->rounding = fegetround();
    s->flushes = flushes_denormals();
    for (int i = 1; i < STATE_SIGNALS; i++) sigaction(i, NULL, &s->actions[i]);
    pthread_sigmask(SIG_SETMASK, NULL, &s->blocked);
    s->mask = file_mask();
    if (!getcwd(s->folder, sizeof s->folder)) s->folder[0] = 0;
    const char *locale = setlocale(LC_ALL, NULL);
    if (locale && strlen(locale) < sizeof s->locale) memcpy(s->locale, locale, strlen(locale) + 1);
}

static void say(char *changed, size_t cap, const char *what) {
    const size_t at = strlen(changed);
    snprintf(changed + at, cap - at, "%s%s", at ? ", " : "it changes ", what);
}

static int restore_signals(const process_state *s, const process_state *now) {
    int differ = 0;
    for (int i = 1; i < STATE_SIGNALS; i++) {
        if (s->actions[i].sa_handler == now->actions[i].sa_handler) continue;
        differ = 1;
        sigaction(i, &s->actions[i], NULL);
    }
    return differ;
}

static int restore_blocked(const process_state *s, const process_state *now) {
    int differ = 0;
    for (int i = 1; i < STATE_SIGNALS; i++)
        differ |= sigismember(&s->blocked, i) != sigismember(&now->blocked, i);
    if (differ) pthread_sigmask(SIG_SETMASK, &s->blocked, NULL);
    return differ;
}

void state_restore(const process_state *s, char *changed, size_t cap) {
    process_state now;
    state_take(&now);
    fesetenv(&s->env);
    *changed = 0;
    if (s->flushes != now.flushes)
        say(changed, cap, "how denormals are treated (is it linked with -ffast-math?)");
    if (s->rounding != now.rounding) say(changed, cap, "the rounding of floats");
    if (restore_signals(s, &now)) say(changed, cap, "signal handlers");
    if (restore_blocked(s, &now)) say(changed, cap, "the signals that are blocked");
    if (s->mask != now.mask) {
        umask(s->mask);
        say(changed, cap, "the umask");
    }
    if (*s->folder && strcmp(s->folder, now.folder) && chdir(s->folder) == 0)
        say(changed, cap, "the working folder");
    if (*s->locale && strcmp(s->locale, now.locale) && setlocale(LC_ALL, s->locale))
        say(changed, cap, "the locale");
}
