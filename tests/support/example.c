/* example.c -- see example.h. */
#include "example.h"

#include <stdlib.h>

#include "base/mem.h"
#include "files/file.h"

#include "command.h"
#include "test.h"

const char *example_build(const char *folder, const char *kind, const char *name) {
    static char paths[8][600];
    static unsigned next;
    static command c;
    char *const path = paths[next++ % 8];
    const char *root = getenv("QFW_SOURCE"), *cc = getenv("CC");
    char *from = mem_printf("%s/docs/examples/plugins/%s.c", root ? root : ".", name);
    char *source = mem_printf("%s/%s.c", folder, name);
    char *include = mem_printf("%s/framework/include", root ? root : ".");
    snprintf(path, sizeof paths[0], "%s/libqfw_%s_%s.so", folder, kind, name);
    assert_int_equal(file_copy(from, source), QFW_OK);
    const char *const argv[] = {cc ? cc : "cc", "-std=c11", "-O2", "-Wall", "-Wextra", "-Wpedantic",
        "-fPIC", "-shared", "-fvisibility=hidden", "-I", include, "-o", path, source, "-lm", NULL};
    if (command_run(argv, &c) || c.exit_code || *c.err) fail_msg("%s: %s%s", name, c.out, c.err);
    mem_free(from);
    mem_free(source);
    mem_free(include);
    return path;
}
