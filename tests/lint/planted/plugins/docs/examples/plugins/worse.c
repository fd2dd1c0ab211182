#include "qfw/status.h"

int undeclared(void) { return QFW_OK; } /* breach */
