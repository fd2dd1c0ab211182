/* progress.c -- sums between logs, trainer_log.jsonl under TRL's key names, the plain line and the
 * bar. */
#define _POSIX_C_SOURCE 200809L
#include "train/progress.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/error.h"
#include "base/log.h"
#include "base/mem.h"
#include "files/file.h"
#include "files/json.h"
#include "train/tensorboard.h"

struct trainer_log {
    int fd;
    char *path;
    tensorboard *events; /* NULL: not asked for */
};

uint64_t clock_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

void progress_add(progress *p, const pass_result *res, const batch *b) {
    for (uint32_t i = 0; i < res->n_metrics && i < MAX_METRICS; i++) {
        p->value[i] += res->value[i];
        p->weight[i] += res->weight[i];
    }
    p->num_tokens += b->seen;
}

/* What stands before the first line that is past keep_step: a resumed run logs those steps
 * again. */
static size_t kept_length(const char *text, size_t n, uint64_t keep_step) {
    size_t kept = 0;
    while (kept < n) {
        const char *end = memchr(text + kept, '\n', n - kept);
        if (!end) return kept; /* a line that a crash cut */
        const char *key = strstr(text + kept, "\"step\": ");
        if (key && key < end && strtoull(key + 8, NULL, 10) > keep_step) return kept;
        kept = (size_t)(end - text) + 1;
    }
    return kept;
}

static qfw_status cut_log(const char *path, uint64_t keep_step) {
    char *text = NULL;
    size_t n = 0;
    if (!file_exists(path)) return QFW_OK;
    QFW_TRY(file_read(path, UINT64_MAX, &text, &n));
    const qfw_status status = file_write(path, text, kept_length(text, n, keep_step));
    mem_free(text);
    return status;
}

static qfw_status open_log(const char *folder, int append, uint64_t keep_step, trainer_log *l) {
    l->path = path_join(folder, "trainer_log.jsonl");
    if (!l->path) return QFW_E_NOMEM;
    if (append) QFW_TRY(cut_log(l->path, keep_step));
    l->fd = file_log_open(l->path, append);
    return l->fd < 0 ? err_status() : QFW_OK;
}

qfw_status trainer_log_open(const run *r, int append, uint64_t keep_step, trainer_log **out) {
    const char *folder = cfg_text(run_cfg(r, SECTION_RUN), "output_dir");
    const char *report_to = cfg_text(run_cfg(r, SECTION_TRAINER), "report_to");
    trainer_log *l = mem_alloc(1, sizeof *l);
    *out = NULL;
    if (!l) return QFW_E_NOMEM;
    l->fd = -1;
    qfw_status status = open_log(folder, append, keep_step, l);
    if (status == QFW_OK && !strcmp(report_to, "tensorboard"))
        status = tensorboard_open(folder, append ? keep_step + 1 : 0, &l->events);
    if (status == QFW_OK)
        *out = l;
    else
        trainer_log_close(l);
    return status;
}

void trainer_log_close(trainer_log *l) {
    if (!l) return;
    if (l->fd >= 0 && file_log_close(l->fd, l->path) != QFW_OK)
        log_line(QFW_LOG_WARN, "%s", err_text(0)); /* what counts was synced */
    tensorboard_close(l->events);
    mem_free(l->path);
    mem_free(l);
}

/* One object, one line; a disk that is full stops the run, since nothing may be lost silently. */
static qfw_status write_line(trainer_log *l, json_out *o) {
    size_t n = 0;
    qfw_status status = QFW_OK;
    json_end_line(o);
    const char *text = json_out_text(o, &n);
    status = text ? file_log_write(l->fd, l->path, text, n) : err_status();
    if (status == QFW_OK && l->events) status = tensorboard_add(l->events, text, n - 1);
    json_out_destroy(o);
    return status;
}

qfw_status trainer_log_sync(const trainer_log *l) { return file_log_sync(l->fd, l->path); }

static double mean(const progress *p, uint32_t i) {
    return p->weight[i] > 0 ? p->value[i] / p->weight[i] : 0;
}

