#include "qfw/status.h"

qfw_status good(void);
qfw_status good(void) { return QFW_OK; }
