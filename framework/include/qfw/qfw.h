/* qfw.h -- the whole SDK. A backend needs only plugin.h and backend.h, and so on by kind. */
#ifndef QFW_QFW_H
#define QFW_QFW_H

#include "qfw/backend.h"
#include "qfw/model.h"
#include "qfw/optimizer.h"
#include "qfw/plugin.h"
#include "qfw/trainer.h"

#endif
