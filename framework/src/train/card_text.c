/* card_text.c -- see card_text.h. */
#define _POSIX_C_SOURCE 200809L
#include "train/card_text.h"

#include <string.h>
#include <strings.h>

#include "base/error.h"

static const char replacement[] = "\xEF\xBF\xBD";

/* Line ends beyond ASCII, non-characters and the byte order mark: YAML would fold or
 * refuse them. */
static int is_yaml_special(const char *text) {
    return !strncmp(text, "\xE2\x80\xA8", 3) || !strncmp(text, "\xE2\x80\xA9", 3) ||
           !strncmp(text, "\xEF\xBB\xBF", 3) || !strncmp(text, "\xEF\xBF\xBE", 3) ||
           !strncmp(text, "\xEF\xBF\xBF", 3);
}

static void put_yaml(FILE *out, const char *text) {
    while (*text) {
        const size_t n = err_printable(text);
        const unsigned char c = (unsigned char)*text;
        if (c == '"' || c == '\\')
            fprintf(out, "\\%c", c);
        else if (c < 0x20 || c == 0x7f)
            fprintf(out, "\\x%02x", c);
        else if (!n || is_yaml_special(text))
            fputs(replacement, out);
        else
            fwrite(text, 1, n, out);
        text += n ? n : 1;
    }
}

void card_yaml(FILE *out, const char *prefix, const char *text) {
    fputc('"', out);
    put_yaml(out, prefix);
    put_yaml(out, text);
    fputc('"', out);
}

void card_markdown(FILE *out, const char *text) {
    while (*text) {
        const size_t n = err_printable(text);
        if (*text == '\n' || *text == '\t' || *text == '\r')
            fputc(' ', out);
        else if (!n)
            fputs(replacement, out);
        else if (!strncasecmp(text, "www.", 4)) /* else a link */
            fputs("www\\.", out);
        else if (*text == '<' || *text == '>' || *text == '&')
            fputs(*text == '<' ? "&lt;" : *text == '>' ? "&gt;" : "&amp;", out);
        else if (strchr("\\`*_{}[]#|~$!:@", *text))
            fprintf(out, "\\%c", *text);
        else
            fwrite(text, 1, n, out);
        text += !strncasecmp(text, "www.", 4) ? 4 : n ? n : 1;
    }
}

const char *card_licence(const char *text) {
    static const char *const known[] = {"apache-2.0", "mit", "cc0-1.0", "cc-by-2.0", "cc-by-2.5",
        "cc-by-3.0", "cc-by-4.0", "cc-by-sa-3.0", "cc-by-sa-4.0", "cc-by-nc-2.0", "cc-by-nc-3.0",
        "cc-by-nc-4.0", "cc-by-nd-4.0", "cc-by-nc-nd-3.0", "cc-by-nc-nd-4.0", "cc-by-nc-sa-2.0",
        "cc-by-nc-sa-3.0", "cc-by-nc-sa-4.0", "cdla-permissive-1.0", "cdla-permissive-2.0",
        "cdla-sharing-1.0", "odbl", "odc-by", "pddl", "bsd", "bsd-2-clause", "bsd-3-clause", "gpl",
        "gpl-2.0", "gpl-3.0", "lgpl", "lgpl-2.1", "lgpl-3.0", "agpl-3.0", "mpl-2.0", "isc",
        "unlicense", "wtfpl", "zlib", "gfdl", "openrail", "unknown"};
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (!strcasecmp(text, known[i])) return known[i];
    return NULL;
}
