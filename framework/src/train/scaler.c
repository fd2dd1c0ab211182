/* scaler.c -- see scaler.h. */
#include "train/scaler.h"

#include <float.h>

scaler scaler_start(int used) { return (scaler){.scale = used ? 65536 : 1}; }

void scaler_move(scaler *s, int found_inf, uint32_t interval) {
    if (found_inf) {
        s->scale *= 0.5;
        s->good = 0;
        s->left_out++;
        return;
    }
    if (++s->good < interval) return;
    s->good = 0;
    if (2 * s->scale <= (double)FLT_MAX) s->scale *= 2;
}
