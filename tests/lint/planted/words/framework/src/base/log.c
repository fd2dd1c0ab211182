/* log.c -- where lines go. */
void say(const char *s) { fputs(s, stderr); }
void stop(void) { abort(); } /* breach */
