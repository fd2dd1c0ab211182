/* guard.h -- breach: it cannot be included twice. */
typedef struct guard {
    int size;
} guard;
