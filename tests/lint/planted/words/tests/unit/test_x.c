/* test_x.c -- a test may print, allocate and be careless, but not unfinished. */
int main(void) { printf("%p", malloc(1)); exit(0); }
void a(char *s, const char *t) { strcpy(s, t); } /* XXX breach */
