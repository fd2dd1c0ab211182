/* status.h -- what a call returns, and the checks that keep structs honest.
 *
 * Every fallible call returns a qfw_status: 0, or one negative QFW_E_*. The sentence that explains
 * it is kept by the host, per thread; a plugin leaves it with qfw_fail (host.h). On failure a
 * callee has undone its own work and set its outputs to NULL (0 for a graph value).
 */
#ifndef QFW_STATUS_H
#define QFW_STATUS_H

#include <stddef.h>
#include <stdint.h>

typedef int32_t qfw_status;

/* Numbers never change. */
enum {
    QFW_OK = 0,
    QFW_E_INVALID = -1,     /* an argument that no caller may pass */
    QFW_E_SHAPE = -2,       /* shapes that do not fit each other */
    QFW_E_DTYPE = -3,       /* a dtype that the call does not take */
    QFW_E_UNSUPPORTED = -4, /* right, but not built here */
    QFW_E_NOMEM = -5,       /* host memory */
    QFW_E_DEVICE = -6,      /* no such device, or a driver fault */
    QFW_E_DEVICE_OOM = -7,  /* device memory; the backend stays usable */
    QFW_E_DEVICE_LOST = -8, /* nothing on the device can be read back */
    QFW_E_IO = -9,          /* the file system said no */
    QFW_E_CONFIG = -10,     /* the INI, a config.json, or the command line */
    QFW_E_CANCELLED = -11,  /* the user or a deadline asked to stop */
    QFW_E_ABI = -12,        /* host and plugin do not speak the same ABI */
    QFW_E_INTERNAL = -13,   /* a bug: ours or the plugin's */
    QFW_E_END = -14,        /* past the last item */
    QFW_E_DATA = -15,       /* a data or model file whose content is wrong */
    QFW_E_NUMERIC = -16,    /* a loss or a gradient that is not finite */
};

#ifdef __cplusplus
#    define QFW_STATIC_ASSERT(cond, text) static_assert(cond, text)
#    define QFW_EXTERN_C                  extern "C"
#else
#    define QFW_STATIC_ASSERT(cond, text) _Static_assert(cond, text)
#    define QFW_EXTERN_C                  extern
#endif

#if defined(__GNUC__)
#    define QFW_CHECKED            __attribute__((warn_unused_result))
#    define QFW_PRINTF(fmt, first) __attribute__((format(printf, fmt, first)))
#else
#    define QFW_CHECKED
#    define QFW_PRINTF(fmt, first)
#endif

/* Return at once when `call` fails; only where nothing is held. */
#define QFW_TRY(call)                                                                              \
    do {                                                                                           \
        const qfw_status qfw_try_status = (call);                                                  \
        if (qfw_try_status != QFW_OK) return qfw_try_status;                                       \
    } while (0)

/* Structs grow only at their end, and have no tail padding that would hide a new field. */
#define QFW_FIELD_END(T, field) (offsetof(T, field) + sizeof(((T *)0)->field))
#define QFW_SEALED(T, last)                                                                        \
    QFW_STATIC_ASSERT(sizeof(T) == QFW_FIELD_END(T, last), #T ": padding or stale last field")
/* Whether the optional member `field` is there: the struct reaches that far and it is not NULL. */
#define QFW_HAS(p, T, field) ((p)->size >= QFW_FIELD_END(T, field) && (p)->field)

#endif
