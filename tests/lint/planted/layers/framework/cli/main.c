/* main.c -- an ordinary client, which sees the core but no library that it wraps. */
#include "base/error.h"
#include <jansson.h> /* breach */
