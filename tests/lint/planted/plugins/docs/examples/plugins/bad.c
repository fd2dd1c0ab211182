#include "inner.h" /* breach */
