/* test_power.c -- the power fails before any call of a training run. What the disk then holds is
 * built from all that the run called: whatever was not synced may be lost, in five ways. A resume
 * from there begins after no step that is before the last one that was called published, and ends
 * in the same bits.
 *
 * A file and a folder each have what a reader sees and what lasts. A sync of a file makes its bytes
 * last, a sync of a folder the names in it.
 */
#define _POSIX_C_SOURCE 200809L
#include <stdlib.h>
#include <sys/stat.h>

#include "files/file.h"

#include "../support/crash.h"
#include "../support/temp.h"
#include "../support/test.h"

typedef enum loss {
    LOSES_NOTHING,
    LOSES_BYTES_TO_ZEROS, /* of files: what was not synced reads as zeros */
    LOSES_BYTES,          /* the file ends before them */
    LOSES_NAMES,          /* made, renamed and removed since the folder's last sync */
    LOSES_NAMES_AND_BYTES,
    LOSSES
} loss;

static const char *const loss_names[LOSSES] = {
    "nothing", "bytes, to zeros", "bytes", "names", "names and bytes"};

enum { MOST_NODES = 512, MOST_NAMES = 64, NAME_BYTES = 64 };

typedef struct names {
    size_t n;
    struct {
        char name[NAME_BYTES];
        int node;
    } at[MOST_NAMES];
} names;

typedef struct node {
    int is_folder;
    char *bytes; /* as read now */
    size_t n, n_synced;
    char *synced;
    names seen, lasting; /* of a folder */
} node;

static node *nodes;
static int n_nodes;

static int make_node(int is_folder) {
    assert_true(n_nodes < MOST_NODES);
    nodes[n_nodes] = (node){.is_folder = is_folder};
    return n_nodes++;
}

static void drop_nodes(void) {
    for (int i = 0; i < n_nodes; i++) {
        free(nodes[i].bytes);
        free(nodes[i].synced);
    }
    n_nodes = 0;
}

/* --- names --- */

static int find(const names *l, const char *name) {
    for (size_t i = 0; i < l->n; i++)
        if (!strcmp(l->at[i].name, name)) return l->at[i].node;
    return -1;
}

static void forget(names *l, const char *name) {
    size_t kept = 0;
    for (size_t i = 0; i < l->n; i++)
        if (strcmp(l->at[i].name, name) != 0) l->at[kept++] = l->at[i];
    l->n = kept;
}

static void enter(names *l, const char *name, int to) {
    forget(l, name);
    assert_true(l->n < MOST_NAMES);
    snprintf(l->at[l->n].name, NAME_BYTES, "%s", name);
    l->at[l->n++].node = to;
}

/* The folder that `path` is in, *name its last part; the root is the folder above the output's. */
static int folder_of(const char *path, const char **name) {
    const char *part = temp_path("case/");
    char step[NAME_BYTES];
    int at = 0;
    part = path + strlen(part);
    for (const char *slash; (slash = strchr(part, '/')) != NULL; part = slash + 1) {
        snprintf(step, sizeof step, "%.*s", (int)(slash - part), part);
        at = find(&nodes[at].seen, step);
        if (at < 0) break;
    }
    *name = part;
    return at;
}

static int node_of(const char *path) {
    const char *name;
    const int at = folder_of(path, &name);
    return at < 0 ? -1 : find(&nodes[at].seen, name);
}

/* --- a call --- */

static void resize(node *f, size_t n) {
    f->bytes = realloc(f->bytes, n + 1);
    assert_non_null(f->bytes);
    if (n > f->n) memset(f->bytes + f->n, 0, n - f->n);
    f->n = n;
}

static void sync_node(node *f) {
    if (f->is_folder) {
        f->lasting = f->seen;
        return;
    }
    f->synced = realloc(f->synced, f->n + 1);
    assert_non_null(f->synced);
    if (f->n) memcpy(f->synced, f->bytes, f->n);
    f->n_synced = f->n;
}

static void rename_node(const char *from, const char *to) {
    const char *old_name, *new_name;
    const int source = folder_of(from, &old_name), target = folder_of(to, &new_name);
    const int moved = source < 0 ? -1 : find(&nodes[source].seen, old_name);
    if (moved < 0 || target < 0) return;
    enter(&nodes[target].seen, new_name, moved);
    forget(&nodes[source].seen, old_name);
}

typedef struct call {
    char kind, path[512], to[512];
    long said, at;
    size_t n;
    const char *data;
} call;

