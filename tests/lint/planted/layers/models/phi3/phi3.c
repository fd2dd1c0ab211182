/* phi3.c -- a model sees the SDK, its own folder and C. */
#include <math.h>

#include "qfw/good.h"
#include "cpu.h"     /* breach */
#include <unistd.h>  /* breach */
#include <cblas.h>   /* breach */
#include <plot.h>    /* breach */
