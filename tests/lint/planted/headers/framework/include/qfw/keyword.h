/* keyword.h -- breach: C++ does not take this name. */
#ifndef QFW_KEYWORD_H
#define QFW_KEYWORD_H
typedef struct keyword {
    int class;
} keyword;
#endif
