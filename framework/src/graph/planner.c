/* planner.c -- one plan from the caller's graph: rewritten for the device, ordered with its
 * transfers, laid out in memory; and what is said about ops that the device cannot run.
 */
#include <stdio.h>
#include <string.h>

#include "base/error.h"
#include "base/log.h"
#include "base/mem.h"
#include "graph/program.h"

/* Whether the host can look into every kind of the device's memory, so that reference kernels need
 * no transfers. A backend may serve both kinds of device: only its memory tells. */
static qfw_status find_sides(const device *dev, uint32_t *two_sided) {
    *two_sided = !QFW_HAS(dev->be, qfw_backend, host_ptr);
    for (uint32_t usage = QFW_MEM_FROZEN; usage <= QFW_MEM_INPUT && !*two_sided; usage++) {
        qfw_mem *mem = NULL;
        QFW_TRY(dev->be->mem_alloc(dev->inst, 256, usage, &mem));
        *two_sided = !dev->be->host_ptr(dev->inst, mem);
        dev->be->mem_free(dev->inst, mem);
    }
    return QFW_OK;
}

/* "softmax (2), sort (1)": the ops that the device leaves to the reference kernels. */
static void list_references(const plan *p, char *text, size_t cap) {
    size_t at = 0;
    text[0] = '\0';
    for (uint32_t c = 0; c < QFW_OP_END; c++) {
        const plan_placement *row = &p->placement[c];
        if (!row->reference || at >= cap) continue;
        at += (size_t)snprintf(
            text + at, cap - at, "%s%s (%u)", at ? ", " : "", row->op, row->reference);
    }
}

/* Whether an op is left to the reference kernels that no earlier warning of this process named. */
static int is_news(const plan *p) {
    static uint8_t named[QFW_OP_END];
    int news = 0;
    for (uint32_t c = 0; c < QFW_OP_END; c++) {
        if (!p->placement[c].reference) continue;
        news |= !named[c];
        named[c] = 1;
    }
    return news;
}

static qfw_status judge_fallback(const plan *p, const device *dev, uint32_t fallback) {
    char ops[320];
    if (!p->n_reference || fallback == FALLBACK_ALLOW) return QFW_OK;
    list_references(p, ops, sizeof ops);
    if (fallback == FALLBACK_ERROR)
        return err_fail("E_CONFIG_FALLBACK", QFW_E_CONFIG,
            "backend.fallback: error, but backend %s cannot run %s; hint: fallback = warn, or "
            "another backend",
            dev->name, ops);
    if (is_news(p))
        log_line(
            QFW_LOG_WARN, "backend %s: the host's reference kernels run %s: slow", dev->name, ops);
    return QFW_OK;
}

static qfw_status make_plan(
    plan *p, const device *dev, uint32_t fallback, const qfw_val *keep, uint32_t n_keep) {
    p->steps = mem_alloc(1, sizeof *p->steps);
    if (!p->steps) return QFW_E_NOMEM;
    p->steps->fallback = fallback;
    QFW_TRY(find_sides(dev, &p->steps->two_sided));
    QFW_TRY(plan_rewrite(p, dev, keep, n_keep));
    QFW_TRY(judge_fallback(p, dev, fallback));
    QFW_TRY(plan_residency(p));
    return plan_memory(p, dev);
}

qfw_status plan_create(const graph *g, const device *dev, uint32_t fallback, const qfw_val *keep,
    uint32_t n_keep, plan **out) {
    plan *p = mem_alloc(1, sizeof *p);
    *out = NULL;
    if (!p) return QFW_E_NOMEM;
    p->g = g;
    qfw_status status = QFW_OK;
    for (uint32_t i = 0; i < n_keep && status == QFW_OK; i++)
        if (!keep[i] || keep[i] > g->n_values)
            status = err_fail("E_INTERNAL", QFW_E_INVALID, "plan: there is no value %u", keep[i]);
    if (status == QFW_OK) status = make_plan(p, dev, fallback, keep, n_keep);
    if (status == QFW_OK)
        *out = p;
    else
        plan_destroy(p);
    return status;
}

void plan_destroy(plan *p) {
    if (!p) return;
    if (p->steps) {
        graph_destroy(p->steps->g);
        mem_free(p->steps->placement);
        mem_free(p->steps->values);
        mem_free(p->steps->roots);
        mem_free(p->steps->steps);
        mem_free(p->steps);
    }
    mem_free(p);
}

int plan_reads_on_host(const plan *p, const store_entry *e) {
    const graph *g = p->steps->g;
    for (size_t k = 0; k < g->n_nodes; k++) {
        if (p->steps->placement[k] != PLACE_REFERENCE) continue;
        for (uint32_t i = 0; i < QFW_MAX_IN; i++)
            if (g->nodes[k].in[i] && g->values[plan_base(g, g->nodes[k].in[i])].entry == e)
                return 1;
    }
    return 0;
}

qfw_status plan_seal(store *s, const plan *const *plans, uint32_t n) {
    store_entry *e;
    for (uint32_t i = 0; (e = store_at(s, i)) != NULL; i++) {
        int on_host = !e->t.quant || e->usage != QFW_MEM_FROZEN;
        for (uint32_t k = 0; k < n && !on_host; k++) on_host = plan_reads_on_host(plans[k], e);
        if (!on_host) QFW_TRY(store_seal(s, e));
    }
    return QFW_OK;
}
