/* checkpoint.c -- publishing a checkpoint, finding the newest whole one, and taking it up again.
 *
 * A checkpoint holds trainer.safetensors (what is trained and the optimizer's state, exactly as
 * they are), trainer_state.json (the run's place), resolved.ini, and the adapter or model as others
 * read it. Random numbers need no state: they are counted, not drawn.
 */
#define _POSIX_C_SOURCE 200809L
#include "train/checkpoint.h"

#include <dirent.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/error.h"
#include "base/log.h"
#include "base/mem.h"
#include "export/entry.h"
#include "files/file.h"
#include "files/json.h"
#include "train/best.h"
#include "train/changes.h"
#include "train/outputs.h"

static const char state_file[] = "trainer.safetensors";
static const char aside_suffix[] = ".tmp";  /* not whole yet */
static const char before_suffix[] = ".old"; /* whole, and about to be replaced */
static const char reference_key[] = "reference_sha256";
static const char place_file[] = "trainer_state.json";

/* --- writing --- */

/* Call `visit` for every tensor that a resume needs, always in the same order. */
static qfw_status each_entry(
    const run *r, void *arg, qfw_status (*visit)(void *arg, const run *r, store_entry *e)) {
    for (uint32_t i = 0; i < r->n_trainables; i++) {
        const trainable *t = &r->trainables[i];
        QFW_TRY(visit(arg, r, t->param));
        for (uint32_t s = 0; s < t->spec.n; s++) QFW_TRY(visit(arg, r, t->state[s]));
    }
    return QFW_OK;
}

static qfw_status declare_entry(void *arg, const run *r, store_entry *e) {
    (void)r;
    return st_writer_add(arg, e->name, e->t.dtype, e->t.rank, e->t.dim);
}

static qfw_status write_entry(void *arg, const run *r, store_entry *e) {
    return entry_write_rows(arg, r->store, e, 0, e->t.dim[0]);
}

static qfw_status write_state(const run *r, const char *folder) {
    st_writer *w = NULL;
    char *path = path_join(folder, state_file);
    qfw_status status = path ? st_writer_create(path, &w) : QFW_E_NOMEM;
    if (status == QFW_OK && *r->graphs->reference_sha256)
        status = st_writer_meta(w, reference_key, r->graphs->reference_sha256);
    if (status == QFW_OK) status = each_entry(r, w, declare_entry);
    if (status == QFW_OK) status = each_entry(r, w, write_entry);
    if (status == QFW_OK)
        status = st_writer_finish(w);
    else
        st_writer_abort(w);
    mem_free(path);
    return status;
}

static qfw_status write_place(const run *r, const progress *p, const char *folder) {
    const char *name;
    size_t n = 0;
    json_out *o = json_out_create(2);
    json_open(o, NULL, '{');
    json_float(o, "epoch", p->epoch);
    json_int(o, "global_step", (int64_t)p->step);
    json_int(o, "max_steps", (int64_t)r->max_steps);
    json_int(o, "evaluated_step", (int64_t)p->evaluated_step);
    json_int(o, "num_input_tokens_seen", (int64_t)p->num_tokens);
    json_float(o, "best_metric", p->best_step ? p->best_value : (double)NAN);
    json_int(o, "best_global_step", (int64_t)p->best_step);
    json_int(o, "evaluations_without_gain", (int64_t)p->worse);
    json_int(o, "is_over", p->is_over);
    json_int(o, "passes_of_a_batch", r->passes);
    json_float(o, "loss_scale", p->scaler.scale);
    json_int(o, "updates_at_loss_scale", (int64_t)p->scaler.good);
    json_int(o, "updates_left_out", (int64_t)p->scaler.left_out);
    json_float(o, "total_loss", p->total_loss);
    json_float(o, "first_loss", p->first_loss);
    json_float(o, "last_loss", p->last_loss);
    json_float(o, "logged_loss_sum", p->loss_sum);
    json_int(o, "logged_loss_steps", (int64_t)p->loss_steps);
    json_open(o, "logged_metrics", '{');
    for (uint32_t i = 0; i < MAX_METRICS && (name = graphs_metric(r, i)) != NULL; i++) {
        json_open(o, name, '[');
        json_float(o, NULL, p->value[i]);
        json_float(o, NULL, p->weight[i]);
        json_close(o);
    }
    json_close(o);
    json_str(o, "train_sha256", dataset_facts(r->train)->sha256);
    json_close(o);
    json_end_line(o);
    const char *text = json_out_text(o, &n);
    char *path = text ? path_join(folder, place_file) : NULL;
    const qfw_status status = path ? file_write(path, text, n) : QFW_E_NOMEM;
    mem_free(path);
    json_out_destroy(o);
    return status;
}

