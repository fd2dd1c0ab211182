/* cpu.c -- what a plugin may not do. */
void *a(void) { return calloc(1, 1); }   /* breach */
void b(void) { signal(2, 0); }           /* breach */
void c(void) { puts("x"); }              /* breach */
void d(void) { setlocale(LC_ALL, "C"); } /* breach */
void e(char *s, const char *t) { strcpy(s, t); } /* breach */
