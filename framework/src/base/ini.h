/* ini.h -- the INI file, strictly: inih under a line reader that never cuts, joins or drops
 * anything.
 *
 * Grammar: "[section]", "key = value", blank lines, and comments: a line whose first character past
 * blanks is ';' or '#', or the rest of a line from " ;" (a blank before the semicolon). Section and
 * key names are [A-Za-z0-9_.-]+, at most 49 bytes. A line is at most 8 KiB, a value 4096 bytes, the
 * file 1 MiB and 4096 keys. The text is UTF-8, with or without a byte order mark, lines end in LF
 * or CRLF. A section may be reopened. Duplicate keys, indented keys, "key: value", control
 * characters, UTF-16 and text that is none of these are errors, all reported in one run.
 */
#ifndef BASE_INI_H
#define BASE_INI_H

#include "qfw/status.h"

typedef struct ini_entry {
    const char *section, *key, *value;
    uint32_t line, key_col, value_col; /* from 1; 0 for --set, whose place is "--set section.key" */
    uint32_t used;                     /* set by whoever knows the key */
} ini_entry;

typedef struct ini {
    const char *path;
    ini_entry *entries;
    size_t n, cap;
    struct {
        const char *name;
        uint32_t line;
        uint32_t used;
    } * sections;
    size_t n_sections, cap_sections;
    int damaged; /* lines were left out: what is missing may have stood there */
} ini;

qfw_status ini_read(const char *path, ini **out); /* E_INI_*; 66 when missing or unreadable */
qfw_status ini_parse_text(const char *text, size_t n, const char *path, ini **out);
/* As ini_read, but lines that are wrong are told (err_count), and the others come out all the same,
 * so that everything that is wrong with a file can be told in one run. */
qfw_status ini_salvage(const char *path, ini **out);
void ini_destroy(ini *i);
/* "section.key=value" from the command line: replaces or adds. E_USAGE where it has another form.
 * The section is what stands before the last dot of the name. */
qfw_status ini_set(ini *i, const char *assignment);
ini_entry *ini_find(const ini *i, const char *section, const char *key); /* NULL: not there */
/* "sft.ini:7:3" or "--set trainer.x" for messages, into buf. */
const char *ini_place(const ini *i, const ini_entry *e, int value, char *buf, size_t cap);
/* Of the value, where the message goes on with "section.key": "sft.ini:7:3" or "--set". */
const char *ini_place_named(const ini *i, const ini_entry *e, char *buf, size_t cap);

#endif