/* Step number of "checkpoint-<n><suffix>"; -1: another name. */
static int64_t step_of(const char *name, const char *suffix) {
    static const char prefix[] = "checkpoint-";
    char *end = NULL;
    if (strncmp(name, prefix, sizeof prefix - 1)) return -1;
    const char *digits = name + sizeof prefix - 1;
    if (*digits < '0' || *digits > '9') return -1;
    const long long step = strtoll(digits, &end, 10);
    return strcmp(end, suffix) ? -1 : step;
}

/* The steps of all checkpoints in `folder`, newest first; *steps is mem_free'd. */
static qfw_status list_steps(const char *folder, int64_t **steps, size_t *n) {
    size_t cap = 0;
    *steps = NULL;
    *n = 0;
    DIR *dir = opendir(folder);
    if (!dir) return errno == ENOENT ? QFW_OK : file_unlisted(folder);
    for (struct dirent *d; (d = readdir(dir)) != NULL;) {
        const int64_t step = step_of(d->d_name, "");
        if (step < 0) continue;
        if (mem_grow(steps, &cap, *n + 1, sizeof **steps)) {
            closedir(dir);
            mem_free(*steps);
            *steps = NULL;
            return QFW_E_NOMEM;
        }
        size_t at = (*n)++;
        for (; at > 0 && (*steps)[at - 1] < step; at--) (*steps)[at] = (*steps)[at - 1];
        (*steps)[at] = step;
    }
    closedir(dir);
    return QFW_OK;
}

static char *checkpoint_path(const run *r, int64_t step, const char *suffix) {
    return mem_printf("%s/checkpoint-%lld%s", cfg_text(run_cfg(r, SECTION_RUN), "output_dir"),
        (long long)step, suffix);
}

static qfw_status rename_folder(const char *from, const char *to) {
    if (!rename(from, to)) return QFW_OK;
    return err_fail(
        "E_IO_RENAME", QFW_E_IO, "%s: cannot be renamed to %s: %s", from, to, strerror(errno));
}

/* One that was about to be replaced comes back where nothing took its place. */
static qfw_status take_back(const run *r, int64_t step) {
    char *before = checkpoint_path(r, step, before_suffix), *path = checkpoint_path(r, step, "");
    qfw_status status = before && path ? QFW_OK : QFW_E_NOMEM;
    if (status == QFW_OK)
        status = dir_exists(path) ? dir_remove(before) : rename_folder(before, path);
    mem_free(before);
    mem_free(path);
    return status;
}

static qfw_status sweep_one(const run *r, const char *name) {
    const int64_t aside = step_of(name, aside_suffix), before = step_of(name, before_suffix);
    if (before >= 0) return take_back(r, before);
    if (aside < 0) return QFW_OK;
    char *path = checkpoint_path(r, aside, aside_suffix);
    const qfw_status status = path ? dir_remove(path) : QFW_E_NOMEM;
    mem_free(path);
    return status;
}

qfw_status checkpoint_sweep(const run *r) {
    qfw_status status = QFW_OK;
    DIR *dir = opendir(cfg_text(run_cfg(r, SECTION_RUN), "output_dir"));
    for (struct dirent *d; dir && status == QFW_OK && (d = readdir(dir)) != NULL;)
        status = sweep_one(r, d->d_name);
    if (dir) closedir(dir);
    return status;
}

/* Of the checkpoints of steps past `last`, keep `past`; of the others the newest `limit` and that
 * of step `best`. */
