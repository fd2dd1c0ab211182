/* chunk.c -- see chunk.h: the text is cut into units at every place where a chunk may end, each
 * measured once; then units are put together until a chunk is full. */
#include "serve/chunk.h"

#include <string.h>

#include "base/error.h"
#include "base/mem.h"

enum { WORD, LINE, SENTENCE, SECTION }; /* what begins with a unit: the higher, the better to cut */

typedef struct unit {
    size_t from;
    int64_t tokens;
    int rank;
} unit;

typedef struct chunker {
    const chunk_ruler *r;
    const char *text;
    size_t n;
    int64_t overlap;
    unit *unit; /* one more than n_units: the end */
    size_t n_units, unit_cap;
    chunk *chunk;
    size_t n_chunks, chunk_cap;
} chunker;

/* --- where a text pauses --- */

static int is_space(char c) { return c == ' ' || c == '\t' || c == '\n' || c == '\r'; }
static int is_inside(char c) { return (c & 0xc0) == 0x80; } /* a later byte of a character */

/* Bytes of the longest of the marks that the text begins with; 0: none. */
static size_t mark_at(const char *text, size_t n, const char *const *marks) {
    for (; *marks; marks++) {
        const size_t length = strlen(*marks);
        if (length <= n && !memcmp(text, *marks, length)) return length;
    }
    return 0;
}

/* The end of the sentence whose last mark stands at text[at], closing quotes included; 0: none. */
static size_t sentence_end(const char *text, size_t n, size_t at) {
    static const char *const marks[] = {".", "!", "?", "\u2026", NULL};
    static const char *const wide[] = {"\u3002", "\uff01", "\uff1f", NULL}; /* no blank after */
    static const char *const closers[] = {
        "\"", "'", ")", "]", "\u00bb", "\u201d", "\u2019", "\u300d", "\u300f", NULL};
    const size_t spaceless = mark_at(text + at, n - at, wide);
    size_t length = spaceless ? spaceless : mark_at(text + at, n - at, marks);
    if (length == 0) return 0;
    for (at += length; (length = mark_at(text + at, n - at, closers)) > 0;) at += length;
    return spaceless || at == n || is_space(text[at]) ? at : 0;
}

/* Whether the line at text is a heading: marked as one, all in capitals, or a few words and a
 * colon. */
static int is_heading(const char *text, size_t n) {
    enum { SHORT = 60 };
    size_t length = 0, capitals = 0, small = 0;
    for (; length < n && text[length] != '\n'; length++) {
        if (length > SHORT) return *text == '#';
        capitals += text[length] >= 'A' && text[length] <= 'Z';
        small += text[length] >= 'a' && text[length] <= 'z';
    }
    while (length > 0 && is_space(text[length - 1])) length--;
    return length > 0 && (*text == '#' || text[length - 1] == ':' || (capitals > 1 && small == 0));
}

/* Whether the line at text is an item of a list. */
static int is_item(const char *text, size_t n) {
    static const char *const bullets[] = {
        "- ", "* ", "+ ", "\u2022", "\u2013 ", "\u00b7", "\u25aa", "\u25cf", NULL};
    size_t digits = 0;
    while (digits < n && digits < 3 && text[digits] >= '0' && text[digits] <= '9') digits++;
    if (digits > 0)
        return n - digits >= 2 && (text[digits] == '.' || text[digits] == ')') &&
               text[digits + 1] == ' ';
    return mark_at(text, n, bullets) > 0;
}

/* What begins behind the blanks and line ends at text[*at]; *at moves there. */
static int skip_space(const char *text, size_t n, size_t *at, int ended) {
    size_t lines = 0;
    for (; *at < n && is_space(text[*at]); ++*at) lines += text[*at] == '\n';
    const char *line = text + *at;
    if (lines > 1 || (lines == 1 && is_heading(line, n - *at))) return SECTION;
    if (ended || (lines == 1 && is_item(line, n - *at))) return SENTENCE;
    return LINE;
}

/* Where the unit at text[at] ends, and what begins there. */
static size_t next_unit(const char *text, size_t n, size_t at, int *rank) {
    while (at < n) {
        size_t end = sentence_end(text, n, at);
        const int ended = end > 0;
        if (!ended) end = at;
        if (ended || text[at] == '\n') {
            *rank = skip_space(text, n, &end, ended);
            return end;
        }
        at++;
    }
    *rank = SECTION;
    return n;
}

/* --- units --- */

/* The place in the middle half of from..to, nearest to the middle, where a word begins, else where
 * a character does; `from` where it is one character. */
static size_t middle(const char *text, size_t from, size_t to) {
    const size_t half = (to - from) / 2, at = from + half;
    for (size_t d = 0; d < half / 2; d++) {
        if (is_space(text[at - d - 1]) && !is_space(text[at - d])) return at - d;
        if (is_space(text[at + d - 1]) && !is_space(text[at + d])) return at + d;
    }
    size_t cut = at;
    while (cut > from && is_inside(text[cut])) cut--;
    if (cut > from) return cut;
    for (cut = at; cut < to && is_inside(text[cut]);) cut++;
    return cut < to ? cut : from;
}

