/* other.c -- what the core may not do. */
const char *quoted = "exit(1), malloc(2), printf(3)";
void a(FILE *f) { fprintf(f, "fine: a file"); }
void b(void) { fprintf(stderr, "x"); } /* breach */
void c(void) { printf("x"); }          /* breach */
void d(void) { exit(1); }              /* breach */
void *e(void) { return malloc(1); }    /* breach */
char *f(char *s) { return strtok(s, "'"); } /* breach */
void g(table *t) { t->exit(1); t.printf(2); my_exit(3); }
int h(const char *s) { return atoi(s); } /* breach */
int i(void) { return 0; } /* FIXME breach */
#pragma STDC FP_CONTRACT ON /* breach */
long j(void) { return write(STDOUT_FILENO, "x", 1); } /* breach */
int k(void) { return system("ls"); } /* breach */
