/* row.c -- one row through the trainer: what it may not make of it, and what is dropped. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/error.h"
#include "base/mem.h"
#include "text/rows.h"

enum { PLACE_BYTES = 160 };

/* A trainer's failure, with the row's place if it did not say it. */
static qfw_status trainer_failed(const qfw_encoder *e, qfw_status status) {
    char place[PLACE_BYTES];
    snprintf(place, sizeof place, ":%" PRIu64 ":", e->line);
    if (!err_text(0))
        return err_fail("E_PLUG_TRAINER", status,
            "%s:%" PRIu64 ": the trainer refuses the row (code %d) without a reason", e->path,
            e->line, status);
    if (!strstr(err_text(0), place)) err_prefix("%s:%" PRIu64, e->path, e->line);
    return status;
}

/* A file has rows of one form: what was asked for of the first is asked for of each. */
static qfw_status check_form(qfw_encoder *e) {
    char form[FORM_BYTES] = "";
    size_t n = 0;
    for (uint32_t i = 0; i < e->n_keys && n + KEY_BYTES + 4 < sizeof form; i++)
        n += (size_t)snprintf(form + n, sizeof form - n, "%s%s", i ? ", " : "", e->key[i]);
    snprintf(form + n, sizeof form - n, "%s", e->of_messages ? " of messages" : "");
    if (!*e->form) {
        memcpy(e->form, form, sizeof form);
        e->form_line = e->line;
    }
    if (!strcmp(form, e->form)) return QFW_OK;
    return err_fail("E_DATA_MIXED", QFW_E_DATA,
        "%s:%" PRIu64 ": a row of another form than line %" PRIu64 ": %s, there %s; hint: one form "
        "a file",
        e->path, e->line, e->form_line, form, e->form);
}

static qfw_status no_trained_token(const qfw_encoder *e, size_t first_seq) {
    uint64_t cut = 0;
    for (size_t i = first_seq; i < e->store->n_seqs; i++) cut += e->store->seq[i].truncated;
    if (cut)
        return err_fail("E_DATA_UNTRAINED", QFW_E_DATA,
            "%s:%" PRIu64 ": no token of the row is trained: %" PRIu64 " tokens are cut off, past "
            "[data] max_length = %" PRId64 "; hint: raise it, or untrained = drop",
            e->path, e->line, cut, e->o->max_length);
    return err_fail("E_DATA_UNTRAINED", QFW_E_DATA,
        "%s:%" PRIu64 ": no token of the row is trained; hint: [data] untrained = drop leaves such "
        "rows out",
        e->path, e->line);
}

/* What the trainer made of the row. */
static qfw_status check_row(qfw_encoder *e, size_t first_seq) {
    if (e->store->n_seqs == first_seq)
        return err_fail("E_PLUG_TRAINER", QFW_E_INTERNAL,
            "%s:%" PRIu64 ": the trainer made no sequence of the row", e->path, e->line);
    QFW_TRY(check_form(e));
    if (e->too_long || !e->untrained || e->o->drop_untrained) return QFW_OK;
    return no_trained_token(e, first_seq);
}

qfw_status encoder_run(qfw_encoder *e) {
    const row_store before = *e->store;
    e->n_keys = 0;
    e->of_messages = 0;
    e->too_long = e->untrained = 0;
    err_clear();
    qfw_status status = e->o->trainer->encode(e->o->trainer_inst, e);
    status = status == QFW_OK ? check_row(e, before.n_seqs) : trainer_failed(e, status);
    if (status != QFW_OK || e->too_long || e->untrained) {
        e->store->n = before.n;
        e->store->n_seqs = before.n_seqs;
    }
    return status;
}

void encoder_free(qfw_encoder *e) {
    ids_free(&e->prompt);
    ids_free(&e->whole);
    ids_free(&e->other);
    mem_free(e->message);
    mem_free(e->part);
}