qfw_status trainer_log_step(trainer_log *l, run *r, progress *p) {
    const char *name;
    char line[512];
    const double loss = p->loss_steps ? p->loss_sum / (double)p->loss_steps : 0;
    json_out *o = json_out_create(0);
    json_open(o, NULL, '{');
    json_float(o, "loss", loss);
    json_float(o, "grad_norm", p->grad_norm);
    json_float(o, "learning_rate", p->lr);
    for (uint32_t i = 0; (name = graphs_metric(r, i)) && i < MAX_METRICS; i++)
        json_float(o, name, mean(p, i));
    json_int(o, "num_tokens", (int64_t)p->num_tokens);
    json_float(o, "epoch", p->epoch);
    json_int(o, "step", (int64_t)p->step);
    json_close(o);
    snprintf(line, sizeof line,
        "step %llu/%llu | loss %.4f | grad_norm %.3f | lr %.3e | epoch %.2f | %.0f ms/step | "
        "%.0f tok/s",
        (unsigned long long)p->step, (unsigned long long)r->max_steps, loss, p->grad_norm, p->lr,
        p->epoch, (double)p->timed_ns * 1e-6 / (double)(p->timed_steps ? p->timed_steps : 1),
        (double)p->timed_tokens * 1e9 / (double)(p->timed_ns ? p->timed_ns : 1));
    log_line(QFW_LOG_INFO, "%s", line);
    p->told_ns = clock_ns();
    p->timed_ns = p->timed_steps = p->timed_tokens = 0;
    p->loss_sum = 0;
    p->loss_steps = 0;
    memset(p->value, 0, sizeof p->value);
    memset(p->weight, 0, sizeof p->weight);
    return write_line(l, o);
}

void eval_values_add(eval_values *v, const char *name, double value) {
    if (v->n == MAX_EVAL_VALUES) return;
    eval_value *item = &v->item[v->n++];
    snprintf(item->name, sizeof item->name, "%s", name);
    item->value = value;
}

/* "eval_loss 0.2238 | eval_in_range 0.9630" */
static void say_values(const eval_values *v, char *text, size_t cap) {
    static const char *const shown[] = {"loss", "in_range", "mae"};
    size_t at = 0;
    *text = 0;
    for (uint32_t i = 0; i < v->n; i++)
        for (size_t k = 0; k < sizeof shown / sizeof shown[0] && at < cap; k++)
            if (!strcmp(v->item[i].name, shown[k]))
                at += (size_t)snprintf(
                    text + at, cap - at, " | eval_%s %.4f", shown[k], v->item[i].value);
}

qfw_status trainer_log_eval(
    trainer_log *l, run *r, const progress *p, const eval_values *v, double seconds) {
    char text[160];
    const uint64_t n = r->eval ? dataset_count(r->eval) : 0;
    json_out *o = json_out_create(0);
    json_open(o, NULL, '{');
    for (uint32_t i = 0; i < v->n; i++) {
        char key[96];
        snprintf(key, sizeof key, "eval_%s", v->item[i].name);
        json_float(o, key, v->item[i].value);
    }
    json_int(o, "eval_num_tokens", (int64_t)p->num_tokens); /* TRL's: of training */
    json_float(o, "eval_runtime", seconds);
    if (n) json_float(o, "eval_samples_per_second", (double)n / seconds);
    if (n)
        json_float(o, "eval_steps_per_second",
            (double)((n + r->eval_batch_size - 1) / r->eval_batch_size) / seconds);
    json_float(o, "epoch", p->epoch);
    json_int(o, "step", (int64_t)p->step);
    json_close(o);
    say_values(v, text, sizeof text);
    log_line(QFW_LOG_INFO, "step %llu/%llu%s | evaluated in %.1f s", (unsigned long long)p->step,
        (unsigned long long)r->max_steps, text, seconds);
    return write_line(l, o);
}

