/* process.c -- see process.h. getrusage would do for the peak, but it inherits the peak of whatever
 * this process was before exec. */
#include "base/process.h"

#include <stdio.h>

/* A line "<key>: <n> kB" of /proc/self/status. */
static uint64_t status_bytes(const char *format) {
    char line[256];
    unsigned long long kib = 0;
    FILE *f = fopen("/proc/self/status", "r");
    while (f && fgets(line, sizeof line, f))
        if (sscanf(line, format, &kib) == 1) break;
    if (f) fclose(f);
    return (uint64_t)kib * 1024;
}

uint64_t process_resident(void) { return status_bytes("VmRSS: %llu kB"); }
uint64_t process_peak(void) { return status_bytes("VmHWM: %llu kB"); }