static void apply(const call *c) {
    const char *name;
    const int folder = folder_of(c->path, &name), there = node_of(c->path);
    if (folder < 0) return;
    switch (c->kind) {
    case 'M': /* mkdir */
        if (there < 0) enter(&nodes[folder].seen, name, make_node(1));
        break;
    case 'C': /* open */
    case 'T':
        if (there < 0)
            enter(&nodes[folder].seen, name, make_node(0));
        else if (c->kind == 'T')
            resize(&nodes[there], 0);
        break;
    case 'W':
        if (there < 0) break;
        if (nodes[there].n < (size_t)c->at + c->n) resize(&nodes[there], (size_t)c->at + c->n);
        memcpy(nodes[there].bytes + c->at, c->data, c->n);
        break;
    case 'L':
        if (there >= 0) resize(&nodes[there], (size_t)c->at);
        break;
    case 'S':
        if (there >= 0) sync_node(&nodes[there]);
        break;
    case 'R': rename_node(c->path, c->to); break;
    case 'D': /* the log has calls that failed, too */
        if (there >= 0 && nodes[there].seen.n) break;
        forget(&nodes[folder].seen, name);
        break;
    case 'U': forget(&nodes[folder].seen, name); break;
    default: break; /* a close */
    }
}

/* The log's next call; 0 past the last. */
static int next_call(const char *log, size_t n_log, size_t *at, call *c) {
    if (*at >= n_log) return 0;
    c->to[0] = 0;
    assert_true(sscanf(log + *at, "%c %ld %ld %zu %511s%*1[ ]%511[^\n]", &c->kind, &c->said, &c->at,
                    &c->n, c->path, c->to) >= 5);
    c->data = log + *at + strcspn(log + *at, "\n") + 1;
    *at = (size_t)(c->data - log) + c->n;
    return 1;
}

/* --- what the disk holds --- */

static void write_file(const node *f, const char *path, loss how) {
    const int keeps = how == LOSES_NOTHING || how == LOSES_NAMES;
    const size_t synced = f->n_synced < f->n ? f->n_synced : f->n;
    FILE *out = fopen(path, "wb");
    assert_non_null(out);
    if (keeps && f->n) assert_int_equal(fwrite(f->bytes, 1, f->n, out), f->n);
    if (!keeps && synced) assert_int_equal(fwrite(f->synced, 1, synced, out), synced);
    if (how == LOSES_BYTES_TO_ZEROS)
        for (size_t i = synced; i < f->n; i++) fputc(0, out);
    assert_int_equal(fclose(out), 0);
}

static void write_folder(int at, const char *path, loss how) {
    const int keeps = how != LOSES_NAMES && how != LOSES_NAMES_AND_BYTES;
    const names *l = keeps ? &nodes[at].seen : &nodes[at].lasting;
    (void)mkdir(path, 0755);
    for (size_t i = 0; i < l->n; i++) {
        char below[1024];
        snprintf(below, sizeof below, "%s/%s", path, l->at[i].name);
        if (nodes[l->at[i].node].is_folder)
            write_folder(l->at[i].node, below, how);
        else
            write_file(&nodes[l->at[i].node], below, how);
    }
}

/* The output folder's own name is taken to last: who made it, makes it again. */
static void write_disk(loss how) {
    const int out = find(&nodes[0].seen, "out");
    crash_clear();
    if (out >= 0) write_folder(out, temp_path("case/out"), how);
}

static void the_power_fails(void **state) {
    size_t n_log = 0, at = 0;
    long k = 0, n_states = 0;
    char what[128];
    call c;
    (void)state;
    crash_make(6, 2, NULL);
    const char *log = crash_log(&n_log);
    const int every = crash_every(29);
    nodes = calloc(MOST_NODES, sizeof *nodes);
    assert_non_null(nodes);
    (void)make_node(1);
    for (; next_call(log, n_log, &at, &c); k++) {
        for (int how = 0; how < LOSSES; how++) {
            if ((k * LOSSES + how) % every) continue;
            const int64_t published = crash_published(crash_said(), (size_t)c.said);
            snprintf(what, sizeof what, "no power from call %ld on, %s lost, %lld published", k + 1,
                loss_names[how], (long long)published);
            write_disk((loss)how);
            crash_ends_the_same(what, published);
            n_states++;
        }
        apply(&c);
    }
    write_disk(LOSES_NAMES_AND_BYTES);
    crash_ends_the_same("no power after the end", 6);
    assert_true(k > 0);
    print_message("%ld states of %ld calls\n", n_states + 1, k);
    drop_nodes();
    free(nodes);
}

static int drop_all(void **state) {
    crash_drop();
    return temp_drop(state);
}

/* With a name, that test alone. */
int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(the_power_fails)};
    if (argc > 1) cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests_name("faults/power", tests, temp_make, drop_all);
}
