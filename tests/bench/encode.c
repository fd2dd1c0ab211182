/* encode.c -- the tokenizer's speed: every line of a file, some times over.
 *     BUILD/tests/bench/encode TOKENIZER_FOLDER FILE ROUNDS
 * One line a round: bytes, seconds of processor time, ids. encode.py compares with tokenizers. */
#define _POSIX_C_SOURCE 200809L
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/mem.h"
#include "files/file.h"
#include "text/tokenizer.h"

static double seconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* The number of ids of all lines, 0 on failure. */
static size_t encode_lines(const tokenizer *t, const char *text, size_t n) {
    size_t total = 0;
    ids got = {0};
    for (const char *from = text, *end; from < text + n; from = end + 1) {
        end = memchr(from, '\n', (size_t)(text + n - from));
        if (!end) end = text + n;
        got.n = 0;
        if (tokenizer_encode(t, from, (size_t)(end - from), 1, &got) != QFW_OK) return 0;
        total += got.n;
    }
    ids_free(&got);
    return total;
}

int main(int argc, char **argv) {
    tokenizer *t = NULL;
    char *text = NULL;
    size_t n = 0;
    if (argc != 4) return fprintf(stderr, "encode TOKENIZER_FOLDER FILE ROUNDS\n"), 64;
    if (tokenizer_open(argv[1], 0, &t) || file_read(argv[2], 1 << 30, &text, &n)) return 66;
    for (long i = strtol(argv[3], NULL, 10); i > 0; i--) {
        const double started = seconds();
        const size_t total = encode_lines(t, text, n);
        printf("%zu %.6f %zu\n", n, seconds() - started, total);
    }
    mem_free(text);
    tokenizer_close(t);
    return 0;
}
