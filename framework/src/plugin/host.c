/* host.c -- the host table: each service is one call into base/ or ops/. */
#include "plugin/host.h"

#include <signal.h>
#include <string.h>

#include "base/error.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/option.h"
#include "base/parallel.h"
#include "ops/op.h"
#include "qfw/plugin.h"

enum { MAX_SERVICES = 32 };

static struct {
    const char *id;
    const void *table;
} services[MAX_SERVICES];
static uint32_t n_services;
static volatile sig_atomic_t cancelled;

static void host_log_line(const qfw_host *h, int32_t level, const char *who, const char *text) {
    (void)h;
    log_line(level, "%s: %s", who, text);
}

/* The name under which a plugin's failure is kept: it decides the exit code. */
static const char *failure_name(qfw_status code) {
    switch (code) {
    case QFW_E_NOMEM: return "E_MEM";
    case QFW_E_DEVICE: return "E_DEV_FAULT";
    case QFW_E_DEVICE_OOM: return "E_DEV_MEM";
    case QFW_E_DEVICE_LOST: return "E_DEV_LOST";
    case QFW_E_IO: return "E_IO_PLUGIN";
    case QFW_E_CONFIG: return "E_CONFIG_PLUGIN";
    case QFW_E_CANCELLED: return "E_SIGNAL";
    case QFW_E_ABI: return "E_PLUG_ABI";
    case QFW_E_DATA: return "E_DATA_PLUGIN";
    case QFW_E_NUMERIC: return "E_NUM_PLUGIN";
    case QFW_E_SHAPE: return "E_SHAPE";
    case QFW_E_DTYPE: return "E_DTYPE";
    case QFW_E_UNSUPPORTED: return "E_UNSUPPORTED";
    default: return "E_PLUGIN";
    }
}

static qfw_status host_fail(const qfw_host *h, qfw_status code, const char *text) {
    (void)h;
    if (code >= QFW_OK) /* a failure cannot be reported as a success */
        return err_fail("E_PLUGIN", QFW_E_INTERNAL, "%s (reported with the code %d)", text, code);
    return err_fail(failure_name(code), code, "%s", text);
}

static void *host_heap_alloc(const qfw_host *h, uint64_t n, uint64_t align) {
    (void)h;
    return mem_alloc_aligned(n, align);
}

static void host_heap_free(const qfw_host *h, void *p) {
    (void)h;
    mem_free(p);
}

static qfw_status host_cfg_i64(
    const qfw_host *h, const qfw_cfg *cfg, const char *key, int64_t *out) {
    (void)h;
    return cfg_i64(cfg, key, out);
}

static qfw_status host_cfg_f64(
    const qfw_host *h, const qfw_cfg *cfg, const char *key, double *out) {
    (void)h;
    return cfg_f64(cfg, key, out);
}

static qfw_status host_cfg_str(
    const qfw_host *h, const qfw_cfg *cfg, const char *key, const char **out) {
    (void)h;
    return cfg_str(cfg, key, out);
}

static void host_parallel(const qfw_host *h, uint32_t n, qfw_parallel_fn fn, void *arg) {
    (void)h;
    parallel_for(n, fn, arg);
}

static uint32_t host_n_workers(const qfw_host *h) {
    (void)h;
    return parallel_workers();
}

static int32_t host_cancelled(const qfw_host *h) {
    (void)h;
    return cancelled != 0;
}

static qfw_status host_ref_run(const qfw_host *h, const qfw_op *op) {
    (void)h;
    const op_def *def = op_find(op->code);
    if (def && def->ref) return def->ref(op);
    return err_fail("E_UNSUPPORTED", QFW_E_UNSUPPORTED, "%s: op %u (%s) has no reference kernel",
        op->label ? op->label : "ref_run", op->code, def ? def->name : "unknown");
}

static const void *host_extension(const qfw_host *h, const char *id) {
    (void)h;
    for (uint32_t i = 0; i < n_services; i++)
        if (strcmp(services[i].id, id) == 0) return services[i].table;
    return NULL;
}

const qfw_host *host_table(void) {
    static const qfw_host table = {
        .size = sizeof(qfw_host),
        .abi_minor = QFW_ABI_MINOR,
        .name = "qfw",
        .version = QFW_VERSION,
        .log_line = host_log_line,
        .fail = host_fail,
        .heap_alloc = host_heap_alloc,
        .heap_free = host_heap_free,
        .cfg_i64 = host_cfg_i64,
        .cfg_f64 = host_cfg_f64,
        .cfg_str = host_cfg_str,
        .parallel = host_parallel,
        .n_workers = host_n_workers,
        .cancelled = host_cancelled,
        .ref_run = host_ref_run,
        .extension = host_extension,
    };
    return &table;
}

void host_register(const char *id, const void *table) {
    for (uint32_t i = 0; i < n_services; i++)
        if (strcmp(services[i].id, id) == 0) {
            services[i].table = table;
            return;
        }
    if (n_services == MAX_SERVICES) {
        log_line(QFW_LOG_ERROR, "host: no room for service %s", id);
        return;
    }
    services[n_services].id = id;
    services[n_services++].table = table;
}

void host_cancel(int on) { cancelled = on; }

static volatile sig_atomic_t asked[2];

void host_ask(int what) { asked[what] = 1; }

int host_asked(int what) {
    if (!asked[what]) return 0;
    asked[what] = 0;
    return 1;
}
