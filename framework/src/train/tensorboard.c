/* tensorboard.c -- event files: a record is its length, the length's checksum, a protocol buffer,
 * and that one's checksum.
 *
 * Sources: tensorflow/core/lib/io/record_writer.h (records, masked CRC-32C) and
 * tensorflow/core/util/event.proto (the messages, with the field numbers used here).
 */
#define _POSIX_C_SOURCE 200809L
#include "train/tensorboard.h"

#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/error.h"
#include "base/log.h"
#include "base/mem.h"
#include "files/file.h"
#include "files/json.h"

enum { MAX_EVENT = 4096, MAX_TAG = 200 };

struct tensorboard {
    int fd;
    char *path;
};

/* --- a protocol buffer, as far as events need it --- */

typedef struct message {
    uint8_t data[MAX_EVENT];
    size_t n;
} message;

enum { WIRE_VARINT = 0, WIRE_64 = 1, WIRE_BYTES = 2, WIRE_32 = 5 };

static void put_varint(message *m, uint64_t value) {
    for (; value > 127 && m->n < MAX_EVENT; value >>= 7) m->data[m->n++] = (uint8_t)(value | 128);
    if (m->n < MAX_EVENT) m->data[m->n++] = (uint8_t)value;
}

static void put_field(message *m, uint32_t number, uint32_t wire) {
    put_varint(m, (uint64_t)number << 3 | wire);
}

/* The low `bytes` bytes, the lowest first. */
static void put_fixed(message *m, uint64_t bits, uint32_t bytes) {
    for (uint32_t i = 0; i < bytes && m->n < MAX_EVENT; i++)
        m->data[m->n++] = (uint8_t)(bits >> 8 * i);
}

static void put_double(message *m, uint32_t number, double value) {
    uint64_t bits;
    memcpy(&bits, &value, sizeof bits);
    put_field(m, number, WIRE_64);
    put_fixed(m, bits, 8);
}

static void put_float(message *m, uint32_t number, float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    put_field(m, number, WIRE_32);
    put_fixed(m, bits, 4);
}

static void put_bytes(message *m, uint32_t number, const void *data, size_t n) {
    put_field(m, number, WIRE_BYTES);
    put_varint(m, n);
    if (m->n + n > MAX_EVENT) return;
    memcpy(m->data + m->n, data, n);
    m->n += n;
}

/* --- records --- */

/* CRC-32C (Castagnoli), as the format masks it. */
static uint32_t masked_crc(const uint8_t *data, size_t n) {
    uint32_t crc = UINT32_MAX;
    for (size_t i = 0; i < n; i++) {
        crc ^= data[i];
        for (int bit = 0; bit < 8; bit++) crc = crc >> 1 ^ (0x82f63b78u & (0u - (crc & 1)));
    }
    crc = ~crc;
    return (crc >> 15 | crc << 17) + 0xa282ead8u;
}

static qfw_status write_record(tensorboard *t, const message *m) {
    message head = {.n = 0}, tail = {.n = 0};
    put_fixed(&head, m->n, 8);
    put_fixed(&head, masked_crc(head.data, 8), 4);
    put_fixed(&tail, masked_crc(m->data, m->n), 4);
    QFW_TRY(file_log_write(t->fd, t->path, head.data, head.n));
    QFW_TRY(file_log_write(t->fd, t->path, m->data, m->n));
    return file_log_write(t->fd, t->path, tail.data, tail.n);
}

/* --- events --- */

enum { EVENT_TIME = 1, EVENT_STEP = 2, EVENT_VERSION = 3, EVENT_SUMMARY = 5, EVENT_SESSION = 7 };
enum { SUMMARY_VALUE = 1, VALUE_TAG = 1, VALUE_SIMPLE = 2, SESSION_STATUS = 1, SESSION_START = 1 };

