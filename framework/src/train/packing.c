/* packing.c -- rows into units of at most max_length tokens: longest first, each into the fullest
 * unit that has room for it. */
#include "train/packing.h"

#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/mem.h"
#include "train/batch.h"
#include "train/progress.h"

#define NONE UINT32_MAX
enum { WORD = 64 };

/* Units by the room that is left in them, first come first served among those with the same. */
typedef struct rooms {
    uint32_t capacity;
    uint32_t *head, *tail; /* [capacity + 1] */
    uint32_t *next;        /* [units] */
    uint64_t *used;        /* a bit for each room that some unit has */
} rooms;

static void close_rooms(rooms *o) {
    mem_free(o->head);
    mem_free(o->next);
    mem_free(o->used);
}

static qfw_status open_rooms(rooms *o, uint32_t capacity, uint32_t n_units) {
    *o = (rooms){.capacity = capacity};
    o->head = mem_alloc(2 * ((size_t)capacity + 1), sizeof *o->head);
    o->next = mem_alloc(n_units, sizeof *o->next);
    o->used = mem_alloc((size_t)capacity / WORD + 1, sizeof *o->used);
    if (!o->head || !o->next || !o->used) {
        close_rooms(o);
        return QFW_E_NOMEM;
    }
    o->tail = o->head + capacity + 1;
    memset(o->head, 0xff, 2 * ((size_t)capacity + 1) * sizeof *o->head); /* NONE */
    return QFW_OK;
}

static void add_room(rooms *o, uint32_t room, uint32_t unit) {
    o->next[unit] = NONE;
    if (o->head[room] == NONE)
        o->head[room] = unit;
    else
        o->next[o->tail[room]] = unit;
    o->tail[room] = unit;
    o->used[room / WORD] |= (uint64_t)1 << room % WORD;
}

/* Takes out the unit with the least room of at least `least`; NONE where there is none. */
static uint32_t take_room(rooms *o, uint32_t least, uint32_t *room) {
    uint32_t word = least / WORD;
    uint64_t bits = o->used[word] & ~(uint64_t)0 << least % WORD;
    while (!bits && ++word <= o->capacity / WORD) bits = o->used[word];
    if (!bits) return NONE;
    *room = word * WORD;
    while (!(bits & 1)) bits >>= 1, ++*room;
    const uint32_t unit = o->head[*room];
    o->head[*room] = o->next[unit];
    if (o->head[*room] == NONE) o->used[word] &= ~((uint64_t)1 << *room % WORD);
    return unit;
}

typedef struct sized {
    uint32_t length, row;
} sized;

static int compare_sizes(const void *a, const void *b) {
    const sized *x = a, *y = b;
    if (x->length != y->length) return x->length < y->length ? 1 : -1;
    return x->row > y->row ? 1 : -1;
}

/* unit_of[k] becomes the unit of the k-th longest row; returns how many units there are. */
static uint32_t fit(rooms *o, const sized *rows, uint32_t n, uint32_t *unit_of) {
    uint32_t n_units = 0;
    for (uint32_t k = 0; k < n; k++) {
        uint32_t room = o->capacity;
        uint32_t unit = take_room(o, rows[k].length, &room);
        if (unit == NONE) unit = n_units++;
        unit_of[k] = unit;
        add_room(o, room - rows[k].length, unit);
    }
    return n_units;
}

/* The units' rows one after another, in the order in which they came. */
static void list_units(packing *p, const sized *rows, const uint32_t *unit_of) {
    for (uint32_t k = 0; k < p->n_rows; k++) p->first[unit_of[k] + 1]++;
    for (uint32_t u = 0; u < p->n; u++) {
        if (p->first[u + 1] > p->most) p->most = p->first[u + 1];
        p->first[u + 1] += p->first[u];
    }
    for (uint32_t k = p->n_rows; k-- > 0;) { /* filled from the end, which first[u + 1] is */
        const uint32_t u = unit_of[k];
        p->row[--p->first[u + 1]] = rows[k].row;
    }
    for (uint32_t u = 0; u < p->n; u++) p->first[u] = p->first[u + 1];
    p->first[p->n] = p->n_rows;
}

