/* full.c -- see full.h. */
#include "export/full.h"

#include "base/mem.h"
#include "files/file.h"
#include "files/safetensors.h"

static qfw_status write_weight(st_writer *w, store *s, const full_weight *weight) {
    void *data = mem_alloc((size_t)weight->entry->bytes, 1);
    if (!data) return QFW_E_NOMEM;
    qfw_status status = store_read(s, weight->entry, data);
    if (status == QFW_OK) status = st_writer_data(w, data, weight->entry->bytes);
    mem_free(data);
    return status;
}

qfw_status full_write(const char *folder, store *s, const full_weight *weights, uint32_t n) {
    st_writer *w = NULL;
    char *path = path_join(folder, "model.safetensors");
    qfw_status status = path ? st_writer_create(path, &w) : QFW_E_NOMEM;
    mem_free(path);
    if (status != QFW_OK) return status;
    status = st_writer_meta(w, "format", "pt");
    for (uint32_t i = 0; status == QFW_OK && i < n; i++) {
        const qfw_tensor *t = &weights[i].entry->t;
        status = st_writer_add(w, weights[i].name, QFW_F32, t->rank, t->dim);
    }
    for (uint32_t i = 0; status == QFW_OK && i < n; i++) status = write_weight(w, s, &weights[i]);
    if (status == QFW_OK) return st_writer_finish(w);
    st_writer_abort(w);
    return status;
}

qfw_status full_copy_files(const char *from, const char *to, int with_config) {
    static const char *const files[] = {"config.json", "tokenizer.json", "tokenizer_config.json",
        "special_tokens_map.json", "added_tokens.json", "chat_template.jinja",
        "generation_config.json"};
    for (size_t i = with_config ? 0 : 1; i < sizeof files / sizeof files[0]; i++) {
        char *a = path_join(from, files[i]), *b = path_join(to, files[i]);
        qfw_status status = a && b ? QFW_OK : QFW_E_NOMEM;
        if (status == QFW_OK && file_exists(a)) status = file_copy(a, b);
        mem_free(a);
        mem_free(b);
        QFW_TRY(status);
    }
    return QFW_OK;
}
