/* log.h -- lines for a person: the only place beside cli/ that prints.
 *
 * All lines go to stderr, "qfw: warning: " in front of warnings and "qfw: " in front of errors
 * (whose text says error[E_...]). Control characters are escaped, so that a line stays one line. A
 * progress bar on the terminal is cleared before a line and drawn again after it. A write that
 * fails is forgotten: logging never stops a run.
 */
#ifndef BASE_LOG_H
#define BASE_LOG_H

#include "qfw/host.h"

void log_set_level(int32_t level); /* QFW_LOG_*: lines below it are dropped; INFO at first */
QFW_PRINTF(2, 3) void log_line(int32_t level, const char *fmt, ...);
/* What stands on the last line of a terminal, redrawn under every log line; NULL or "" removes it.
 * Does nothing where stderr is no terminal. */
void log_status(const char *text);
int log_is_terminal(void);

#endif
