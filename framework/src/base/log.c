/* log.c -- lines to stderr, with the progress bar kept out of their way.
 *
 * A line is composed first and written with one call, so that lines of several threads do not mix.
 */
#define _POSIX_C_SOURCE 200809L
#include "base/log.h"

#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/error.h"

enum { LINE_BYTES = 2048, STATUS_BYTES = 512 };

static const char clear_line[] = "\r\x1b[K";
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static char status[STATUS_BYTES]; /* what stands on the terminal's last line */
static atomic_int lowest = QFW_LOG_INFO;

void log_set_level(int32_t level) { atomic_store(&lowest, level); }

int log_is_terminal(void) { return isatty(STDERR_FILENO); }

void log_line(int32_t level, const char *fmt, ...) {
    char raw[LINE_BYTES], text[LINE_BYTES], line[LINE_BYTES + STATUS_BYTES + 32];
    va_list args;
    if (level < atomic_load(&lowest)) return;
    va_start(args, fmt);
    vsnprintf(raw, sizeof raw, fmt, args);
    va_end(args);
    err_escape(text, sizeof text, raw);
    const char *head = level >= QFW_LOG_ERROR  ? "qfw: "
                       : level == QFW_LOG_WARN ? "qfw: warning: "
                                               : "";
    pthread_mutex_lock(&lock);
    snprintf(line, sizeof line, "%s%s%s\n%s", *status ? clear_line : "", head, text, status);
    fputs(line, stderr);
    pthread_mutex_unlock(&lock);
}

void log_status(const char *text) {
    char line[STATUS_BYTES + 8];
    if (!log_is_terminal()) return;
    pthread_mutex_lock(&lock);
    snprintf(status, sizeof status, "%s", text ? text : "");
    snprintf(line, sizeof line, "%s%s", clear_line, status);
    fputs(line, stderr);
    pthread_mutex_unlock(&lock);
}
