/* host.h -- the one qfw_host that every plugin of this process gets: base/ and graph/ behind a
 * table. */
#ifndef PLUGIN_HOST_H
#define PLUGIN_HOST_H

#include "qfw/host.h"

const qfw_host *host_table(void);
/* Services by id ("qfw.doc/1", "qfw.encoder/1"): registered once, at start. */
void host_register(const char *id, const void *table);
void host_cancel(int on); /* what cancelled() answers; set by signal handlers: async-signal-safe */

/* What a signal asks of a run that goes on. Both are async-signal-safe. */
enum { HOST_SAVE, HOST_STATUS };
void host_ask(int what);
int host_asked(int what); /* whether it was since the last call */

#endif
