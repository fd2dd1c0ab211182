/* scaler.h -- the loss scale of an fp16 run, as torch.amp.GradScaler moves it.
 *
 * Gradients in 16 bits vanish below 6e-8, so the loss is multiplied by a power of two before the
 * backward pass and the gradients divided by it after. An update whose gradients are not all finite
 * is left out.
 */
#ifndef TRAIN_SCALER_H
#define TRAIN_SCALER_H

#include <stdint.h>

typedef struct scaler {
    double scale;  /* 1 where the run has none */
    uint64_t good; /* updates since the scale last moved */
    uint64_t left_out;
} scaler;

enum { SCALER_INTERVAL = 2000 };

/* 65536; 1 where it is not for use. */
scaler scaler_start(int used);
/* After an update's gradients: found_inf: one was not finite, and the scale halves; else it doubles
 * every `interval` updates. */
void scaler_move(scaler *s, int found_inf, uint32_t interval);

#endif
