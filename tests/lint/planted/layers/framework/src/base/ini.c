/* ini.c -- the one file that wraps inih. */
#include <ini.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/error.h"
#include "error.h"
#include "qfw/good.h"
#include "qfw/absent.h"   /* breach */
#include "base/absent.h"  /* breach */
#include "../base/error.h" /* breach */
#include "framework/src/base/error.h" /* breach */
#include "/usr/include/stdio.h" /* breach */
#include <vulkan/vulkan.h> /* breach */
#include <cblas.h>         /* breach */
#  include <cuda_runtime.h> // breach
#include HEADER_BY_MACRO /* breach */
