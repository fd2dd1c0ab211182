/* test_error.c -- a test sees the core, the helpers and cmocka. */
#include <cmocka.h>

#include "../support/temp.h"
#include "base/error.h"
#include "../unit/test_other.c" /* breach */
#include <jansson.h>            /* breach */
