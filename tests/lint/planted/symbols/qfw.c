/* breach: a command that exports a symbol (linked with -rdynamic). */
int core_function(void);
int core_function(void) { return 0; }
int main(void) { return core_function(); }
