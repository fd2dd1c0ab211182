/* narrow.c -- a literal that clang alone sees widened. */
#include <math.h>
double nothing(void);
double nothing(void) { return NAN; } /* breach */
double zero(void);
double zero(void) { return TEXT[0] - '0'; }
