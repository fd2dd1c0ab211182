/* main.c -- the command may speak and end. */
int main(void) { printf("hello"); exit(0); }
