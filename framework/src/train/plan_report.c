/* plan_report.c -- itemises what a run takes: weights, adapter, optimizer, one step, and where ops
 * run. */
#include "train/plan_report.h"

#include <string.h>

#include "base/error.h"
#include "train/progress.h"

typedef struct plan_item {
    const char *name;
    uint64_t bytes;
    char note[96];
} plan_item;
enum { PLAN_ITEMS = 10 };

/* Bytes of the weights, packed ones apart. */
static void weigh(const run *r, uint64_t *packed, uint64_t *plain) {
    *packed = *plain = 0;
    for (uint32_t i = 0; i < r->n_weights; i++) {
        const store_entry *e = r->weights[i].entry;
        if (r->weights[i].tied) continue;
        *(e->t.quant ? packed : plain) += e->bytes;
    }
}

static uint32_t make_items(const run *r, plan_item *items) {
    const graphs *gs = r->graphs;
    const pass *train = gs->passes[PASS_TRAIN][0];
    uint64_t packed, plain, params = 0, states = 0, count = 0;
    uint32_t n = 0;
    weigh(r, &packed, &plain);
    for (uint32_t i = 0; i < r->n_trainables; i++) {
        params += r->trainables[i].param->bytes;
        count += (uint64_t)qfw_tensor_count(&r->trainables[i].param->t);
        for (uint32_t s = 0; s < r->trainables[i].spec.n; s++)
            states += r->trainables[i].state[s]->bytes;
    }
    if (packed) {
        items[n] = (plan_item){"weights, 4-bit", packed, ""};
        snprintf(items[n++].note, sizeof items[0].note, "%s%s",
            cfg_text(run_cfg(r, SECTION_MODEL), "bnb_4bit_quant_type"),
            cfg_int(run_cfg(r, SECTION_MODEL), "bnb_4bit_use_double_quant") ? ", double quant"
                                                                            : "");
    }
    items[n++] = (plan_item){"weights, f32", plain, ""};
    if (r->n_loras) {
        items[n] = (plan_item){"adapter", params, ""};
        snprintf(
            items[n++].note, sizeof items[0].note, "%llu parameters", (unsigned long long)count);
    }
    items[n++] = (plan_item){"gradients", params, ""};
    items[n++] = (plan_item){"optimizer state", states, ""};
    items[n] = (plan_item){"activations", gs->step_bytes - train->p->workspace_bytes, ""};
    snprintf(items[n++].note, sizeof items[0].note, "%lld tokens a pass, at most",
        (long long)train->n_rows);
    items[n++] = (plan_item){"workspace", train->p->workspace_bytes, ""};
    items[n++] = (plan_item){"inputs", gs->input_bytes, ""};
    if (gs->host_bytes) items[n++] = (plan_item){"host side of ops", gs->host_bytes, ""};
    return n;
}

uint64_t plan_total(const run *r) {
    plan_item items[PLAN_ITEMS];
    const uint32_t n = make_items(r, items);
    uint64_t total = 0;
    for (uint32_t i = 0; i < n; i++) total += items[i].bytes;
    return total;
}

static void print_placement(const run *r, FILE *out) {
    const plan *p = r->graphs->passes[PASS_TRAIN][0]->p;
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

void plan_print(const run *r, FILE *out) {
    plan_item items[PLAN_ITEMS];
    char bytes[32];
    const uint32_t n = make_items(r, items);
    fprintf(out, "Plan for %s (%s)\n", r->dev.name, r->dev.info.name);
    for (uint32_t i = 0; i < n; i++)
        fprintf(out, "  %-18s %12s   %s\n", items[i].name, format_bytes(items[i].bytes, bytes),
            items[i].note);
    fprintf(out, "  %-18s %12s\n", "peak", format_bytes(plan_total(r), bytes));
    print_placement(r, out);
    fprintf(out, "  steps: %llu (%llu an epoch), %u rows x %u passes each\n",
        (unsigned long long)r->max_steps, (unsigned long long)r->steps_per_epoch, r->batch_size,
        r->accumulation);
}

qfw_status plan_check(const run *r) {
    const uint64_t set = (uint64_t)cfg_int(run_cfg(r, SECTION_RUN), "max_memory");
    const uint64_t limit = set ? set : r->dev.info.free_bytes, total = plan_total(r);
    char need[32], have[32], hint[256] = "";
    if (!limit || total <= limit) return QFW_OK;
    const qfw_cfg *t = run_cfg(r, SECTION_TRAINER), *m = run_cfg(r, SECTION_MODEL);
    const char *checkpointing = cfg_text(t, "gradient_checkpointing");
    if (r->batch_size > 1)
        snprintf(hint, sizeof hint,
            "per_device_train_batch_size = %u with gradient_accumulation_steps = %u",
            (r->batch_size + 1) / 2, r->accumulation * 2);
    if (!strcmp(checkpointing, "none") || !strcmp(checkpointing, "false"))
        snprintf(hint + strlen(hint), sizeof hint - strlen(hint), "%sgradient_checkpointing = full",
            *hint ? "; or " : "");
    if (!cfg_int(m, "load_in_4bit") && r->n_loras)
        snprintf(hint + strlen(hint), sizeof hint - strlen(hint), "%sload_in_4bit = true",
            *hint ? "; or " : "");
    return err_fail("E_PLAN_MEMORY", QFW_E_NOMEM,
        "%s: the plan needs %s, %s is %s; hint: %s%smax_length below %lld", r->dev.name,
        format_bytes(total, need), set ? "max_memory" : "what the device has free",
        format_bytes(limit, have), hint, *hint ? "; or " : "",
        (long long)cfg_int(run_cfg(r, SECTION_DATA), "max_length"));
}
