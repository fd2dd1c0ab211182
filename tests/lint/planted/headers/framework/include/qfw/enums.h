/* enums.h -- breach: its layout depends on how wide an enum is. */
#ifndef QFW_ENUMS_H
#define QFW_ENUMS_H
enum colour { RED, BLUE };
typedef struct enums {
    enum colour a, b;
} enums;
#ifdef __cplusplus
static_assert(sizeof(enums) == 8, "size");
#else
_Static_assert(sizeof(enums) == 8, "size");
#endif
#endif
