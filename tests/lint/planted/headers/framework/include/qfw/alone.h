/* alone.h -- breach: it relies on what somebody else has included. */
#ifndef QFW_ALONE_H
#define QFW_ALONE_H
typedef struct alone {
    uint32_t size;
} alone;
#endif
