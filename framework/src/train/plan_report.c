/* plan_report.c -- itemises what a run takes: weights, adapter, optimizer, one step, this process,
 * and where ops run.
 *
 * On the host's own memory the sum is the peak of the process: what it holds when the plan is made
 * is measured, the rest is what will be taken, and loading counts where it needs more than a step.
 */
#include "train/plan_report.h"

#include <stdarg.h>
#include <string.h>

#include "base/error.h"
#include "base/mem.h"
#include "base/process.h"
#include "train/fit.h"
#include "train/judge.h"
#include "train/progress.h"
#include "train/reference.h"

enum { PLAN_ITEMS = 13 };

typedef struct plan_item {
    const char *name;
    uint64_t bytes;
    char note[96];
} plan_item;

typedef struct plan_items {
    plan_item item[PLAN_ITEMS];
    uint32_t n;
} plan_items;

QFW_PRINTF(4, 5)
static void add(plan_items *items, const char *name, uint64_t bytes, const char *fmt, ...) {
    plan_item *i = &items->item[items->n++];
    va_list args;
    i->name = name;
    i->bytes = bytes;
    va_start(args, fmt);
    vsnprintf(i->note, sizeof i->note, fmt, args);
    va_end(args);
}

int plan_is_host(const run *r) { return r->dev.info.type == QFW_DEVICE_CPU; }

static void add_weights(const run *r, plan_items *items) {
    const qfw_cfg *m = run_cfg(r, SECTION_MODEL);
    uint64_t packed = 0, plain = 0, half = 0;
    for (uint32_t i = 0; i < r->n_weights; i++) {
        const store_entry *e = r->weights[i].entry;
        uint64_t *of = e->t.quant ? &packed : e->t.dtype == QFW_F32 ? &plain : &half;
        if (!r->weights[i].tied) *of += e->bytes;
    }
    if (packed)
        add(items, "weights, 4-bit", packed, "%s%s", cfg_text(m, "bnb_4bit_quant_type"),
            cfg_int(m, "bnb_4bit_use_double_quant") ? ", double quantisation" : "");
    if (half) add(items, "weights, 16-bit", half, "%s", qfw_dtype_name(r->compute));
    if (plain)
        add(items, "weights, fp32", plain, "%s", r->n_trainables && !r->n_loras ? "trained" : "");
}

/* What is trained, with its gradients and the optimizer's state; returns the bytes. */
static uint64_t add_trained(const run *r, plan_items *items) {
    uint64_t params = 0, reference = 0, grads = 0, states = 0, count = 0;
    char text[32];
    for (uint32_t i = 0; i < r->n_trainables; i++) {
        const trainable *t = &r->trainables[i];
        params += t->param->bytes;
        grads += t->grad->bytes;
        count += (uint64_t)qfw_tensor_count(&t->param->t);
        for (uint32_t s = 0; s < t->spec.n; s++) states += t->state[s]->bytes;
    }
    if (r->n_loras) add(items, "adapter", params, "%s parameters", format_count(count, text));
    for (uint32_t i = 0; i < r->n_reference_loras; i++)
        reference += r->loras[r->n_loras + i].a->bytes + r->loras[r->n_loras + i].b->bytes;
    if (reference) add(items, "reference", reference, "the adapter as it was");
    add(items, "gradients", grads, "of %s parameters", format_count(count, text));
    add(items, "optimizer state", states, "%s", r->optimizer_component->name);
    return (r->n_loras ? params : 0) + reference + grads + states;
}

/* Adapters of a task that trains nothing; returns the bytes. */
static uint64_t add_adapters(const run *r, plan_items *items) {
    uint64_t bytes = 0;
    for (uint32_t i = 0; i < r->n_loras; i++) bytes += r->loras[i].a->bytes + r->loras[i].b->bytes;
    if (bytes) add(items, "adapter", bytes, "%u modules", r->n_loras);
    return bytes;
}

static uint64_t add_step(const plan_need *need, plan_items *items) {
    const uint64_t workspace = need->main->workspace_bytes;
    if (need->cache_bytes) add(items, "keys and values", need->cache_bytes, "%s", need->cache_note);
    add(items, "activations", need->step_bytes - workspace, "%lld tokens a pass at most%s",
        (long long)need->n_rows, need->recompute);
    add(items, "workspace", workspace, "of the ops");
    add(items, "inputs", need->input_bytes, "%s", "");
    if (need->judge_bytes) add(items, "scoring", need->judge_bytes, "%s", need->judge_note);
    return need->cache_bytes + need->step_bytes + need->input_bytes + need->judge_bytes;
}

