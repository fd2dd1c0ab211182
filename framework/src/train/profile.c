/* profile.c -- sums the executors' rows per op for the table, and lays them out one after another
 * for the trace: a lane per graph, its ops in program order, each as long as it took on average.
 */
#include "train/profile.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/mem.h"
#include "files/file.h"
#include "files/json.h"

typedef struct op_sum {
    const char *op;
    uint64_t calls, ns, bytes;
} op_sum;
enum { MAX_SUMS = 2 * QFW_OP_END, PHASES = 4 };

static const char *const phase_names[PHASES] = {"forward", "recompute", "backward", "update"};

typedef struct collector {
    op_sum sums[MAX_SUMS];
    uint32_t n;
    uint64_t phase_ns[PHASES], ns;
    json_out *trace;
    double at_us; /* where the next event of this graph starts */
    int64_t lane;
} collector;

static void add_sum(collector *c, const exec_profile_row *row) {
    uint32_t i = 0;
    c->phase_ns[row->phase % PHASES] += row->ns;
    c->ns += row->ns;
    while (i < c->n && strcmp(c->sums[i].op, row->op)) i++;
    if (i == MAX_SUMS) return;
    if (i == c->n) c->sums[c->n++] = (op_sum){row->op, 0, 0, 0};
    c->sums[i].calls += row->calls;
    c->sums[i].ns += row->ns;
    c->sums[i].bytes += row->bytes;
}

/* --- the trace --- */

static void name_lane(collector *c, const char *name) {
    json_open(c->trace, NULL, '{');
    json_str(c->trace, "name", "thread_name");
    json_str(c->trace, "ph", "M");
    json_int(c->trace, "pid", 1);
    json_int(c->trace, "tid", c->lane);
    json_open(c->trace, "args", '{');
    json_str(c->trace, "name", name);
    json_close(c->trace);
    json_close(c->trace);
}

static void add_event(collector *c, const exec_profile_row *row) {
    const double us = round((double)row->ns / (double)row->calls) * 1e-3;
    json_open(c->trace, NULL, '{');
    json_str(c->trace, "name", row->op);
    json_str(c->trace, "cat", phase_names[row->phase % PHASES]);
    json_str(c->trace, "ph", "X");
    json_float(c->trace, "ts", round(c->at_us * 1e3) * 1e-3);
    json_float(c->trace, "dur", us);
    json_int(c->trace, "pid", 1);
    json_int(c->trace, "tid", c->lane);
    json_open(c->trace, "args", '{');
    json_str(c->trace, "of", row->label ? row->label : "");
    json_int(c->trace, "calls", (int64_t)row->calls);
    json_int(c->trace, "bytes", (int64_t)(row->bytes / row->calls));
    json_close(c->trace);
    json_close(c->trace);
    c->at_us += us;
}

static void collect(collector *c, const exec *e, const char *name) {
    exec_profile_row row;
    int named = 0;
    c->at_us = 0;
    for (uint32_t i = 0; e && exec_profile_at(e, i, &row); i++) {
        if (!row.calls) continue;
        if (!named) c->lane++;
        if (!named++) name_lane(c, name);
        add_sum(c, &row);
        add_event(c, &row);
    }
}

static void collect_all(collector *c, const graphs *gs) {
    static const char *const kinds[PASS_KINDS] = {"training", "evaluation"};
    char name[64];
    json_open(c->trace, NULL, '{');
    json_str(c->trace, "displayTimeUnit", "ms");
    json_open(c->trace, "traceEvents", '[');
    for (uint32_t kind = 0; kind < PASS_KINDS; kind++)
        for (size_t i = 0; i < gs->n_passes[kind]; i++) {
            const pass *p = gs->passes[kind][i];
            snprintf(
                name, sizeof name, "%s, %lld tokens a pass", kinds[kind], (long long)p->n_rows);
            collect(c, p->e, name);
        }
    collect(c, gs->norm.e, "gradient norm");
    collect(c, gs->update.e, "update");
    json_close(c->trace);
    json_close(c->trace);
}

/* --- the table --- */

static int by_time(const void *a, const void *b) {
    const op_sum *x = a, *y = b;
    return x->ns < y->ns ? 1 : x->ns > y->ns ? -1 : 0;
}

static double percent(uint64_t part, double whole) {
    return whole > 0 ? 100 * (double)part / whole : 0;
}

static void print_table(collector *c, double seconds, FILE *out) {
    char bytes[32];
    qsort(c->sums, c->n, sizeof c->sums[0], by_time);
    fprintf(out, "\nProfile: %.2f s in ops, %.1f %% of %.2f s (waiting for each op costs some)\n",
        (double)c->ns * 1e-9, percent(c->ns, seconds * 1e9), seconds);
    for (uint32_t i = 0; i < PHASES; i++)
        if (c->phase_ns[i])
            fprintf(out, "%s%s %.1f %%", i ? ", " : "  ", phase_names[i],
                percent(c->phase_ns[i], (double)c->ns));
    fprintf(out, "\n  %-20s %10s %12s %8s %8s %12s %8s\n", "op", "calls", "ms", "share", "us/call",
        "bytes", "GB/s");
    for (uint32_t i = 0; i < c->n; i++) {
        const op_sum *s = &c->sums[i];
        fprintf(out, "  %-20s %10llu %12.2f %6.1f %% %8.0f %12s %8.2f\n", s->op,
            (unsigned long long)s->calls, (double)s->ns * 1e-6, percent(s->ns, (double)c->ns),
            (double)s->ns * 1e-3 / (double)s->calls, format_bytes(s->bytes, bytes),
            s->ns ? (double)s->bytes / (double)s->ns : 0);
    }
}

qfw_status profile_write(const run *r, const progress *p, FILE *out) {
    collector *c = mem_alloc(1, sizeof *c);
    if (!c) return QFW_E_NOMEM;
    c->trace = json_out_create(0);
    collect_all(c, r->graphs);
    print_table(c, (double)p->spent_ns * 1e-9, out);
    size_t n = 0;
    const char *text = json_out_text(c->trace, &n);
    char *path =
        text ? path_join(cfg_text(run_cfg(r, SECTION_RUN), "output_dir"), "profile.json") : NULL;
    const qfw_status status = path ? file_write(path, text, n) : QFW_E_NOMEM;
    mem_free(path);
    json_out_destroy(c->trace);
    mem_free(c);
    return status;
}