static qfw_status drop(const run *r, int64_t last, uint64_t past, uint64_t limit, int64_t best) {
    int64_t *steps;
    size_t n;
    uint64_t kept = 0, kept_past = 0;
    QFW_TRY(list_steps(cfg_text(run_cfg(r, SECTION_RUN), "output_dir"), &steps, &n));
    qfw_status status = QFW_OK;
    for (size_t i = 0; status == QFW_OK && i < n; i++) {
        if (steps[i] > last ? kept_past++ < past : kept++ < limit || steps[i] == best) continue;
        char *path = checkpoint_path(r, steps[i], "");
        status = path ? dir_remove(path) : QFW_E_NOMEM;
        mem_free(path);
    }
    mem_free(steps);
    return status;
}

/* As drop, with what save_total_limit leaves. */
static qfw_status prune(const run *r, const progress *p, uint64_t past) {
    const int64_t step = (int64_t)p->step, best = best_is_kept(r) ? (int64_t)p->best_step : -1;
    const int64_t limit = cfg_int(run_cfg(r, SECTION_TRAINER), "save_total_limit");
    if (!limit) return drop(r, step, past, UINT64_MAX, best);
    return drop(
        r, step, past, limit < 2 ? 2 : (uint64_t)limit, best); /* the newest may prove damaged */
}

qfw_status checkpoint_prune(const run *r, const progress *p) { return prune(r, p, UINT64_MAX); }

qfw_status checkpoint_drop(const run *r, uint64_t step) {
    char *path = checkpoint_path(r, (int64_t)step, "");
    const qfw_status status = !path ? QFW_E_NOMEM : dir_exists(path) ? dir_remove(path) : QFW_OK;
    mem_free(path);
    return status;
}

qfw_status checkpoint_forget(const run *r) { return drop(r, -1, 0, 0, -1); }

int checkpoint_exists(const run *r) {
    int64_t *steps = NULL;
    size_t n = 0;
    (void)list_steps(cfg_text(run_cfg(r, SECTION_RUN), "output_dir"), &steps, &n);
    mem_free(steps);
    return n > 0;
}

static qfw_status write_files(run *r, const progress *p, const char *folder) {
    QFW_TRY(write_state(r, folder));
    QFW_TRY(write_place(r, p, folder));
    QFW_TRY(outputs_resolved(r, folder));
    QFW_TRY(outputs_weights(r, folder));
    QFW_TRY(manifest_write_all(folder));
    return dir_sync(folder);
}

/* A folder with all of it, or none: where the disk is full, what was begun takes no room. */
static qfw_status write_all(run *r, const progress *p, const char *folder) {
    if (mkdir(folder, 0755))
        return err_fail(
            "E_IO_WRITE", QFW_E_IO, "%s: folder cannot be made: %s", folder, strerror(errno));
    const qfw_status status = write_files(r, p, folder);
    if (status != QFW_OK) dir_discard(folder);
    return status;
}

/* `aside` becomes `path`. A checkpoint of the same step, from before its evaluation, lies under
 * `before` until the new one has its name for good. */
static qfw_status publish(const run *r, const char *aside, const char *before, const char *path) {
    const char *folder = cfg_text(run_cfg(r, SECTION_RUN), "output_dir");
    const int replaces = dir_exists(path);
    if (replaces) QFW_TRY(rename_folder(path, before));
    QFW_TRY(rename_folder(aside, path));
    QFW_TRY(dir_sync(folder));
    log_line(QFW_LOG_INFO, "checkpoint %s", path);
    return replaces ? dir_remove(before) : QFW_OK;
}

qfw_status checkpoint_save(run *r, const progress *p) {
    char *aside = checkpoint_path(r, (int64_t)p->step, aside_suffix);
    char *before = checkpoint_path(r, (int64_t)p->step, before_suffix);
    char *path = checkpoint_path(r, (int64_t)p->step, "");
    qfw_status status = aside && before && path ? QFW_OK : QFW_E_NOMEM;
    if (status == QFW_OK && dir_exists(aside)) status = dir_remove(aside);
    if (status == QFW_OK) status = write_all(r, p, aside);
    if (status == QFW_OK) status = publish(r, aside, before, path);
    if (status == QFW_OK) status = prune(r, p, 0);
    mem_free(aside);
    mem_free(before);
    mem_free(path);
    return status;
}

