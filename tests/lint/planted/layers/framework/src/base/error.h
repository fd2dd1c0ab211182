/* error.h -- an internal header. */