static void add_host(
    const run *r, const plan_need *need, plan_items *items, uint64_t past_loading) {
    const uint64_t loading = weights_load_bytes(r);
    if (need->host_bytes) add(items, "reference ops", need->host_bytes, "on the host");
    add(items, "process, libraries", r->process_bytes + need->scratch_bytes,
        "with tokenizer and data%s", plan_is_host(r) ? "" : ", on the host");
    past_loading += need->host_bytes + need->scratch_bytes;
    if (loading > past_loading)
        add(items, "loading", loading - past_loading, "more than a step needs");
}

/* All items, the device's first: *n_device of them. */
static void make_items(const run *r, const plan_need *need, plan_items *items, uint32_t *n_device) {
    items->n = 0;
    add_weights(r, items);
    uint64_t past_loading = r->n_trainables ? add_trained(r, items) : add_adapters(r, items);
    past_loading += add_step(need, items);
    *n_device = items->n;
    add_host(r, need, items, plan_is_host(r) ? past_loading : 0);
}

uint64_t plan_total(const run *r, const plan_need *need) {
    plan_items items;
    uint32_t n;
    uint64_t total = 0;
    make_items(r, need, &items, &n);
    if (plan_is_host(r)) n = items.n;
    for (uint32_t i = 0; i < n; i++) total += items.item[i].bytes;
    return total;
}

/* The part that neither the batch nor the length of rows changes. */
static uint64_t fixed_bytes(const run *r, const plan_need *need) {
    return plan_total(r, need) - need->cache_bytes - need->step_bytes - need->input_bytes;
}

void plan_measure(run *r) {
    if (!r->process_bytes) r->process_bytes = r->flags.process_bytes;
    if (!r->process_bytes) r->process_bytes = process_resident();
}

uint64_t plan_limit(const run *r) {
    const uint64_t set = (uint64_t)cfg_int(run_cfg(r, SECTION_RUN), "max_memory");
    const uint64_t available = r->dev.info.free_bytes;
    if (set || !available) return set;
    return available + (plan_is_host(r) ? r->process_bytes : 0);
}

static void print_placement(const run *r, const plan *p, FILE *out) {
    char bytes[32];
    const char *sep = "";
    fprintf(out, "  ops on %s: %u native, %u decomposed, %u reference", r->dev.name, p->n_native,
        p->n_decomposed, p->n_reference);
    if (p->n_reference) {
        fprintf(out, " (");
        for (uint32_t c = 0; c < QFW_OP_END; c++) {
            if (!p->placement[c].op || !p->placement[c].reference) continue;
            fprintf(out, "%s%s", sep, p->placement[c].op);
            sep = ", ";
        }
        fprintf(out, ")");
    }
    if (p->moved_bytes) fprintf(out, ", %s moved a pass", format_bytes(p->moved_bytes, bytes));
    fprintf(out, "\n");
}

static void print_line(FILE *out, const char *name, uint64_t bytes, const char *note) {
    char text[32];
    fprintf(out, "  %-18s %11s%s%s\n", name, format_bytes(bytes, text), *note ? "   " : "", note);
}

/* How the trainer's reference is come by, and what shared prompts save in an epoch. */
static void print_pairs(const run *r, FILE *out) {
    char *kept = reference_path(r);
    char saved[32], whole[32];
    uint64_t rows = 0, tokens = 0;
    if (reference_is_stored(r))
        fprintf(out, "  the reference is computed once, before the first step, and kept in %s\n",
            kept ? kept : "");
    else if (r->trainer->flags & QFW_TRAINER_NEEDS_REF)
        fprintf(out, "  the reference is computed in every pass: %s\n",
            r->n_reference_loras ? "the adapter as it was" : "the model without its adapter");
    mem_free(kept);
    for (uint64_t i = 0; i < dataset_count(r->train); i++) {
        const qfw_example *e = dataset_at(r->train, i);
        rows += batch_rows(r, e);
        for (uint32_t k = 0; k < e->n_seqs; k++) tokens += e->seq[k].n;
    }
    if (rows < tokens)
        fprintf(out, "  prompts shared: %s rows computed for %s tokens an epoch, %.1f %% less\n",
            format_count(rows, saved), format_count(tokens, whole),
            100.0 * (double)(tokens - rows) / (double)tokens);
}