/* --- reading --- */

qfw_status checkpoint_find(const run *r, char **folder) {
    const char *from = cfg_text(run_cfg(r, SECTION_RUN), "resume_from_checkpoint");
    int64_t *steps;
    size_t n;
    qfw_status status = QFW_OK;
    *folder = NULL;
    if (!strcmp(from, "none")) return QFW_OK;
    if (strcmp(from, "auto")) {
        *folder = mem_strdup(from);
        if (!*folder) return QFW_E_NOMEM;
        return manifest_verify(*folder);
    }
    QFW_TRY(list_steps(cfg_text(run_cfg(r, SECTION_RUN), "output_dir"), &steps, &n));
    for (size_t i = 0; i < n && !*folder; i++) {
        char *path = checkpoint_path(r, steps[i], "");
        status = path ? manifest_verify(path) : QFW_E_NOMEM;
        if (status == QFW_OK) {
            *folder = path;
            continue;
        }
        if (status == QFW_E_NOMEM) { /* no word against the checkpoint */
            mem_free(path);
            break;
        }
        log_line(QFW_LOG_WARN, "%s is passed over: %s", path, err_text(0));
        err_clear();
        status = QFW_OK;
        mem_free(path);
    }
    mem_free(steps);
    return status;
}

static qfw_status read_entry(void *arg, const run *r, store_entry *e) {
    st_file *f = arg;
    const st_tensor *t = st_find(f, e->name);
    if (!t || !entry_fits(e, t))
        return err_fail("E_CKPT_TENSOR", QFW_E_DATA,
            "%s: %s of the run's shape and dtype is missing", state_file, e->name);
    return entry_read(f, t, r->store, e);
}

/* What the losses so far were measured against is what they go on to be measured against. */
static qfw_status check_reference(const run *r, const st_file *f) {
    const char *was = st_metadata(f, reference_key), *is = r->graphs->reference_sha256;
    if (!*is || (was && !strcmp(was, is))) return QFW_OK;
    return err_fail("E_REF_CHANGED", QFW_E_DATA,
        "%s: its adapter is not the reference that the checkpoint was trained against (sha256 "
        "%.12s..., wanted %.12s...); hint: another output_dir, or the adapter as it was",
        cfg_text(run_cfg(r, SECTION_ADAPTER), "path"), is, was ? was : "none");
}

qfw_status checkpoint_load(run *r, const char *folder) {
    st_file *f = NULL;
    char *path = path_join(folder, state_file);
    qfw_status status = path ? st_open(path, &f) : QFW_E_NOMEM;
    if (status == QFW_OK) status = check_reference(r, f);
    if (status == QFW_OK) status = each_entry(r, f, read_entry);
    st_close(f);
    mem_free(path);
    return status;
}

qfw_status checkpoint_load_best(run *r, const progress *p) {
    if (!p->best_step || p->best_step == p->step) return QFW_OK;
    char *path = checkpoint_path(r, (int64_t)p->best_step, "");
    qfw_status status = path ? manifest_verify(path) : QFW_E_NOMEM;
    if (status == QFW_OK) status = checkpoint_load(r, path);
    mem_free(path);
    return status;
}

static qfw_status read_count(const qfw_doc *d, const char *ptr, uint64_t *out) {
    int64_t value = 0;
    QFW_TRY(json_doc_api.i64(d, ptr, &value));
    if (value < 0) return json_doc_api.fail(d, ptr, QFW_E_DATA, "E_CKPT_STATE: below 0");
    *out = (uint64_t)value;
    return QFW_OK;
}