static qfw_status add_unit(chunker *c, size_t from, size_t to, int rank) {
    unit u = {from, 0, rank};
    int fits = 1;
    QFW_TRY(c->r->tokens(c->r->arg, c->text + from, to - from, &u.tokens));
    if (u.tokens > c->r->room)
        fits = 0;
    else if (u.tokens > c->r->room / 2)
        QFW_TRY(c->r->fits(c->r->arg, c->text + from, to - from, &fits));
    if (!fits) {
        const size_t cut = middle(c->text, from, to);
        if (cut == from)
            return err_fail("E_DATA_LONG", QFW_E_DATA,
                "byte %zu: not even one character fits beside the question; hint: raise [data] "
                "max_length or shorten the prompt",
                from);
        QFW_TRY(add_unit(c, from, cut, rank));
        return add_unit(c, cut, to, WORD);
    }
    if (mem_grow(&c->unit, &c->unit_cap, c->n_units + 2, sizeof *c->unit)) return QFW_E_NOMEM;
    c->unit[c->n_units++] = u;
    return QFW_OK;
}

static qfw_status find_units(chunker *c) {
    int rank = SECTION, next = SECTION;
    for (size_t at = 0, end; at < c->n; at = end, rank = next) {
        end = next_unit(c->text, c->n, at, &next);
        QFW_TRY(add_unit(c, at, end, rank));
    }
    if (c->n_units > 0) c->unit[c->n_units] = (unit){.from = c->n, .rank = SECTION};
    return QFW_OK;
}

/* --- chunks --- */

static int64_t tokens_of(const chunker *c, size_t from, size_t to) {
    int64_t sum = 0;
    for (size_t i = from; i < to; i++) sum += c->unit[i].tokens;
    return sum;
}

/* The best end for units from..at most: more than `past`, at least half full. */
static size_t best_end(const chunker *c, size_t from, size_t most, size_t past) {
    const int64_t all = tokens_of(c, from, most);
    if (most == c->n_units) return most;
    for (int rank = SECTION; rank > WORD; rank--) {
        int64_t sum = all;
        for (size_t end = most; end > past && end > from && 2 * sum >= c->r->room; end--) {
            if (c->unit[end].rank >= rank) return end;
            sum -= c->unit[end - 1].tokens;
        }
    }
    return most;
}

static size_t fill(const chunker *c, size_t from) {
    int64_t sum = 0;
    size_t end = from;
    while (end < c->n_units && (end == from || sum + c->unit[end].tokens <= c->r->room))
        sum += c->unit[end++].tokens;
    return end;
}

static qfw_status fits(const chunker *c, size_t from, size_t end, int *yes) {
    const size_t a = c->unit[from].from, b = c->unit[end].from;
    return c->r->fits(c->r->arg, c->text + a, b - a, yes);
}

/* Where the chunk that begins with a unit ends: past `past` if it fits so, else *end is `past`. */
static qfw_status find_end(const chunker *c, size_t from, size_t past, size_t *end) {
    int yes = 0;
    for (size_t most = fill(c, from); most > past; most = *end - 1) {
        *end = best_end(c, from, most, past);
        QFW_TRY(fits(c, from, *end, &yes));
        if (yes) return QFW_OK;
    }
    *end = past;
    return QFW_OK;
}

/* The first unit of the chunk after from..end: whole sentences of the overlap. */
static size_t overlap_start(const chunker *c, size_t from, size_t end) {
    size_t start = end;
    int64_t sum = 0;
    for (size_t i = end; i > from + 1; i--) {
        sum += c->unit[i - 1].tokens;
        if (sum > c->overlap || sum + c->unit[end].tokens > c->r->room) break;
        if (c->unit[i - 1].rank >= SENTENCE) start = i - 1;
    }
    return start;
}

static qfw_status add_chunk(chunker *c, size_t from, size_t to) {
    if (mem_grow(&c->chunk, &c->chunk_cap, c->n_chunks + 1, sizeof *c->chunk)) return QFW_E_NOMEM;
    c->chunk[c->n_chunks++] = (chunk){from, to};
    return QFW_OK;
}

static qfw_status find_chunks(chunker *c) {
    size_t from = 0, done = 0; /* units before `done` are in a chunk */
    while (done < c->n_units) {
        size_t end = done;
        QFW_TRY(find_end(c, from, done, &end));
        if (end == done && from == done)
            return err_fail("E_DATA_LONG", QFW_E_DATA,
                "byte %zu: nothing fits beside the question; hint: raise [data] max_length or "
                "shorten the prompt",
                c->unit[from].from);
        if (end == done) { /* no room beside the overlap */
            from = done;
            continue;
        }
        QFW_TRY(add_chunk(c, c->unit[from].from, c->unit[end].from));
        from = end < c->n_units ? overlap_start(c, from, end) : end;
        done = end;
    }
    return QFW_OK;
}

static qfw_status run_chunker(chunker *c) {
    int whole = 0;
    QFW_TRY(find_units(c));
    /* Units count a little more than they take: a text that just fits is not cut. */
    if (tokens_of(c, 0, c->n_units) <= 2 * c->r->room)
        QFW_TRY(c->r->fits(c->r->arg, c->text, c->n, &whole));
    return whole || c->n == 0 ? add_chunk(c, 0, c->n) : find_chunks(c);
}

qfw_status chunk_text(
    const char *text, size_t n, const chunk_ruler *r, chunk **out, size_t *n_chunks) {
    chunker c = {.r = r, .text = text, .n = n, .overlap = r->overlap};
    if (c.overlap > r->room / 2) c.overlap = r->room / 2;
    const qfw_status status = run_chunker(&c);
    mem_free(c.unit);
    if (status != QFW_OK) mem_free(c.chunk);
    *out = status == QFW_OK ? c.chunk : NULL;
    *n_chunks = status == QFW_OK ? c.n_chunks : 0;
    return status;
}
