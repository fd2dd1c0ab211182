int held(void) { return 0; }