static qfw_status pack(const run *r, dataset *d, packing *p) {
    const uint32_t capacity = (uint32_t)cfg_int(run_cfg(r, SECTION_DATA), "max_length");
    sized *rows = mem_alloc(p->n_rows, sizeof *rows);
    uint32_t *unit_of = mem_alloc(p->n_rows, sizeof *unit_of);
    rooms o = {0};
    qfw_status status = rows && unit_of ? open_rooms(&o, capacity, p->n_rows) : QFW_E_NOMEM;
    if (status == QFW_OK) {
        for (uint32_t i = 0; i < p->n_rows; i++)
            rows[i] = (sized){(uint32_t)batch_rows(r, dataset_at(d, i)), i};
        qsort(rows, p->n_rows, sizeof *rows, compare_sizes);
        p->n = fit(&o, rows, p->n_rows, unit_of);
        list_units(p, rows, unit_of);
        close_rooms(&o);
    }
    mem_free(rows);
    mem_free(unit_of);
    return status;
}

static qfw_status refuse_sequences(const run *r, dataset *d) {
    for (uint64_t i = 0; i < dataset_count(d); i++)
        if (dataset_at(d, i)->n_seqs > 1)
            return cfg_problem(r->ini, run_cfg(r, SECTION_DATA), "packing",
                "true, but the rows of trainer %s are of several sequences, which stand together "
                "as they are",
                r->trainer_component->name);
    return QFW_OK;
}

qfw_status packing_create(const run *r, dataset *d, packing **out) {
    const int packs = (int)cfg_int(run_cfg(r, SECTION_DATA), "packing");
    *out = NULL;
    if (packs) QFW_TRY(refuse_sequences(r, d));
    packing *p = mem_alloc(1, sizeof *p);
    if (!p) return QFW_E_NOMEM;
    p->n = p->n_rows = (uint32_t)dataset_count(d);
    p->most = 1;
    p->first = mem_alloc((size_t)p->n_rows + 1, sizeof *p->first);
    p->row = mem_alloc(p->n_rows, sizeof *p->row);
    qfw_status status = p->first && p->row ? QFW_OK : QFW_E_NOMEM;
    if (status == QFW_OK && packs) status = pack(r, d, p);
    for (uint32_t i = 0; status == QFW_OK && !packs && i < p->n; i++) {
        p->first[i + 1] = i + 1;
        p->row[i] = i;
    }
    if (status == QFW_OK)
        *out = p;
    else
        packing_destroy(p);
    return status;
}

void packing_destroy(packing *p) {
    if (!p) return;
    mem_free(p->first);
    mem_free(p->row);
    mem_free(p);
}

uint32_t packing_examples(const packing *p, uint32_t n) {
    const uint64_t most = (uint64_t)n * p->most;
    return p->most > 1 && most > p->n_rows ? p->n_rows : (uint32_t)most;
}

void packing_print(const run *r, FILE *out) {
    const qfw_cfg *data = run_cfg(r, SECTION_DATA);
    const packing *p = r->units;
    char packs[32], room[32];
    uint64_t tokens = 0;
    if (!cfg_int(data, "packing")) return;
    for (uint32_t i = 0; i < p->n_rows; i++) tokens += batch_rows(r, dataset_at(r->train, i));
    const uint64_t capacity = (uint64_t)cfg_int(data, "max_length");
    fprintf(out, "  packs     %s of %s tokens, %.1f %% full; %u row%s in one at most\n",
        format_count(p->n, packs), format_count(capacity, room),
        100 * (double)tokens / ((double)p->n * (double)capacity), p->most, p->most == 1 ? "" : "s");
}

static int compare_longest(const void *a, const void *b) {
    const uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x < y) - (x > y);
}

qfw_status packing_longest(const run *r, const packing *p, dataset *d, uint32_t n, uint64_t *rows) {
    const uint32_t n_units = p ? p->n : (uint32_t)dataset_count(d);
    uint64_t *length = mem_alloc(n_units, sizeof *length);
    const uint64_t most = r->length_cap * (p ? 1 : (uint64_t)batch_segments(r, d));
    *rows = 0;
    if (!length) return QFW_E_NOMEM;
    for (uint32_t u = 0; u < n_units; u++)
        for (uint32_t k = p ? p->first[u] : u; k < (p ? p->first[u + 1] : u + 1); k++)
            length[u] += batch_rows(r, dataset_at(d, p ? p->row[k] : k));
    for (uint32_t u = 0; most && u < n_units; u++)
        if (length[u] > most) length[u] = most;
    qsort(length, n_units, sizeof *length, compare_longest);
    for (uint32_t u = 0; u < n_units && u < n; u++) *rows += length[u];
    mem_free(length);
    return QFW_OK;
}
