/* bad.c -- one plugin with a fault in it, chosen by macros (CMakeLists.txt): what it runs when it
 * is loaded (CTOR), when the process ends (DTOR) or in plugin_open (OPEN), and any field of its
 * note, descriptor, component and table. Without macros it is a plugin that loads; its functions do
 * nothing and are never called.
 */
#define _DEFAULT_SOURCE
#include <fcntl.h>
#include <fenv.h>
#include <locale.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "qfw/backend.h"
#include "qfw/optimizer.h"
#include "qfw/plugin.h"
#include "qfw/trainer.h"

#if defined(__SSE2__)
#    include <xmmintrin.h>
#endif

#ifndef NAME
#    define NAME "bad"
#endif
#ifndef KIND
#    define KIND 1
#endif
#ifndef MAGIC
#    define MAGIC QFW_MAGIC
#endif
#ifndef DESC_SIZE
#    define DESC_SIZE sizeof(qfw_plugin_desc)
#endif
#ifndef MINOR
#    define MINOR QFW_ABI_MINOR
#endif
#ifndef NOTE_MAJOR
#    define NOTE_MAJOR QFW_ABI_MAJOR
#endif
#ifndef NOTE_MINOR
#    define NOTE_MINOR QFW_ABI_MINOR
#endif
#ifndef NOTE_CPU
#    define NOTE_CPU 0
#endif
#ifndef LAYOUT
#    define LAYOUT QFW_LAYOUT
#endif
#ifndef COMPONENTS
#    define COMPONENTS components
#endif
#ifndef SYMBOL
#    define SYMBOL qfw_plugin_abi0
#endif
#ifndef LICENSE
#    define LICENSE "MIT"
#endif
#ifndef OPEN
#    define OPEN NULL
#endif
#define TABLE_OF(kind) (&table_##kind)
#define TABLE(kind)    TABLE_OF(kind)
#ifndef IFACE
#    define IFACE TABLE(KIND)
#endif

/* --- what it may do --- */

/* A trace of having been run: the file that QFW_MARK names. */
void leave_mark(void);
void leave_mark(void) {
    const char *path = getenv("QFW_MARK");
    if (path) (void)close(open(path, O_CREAT | O_WRONLY, 0600));
}

void hang(void);
void hang(void) {
    for (;;) pause();
}

/* As a file does that was linked with -ffast-math. */
void flush_denormals(void);
void flush_denormals(void) {
#if defined(__SSE2__)
    _mm_setcsr(_mm_getcsr() | 0x8040);
#endif
}

void block_signal(void);
void block_signal(void) {
    sigset_t one;
    sigemptyset(&one);
    sigaddset(&one, SIGTERM);
    sigprocmask(SIG_BLOCK, &one, NULL);
}

/* What it leaves running keeps our pipe open, and the file that QFW_MARK names locked. */
void leave_child(void);
void leave_child(void) {
    const char *path = getenv("QFW_MARK");
    if (fork()) return;
    if (path) (void)flock(open(path, O_CREAT | O_WRONLY, 0600), LOCK_EX);
    hang();
}

qfw_status open_fails(const qfw_host *h);
qfw_status open_fails(const qfw_host *h) { return qfw_fail(h, QFW_E_DEVICE, "no such card"); }

qfw_status open_is_mute(const qfw_host *h);
qfw_status open_is_mute(const qfw_host *h) {
    (void)h;
    return QFW_E_DEVICE;
}

qfw_status open_rounds_up(const qfw_host *h);
qfw_status open_rounds_up(const qfw_host *h) {
    (void)h;
    return fesetround(FE_UPWARD) ? QFW_E_INTERNAL : QFW_OK;
}

#ifdef CTOR
__attribute__((constructor)) static void at_start(void) { CTOR; }
#endif
#ifdef DTOR
__attribute__((destructor)) static void at_end(void) { DTOR; }
#endif
#ifdef CALLS
int nobody_has_this(void);
int calls_it(void);
int calls_it(void) { return nobody_has_this(); }
#endif

/* --- what it says --- */

static void nothing(void) {}
#define FN(T, slot) (__typeof__(((T *)0)->slot))nothing
#ifdef WITHOUT_LAST
#    define LAST(T, slot) NULL
#else
#    define LAST(T, slot) FN(T, slot)
#endif

const qfw_backend table_1 = {
    .size = QFW_BACKEND_V0_SIZE,
    .create = FN(qfw_backend, create),
    .destroy = FN(qfw_backend, destroy),
    .device_info = FN(qfw_backend, device_info),
    .mem_alloc = FN(qfw_backend, mem_alloc),
    .mem_free = FN(qfw_backend, mem_free),
    .mem_write = FN(qfw_backend, mem_write),
    .mem_read = LAST(qfw_backend, mem_read),
};
const qfw_model table_2 = {
    .size = sizeof table_2,
    .create = FN(qfw_model, create),
    .destroy = FN(qfw_model, destroy),
    .facts = FN(qfw_model, facts),
    .describe = FN(qfw_model, describe),
    .forward = FN(qfw_model, forward),
    .fill = LAST(qfw_model, fill),
};
const qfw_trainer table_3 = {
    .size = sizeof table_3,
    .create = FN(qfw_trainer, create),
    .destroy = FN(qfw_trainer, destroy),
    .encode = FN(qfw_trainer, encode),
    .collate = FN(qfw_trainer, collate),
    .loss = LAST(qfw_trainer, loss),
};
const qfw_optimizer table_4 = {
    .size = sizeof table_4,
    .create = FN(qfw_optimizer, create),
    .destroy = FN(qfw_optimizer, destroy),
    .state_spec = FN(qfw_optimizer, state_spec),
    .scalars = FN(qfw_optimizer, scalars),
    .emit_step = LAST(qfw_optimizer, emit_step),
};

static const qfw_component component = {
    .size = sizeof component,
    .kind = KIND,
    .name = NAME,
    .summary = "for tests: \033[31mred\033[0m",
    .iface = IFACE,
};
__attribute__((used)) static const qfw_component *const components[] = {&component};

#ifndef NO_NOTE
__attribute__((section(".note.qfw"), used, aligned(4))) static const qfw_note note = {
    4, sizeof(qfw_note) - 16, 1, "qfw", NOTE_MAJOR, NOTE_MINOR, 1u << KIND, NOTE_CPU, "bad"};
#endif

QFW_EXTERN_C __attribute__((visibility("default"))) const qfw_plugin_desc SYMBOL;
const qfw_plugin_desc SYMBOL = {
    .magic = MAGIC,
    .size = DESC_SIZE,
    .abi_minor = MINOR,
    .abi_minor_min = MINOR,
    .layout = LAYOUT,
    .n_components = sizeof components / sizeof *components,
    .name = "bad",
    .version = "0.\t1",
    .author = "nobody",
    .license = LICENSE,
    .components = COMPONENTS,
    .plugin_open = OPEN,
};