qfw_status trainer_log_end(trainer_log *l, const progress *p, double seconds, uint64_t rows) {
    const double steps = (double)(p->step - p->started_step);
    json_out *o = json_out_create(0);
    json_open(o, NULL, '{');
    json_float(o, "train_runtime", seconds);
    json_float(o, "train_samples_per_second", (double)rows / seconds);
    json_float(o, "train_steps_per_second", steps / seconds);
    json_float(o, "train_loss", p->step ? p->total_loss / (double)p->step : 0);
    json_float(o, "epoch", p->epoch);
    json_int(o, "step", (int64_t)p->step);
    json_close(o);
    return write_line(l, o);
}

const char *format_time(double seconds, char buf[32]) {
    const unsigned long s = seconds > 0 ? (unsigned long)(seconds + 0.5) : 0;
    if (s >= 3600)
        snprintf(buf, 32, "%lu:%02lu:%02lu", s / 3600, s / 60 % 60, s % 60);
    else
        snprintf(buf, 32, "%lu:%02lu", s / 60, s % 60);
    return buf;
}

const char *format_bytes(uint64_t bytes, char buf[32]) {
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB"};
    double value = (double)bytes;
    int u = 0;
    while (value >= 1024 && u < 4) {
        value /= 1024;
        u++;
    }
    snprintf(buf, 32, u ? "%.2f %s" : "%.0f %s", value, units[u]);
    return buf;
}

const char *format_count(uint64_t n, char buf[32]) {
    char digits[32];
    const int len = snprintf(digits, sizeof digits, "%llu", (unsigned long long)n);
    int at = 0;
    for (int i = 0; i < len; i++) {
        if (i && (len - i) % 3 == 0) buf[at++] = ',';
        buf[at++] = digits[i];
    }
    buf[at] = 0;
    return buf;
}

void progress_status(const run *r, const progress *p) {
    char left[32], spent[32];
    const double seconds = (double)(clock_ns() - p->started_ns) * 1e-9;
    const uint64_t done = p->step - p->started_step;
    log_line(QFW_LOG_INFO,
        "status: step %llu/%llu | loss %.4f | grad_norm %.3f | %s spent | %s left",
        (unsigned long long)p->step, (unsigned long long)r->max_steps, p->last_loss, p->grad_norm,
        format_time(seconds, spent),
        format_time(seconds / (double)(done ? done : 1) * (double)(r->max_steps - p->step), left));
}

static void print_plain(const run *r, progress *p, double seconds) {
    char left[32];
    const uint64_t now = clock_ns(), done = p->step - p->started_step;
    if (!done || now - p->told_ns < 1000000000u) return;
    p->told_ns = now;
    log_line(QFW_LOG_INFO, "step %llu/%llu | loss %.4f | %.0f tok/s | %s left",
        (unsigned long long)p->step, (unsigned long long)r->max_steps, p->last_loss,
        (double)(p->num_tokens - p->started_tokens) / seconds,
        format_time(seconds / (double)done * (double)(r->max_steps - p->step), left));
}

void progress_bar(const run *r, progress *p) {
    enum { WIDTH = 24 };
    char bar[WIDTH + 1], text[256], left[32];
    const uint64_t done = p->step - p->started_step, todo = r->max_steps - p->step;
    const double seconds = (double)(clock_ns() - p->started_ns) * 1e-9;
    const uint64_t filled = r->max_steps ? p->step * WIDTH / r->max_steps : 0;
    if (!log_is_terminal()) {
        print_plain(r, p, seconds);
        return;
    }
    for (int i = 0; i < WIDTH; i++) bar[i] = (uint64_t)i < filled ? '#' : '.';
    bar[WIDTH] = 0;
    const int n = snprintf(text, sizeof text, "[%s] %llu/%llu", bar, (unsigned long long)p->step,
        (unsigned long long)r->max_steps);
    if (done)
        snprintf(text + n, sizeof text - (size_t)n, "  loss %.4f  %.0f tok/s  %s left",
            p->last_loss, (double)(p->num_tokens - p->started_tokens) / seconds,
            format_time(seconds / (double)done * (double)todo, left));
    log_status(todo ? text : NULL);
}
