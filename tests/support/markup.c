/* markup.c -- see markup.h. */
#define _POSIX_C_SOURCE 200809L
#include "markup.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

enum { DEPTH = 64, NAME = 32, ATTRIBUTES = 24 };
typedef struct walk {
    const char *at;
    char open[DEPTH][NAME];
    int n_open, is_xml;
} walk;

static const char *bad(walk *w, const char *why) {
    static char text[160];
    snprintf(text, sizeof text, "%s at: %.60s", why, w->at);
    return text;
}

static int is_name(char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
           strchr("-_:", c) != NULL;
}

static int take_name(walk *w, char out[NAME]) {
    int n = 0;
    while (*w->at && is_name(*w->at) && n < NAME - 1) out[n++] = *w->at++;
    out[n] = 0;
    return n;
}

static int has_no_end(const char *name) {
    return !strcmp(name, "meta") || !strcmp(name, "br") || !strcmp(name, "col") ||
           !strcmp(name, "hr");
}

/* "&amp;" and its like, at '&'. */
static int is_entity(const char *c) {
    size_t n = 1;
    while (c[n] == '#' || (c[n] && is_name(c[n]))) n++;
    return n > 2 && n < 12 && c[n] == ';';
}

static const char *take_value(walk *w) {
    if (*w->at++ != '=') return bad(w, "attribute without a value");
    if (*w->at++ != '"') return bad(w, "value without quotes");
    for (; *w->at != '"'; w->at++) {
        if (!*w->at || *w->at == '<') return bad(w, "value without an end");
        if (*w->at == '&' && !is_entity(w->at)) return bad(w, "bare &");
    }
    w->at++;
    return NULL;
}

static const char *take_tag(walk *w) {
    char name[NAME], seen[ATTRIBUTES][NAME];
    int n_seen = 0;
    w->at++;
    const int ends = *w->at == '/';
    w->at += ends;
    if (!take_name(w, name)) return bad(w, "bare <");
    if (ends) {
        if (!w->n_open || strcmp(w->open[w->n_open - 1], name)) return bad(w, "wrong end tag");
        w->n_open--;
        return *w->at++ == '>' ? NULL : bad(w, "end tag without >");
    }
    for (;;) {
        while (*w->at == ' ' || *w->at == '\n') w->at++;
        if (*w->at == '>' || !strncmp(w->at, "/>", 2)) break;
        if (n_seen == ATTRIBUTES || !take_name(w, seen[n_seen])) return bad(w, "no attribute");
        for (int i = 0; i < n_seen; i++)
            if (!strcmp(seen[i], seen[n_seen])) return bad(w, "attribute twice");
        n_seen++;
        const char *problem = take_value(w);
        if (problem) return problem;
    }
    const int closed = *w->at == '/';
    w->at += closed + 1;
    if (closed || (!w->is_xml && has_no_end(name))) return NULL;
    if (w->n_open == DEPTH) return bad(w, "too deep");
    memcpy(w->open[w->n_open++], name, NAME);
    return NULL;
}

const char *markup_problem(const char *text, int is_xml) {
    walk w = {.at = text, .is_xml = is_xml};
    static const char doctype[] = "<!doctype html>";
    if (!is_xml && !strncmp(text, doctype, sizeof doctype - 1)) w.at += sizeof doctype - 1;
    while (*w.at) {
        const char *problem = NULL;
        const int in_style = w.n_open && !strcmp(w.open[w.n_open - 1], "style");
        if (*w.at == '<' && (!in_style || w.at[1] == '/'))
            problem = take_tag(&w);
        else if (*w.at == '&' && !is_entity(w.at))
            problem = bad(&w, "bare &");
        else if ((unsigned char)*w.at < ' ' && *w.at != '\n' && *w.at != '\t')
            problem = bad(&w, "control character");
        else
            w.at++;
        if (problem) return problem;
    }
    return w.n_open ? bad(&w, "element without an end") : NULL;
}

/* Does a word that asks for something stand at c? */
static int asks(const char *c, const char *word) {
    const size_t n = strlen(word);
    if (strncasecmp(c, word, n)) return 0;
    if (!strcmp(word, "src=")) return strncmp(c + n, "\"data:", 6) != 0;
    if (!strcmp(word, "href=")) return strncmp(c + n, "\"#", 2) != 0;
    if (!strcmp(word, "url(")) return c[n] != '#';
    if (strcmp(word, " on")) return 1;
    return !strncmp(c + 1 + strspn(c + 1, "abcdefghijklmnopqrstuvwxyz"), "=\"", 2);
}

const char *markup_loads(const char *text) {
    static const char *const words[] = {"http:", "https:", "ftp:", "file:", "@import",
        "src=", "srcset=", "<script", "<link", "<iframe", "<object", "<embed", "<img", "<base",
        " on", "url(", "href=", "javascript:"};
    int in_tag = 0, in_style = 0; /* elsewhere it is text, which loads nothing */
    for (const char *c = text; *c; c++) {
        in_tag = *c == '<' || (in_tag && *c != '>');
        if (!strncasecmp(c, "<style", 6)) in_style = 1;
        if (!strncasecmp(c, "</style", 7)) in_style = 0;
        if (!in_tag && !in_style) continue;
        for (size_t i = 0; i < sizeof words / sizeof *words; i++)
            if (asks(c, words[i])) return c;
    }
    return NULL;
}