static void begin_event(message *m, uint64_t step) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    put_double(m, EVENT_TIME, (double)now.tv_sec + (double)now.tv_nsec * 1e-9);
    put_field(m, EVENT_STEP, WIRE_VARINT);
    put_varint(m, step);
}

/* The version, and from which step on earlier files do not count. */
static qfw_status write_start(tensorboard *t, uint64_t first_step) {
    static const char version[] = "brain.Event:2";
    message m = {.n = 0}, session = {.n = 0};
    begin_event(&m, 0);
    put_bytes(&m, EVENT_VERSION, version, sizeof version - 1);
    QFW_TRY(write_record(t, &m));
    m.n = 0;
    begin_event(&m, first_step);
    put_field(&session, SESSION_STATUS, WIRE_VARINT);
    put_varint(&session, SESSION_START);
    put_bytes(&m, EVENT_SESSION, session.data, session.n);
    return write_record(t, &m);
}

qfw_status tensorboard_open(const char *folder, uint64_t first_step, tensorboard **out) {
    char host[64] = "";
    *out = NULL;
    (void)gethostname(host, sizeof host - 1);
    tensorboard *t = mem_alloc(1, sizeof *t);
    if (!t) return QFW_E_NOMEM;
    t->fd = -1;
    char *runs = path_join(folder, "runs");
    qfw_status status = runs ? dir_make(runs) : QFW_E_NOMEM;
    if (status == QFW_OK)
        t->path = mem_printf("%s/events.out.tfevents.%lld.%s.%ld.0", runs, (long long)time(NULL),
            host, (long)getpid());
    if (status == QFW_OK && !t->path) status = QFW_E_NOMEM;
    if (status == QFW_OK && (t->fd = file_log_open(t->path, 0)) < 0) status = err_status();
    if (status == QFW_OK) status = write_start(t, first_step);
    mem_free(runs);
    if (status == QFW_OK)
        *out = t;
    else
        tensorboard_close(t);
    return status;
}

static void put_value(message *m, const char *key, double number) {
    char tag[MAX_TAG];
    message summary = {.n = 0}, value = {.n = 0};
    const int is_eval = !strncmp(key, "eval_", 5);
    snprintf(tag, sizeof tag, "%s/%s", is_eval ? "eval" : "train", key + (is_eval ? 5 : 0));
    put_bytes(&value, VALUE_TAG, tag, strlen(tag));
    put_float(&value, VALUE_SIMPLE, (float)number);
    put_bytes(&summary, SUMMARY_VALUE, value.data, value.n);
    put_bytes(m, EVENT_SUMMARY, summary.data, summary.n);
}

static qfw_status write_values(tensorboard *t, const json_node *line) {
    const uint64_t step = (uint64_t)json_node_i64(json_node_member(line, "step"));
    for (json_member e = json_first(line); e.key; e = json_next(line, e)) {
        const uint32_t kind = json_node_kind(e.value);
        message m = {.n = 0};
        if ((kind != QFW_DOC_INT && kind != QFW_DOC_REAL) || !strcmp(e.key, "step")) continue;
        begin_event(&m, step);
        put_value(&m, e.key,
            kind == QFW_DOC_INT ? (double)json_node_i64(e.value) : json_node_f64(e.value));
        QFW_TRY(write_record(t, &m));
    }
    return QFW_OK;
}

qfw_status tensorboard_add(tensorboard *t, const char *line, size_t n) {
    qfw_doc *d = NULL;
    QFW_TRY(json_parse(line, n, "trainer_log.jsonl", 0, "E_JSON", NULL, &d));
    const qfw_status status = write_values(t, json_root(d));
    json_destroy(d);
    return status;
}

void tensorboard_close(tensorboard *t) {
    if (!t) return;
    if (t->fd >= 0 && file_log_close(t->fd, t->path) != QFW_OK)
        log_line(QFW_LOG_WARN, "%s", err_text(0));
    mem_free(t->path);
    mem_free(t);
}
