/* error.h -- what went wrong, in one sentence that a user can act on.
 *
 * Every failing call of the core ends in err_fail (or passes on the status of one that did). The
 * sentence has a name (E_INI_UNKNOWN); the name's prefix decides the exit code (error.c). Where
 * several problems should be told in one run, the first is err_fail'ed and the others err_also'ed.
 * State is per thread.
 *
 * Form: "<file>: <object>: <field>: <what was found>, <what is allowed> (line 7 col 3); hint: ...".
 */
#ifndef BASE_ERROR_H
#define BASE_ERROR_H

#include "qfw/status.h"

/* Exit codes of `qfw`. */
enum {
    EXIT_OK = 0,
    EXIT_USAGE = 64,
    EXIT_DATA = 65,     /* a file whose content is wrong */
    EXIT_NOINPUT = 66,  /* a file that is missing or unreadable */
    EXIT_PLUGIN = 69,   /* plugin, driver or device unavailable */
    EXIT_INTERNAL = 70, /* our bug, or a plugin's */
    EXIT_MEMORY = 71,   /* out of memory, or an OS limit */
    EXIT_OUTPUT = 73,   /* output not creatable, or locked */
    EXIT_IOERR = 74,    /* the disk */
    EXIT_SIGNAL = 75,   /* stopped by a signal, checkpoint published */
    EXIT_CONFIG = 78,   /* the INI or an option */
    EXIT_NUMERIC = 80,  /* a loss or gradient that is not finite */
};

/* Make this the thread's error, dropping what was there, and return `code`. Control characters in
 * the text are escaped; the text is cut at 512 bytes. `name` is a literal such as "E_ST_SHORT". */
QFW_PRINTF(3, 4) qfw_status err_fail(const char *name, qfw_status code, const char *fmt, ...);
/* Add a further problem after err_fail; past 50 only counted. With no error yet, the same as
 * err_fail. */
QFW_PRINTF(3, 4) qfw_status err_also(const char *name, qfw_status code, const char *fmt, ...);
/* Put "text: " in front of the last sentence, as the caller that knows the file or the object. */
QFW_PRINTF(1, 2) void err_prefix(const char *fmt, ...);
void err_clear(void);

/* Set aside what is recorded and begin anew, for calls that may fail and be forgiven; err_join puts
 * it back in front of what was recorded since. One level. */
void err_hold(void);
void err_join(void);

/* Put the sentences about lines of the file ("path:7:3: ...") first, by line; the others keep
 * their order behind them. */
void err_sort(const char *path);

uint32_t err_count(void);  /* sentences kept */
uint32_t err_unsaid(void); /* further problems, only counted */
/* "error[E_INI_UNKNOWN] sft.ini:7:3: ..."; NULL past the last */
const char *err_text(uint32_t i);
const char *err_name(void);  /* of the first; "" when there is none */
qfw_status err_status(void); /* of the first; 0 when there is none */
int err_exit_code(void);     /* of the first */

/* Bytes of the printable character at p, 1 to 4 of well-formed UTF-8; 0 for control characters, the
 * end of the text, and bytes that are no UTF-8. Reads no byte past a 0. */
size_t err_printable(const char *p);

/* Copy text into dst[cap], cap >= 8, as messages show it: control characters and bytes that are no
 * UTF-8 as \xNN; what does not fit is cut at a character and ends in "...". */
void err_escape(char *dst, size_t cap, const char *text);

/* The nearest of `n` words to `word` if it is near enough to be meant, else NULL: "did you
 * mean". */
const char *err_nearest(const char *word, const char *const *words, uint32_t n);

#endif
