/* option.c -- a second file that sees inih. */
#include <ini.h> /* breach */
#include "ini.c" /* breach */
