/* neftune.c -- see neftune.h. */
#include "train/neftune.h"

#include <math.h>
#include <string.h>

#include "base/parallel.h"
#include "base/rng.h"

enum { ROWS_PER_ITEM = 16 };

typedef struct fill {
    const batch *b;
    int64_t n_rows, width;
    double alpha;
    uint32_t key[2];
    float *noise;
} fill;

double neftune_alpha(const run *r) {
    return cfg_real(run_cfg(r, SECTION_TRAINER), "neftune_noise_alpha");
}

static void fill_row(const fill *f, int64_t row) {
    float *to = f->noise + row * f->width;
    memset(to, 0, (size_t)f->width * sizeof *to);
    if (row >= f->b->pub.n_tokens) return;
    const int32_t *key = f->b->row_key + 2 * row;
    const float size = (float)(f->alpha / sqrt((double)f->b->row_length[row] * (double)f->width));
    for (int64_t c = 0; c < f->width; c += 4) {
        const uint32_t counter[4] = {(uint32_t)(c / 4), (uint32_t)key[1], (uint32_t)key[0], 0};
        uint32_t word[4];
        philox4x32(counter, f->key, word);
        for (int64_t k = 0; k < 4 && c + k < f->width; k++)
            to[c + k] = ((float)(word[k] >> 8) * 0x1p-23f - 1) * size; /* -1 .. 1, times size */
    }
}

static void fill_item(void *arg, uint32_t item, uint32_t worker) {
    const fill *f = arg;
    const int64_t first = (int64_t)item * ROWS_PER_ITEM, past = first + ROWS_PER_ITEM;
    (void)worker;
    for (int64_t row = first; row < past && row < f->n_rows; row++) fill_row(f, row);
}

void neftune_fill(const run *r, const batch *b, int64_t n_rows, int64_t width, float *noise) {
    fill f = {b, n_rows, width, neftune_alpha(r), {0, 0}, noise};
    f.key[0] = (uint32_t)r->seed ^ fnv1a32("embed_noise");
    f.key[1] = (uint32_t)(r->seed >> 32);
    parallel_for((uint32_t)((n_rows + ROWS_PER_ITEM - 1) / ROWS_PER_ITEM), fill_item, &f);
}
