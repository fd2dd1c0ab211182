/* cuda.h -- another plugin's own header. */
