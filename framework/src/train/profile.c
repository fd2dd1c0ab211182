/* profile.c -- sums the executors' rows per op for the table, and lays them out one after another
 * for the trace: the program order of one pass, with each op's mean time. */
#include "train/profile.h"

#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/mem.h"
#include "files/file.h"
#include "files/json.h"
#include "train/progress.h"

typedef struct op_sum {
    const char *op;
    uint64_t calls, ns, bytes;
} op_sum;
enum { MAX_SUMS = 2 * QFW_OP_END };

static const char *const phase_names[] = {"forward", "recompute", "backward", "update"};

typedef struct collector {
    op_sum sums[MAX_SUMS];
    uint32_t n;
    json_out *trace;
    double at_us; /* where the next event of this graph starts */
    int64_t lane;
} collector;

static void add_sum(collector *c, const exec_profile_row *row) {
    uint32_t i = 0;
    while (i < c->n && strcmp(c->sums[i].op, row->op)) i++;
    if (i == MAX_SUMS) return;
    if (i == c->n) c->sums[c->n++] = (op_sum){row->op, 0, 0, 0};
    c->sums[i].calls += row->calls;
    c->sums[i].ns += row->ns;
    c->sums[i].bytes += row->bytes;
}

static void add_event(collector *c, const exec_profile_row *row) {
    const double us = row->calls ? (double)row->ns * 1e-3 / (double)row->calls : 0;
    json_open(c->trace, NULL, '{');
    json_str(c->trace, "name", row->op);
    json_str(c->trace, "cat", phase_names[row->phase & 3]);
    json_str(c->trace, "ph", "X");
    json_float(c->trace, "ts", c->at_us);
    json_float(c->trace, "dur", us);
    json_int(c->trace, "pid", 1);
    json_int(c->trace, "tid", c->lane);
    json_open(c->trace, "args", '{');
    json_str(c->trace, "label", row->label ? row->label : "");
    json_int(c->trace, "calls", (int64_t)row->calls);
    json_int(c->trace, "bytes", (int64_t)row->bytes);
    json_close(c->trace);
    json_close(c->trace);
    c->at_us += us;
}

static void collect(collector *c, const exec *e) {
    exec_profile_row row;
    c->at_us = 0;
    c->lane++;
    if (!e) return;
    for (uint32_t i = 0; exec_profile_at(e, i, &row); i++) {
        if (!row.calls) continue;
        add_sum(c, &row);
        add_event(c, &row);
    }
}

static int by_time(const void *a, const void *b) {
    const op_sum *x = a, *y = b;
    return x->ns < y->ns ? 1 : x->ns > y->ns ? -1 : 0;
}

static void print_table(collector *c, FILE *out) {
    uint64_t total = 0;
    char bytes[32];
    for (uint32_t i = 0; i < c->n; i++) total += c->sums[i].ns;
    qsort(c->sums, c->n, sizeof c->sums[0], by_time);
    fprintf(
        out, "\n  %-20s %10s %12s %8s %12s %10s\n", "op", "calls", "ms", "share", "bytes", "GB/s");
    for (uint32_t i = 0; i < c->n; i++) {
        const op_sum *s = &c->sums[i];
        fprintf(out, "  %-20s %10llu %12.2f %7.1f%% %12s %10.2f\n", s->op,
            (unsigned long long)s->calls, (double)s->ns * 1e-6,
            total ? 100.0 * (double)s->ns / (double)total : 0, format_bytes(s->bytes, bytes),
            s->ns ? (double)s->bytes / (double)s->ns : 0);
    }
}

qfw_status profile_write(const run *r, FILE *out) {
    const graphs *gs = r->graphs;
    collector *c = mem_alloc(1, sizeof *c);
    if (!c) return QFW_E_NOMEM;
    c->trace = json_out_create(0);
    json_open(c->trace, NULL, '{');
    json_open(c->trace, "traceEvents", '[');
    for (uint32_t kind = 0; kind < PASS_KINDS; kind++)
        for (size_t i = 0; i < gs->n_passes[kind]; i++) collect(c, gs->passes[kind][i]->e);
    collect(c, gs->norm.e);
    collect(c, gs->update.e);
    json_close(c->trace);
    json_close(c->trace);
    print_table(c, out);
    size_t n = 0;
    const char *text = json_out_text(c->trace, &n);
    char *path =
        text ? path_join(cfg_text(run_cfg(r, SECTION_RUN), "output_dir"), "profile.json") : NULL;
    const qfw_status status = path ? file_write(path, text, n) : QFW_E_NOMEM;
    if (status == QFW_OK) fprintf(out, "  trace: %s (chrome://tracing, ui.perfetto.dev)\n", path);
    mem_free(path);
    json_out_destroy(c->trace);
    mem_free(c);
    return status;
}
