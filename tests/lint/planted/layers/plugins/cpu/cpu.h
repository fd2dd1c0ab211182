/* cpu.h -- a plugin's own header. */
