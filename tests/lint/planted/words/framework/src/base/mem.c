/* mem.c -- where the core's memory comes from. exit(1) in a comment is only talk. */
void *get(unsigned long n) { return malloc(n); }
