/* good.h -- stands alone. */
#ifndef QFW_GOOD_H
#define QFW_GOOD_H
#include <stdint.h>
typedef struct good {
    uint32_t size, kind;
} good;
#endif
