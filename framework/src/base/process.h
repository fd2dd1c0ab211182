/* process.h -- what the kernel says this process holds. */
#ifndef BASE_PROCESS_H
#define BASE_PROCESS_H

#include <stdint.h>

/* Bytes in memory now, and the most there have been; 0: unknown. */
uint64_t process_resident(void);
uint64_t process_peak(void);

#endif