/* A metric's name may hold what a JSON pointer gives a meaning: "rewards/chosen". */
static qfw_status read_metric(const qfw_doc *d, const char *name, double *value, double *weight) {
    char ptr[256] = "/logged_metrics/";
    size_t n = strlen(ptr);
    for (; *name && n + 8 < sizeof ptr; name++) {
        if (*name == '/' || *name == '~') {
            ptr[n++] = '~';
            ptr[n++] = *name == '/' ? '1' : '0';
        } else {
            ptr[n++] = *name;
        }
    }
    snprintf(ptr + n, sizeof ptr - n, "/0");
    QFW_TRY(json_doc_api.f64(d, ptr, value));
    snprintf(ptr + n, sizeof ptr - n, "/1");
    return json_doc_api.f64(d, ptr, weight);
}

static qfw_status parse_place(run *r, const qfw_doc *d, progress *p) {
    const char *name, *sha = "";
    uint64_t is_over = 0, passes = 1;
    QFW_TRY(read_count(d, "/global_step", &p->step));
    QFW_TRY(read_count(d, "/evaluated_step", &p->evaluated_step));
    QFW_TRY(read_count(d, "/num_input_tokens_seen", &p->num_tokens));
    QFW_TRY(read_count(d, "/logged_loss_steps", &p->loss_steps));
    QFW_TRY(read_count(d, "/best_global_step", &p->best_step));
    QFW_TRY(read_count(d, "/evaluations_without_gain", &p->worse));
    QFW_TRY(read_count(d, "/is_over", &is_over));
    p->is_over = is_over != 0;
    if (json_doc_api.kind(d, "/passes_of_a_batch") != QFW_DOC_ABSENT)
        QFW_TRY(read_count(d, "/passes_of_a_batch", &passes));
    p->passes = passes <= UINT32_MAX ? (uint32_t)passes : 0;
    QFW_TRY(json_doc_api.f64(d, "/loss_scale", &p->scaler.scale));
    QFW_TRY(read_count(d, "/updates_at_loss_scale", &p->scaler.good));
    QFW_TRY(read_count(d, "/updates_left_out", &p->scaler.left_out));
    if (p->best_step) QFW_TRY(json_doc_api.f64(d, "/best_metric", &p->best_value));
    QFW_TRY(json_doc_api.f64(d, "/epoch", &p->epoch));
    QFW_TRY(json_doc_api.f64(d, "/total_loss", &p->total_loss));
    QFW_TRY(json_doc_api.f64(d, "/first_loss", &p->first_loss));
    QFW_TRY(json_doc_api.f64(d, "/last_loss", &p->last_loss));
    QFW_TRY(json_doc_api.f64(d, "/logged_loss_sum", &p->loss_sum));
    for (uint32_t i = 0; i < MAX_METRICS && (name = graphs_metric(r, i)) != NULL; i++)
        QFW_TRY(read_metric(d, name, &p->value[i], &p->weight[i]));
    QFW_TRY(json_doc_api.str(d, "/train_sha256", &sha));
    if (strcmp(sha, dataset_facts(r->train)->sha256))
        return err_fail("E_DATA_CHANGED", QFW_E_DATA,
            "%s: its contents are not those that the checkpoint was trained on (sha256 %.12s..., "
            "wanted %.12s...)",
            cfg_text(run_cfg(r, SECTION_DATA), "train"), dataset_facts(r->train)->sha256, sha);
    if (!(p->scaler.scale > 0) || p->scaler.left_out > p->step)
        return json_doc_api.fail(d, "/loss_scale", QFW_E_DATA, "E_CKPT_STATE: not a loss scale");
    if (p->step > r->max_steps)
        return json_doc_api.fail(d, "/global_step", QFW_E_DATA, "E_CKPT_STATE: past the run's end");
    return QFW_OK;
}

qfw_status checkpoint_place(run *r, const char *folder, progress *p) {
    qfw_doc *d = NULL;
    QFW_TRY(changes_check(r, folder));
    char *path = path_join(folder, place_file);
    qfw_status status = path ? json_read(path, 1 << 20, NULL, &d) : QFW_E_NOMEM;
    if (status == QFW_OK) status = parse_place(r, d, p);
    json_destroy(d);
    mem_free(path);
    return status;
}
