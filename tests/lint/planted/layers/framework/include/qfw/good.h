/* good.h -- a public header, with what it may and may not include. */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "qfw/other.h"
#include "base/error.h" /* breach */
#include "other.h"      /* breach */
#include <stdlib.h>     /* breach */
