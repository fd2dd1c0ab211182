/* cpu.c -- a backend: vendor headers are its business, the core's are not. */
#include <cblas.h>
#include <immintrin.h>

#include "cpu.h"
#include "qfw/good.h"
#include "base/error.h"    /* breach */
#include "../cuda/cuda.h"  /* breach */
#include <jansson.h>       /* breach */
