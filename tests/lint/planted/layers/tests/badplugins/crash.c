/* crash.c -- a plugin for tests is a plugin: it sees nothing of the core. */
#include "qfw/good.h"
#include "base/error.h" /* breach */
