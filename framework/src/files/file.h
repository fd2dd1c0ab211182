/* file.h -- whole files and folders, written so that a crash leaves the old one or the new one. */
#ifndef FILES_FILE_H
#define FILES_FILE_H

#include "qfw/status.h"

/* Read a regular file (symlinks followed) of at most max_bytes into NUL-terminated memory
 * (mem_free). E_IO_*, E_NOINPUT (exit 66) when it is missing or unreadable. */
qfw_status file_read(const char *path, uint64_t max_bytes, char **text, size_t *n);
/* Write aside, fsync, rename over `path`, fsync the folder. */
qfw_status file_write(const char *path, const void *data, size_t n);
qfw_status file_copy(const char *from, const char *to); /* atomic as file_write, bytes unchanged */
/* and its parents; an existing one is fine */
qfw_status dir_make(const char *path);
qfw_status dir_check(const char *path); /* dir_make could make it; E_OUT_CREATE */
qfw_status dir_sync(const char *path);
qfw_status dir_remove(const char *path); /* a folder of ours and what is in it */
/* The same after a failure, whose error stays the thread's. */
void dir_discard(const char *path);
int file_exists(const char *path);
int dir_exists(const char *path);
/* mem_free; an absolute name wins; NULL: no memory */
char *path_join(const char *folder, const char *name);

/* A file while it is written: it lies aside, under <path>.tmp, until file_out_finish. */
typedef struct file_out file_out;
qfw_status file_out_open(const char *path, file_out **out); /* E_OUT_CREATE (exit 73) */
qfw_status file_out_write(file_out *o, const void *data, size_t n);
/* fsync, rename over `path`, fsync the folder. `o` is gone, also on failure. Whatever fails, `path`
 * holds all of the old bytes or all of the new ones. */
qfw_status file_out_finish(file_out *o);
void file_out_abort(file_out *o); /* NULL is ignored */

/* A file that grows by what is written, seen at once and lasting once it is synced; without `keeps`
 * it begins empty. -1: E_OUT_CREATE. */
int file_log_open(const char *path, int keeps);
qfw_status file_log_write(int fd, const char *path, const void *data, size_t n);
qfw_status file_log_sync(int fd, const char *path);
qfw_status file_log_close(int fd, const char *path); /* closed in any case */

/* Open for reading what is, symlinks followed, a regular file; never waits for a FIFO's writer. -1
 * after err_fail: a missing or unreadable file is E_NOINPUT, another kind of file `type_name`
 * (E_NOINPUT, E_IDX_TYPE), no descriptors left E_LIMIT. */
int file_open(const char *path, const char *type_name, uint64_t *size);
/* Exactly n bytes from byte `at` on; E_IO_SHRUNK where the file ends before. */
qfw_status file_pread(int fd, const char *path, uint64_t at, void *data, size_t n);

/* SHA-256, as 64 hex digits and a NUL. */
typedef struct sha256 {
    uint32_t h[8];
    uint64_t n;
    uint8_t block[64];
} sha256;
void sha256_init(sha256 *s);
void sha256_add(sha256 *s, const void *data, size_t n);
void sha256_hex(sha256 *s, char out[65]);
qfw_status file_sha256(const char *path, char out[65]);

/* errno of a folder that opendir could not open, as an error. */
qfw_status file_unlisted(const char *folder);

#endif
