/* bad.c -- one line that clang-format would change among lines that it would not. */
static int good(int a) {
    if (a) return 1;
    return 0;
}

static int  spaced(void) { return good(1); } /* breach */
