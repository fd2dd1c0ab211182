/* judging.h -- the set of [evaluate] scored at each evaluation of a training run. */
#ifndef SERVE_JUDGING_H
#define SERVE_JUDGING_H

#include "train/judge.h"

extern const judge scoring_judge;

#endif
