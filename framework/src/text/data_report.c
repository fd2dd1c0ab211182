/* data_report.c -- what a person sees of a data set before step 1. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/error.h"
#include "text/near.h"
#include "text/rows.h"
#include "text/unicode.h"

enum { HEAD = 60, TAIL = 20, COLUMNS = 3, CELL_WIDTH = 16, NUMBER_BYTES = 32, SHOWN_BYTES = 128 };

#define GREEN "\x1b[32m"
#define DIM   "\x1b[2m"
#define PLAIN "\x1b[0m"

/* --- the report --- */

/* 1234567 as "1,234,567". */
static const char *grouped(uint64_t n, char buf[NUMBER_BYTES]) {
    char digits[NUMBER_BYTES];
    const int length = snprintf(digits, sizeof digits, "%" PRIu64, n);
    char *to = buf;
    for (int i = 0; i < length; i++) {
        if (i > 0 && (length - i) % 3 == 0) *to++ = ',';
        *to++ = digits[i];
    }
    *to = 0;
    return buf;
}

static void print_count(FILE *out, const char *before, uint64_t n, const char *after) {
    char buf[NUMBER_BYTES];
    fprintf(out, "%s%s%s", before, grouped(n, buf), after);
}

static void print_rows(const dataset_report *f, FILE *out) {
    print_count(out, "  rows      ", f->rows, " read, ");
    print_count(out, "", f->kept, " kept");
    if (f->cut) print_count(out, " (", f->cut, " cut)");
    if (f->dropped_long) print_count(out, ", ", f->dropped_long, " dropped as too long");
    if (f->dropped_untrained)
        print_count(out, ", ", f->dropped_untrained, " dropped without a trained token");
    if (f->errors) print_count(out, ", ", f->errors, " left out as wrong");
    if (f->blank) print_count(out, ", ", f->blank, " blank lines");
    fputc('\n', out);
}

static void print_path(FILE *out, const char *path) {
    char shown[512];
    err_escape(shown, sizeof shown, path);
    fputs(shown, out);
}

/* How many rows are how long: a bar for each bin. */
static void print_lengths(const dataset *d, FILE *out) {
    enum { BAR = 40 };
    dataset_bin b;
    uint64_t most = 1;
    if (d->facts.min == d->facts.max) return;
    for (uint32_t i = 0; dataset_length_bin(d, i, &b); i++) most = b.rows > most ? b.rows : most;
    for (uint32_t i = 0; dataset_length_bin(d, i, &b); i++) {
        char from[NUMBER_BYTES], to[NUMBER_BYTES];
        const uint64_t bar = (b.rows * BAR + most - 1) / most; /* what is there is seen */
        fprintf(out, "  %-9s%7s", i ? "" : "lengths", grouped(b.from, from));
        fprintf(
            out, b.to > b.from ? " .. %-7s " : "    %-7s ", b.to > b.from ? grouped(b.to, to) : "");
        for (uint64_t k = 0; k < bar; k++) fputc('#', out);
        print_count(out, bar ? " " : "", b.rows, "\n");
    }
}

/* The first rows that were left out, cut to fit a terminal; the log has them whole. */
static void print_problems(const dataset *d, FILE *out) {
    enum { SHOWN = 5, COLUMNS_SHOWN = 64 };
    for (uint32_t i = 0; i < d->n_problems && i < SHOWN; i++) {
        char text[COLUMNS_SHOWN];
        char place[NUMBER_BYTES];
        const char *at = d->problem[i].text;
        snprintf(place, sizeof place, ":%" PRIu64 ":", d->problem[i].line);
        const char *after = strstr(at, place);
        err_escape(text, sizeof text, after ? after + 1 : at);
        fprintf(out, "  %-9s line %s\n", i ? "" : "wrong", text);
    }
    if (d->facts.errors > SHOWN)
        print_count(out, "            and ", d->facts.errors - SHOWN, " more\n");
}

void dataset_print_report(const dataset *d, const char *title, FILE *out) {
    const dataset_report *f = &d->facts;
    fprintf(out, "%s: ", title);
    print_path(out, d->path);
    fputc('\n', out);
    print_rows(f, out);
    print_count(out, "  tokens    ", f->tokens, " in all, ");
    print_count(out, "", f->trained, " trained");
    fprintf(out, " (%.1f %%)\n", f->tokens ? 100.0 * (double)f->trained / (double)f->tokens : 0.0);
    print_count(out, "  a row     ", f->min, " tokens at least, ");
    print_count(out, "median ", f->p50, ", ");
    print_count(out, "95 % up to ", f->p95, ", ");
    print_count(out, "", f->max, " at most");
    print_count(out, " (max_length ", (uint64_t)d->max_length, ")\n");
    print_lengths(d, out);
    if (f->duplicates) {
        print_count(out, "  doubles   ", f->duplicates, " of the rows repeat an earlier one");
        print_count(out, ", the first: line ", f->duplicate_line, "");
        print_count(out, " as line ", f->duplicate_of, "\n");
    }
    print_problems(d, out);
    fprintf(out, "  sha256    %s\n", f->sha256);
}