void plan_print(const run *r, const plan_need *need, FILE *out) {
    plan_items items;
    char limit[32], note[96] = "";
    uint32_t n_device;
    const int is_set = cfg_int(run_cfg(r, SECTION_RUN), "max_memory") != 0;
    make_items(r, need, &items, &n_device);
    if (plan_is_host(r)) n_device = items.n;
    fprintf(out, "\nPlan for %s: %s\n", r->dev.name, r->dev.info.name);
    for (uint32_t i = 0; i < n_device; i++)
        print_line(out, items.item[i].name, items.item[i].bytes, items.item[i].note);
    if (plan_limit(r))
        snprintf(note, sizeof note, "of %s %s", format_bytes(plan_limit(r), limit),
            is_set ? "that max_memory allows" : "available");
    print_line(out, "peak", plan_total(r, need), note);
    for (uint32_t i = n_device; i < items.n; i++)
        print_line(out, items.item[i].name, items.item[i].bytes, items.item[i].note);
    print_placement(r, need->main, out);
    if (r->n_trainables) print_pairs(r, out);
}

/* --- when it does not fit --- */

typedef struct hints {
    char text[900];
    size_t n;
} hints;

QFW_PRINTF(2, 3)
static void hint(hints *h, const char *fmt, ...) {
    va_list args;
    const size_t left = sizeof h->text - h->n;
    int n = snprintf(h->text + h->n, left, "%s", h->n ? "; or " : "");
    va_start(args, fmt);
    n += vsnprintf(h->text + h->n + n, left - (size_t)n, fmt, args);
    va_end(args);
    h->n += (size_t)n < left ? (size_t)n : left - 1;
}

/* Only changes that can help: a smaller pass does not where the weights alone are too much. */
static void collect_hints(const run *r, const plan_need *need, uint64_t limit, hints *h) {
    const qfw_cfg *m = run_cfg(r, SECTION_MODEL);
    const int fits = fixed_bytes(r, need) < limit;
    if (fits && *need->smaller) hint(h, "%s", need->smaller);
    if (r->n_trainables && !r->n_loras)
        hint(h, "[adapter] use = lora");
    else if (!cfg_int(m, "load_in_4bit"))
        hint(h, "load_in_4bit = true");
    else if (!cfg_int(m, "bnb_4bit_use_double_quant"))
        hint(h, "bnb_4bit_use_double_quant = true");
    if (!fits) /* a MiB more: what the process itself holds is not the same in every run */
        hint(h, "at least %llu MiB of memory, or a smaller model",
            (unsigned long long)(plan_total(r, need) >> 20) + 2);
}

qfw_status plan_check(const run *r, const plan_need *need) {
    const uint64_t limit = plan_limit(r), total = plan_total(r, need);
    const int is_set = cfg_int(run_cfg(r, SECTION_RUN), "max_memory") != 0;
    char needed[32], have[32];
    hints h = {.n = 0};
    if (!limit || total <= limit) return QFW_OK;
    collect_hints(r, need, limit, &h);
    return err_fail("E_PLAN_MEMORY", QFW_E_NOMEM, "%s: the plan needs %s, %s is %s; hint: %s",
        r->dev.name, format_bytes(total, needed),
        is_set ? "[run] max_memory" : "what the device has free", format_bytes(limit, have),
        h.text);
}

/* --- the task train --- */

plan_need train_need(const run *r) {
    const graphs *gs = r->graphs;
    const pass *train = gs->passes[PASS_TRAIN][0];
    plan_need need = {.main = train->p,
        .n_rows = train->n_rows,
        .step_bytes = gs->step_bytes,
        .input_bytes = gs->input_bytes,
        .host_bytes = gs->host_bytes,
        .scratch_bytes = gs->scratch_bytes + reference_bytes(r)};
    snprintf(need.recompute, sizeof need.recompute, ", gradient_checkpointing = %s",
        fit_recompute_name(r));
    if (r->judge) {
        const plan_need j = r->judge->need(r->judge_inst);
        need.judge_bytes = j.cache_bytes + j.step_bytes + j.input_bytes;
        need.host_bytes += j.host_bytes;
        need.scratch_bytes += j.scratch_bytes;
        snprintf(need.judge_note, sizeof need.judge_note, "%s", j.cache_note);
    }
    return need;
}
