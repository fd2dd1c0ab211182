/* option.h -- the typed options that a plugin declares, and how it reads them.
 *
 * One table gives parsing, types, ranges, defaults, help and the docs page. The host reads the INI,
 * refuses unknown keys and values out of range with file, line and column, and hands the plugin a
 * qfw_cfg that answers every declared key: what the INI says, else the default.
 */
#ifndef QFW_OPTION_H
#define QFW_OPTION_H

#include "qfw/status.h"

enum {
    QFW_OPT_BOOL = 1,  /* true | false; read with cfg_i64 as 1 or 0 */
    QFW_OPT_INT = 2,   /* decimal, lo..hi; cfg_i64 */
    QFW_OPT_FLOAT = 3, /* decimal, lo..hi, finite; cfg_f64 */
    QFW_OPT_STR = 4,   /* cfg_str */
    QFW_OPT_PATH = 5,  /* resolved against the INI's folder; cfg_str */
    QFW_OPT_BYTES = 6, /* 512MiB, 12GiB, plain bytes, or 0 for "auto"; cfg_i64 */
    QFW_OPT_ENUM = 7,  /* one of `choices`; cfg_str */
    QFW_OPT_LIST = 8,  /* comma separated words, trimmed, joined by ','; cfg_str */
};
enum {
    QFW_OPT_REQUIRED = 1u << 0, /* no default: a run without it is refused */
    QFW_OPT_LO_OPEN = 1u << 1,  /* the value must be above lo, not equal to it */
};

typedef struct qfw_option {
    uint32_t size, type;
    uint32_t flags, rsv;
    const char *key;     /* as the INI spells it */
    const char *dflt;    /* as the INI would spell it; NULL with QFW_OPT_REQUIRED, "" for none */
    const char *help;    /* one line, no full stop */
    const char *choices; /* QFW_OPT_ENUM: "adamw|sgd"; else NULL */
    double lo, hi;       /* both 0: no range */
} qfw_option;
QFW_SEALED(qfw_option, hi);

/* One row of an option table. */
#define QFW_OPTION(type, key, dflt, lo, hi, choices, help)                                         \
    { sizeof(qfw_option), type, 0, 0, key, dflt, help, choices, lo, hi }
#define QFW_OPTION_FLAGS(type, flags, key, dflt, lo, hi, choices, help)                            \
    { sizeof(qfw_option), type, flags, 0, key, dflt, help, choices, lo, hi }

#endif