static void print_near(
    const near_list *l, const char *title, const char *what, double threshold, FILE *out) {
    print_count(out, title, l->rows, " of ");
    print_count(out, "", l->of, what);
    fprintf(out, " (Jaccard %g and more)\n", threshold);
    for (uint32_t i = 0; i < l->n_worst; i++) {
        print_count(out, "            line ", l->worst[i].line, "");
        print_count(out, " is near line ", l->worst[i].train_line, " of train");
        fprintf(out, ": %.3f\n", l->worst[i].jaccard);
    }
}

void near_print(const near_facts *f, FILE *out) {
    if (f->threshold <= 0) return;
    print_near(&f->train, "  near      ", " rows of train say what an earlier one says",
        f->threshold, out);
    if (f->eval.of)
        print_near(&f->eval, "  leakage   ", " rows of eval say what one of train says",
            f->threshold, out);
}

/* --- one row --- */

/* Cut what is wider than a cell; its last column says so. */
static void fit_cell(char *text) {
    int width = 0;
    uint32_t c = 0;
    const size_t end = strlen(text);
    size_t cut = 0; /* where one column is left */
    for (size_t i = 0, n; (n = utf8_read(text + i, end - i, &c)) > 0; i += n) {
        width += unicode_width(c);
        if (width < CELL_WIDTH) cut = i + n;
    }
    if (width > CELL_WIDTH) snprintf(text + cut, SHOWN_BYTES - cut, "~");
}

/* A token as it stands in the vocabulary, with nothing in it that a terminal acts on or hides. */
static void show_token(const dataset *d, int32_t id, char shown[SHOWN_BYTES]) {
    const char *token = tokenizer_token(d->tok, id);
    if (!token)
        snprintf(shown, SHOWN_BYTES, "?");
    else if (!strcmp(token, "\n"))
        snprintf(shown, SHOWN_BYTES, "\\n");
    else if (!strcmp(token, "\t"))
        snprintf(shown, SHOWN_BYTES, "\\t");
    else
        err_escape(shown, SHOWN_BYTES, token);
    for (char *p = shown; *p; p++)
        if (*p == ' ') *p = '_';
    fit_cell(shown);
}

static int columns_of(const char *text) {
    int width = 0;
    uint32_t c = 0;
    const size_t end = strlen(text);
    for (size_t i = 0, n; (n = utf8_read(text + i, end - i, &c)) > 0; i += n)
        width += unicode_width(c);
    return width;
}

/* "  *6324 ▁Hi": marked, or in green, where the token is trained. */
static void print_cell(
    const dataset *d, const qfw_seq *s, size_t t, int colour, int last, FILE *out) {
    char shown[SHOWN_BYTES];
    show_token(d, s->token[t], shown);
    const int width = columns_of(shown), trained = s->trained[t];
    char id[16];
    snprintf(id, sizeof id, "%s%d", !colour && trained ? "*" : "", s->token[t]);
    fprintf(out, "  %s%6s %s%s",
        !colour   ? ""
        : trained ? GREEN
                  : DIM,
        id, shown, colour ? PLAIN : "");
    for (int i = width; !last && i < CELL_WIDTH; i++) fputc(' ', out);
    if (last) fputc('\n', out);
}

static void print_tokens(
    const dataset *d, const qfw_seq *s, size_t from, size_t to, int colour, FILE *out) {
    for (size_t t = from; t < to; t++) {
        if ((t - from) % COLUMNS == 0) fputs("  ", out);
        const int last = (t - from) % COLUMNS == COLUMNS - 1 || t + 1 == to;
        print_cell(d, s, t, colour, last, out);
    }
}

static void print_middle(const qfw_seq *s, size_t from, size_t to, FILE *out) {
    size_t trained = 0;
    for (size_t t = from; t < to; t++) trained += s->trained[t];
    print_count(out, "    ... ", to - from, " tokens more, ");
    print_count(out, "", trained, " of them trained ...\n");
}

static void print_sequence(const dataset *d, const qfw_seq *s, int colour, FILE *out) {
    const int whole = s->n <= HEAD + TAIL;
    const size_t head = whole ? s->n : HEAD, tail = whole ? s->n : s->n - TAIL;
    print_tokens(d, s, 0, head, colour, out);
    if (!whole) print_middle(s, head, tail, out);
    print_tokens(d, s, tail, s->n, colour, out);
}

void dataset_print_row(const dataset *d, uint64_t i, FILE *out, int colour) {
    if (i >= d->n) return;
    const qfw_example *e = &d->example[i];
    print_count(out, "row ", i + 1, "");
    print_count(out, " of ", d->n, "");
    print_count(out, " (line ", e->line, "), token by token; ");
    fprintf(out, "%s\n", colour ? GREEN "green" PLAIN " is trained" : "* is trained");
    for (uint32_t k = 0; k < e->n_seqs; k++) {
        const qfw_seq *s = &e->seq[k];
        if (e->n_seqs > 1)
            fprintf(out, "  sequence %" PRIu32 " of %" PRIu32 "\n", k + 1, e->n_seqs);
        print_sequence(d, s, colour, out);
        print_count(out, "  ", s->n, " tokens, ");
        print_count(out, "", s->n_trained, " trained");
        if (s->truncated) print_count(out, ", ", s->truncated, " cut off");
        fputc('\n', out);
    }
}
